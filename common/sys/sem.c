#include "common/sys/sem.h"

#include <errno.h>
#include <time.h>

int sys_sem_wait(sem_t *sem, unsigned timeout_s)
{
	struct timespec deadline;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += timeout_s;
	while (sem_clockwait(sem, CLOCK_MONOTONIC, &deadline) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}
