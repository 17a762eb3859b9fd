/*
 * A mutex that clang's -Wthread-safety can follow. For control paths; on the data path only where two operations meet on one
 * cluster or one size class, for a few dozen instructions and never across I/O, a copy or a call of a library.
 */
#ifndef FARSWAP_COMMON_BASE_LOCK_H
#define FARSWAP_COMMON_BASE_LOCK_H

#include <assert.h>
#include <pthread.h>

#if defined(__clang__)
#define LOCK_ATTR(x) __attribute__((x))
#else
#define LOCK_ATTR(x)
#endif

#define LOCK_CAPABILITY LOCK_ATTR(capability("mutex"))
/* For the reader alone: in C, clang cannot yet name one member of a structure in the attribute of another. */
#define LOCK_GUARDED_BY(l)
#define LOCK_REQUIRES(...) LOCK_ATTR(requires_capability(__VA_ARGS__))
#define LOCK_ACQUIRE(...) LOCK_ATTR(acquire_capability(__VA_ARGS__))
#define LOCK_RELEASE(...) LOCK_ATTR(release_capability(__VA_ARGS__))
#define LOCK_EXCLUDES(...) LOCK_ATTR(locks_excluded(__VA_ARGS__))
#define LOCK_NO_ANALYSIS LOCK_ATTR(no_thread_safety_analysis)

struct LOCK_CAPABILITY lock_mutex {
	pthread_mutex_t m;
};

#define LOCK_MUTEX_INITIALIZER { PTHREAD_MUTEX_INITIALIZER }

static inline void lock_mutex_init(struct lock_mutex *l) LOCK_NO_ANALYSIS
{
	int ret = pthread_mutex_init(&l->m, NULL);

	assert(ret == 0);
	(void)ret;
}

static inline void lock_mutex_done(struct lock_mutex *l) LOCK_NO_ANALYSIS
{
	pthread_mutex_destroy(&l->m);
}

static inline void lock_acquire(struct lock_mutex *l) LOCK_ACQUIRE(*l) LOCK_NO_ANALYSIS
{
	int ret = pthread_mutex_lock(&l->m);

	assert(ret == 0);
	(void)ret;
}

static inline void lock_release(struct lock_mutex *l) LOCK_RELEASE(*l) LOCK_NO_ANALYSIS
{
	int ret = pthread_mutex_unlock(&l->m);

	assert(ret == 0);
	(void)ret;
}

#endif
