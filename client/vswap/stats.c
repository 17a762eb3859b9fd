/*
 * The books: what the queues count, added up.
 */
#include <string.h>

#include "client/vswap/internal.h"

static uint64_t stats_load(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static uint64_t stats_sum(int64_t nr)
{
	return nr > 0 ? (uint64_t)nr : 0; /* the queues are not read at one instant */
}

static uint64_t stats_nr_tag(const struct vswap *vswap, enum word_tag tag)
{
	int64_t nr = 0;
	unsigned i;

	for (i = 0; i < vswap->nr_queues; i++)
		nr += atomic_load_explicit(&vswap->queue[i].counters.nr_tag[tag], memory_order_relaxed);
	return stats_sum(nr);
}

void vswap_stats(struct vswap *vswap, struct vswap_stats *ret_stats)
{
	struct vswap_stats *stats = ret_stats;
	int64_t nr_hibernation = 0;
	unsigned i;

	memset(stats, 0, sizeof(*stats));
	for (i = 0; i < vswap->nr_queues; i++) {
		const struct vswap_counters *counters = &vswap->queue[i].counters;

		stats->nr_reads += stats_load(&counters->nr_requests[IO_READ]);
		stats->nr_writes += stats_load(&counters->nr_requests[IO_WRITE]);
		stats->nr_pages_read += stats_load(&counters->nr_pages[IO_READ]);
		stats->nr_pages_written += stats_load(&counters->nr_pages[IO_WRITE]);
		stats->nr_discards += stats_load(&counters->nr_requests[IO_DISCARD]) +
				      stats_load(&counters->nr_requests[IO_WRITE_ZEROES]);
		stats->nr_pages_discarded += stats_load(&counters->nr_pages[IO_DISCARD]) +
					     stats_load(&counters->nr_pages[IO_WRITE_ZEROES]);
		stats->nr_read_errors += stats_load(&counters->nr_read_errors);
		stats->nr_write_errors += stats_load(&counters->nr_write_errors);
		stats->nr_checksum_errors += stats_load(&counters->nr_checksum_errors);
		stats->nr_room_waits += stats_load(&counters->nr_room_waits);
		stats->nr_relocated += stats_load(&counters->nr_relocated);
		stats->nr_written_back += stats_load(&counters->nr_written_back);
		nr_hibernation += atomic_load_explicit(&counters->nr_hibernation, memory_order_relaxed);
	}
	stats->nr_hibernation = stats_sum(nr_hibernation);
	stats->nr_same = stats_nr_tag(vswap, WORD_SAME);
	stats->nr_remote = stats_nr_tag(vswap, WORD_REMOTE);
	stats->nr_disk = stats_nr_tag(vswap, WORD_DISK);
	stats->nr_poisoned = stats_nr_tag(vswap, WORD_POISON);
	stats->nr_folio = stats_nr_tag(vswap, WORD_FOLIO);
	stats->nr_comp = stats_nr_tag(vswap, WORD_COMP);
	if (vswap->comp)
		comp_pool_usage(vswap->comp, &stats->comp);
	stats->nr_tables = atomic_load_explicit(&vswap->tables.nr_tables, memory_order_relaxed);
	stats->nr_tables_free = atomic_load_explicit(&vswap->tables.nr_free, memory_order_relaxed);
	stats->metadata_bytes = atomic_load_explicit(&vswap->tables.reserved_bytes, memory_order_relaxed) +
				vswap->tables.root_region.len_bytes + vswap->slabs.by_id_region.len_bytes +
				vswap->clusters.region.len_bytes +
				atomic_load_explicit(&vswap->slabs.metadata_bytes, memory_order_relaxed);
}

void vswap_latency(struct vswap *vswap, struct stats_snapshot *ret_reads, struct stats_snapshot *ret_writes)
{
	unsigned i;

	memset(ret_reads, 0, sizeof(*ret_reads));
	memset(ret_writes, 0, sizeof(*ret_writes));
	for (i = 0; i < vswap->nr_queues; i++) {
		stats_histogram_collect(&vswap->queue[i].reads, ret_reads);
		stats_histogram_collect(&vswap->queue[i].writes, ret_writes);
	}
}
