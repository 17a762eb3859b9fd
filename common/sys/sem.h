/*
 * Waiting for what another thread posts, for so long at the most.
 */
#ifndef FARSWAP_COMMON_SYS_SEM_H
#define FARSWAP_COMMON_SYS_SEM_H

#include <semaphore.h>

#include "common/base/base.h"

/* Any thread that may block; signals do not end it. 0; -ETIMEDOUT: nothing was posted in that time, of CLOCK_MONOTONIC. */
int sys_sem_wait(sem_t *sem, unsigned timeout_s) BASE_MUST_CHECK;

#endif
