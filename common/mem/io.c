#include "common/mem/io.h"

#include "common/base/lock.h"

struct io_region {
	void *base; /* NULL: unused */
	size_t len_bytes;
};

static struct lock_mutex lock = LOCK_MUTEX_INITIALIZER;
static struct io_region regions[MEM_IO_MAX] LOCK_GUARDED_BY(lock);
static size_t missed_bytes LOCK_GUARDED_BY(lock);
static LIST_HEAD(, mem_io_listener) listeners LOCK_GUARDED_BY(lock) = LIST_HEAD_INITIALIZER(listeners);

void mem_io_listen(struct mem_io_listener *listener)
{
	lock_acquire(&lock);
	LIST_INSERT_HEAD(&listeners, listener, link);
	for (size_t i = 0; i < MEM_IO_MAX; i++)
		if (regions[i].base)
			listener->added(listener, regions[i].base, regions[i].len_bytes);
	if (missed_bytes > 0)
		listener->missed(listener, missed_bytes);
	lock_release(&lock);
}

void mem_io_unlisten(struct mem_io_listener *listener)
{
	lock_acquire(&lock);
	LIST_REMOVE(listener, link);
	for (size_t i = 0; i < MEM_IO_MAX; i++)
		if (regions[i].base)
			listener->removed(listener, regions[i].base, regions[i].len_bytes);
	lock_release(&lock);
}

static struct io_region *find(const void *base)
{
	for (size_t i = 0; i < MEM_IO_MAX; i++)
		if (regions[i].base == base)
			return &regions[i];
	return NULL;
}

void mem_io_add(void *base, size_t len_bytes)
{
	struct mem_io_listener *listener;
	struct io_region *region;

	lock_acquire(&lock);
	region = find(NULL);
	if (region) {
		*region = (struct io_region){ .base = base, .len_bytes = len_bytes };
		LIST_FOREACH(listener, &listeners, link)
			listener->added(listener, base, len_bytes);
	} else {
		missed_bytes += len_bytes;
		LIST_FOREACH(listener, &listeners, link)
			listener->missed(listener, len_bytes);
	}
	lock_release(&lock);
}

void mem_io_remove(void *base, size_t len_bytes)
{
	struct mem_io_listener *listener;
	struct io_region *region;

	lock_acquire(&lock);
	region = find(base);
	if (region) {
		LIST_FOREACH(listener, &listeners, link)
			listener->removed(listener, base, len_bytes);
		*region = (struct io_region){ 0 };
	} else {
		missed_bytes -= len_bytes;
	}
	lock_release(&lock);
}
