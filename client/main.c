/*
 * farswapd, the client daemon: gives this machine the memory of others as swap.
 *
 * Exit status: 0 stopped, with swap off; 1 could not start; 2 a wrong setting.
 *
 * Once it serves swap it never leaves on an error, nor on a signal before swap is off: the pages are in its hands.
 */
#include <signal.h>
#include <stdio.h>

#include "client/daemon.h"
#include "common/base/err.h"
#include "common/rpc/rpc.h"
#include "common/sys/clock.h"

#define EXIT_CANNOT_START 1

/* Between two looks at what the operator wants. */
#define POLL_MS 100
/* Between two attempts to leave that the kernel refuses. */
#define RETRY_MS 5000u

static void harden(struct sys_process_rights *rights)
{
	sys_process_harden(rights);
	if (rights->memory_locked < 0)
		log_warning("the daemon's memory is not locked: %s", err_text(rights->memory_locked));
	if (rights->io_flusher < 0)
		log_warning("PR_SET_IO_FLUSHER is refused: %s", err_text(rights->io_flusher));
	if (rights->oom_score < 0)
		log_warning("oom_score_adj cannot be lowered to -1000: %s", err_text(rights->oom_score));
}

/* Serves until it may leave: the front end is down then. */
static void serve(struct daemon *daemon)
{
	struct sys_clock *clock = sys_clock_monotonic();
	uint64_t retry_ns = 0;
	bool told = false;

	for (;;) {
		int sig = sys_signal_wait(POLL_MS);

		if (sig == SIGTERM || sig == SIGINT) {
			log_notice("%s: swap is turned off first, then the daemon leaves",
				   sig == SIGINT ? "SIGINT" : "SIGTERM");
			told = true;
			retry_ns = 0;
		}
		if (daemon_poll(daemon))
			return;
		if (!told || sys_clock_now_ns(clock) < retry_ns)
			continue;
		if (daemon_leave(daemon) == 0)
			return;
		log_warning("the daemon stays until swap is off; it tries again every %u seconds", RETRY_MS / 1000);
		retry_ns = sys_clock_now_ns(clock) + RETRY_MS * SYS_NS_PER_MS;
	}
}

int main(int argc, char **argv)
{
	static struct settings settings;
	struct sys_process_rights rights;
	struct daemon *daemon;
	int exit_status;

	if (settings_load(argc, argv, &settings, &exit_status) < 0)
		return exit_status;
	log_init("farswapd", settings.log_level);
	sys_signals_block();
	harden(&rights);
	rpc_init();
	if (daemon_start(&settings, &rights, &daemon) < 0)
		return EXIT_CANNOT_START;
	serve(daemon);
	daemon_stop(daemon);
	log_notice("stopped");
	return 0;
}
