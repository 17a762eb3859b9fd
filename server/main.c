/*
 * farmemd, the memory server.
 *
 * Exit status: 0 stopped and nothing was lost; 1 could not start; 2 a wrong setting; 3 stopped while clients still had
 * slabs.
 */
#include <signal.h>
#include <stdio.h>

#include "common/base/err.h"
#include "common/rpc/rpc.h"
#include "common/sys/clock.h"
#include "common/sys/thread.h"
#include "server/daemon.h"

#define EXIT_CANNOT_START 1
#define EXIT_LEASES_CUT 3

/* Between two looks at whether all slabs have come back. */
#define STOP_POLL_MS 50

/* Worth knowing, but no reason not to serve. */
static void report_rights(const struct sys_process_rights *rights)
{
	if (rights->memory_locked < 0)
		log_warning("the daemon's own memory is not locked: %s", err_text(rights->memory_locked));
	if (rights->oom_score < 0)
		log_warning("oom_score_adj cannot be lowered: %s", err_text(rights->oom_score));
}

static int wait_for_end(void)
{
	int signal;

	/* SIGHUP has nothing to reload here, and must not end what others swap to. */
	do
		signal = sys_signal_wait(-1);
	while (signal == SIGHUP);
	return signal;
}

/* Until clients have given everything back, the grace is over, or somebody insists. */
static void wait_for_clients(struct daemon *daemon, uint64_t grace_ms)
{
	struct sys_clock *clock = sys_clock_monotonic();
	uint64_t until_ns = sys_clock_now_ns(clock) + grace_ms * SYS_NS_PER_MS;

	while (daemon_nr_lent(daemon) > 0 && sys_clock_now_ns(clock) < until_ns) {
		int signal = sys_signal_wait(STOP_POLL_MS);

		if (signal == SIGTERM || signal == SIGINT)
			return;
	}
}

int main(int argc, char **argv)
{
	static struct settings settings;
	struct sys_process_rights rights;
	struct daemon *daemon;
	int signal;
	uint32_t nr_lent;
	int exit_status;

	if (settings_load(argc, argv, &settings, &exit_status) < 0)
		return exit_status;
	log_init("farmemd", settings.log_level);
	sys_signals_block();
	sys_process_harden(&rights);
	rpc_init();
	if (daemon_start(&settings, &daemon) < 0)
		return EXIT_CANNOT_START;
	report_rights(&rights);

	signal = wait_for_end();
	log_notice("%s: stopping, nothing is lent any more", signal == SIGINT ? "SIGINT" : "SIGTERM");
	daemon_begin_stop(daemon);
	wait_for_clients(daemon, settings.stop_grace_ms);
	nr_lent = daemon_nr_lent(daemon);
	daemon_stop(daemon);
	if (nr_lent > 0) {
		log_error("stopped while clients had %u slabs: what was in them is lost", nr_lent);
		return EXIT_LEASES_CUT;
	}
	log_notice("stopped");
	return 0;
}
