/*
 * Reading: optimistic, without a claim on the entries. What a run brings is compared with the checksums that were read
 * together with the words. When they differ, a write or a move came between (then the entry is looked up again), or the
 * bytes are wrong (then they are fetched again, twice, before the entry is given up).
 */
#include <errno.h>

#include "client/vswap/internal.h"
#include "client/vswap/page.h"
#include "common/log/log.h"

#define READ_MAX_CHECKSUM_ATTEMPTS 3
#define READ_MAX_ATTEMPTS 64 /* of one page, whatever the reasons */

static void read_done(struct backend_io *bio, int status);

/* How many pages from `next` on lie in a row on the slab of the first; their checksums are kept in the request. */
static uint32_t read_extend_run(struct io_segment *segment, const struct table_look *first)
{
	struct fsw_io *io = segment->io;
	uint64_t room = segment->attempt ? 1 : segment->end - segment->next;
	struct table_look look;
	uint32_t nr = 1;

	io->vs.checksum[segment->next] = first->checksum;
	for (; nr < room; nr++) {
		vswap_look(io->vs.queue, io->page + segment->next + nr, &look);
		if (word_is_claimed(look.word) || segment->slot + nr >= segment->slab->nr_slots ||
		    !vswap_word_is_at(look.word, segment->slab, segment->slot + nr))
			break;
		io->vs.checksum[segment->next + nr] = look.checksum;
	}
	return nr;
}

/* The whole rest of the cluster, or of the share, was never written. */
static void read_zeros(struct io_segment *segment)
{
	uint64_t page = segment->io->page + segment->next;
	uint64_t nr = base_min_u64(TABLE_ENTRIES - page % TABLE_ENTRIES, segment->end - segment->next);

	memset(request_page(segment->io, segment->next), 0, nr << FSW_PAGE_SHIFT);
	segment->next += nr;
}

static bool read_start_run(struct io_segment *segment, const struct table_look *look);

/* The request is inside an epoch, in which the object stays. Goes on to the next page, unless it has to be looked up again. */
static void read_compressed(struct io_segment *segment, const struct table_look *look)
{
	static struct log_limit limit;
	struct fsw_io *io = segment->io;
	struct vswap_queue *queue = io->vs.queue;
	uint64_t page = io->page + segment->next, left_out;
	struct table_look now;

	if (comp_load(queue->vswap->comp, queue->index, word_payload(look->word), request_page(io, segment->next)) == 0 &&
	    page_checksum(request_page(io, segment->next)) == look->checksum) {
		segment->next++;
		return;
	}
	vswap_look(queue, page, &now);
	if (!word_is_same_backing(now.word, look->word))
		return;
	vswap_count(&queue->counters.nr_checksum_errors, 1);
	if (log_limit_pass(&limit, &left_out))
		log_error("page %llu: what the pool has is not what was written; it reads as an error from now on (%llu more)",
			  (unsigned long long)page, (unsigned long long)left_out);
	poison_entry(queue, page, now.word);
	request_fail(io, -EIO);
}

bool read_segment_step(struct io_segment *segment)
{
	struct fsw_io *io = segment->io;

	while (segment->next < segment->end && io->vs.status == 0) {
		struct table_look look;

		vswap_look(io->vs.queue, io->page + segment->next, &look);
		if (!look.table) {
			read_zeros(segment);
			continue;
		}
		if (word_is_claimed(look.word)) {
			if (request_segment_wait(segment, look.table))
				return true;
			continue;
		}
		switch (word_tag(look.word)) {
		case WORD_NONE:
			page_fill(request_page(io, segment->next++), 0);
			break;
		case WORD_SAME:
			page_fill(request_page(io, segment->next++), word_payload(look.word));
			break;
		case WORD_COMP:
			read_compressed(segment, &look);
			break;
		case WORD_REMOTE:
		case WORD_DISK:
			if (read_start_run(segment, &look))
				return true;
			break;
		default:
			request_fail(io, -EIO);
		}
	}
	return false;
}

