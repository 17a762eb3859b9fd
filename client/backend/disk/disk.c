/*
 * Making the disk backend, and its slabs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/backend/disk/internal.h"
#include "common/base/err.h"
#include "common/log/log.h"

#define MIN_SLAB_BYTES (1ull << 20)
#define MAX_SLAB_BYTES (1ull << 30)
#define MAX_QUEUE_DEPTH 4096u

static bool disk_options_are_good(const struct disk_options *options)
{
	return options->nr_queues >= 1 && options->nr_queues <= BACKEND_MAX_QUEUES && options->queue_depth >= 1 &&
	       options->queue_depth <= MAX_QUEUE_DEPTH && base_is_power_of_two(options->slab_bytes) &&
	       options->slab_bytes >= MIN_SLAB_BYTES && options->slab_bytes <= MAX_SLAB_BYTES &&
	       options->size_bytes % options->slab_bytes == 0 && options->size_bytes <= INT64_MAX &&
	       options->size_bytes / options->slab_bytes <= UINT32_MAX;
}

static struct disk *disk_alloc(const struct disk_options *options)
{
	struct disk *disk;
	size_t len_bytes;

	len_bytes = base_align_up(sizeof(*disk) + options->nr_queues * sizeof(disk->queues[0]), FSW_CACHE_LINE);
	disk = aligned_alloc(FSW_CACHE_LINE, len_bytes);
	if (!disk)
		return NULL;
	memset(disk, 0, len_bytes);
	disk->path = strdup(options->path);
	if (!disk->path) {
		free(disk);
		return NULL;
	}
	lock_mutex_init(&disk->lock);
	disk->file.fd = -1;
	disk->backend.ops = &disk_ops;
	disk->backend.kind = BACKEND_DISK;
	strcpy(disk->backend.name, "disk");
	disk->backend.nr_queues = options->nr_queues;
	atomic_init(&disk->backend.state, BACKEND_UP);
	disk->slab_bytes = options->slab_bytes;
	disk->queue_depth = options->queue_depth;
	return disk;
}

static int disk_make_slabs(struct disk *disk)
{
	bool *lent;

	disk->nr_slabs = (uint32_t)(disk->file.size_bytes / disk->slab_bytes);
	disk->slabs = calloc(disk->nr_slabs, sizeof(*disk->slabs));
	lent = calloc(disk->nr_slabs, sizeof(*lent));
	lock_acquire(&disk->lock);
	disk->lent = lent;
	lock_release(&disk->lock);
	if (!disk->slabs || !lent)
		return -ENOMEM;
	for (uint32_t i = 0; i < disk->nr_slabs; i++)
		disk->slabs[i] = (struct backend_slab){
			.backend = &disk->backend,
			.index = i,
			.nr_slots = (uint32_t)(disk->slab_bytes >> FSW_PAGE_SHIFT),
		};
	return 0;
}

static void disk_destroy(struct disk *disk, bool remove_file)
{
	for (unsigned i = 0; i < disk->backend.nr_queues; i++)
		disk_queue_close(&disk->queues[i]);
	disk_file_close(&disk->file, disk->path, remove_file);
	lock_acquire(&disk->lock);
	free(disk->lent);
	lock_release(&disk->lock);
	lock_mutex_done(&disk->lock);
	free(disk->slabs);
	free(disk->path);
	free(disk);
}

int disk_create(const struct disk_options *options, struct backend **ret_backend)
{
	struct disk *disk;
	int ret;

	if (!disk_options_are_good(options))
		return -EINVAL;
	disk = disk_alloc(options);
	if (!disk)
		return -ENOMEM;
	ret = disk_file_open(options->path, options->size_bytes, options->slab_bytes, &disk->file);
	if (ret == 0)
		ret = disk_make_slabs(disk);
	for (unsigned i = 0; i < options->nr_queues && ret == 0; i++)
		ret = disk_queue_open(&disk->queues[i], disk, i, options->reactors[i]);
	if (ret < 0) {
		disk_destroy(disk, true);
		return ret;
	}
	*ret_backend = &disk->backend;
	return 0;
}

void disk_free(struct backend *backend)
{
	if (backend)
		disk_destroy(disk_of(backend), false);
}

/* ---- slabs ---- */

uint32_t disk_nr_slabs(const struct backend *backend)
{
	return BASE_CONTAINER_OF(backend, const struct disk, backend)->nr_slabs;
}

struct backend_slab *disk_slab_get(struct backend *backend)
{
	struct disk *disk = disk_of(backend);
	struct backend_slab *slab = NULL;

	lock_acquire(&disk->lock);
	for (uint32_t i = 0; i < disk->nr_slabs && !slab; i++)
		if (!disk->lent[i]) {
			disk->lent[i] = true;
			slab = &disk->slabs[i];
		}
	lock_release(&disk->lock);
	return slab;
}

struct backend_slab *disk_slab_take(struct backend *backend, uint32_t index)
{
	struct disk *disk = disk_of(backend);
	struct backend_slab *slab = NULL;

	lock_acquire(&disk->lock);
	if (index < disk->nr_slabs && !disk->lent[index]) {
		disk->lent[index] = true;
		slab = &disk->slabs[index];
	}
	lock_release(&disk->lock);
	return slab;
}

void disk_slab_put(struct backend *backend, struct backend_slab *slab)
{
	struct disk *disk = disk_of(backend);
	int ret;

	/* Before anybody else can get it. */
	ret = disk_file_discard(&disk->file, slab->index * disk->slab_bytes, disk->slab_bytes);
	if (ret < 0)
		log_debug("%s: slab %u is not discarded: %s", disk->path, slab->index, err_text(ret));
	lock_acquire(&disk->lock);
	disk->lent[slab->index] = false;
	lock_release(&disk->lock);
}
