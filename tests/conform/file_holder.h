/*
 * What holders do with a device that is a file or a block device to them: the functions of struct conform_frontend from
 * open to bury, by path.
 */
#ifndef FARSWAP_TESTS_CONFORM_FILE_HOLDER_H
#define FARSWAP_TESTS_CONFORM_FILE_HOLDER_H

#include <errno.h>

#include "tests/conform/frontend.h"

/* The kernel's own answers, which no driver is asked for, but for that to a WRITE that finds no room. */
#define FILE_HOLDER_BLOCK_DEVICE_OUTCOMES(no_room_errno) \
	{ \
		.misaligned = -EINVAL, .empty = CONFORM_WHOLE, .oversized = CONFORM_WHOLE, .read_across = CONFORM_SHORT, \
		.read_beyond = CONFORM_SHORT, .write_across = CONFORM_SHORT, .write_beyond = -ENOSPC, \
		.discard_across = -EINVAL, .discard_beyond = -EINVAL, .zero_across = -EINVAL, .zero_beyond = -EINVAL, \
		.no_room = (no_room_errno), .empty_when_stopped = true, \
	}

int file_holder_open(const char *path, struct conform_holder **ret_holder) BASE_MUST_CHECK;
void file_holder_close(struct conform_holder *holder);
int64_t file_holder_read(struct conform_holder *holder, void *buf, size_t len_bytes, uint64_t offset_bytes);
int64_t file_holder_write(struct conform_holder *holder, const void *buf, size_t len_bytes, uint64_t offset_bytes);
int file_holder_discard(struct conform_holder *holder, uint64_t offset_bytes, uint64_t len_bytes);
int file_holder_write_zeroes(struct conform_holder *holder, uint64_t offset_bytes, uint64_t len_bytes);
int file_holder_flush(struct conform_holder *holder);

/* A process of its own. It stays until its write has ended, however it is killed. */
int file_holder_doom(const char *path, const void *buf, size_t len_bytes, uint64_t offset_bytes,
		     struct conform_victim **ret_victim) BASE_MUST_CHECK;
void file_holder_kill(struct conform_victim *victim);
void file_holder_bury(struct conform_victim *victim);

#endif
