#include <grpc/support/log.h>
#include <malloc.h>
#include <signal.h>

#include "common/log/log.h"
#include "common/rpc/internal.h"

#define INIT_STACK_BYTES (256u << 10) /* as sys_thread_start */

/*
 * gRPC calls an error what it then also reports to us in some other way, such as a refused connection: who gets that
 * report decides how loud to be.
 */
static void init_log(gpr_log_func_args *args)
{
	log_debug("grpc: %s:%d: %s", args->file, args->line, args->message);
}

static void *init_nothing(void *arg)
{
	return arg;
}

static bool init_can_start_thread(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, init_nothing, NULL) != 0)
		return false;
	pthread_join(thread, NULL);
	return true;
}

/*
 * Thread-local variables of libraries lie on the stack, too, and those of a sanitizer leave no room for the rest: hence
 * the trial. Large stacks do no harm but to memory, so a refusal is not worth more than a word.
 */
static void init_small_stacks(void)
{
	pthread_attr_t before, small;

	if (pthread_getattr_default_np(&before) != 0)
		return;
	if (pthread_attr_init(&small) != 0)
		goto out_before;
	if (pthread_attr_setstacksize(&small, INIT_STACK_BYTES) != 0 || pthread_setattr_default_np(&small) != 0 ||
	    !init_can_start_thread()) {
		(void)pthread_setattr_default_np(&before);
		log_debug("rpc: threads keep their large stacks");
	}
	pthread_attr_destroy(&small);
out_before:
	pthread_attr_destroy(&before);
}

void rpc_init(void)
{
	sigset_t all, before;

	mallopt(M_ARENA_MAX, 2);
	gpr_set_log_function(init_log);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	init_small_stacks();
	grpc_init();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void rpc_init_guest(void)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	grpc_init();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void rpc_done(void)
{
	grpc_shutdown_blocking();
}
