/*
 * What ThreadSanitizer cannot see for itself: the order that liburcu, which is not instrumented, gives. Nothing in other
 * builds.
 *
 * All that one thread did before sys_tsan_release(addr) has happened before what another does after its
 * sys_tsan_acquire(addr). Only for places where the library really gives that order. What the library allocates and frees
 * for itself between sys_tsan_ignore_begin and end is nobody else's.
 */
#ifndef FARSWAP_COMMON_SYS_TSAN_H
#define FARSWAP_COMMON_SYS_TSAN_H

#if defined(__SANITIZE_THREAD__)
#define SYS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SYS_TSAN 1
#endif
#endif

#ifdef SYS_TSAN
#include <sanitizer/tsan_interface.h>
#define sys_tsan_acquire(addr) __tsan_acquire(addr)
#define sys_tsan_release(addr) __tsan_release(addr)
/* Exported by the runtime, declared by no header of it. */
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
#define sys_tsan_ignore_begin() AnnotateIgnoreWritesBegin(__FILE__, __LINE__)
#define sys_tsan_ignore_end() AnnotateIgnoreWritesEnd(__FILE__, __LINE__)
#else
#define sys_tsan_acquire(addr) ((void)(addr))
#define sys_tsan_release(addr) ((void)(addr))
#define sys_tsan_ignore_begin() ((void)0)
#define sys_tsan_ignore_end() ((void)0)
#endif

#endif
