# Processes by id and start time, so that a number that the kernel has given to somebody else is never signalled.
# shellcheck shell=bash

process_started=

# process_start_time PID: sets process_started to when it started, in the kernel's ticks; fails when there is no such process,
# or only its zombie.
process_start_time()
{
	local stat='' fields

	process_started=
	read -r -d '' stat 2>/dev/null <"/proc/$1/stat"
	# The name, in parentheses, may hold spaces and parentheses.
	read -r -a fields <<<"${stat##*) }"
	[ "${#fields[@]}" -ge 20 ] && [ "${fields[0]}" != Z ] && process_started=${fields[19]}
}

# process_note FILE PID: remembers it.
process_note()
{
	process_start_time "$2"
	echo "$2 ${process_started:-gone}" >"$1"
}

process_pid=

# process_alive FILE: sets process_pid.
process_alive()
{
	local started

	[ -s "$1" ] && read -r process_pid started <"$1" && process_start_time "$process_pid" &&
		[ "$process_started" = "$started" ]
}

# process_wait_end FILE SECONDS: until it has gone.
process_wait_end()
{
	local until=$((SECONDS + $2))

	while process_alive "$1"; do
		[ "$SECONDS" -lt "$until" ] || return 1
		sleep 0.05
	done
}

# process_end FILE SECONDS: SIGTERM, and SIGKILL when that does not end it in time.
process_end()
{
	process_alive "$1" || return 0
	kill -TERM "$process_pid" 2>/dev/null
	process_wait_end "$1" "$2" && return 0
	process_kill "$1"
}

# process_kill FILE: with its group, when it leads one.
process_kill()
{
	process_alive "$1" || return 0
	kill -KILL -- "-$process_pid" 2>/dev/null || kill -KILL "$process_pid" 2>/dev/null
	process_wait_end "$1" 10
}