/* How many pages of the run, from its first on, hold what they should. */
static uint32_t read_verify_run(const struct io_segment *segment)
{
	const struct fsw_io *io = segment->io;
	uint32_t i;

	for (i = 0; i < segment->nr_run; i++) {
		uint64_t index = segment->next + i;

		if (i + 1 < segment->nr_run)
			page_prefetch(request_page(io, index + 1));
		if (page_checksum(request_page(io, index)) != io->vs.checksum[index])
			break;
	}
	return i;
}

/* Gives the entries of a run up that are lost for ever. */
static void read_poison_run(struct io_segment *segment)
{
	struct fsw_io *io = segment->io;
	uint32_t i;

	for (i = 0; i < segment->nr_run; i++) {
		struct table_look look;

		vswap_look(io->vs.queue, io->page + segment->next + i, &look);
		if (!word_is_claimed(look.word) && vswap_word_is_at(look.word, segment->slab, segment->slot + i))
			poison_entry(io->vs.queue, io->page + segment->next + i, look.word);
	}
}

/* A run could not be fetched. If its first page has moved meanwhile it is looked up again, else the request fails. */
static void read_run_failed(struct io_segment *segment, int err)
{
	struct fsw_io *io = segment->io;
	struct table_look look;

	vswap_look(io->vs.queue, io->page + segment->next, &look);
	if ((word_is_claimed(look.word) || !vswap_word_is_at(look.word, segment->slab, segment->slot)) &&
	    ++segment->attempt < READ_MAX_ATTEMPTS) {
		segment->nr_wrong = 0;
		return;
	}
	if (err == -ENODATA)
		read_poison_run(segment);
	request_fail(io, -EIO);
}

/* True when the run is under way. False: the entry has to be looked up again, or the request has failed. */
static bool read_start_run(struct io_segment *segment, const struct table_look *look)
{
	swp_slot_t slot = word_slot(look->word);
	int err;

	segment->slab = slab_by_id(&segment->io->vs.queue->vswap->slabs, swp_slot_slab(slot));
	if (!segment->slab)
		return false; /* the word was about to change */
	segment->slot = swp_slot_index(slot);
	segment->word = look->word;
	segment->nr_run = read_extend_run(segment, look);
	request_fill(segment, read_done);
	err = backend_submit(segment->slab->backend, segment->io->vs.queue->index, &segment->bio);
	if (err == 0)
		return true;
	read_run_failed(segment, err);
	return false;
}

/*
 * Page `next` does not hold what it should; `first` tells whether it was the run's first. Only when its word is what it was
 * at the start, generation included, nobody has written it meanwhile: the same slot and the same checksum do not say so,
 * since what was there before may have been written again. Of a later page of the run the word is not known; it is fetched
 * by itself.
 */
static void read_mismatch(struct io_segment *segment, bool first)
{
	static struct log_limit limit;
	struct fsw_io *io = segment->io;
	uint64_t page = io->page + segment->next, left_out;
	struct table_look look;

	vswap_look(io->vs.queue, page, &look);
	if (!first || !word_is_same_backing(look.word, segment->word)) {
		segment->attempt = 1;
		segment->nr_wrong = 0;
		return;
	}
	segment->attempt = 1;
	if (++segment->nr_wrong < READ_MAX_CHECKSUM_ATTEMPTS)
		return;
	vswap_count(&io->vs.queue->counters.nr_checksum_errors, 1);
	if (log_limit_pass(&limit, &left_out))
		log_error("page %llu: what %s has is not what was written; it reads as an error from now on (%llu more)",
			  (unsigned long long)page, segment->slab->backend->name, (unsigned long long)left_out);
	poison_entry(io->vs.queue, page, look.word);
	request_fail(io, -EIO);
}

static void read_done(struct backend_io *bio, int status)
{
	struct io_segment *segment = BASE_CONTAINER_OF(bio, struct io_segment, bio);

	if (status == 0) {
		uint32_t i = read_verify_run(segment);

		segment->next += i;
		segment->slot += i;
		if (i > 0)
			segment->nr_wrong = 0;
		if (i < segment->nr_run)
			read_mismatch(segment, i == 0);
		else
			segment->attempt = 0;
	} else {
		read_run_failed(segment, status);
	}
	segment->nr_run = 0;
	request_segment_step(segment);
}
