/*
 * Coroutines on stacks of the world: all that one of them is stands there, so it is put back with the rest of the world.
 *
 * They begin by makecontext; from then on they are switched by _setjmp and _longjmp, which make no system call (Engelschall,
 * "Portable multithreading", 2000, has the idea). With AddressSanitizer it is swapcontext throughout, which the sanitizer
 * knows; its locals are not all on the stack, so there states cannot be compared.
 */
#ifndef FARSWAP_TESTS_INTERLEAVE_COROUTINE_H
#define FARSWAP_TESTS_INTERLEAVE_COROUTINE_H

#include <setjmp.h>
#include <ucontext.h>

#include "common/base/base.h"

#if defined(__SANITIZE_ADDRESS__)
#define COROUTINE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define COROUTINE_SANITIZED 1
#endif
#endif
#ifndef COROUTINE_SANITIZED
#define COROUTINE_SANITIZED 0
#endif

struct coroutine {
#if COROUTINE_SANITIZED
	ucontext_t context;
#else
	jmp_buf context;
#endif
	char *bottom; /* of what is used of the stack, while it does not run */
	char *top;
	void (*run)(void); /* yields at the beginning, and never returns */
};

/* Runs it up to its first coroutine_yield. */
void coroutine_start(struct coroutine *coroutine, char *stack, size_t len_bytes, void (*run)(void));
/* Until it yields. Not from a coroutine. */
void coroutine_resume(struct coroutine *coroutine);
void coroutine_yield(void);
/* NULL outside. */
struct coroutine *coroutine_self(void);
/* The running one has been left by a jump. */
void coroutine_abandon(void);

#endif
