/*
 * Threads and what a process asks of the kernel for itself.
 */
#ifndef FARSWAP_COMMON_SYS_THREAD_H
#define FARSWAP_COMMON_SYS_THREAD_H

#include <pthread.h>

#include "common/base/base.h"

/*
 * Starts a thread with all signals blocked, a stack of 256 KiB, the name (at most 15 characters) and, if cpu >= 0, its
 * processor. 0 or a negative errno; -EINVAL for a processor that the machine does not have.
 */
int sys_thread_start(pthread_t *thread, const char *name, int cpu, void *(*fn)(void *), void *arg) BASE_MUST_CHECK;

/* What the kernel granted of what a daemon that serves swap asks for; see sys_process_harden. */
struct sys_process_rights {
	int memory_locked; /* 0 or the negative errno of each */
	int io_flusher;
	int oom_score;
};

/*
 * Locks present and future memory on first touch (mlockall with MCL_ONFAULT), asks for PR_SET_IO_FLUSHER and reads it
 * back, and sets oom_score_adj to -1000 (or as low as it may). Each refusal is reported to the caller, none is fatal
 * here. Before threads are started.
 */
void sys_process_harden(struct sys_process_rights *ret_rights);

/* Blocks every signal in the calling thread (and those it starts), so that only sys_signal_wait sees them. */
void sys_signals_block(void);

/* Waits for SIGTERM, SIGINT or SIGHUP, at most timeout_ms (-1: for ever). The signal's number, or 0 on timeout. */
int sys_signal_wait(int timeout_ms);

#endif
