/* The fabric as a whole: what is counted, what is left over, and what tests look at and spoil. */
#include "tests/fakes/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIMIT_SGE 16
#define LIMIT_WR 4096
#define LIMIT_INLINE 128

struct fabric fabric = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.spoiled_byte = -1,
	.limit_sge = LIMIT_SGE,
	.limit_wr = LIMIT_WR,
	.limit_inline = LIMIT_INLINE,
};

int fabric_wrong(int err)
{
	errno = err;
	return -1;
}

void *fabric_make(size_t len_bytes)
{
	void *object = calloc(1, len_bytes);

	if (!object)
		abort();
	fabric.nr_objects++;
	return object;
}

void fabric_unmake(void *object)
{
	fabric.nr_objects--;
	free(object);
}

void fabric_tell(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

bool fabric_told(int fd)
{
	uint64_t one;

	return read(fd, &one, sizeof(one)) == sizeof(one);
}

/* ---- for tests ---- */

void fabric_reset(void)
{
	pthread_mutex_lock(&fabric.lock);
	if (fabric.nr_objects != 0)
		abort();
	memset(&fabric.counters, 0, sizeof(fabric.counters));
	fabric_queues_reset();
	fabric.is_infiniband = fabric.is_cut = false;
	fabric.spoiled_byte = -1;
	fabric.limit_sge = LIMIT_SGE;
	fabric.limit_wr = LIMIT_WR;
	fabric.limit_inline = LIMIT_INLINE;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_counters(struct fabric_counters *ret_counters)
{
	pthread_mutex_lock(&fabric.lock);
	*ret_counters = fabric.counters;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_set_limits(int max_sge, int max_qp_wr, unsigned max_inline)
{
	fabric.limit_sge = max_sge;
	fabric.limit_wr = max_qp_wr;
	fabric.limit_inline = max_inline;
}

void fabric_set_infiniband(bool is_infiniband)
{
	pthread_mutex_lock(&fabric.lock);
	fabric.is_infiniband = is_infiniband;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_cut(void)
{
	pthread_mutex_lock(&fabric.lock);
	fabric.is_cut = true;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_last_req(uint8_t ret_bytes[FABRIC_REQ_BYTES])
{
	pthread_mutex_lock(&fabric.lock);
	memcpy(ret_bytes, fabric.last_req, sizeof(fabric.last_req));
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_last_req_options(struct fabric_options *ret_options)
{
	pthread_mutex_lock(&fabric.lock);
	*ret_options = fabric.last_req_options;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_last_rep_options(struct fabric_options *ret_options)
{
	pthread_mutex_lock(&fabric.lock);
	*ret_options = fabric.last_rep_options;
	pthread_mutex_unlock(&fabric.lock);
}

void fabric_spoil_next_rep(unsigned byte)
{
	pthread_mutex_lock(&fabric.lock);
	fabric.spoiled_byte = (int)byte;
	pthread_mutex_unlock(&fabric.lock);
}

unsigned fabric_nr_objects(void)
{
	unsigned nr;

	pthread_mutex_lock(&fabric.lock);
	nr = fabric.nr_objects;
	pthread_mutex_unlock(&fabric.lock);
	return nr;
}
