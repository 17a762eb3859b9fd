/* The checked longjmp takes a switch to another stack for a mistake. */
#undef _FORTIFY_SOURCE

#include "tests/interleave/coroutine.h"

#include <assert.h>

static struct coroutine *self;

#if COROUTINE_SANITIZED
static ucontext_t outside;
#else
static jmp_buf outside;
static ucontext_t first_outside;
#endif

struct coroutine *coroutine_self(void)
{
	return self;
}

void coroutine_abandon(void)
{
	self = NULL;
}

static void coroutine_main(void)
{
	self->run();
	assert(false);
}

/* A frame below that of the caller, in which what the caller has kept of the registers stands. */
static __attribute__((noinline)) void coroutine_note_bottom(struct coroutine *coroutine)
{
	coroutine->bottom = __builtin_frame_address(0);
}

void coroutine_start(struct coroutine *coroutine, char *stack, size_t len_bytes, void (*run)(void))
{
	ucontext_t context;
	int ret = getcontext(&context);

	assert(ret == 0 && !self);
	(void)ret;
	context.uc_stack.ss_sp = stack;
	context.uc_stack.ss_size = len_bytes;
	context.uc_link = NULL;
	makecontext(&context, coroutine_main, 0);
	coroutine->top = stack + len_bytes;
	coroutine->run = run;
	self = coroutine;
#if COROUTINE_SANITIZED
	swapcontext(&outside, &context);
#else
	if (_setjmp(outside) == 0)
		swapcontext(&first_outside, &context);
#endif
	self = NULL;
}

void coroutine_resume(struct coroutine *coroutine)
{
	assert(!self);
	self = coroutine;
#if COROUTINE_SANITIZED
	swapcontext(&outside, &coroutine->context);
#else
	if (_setjmp(outside) == 0)
		_longjmp(coroutine->context, 1);
#endif
	self = NULL;
}

void coroutine_yield(void)
{
	struct coroutine *coroutine = self;

	coroutine_note_bottom(coroutine);
#if COROUTINE_SANITIZED
	swapcontext(&coroutine->context, &outside);
#else
	if (_setjmp(coroutine->context) == 0)
		_longjmp(outside, 1);
#endif
}
