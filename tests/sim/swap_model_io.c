/* Of the model in swap_model.h: what is read or written, and the calls that change what backs a folio's entries, or read it. */
#include "client/vswap/folio.h"
#include "tests/sim/swap_model.h"

/* ---- requests of folios and of hibernation slots ---- */

void model_fault_meets(struct swap_model *m, const struct backend_io *io, bool corrupt)
{
	const char *at = io->iov[0].iov_base;
	unsigned i;

	for (i = 0; i < MODEL_NR_FOLIOS + MODEL_NR_HIBERNATIONS; i++) {
		struct model_request *request = i < MODEL_NR_FOLIOS ? &m->folio[i].request :
								      &m->hibernation[i - MODEL_NR_FOLIOS].request;

		if (request->doing != DOING_NOTHING && at >= request->buf &&
		    at < request->buf + (size_t)request->nr_pages * FSW_PAGE_SIZE)
			*(corrupt ? &request->nr_corrupt : &request->nr_failed) += 1;
	}
}

/* A page was to be written: it has been; or its entry is what it was; or it is lost, by a write in place that has failed. */
static void page_written(struct swap_model *m, const struct model_request *request, uint32_t i, int status)
{
	struct model_entry *e = model_entry(m, request->first + i);
	const bool plain = !model_may_save_the_slot(request->doing);
	const void *page = request->buf + (size_t)i * FSW_PAGE_SIZE;
	static char old[FSW_PAGE_SIZE];
	enum model_backing backing;
	struct table_look look;
	bool new, kept = false;

	table_look(&m->f->vswap->tables, request->first + i, &look);
	backing = model_backing_of(look.word);
	if (!plain && request->value[i] <= WORD_PAYLOAD_MAX)
		new = backing == BACKING_SAME && word_payload(look.word) == request->value[i];
	else
		new = (backing == BACKING_SLOT || (backing == BACKING_COMP && !plain)) && look.checksum == page_checksum(page);
	if (!new && status < 0 && (backing == e->backing || (backing == BACKING_SLOT && e->backing == BACKING_COMP))) {
		model_page_fill(old, e->value);
		kept = backing == BACKING_SAME ? word_payload(look.word) == e->value :
						 !word_is_stored(look.word) || look.checksum == page_checksum(old);
	}
	if (!new && !kept && (status == 0 || backing != BACKING_POISON || e->backing < BACKING_SLOT || !request->nr_failed))
		model_fail(m, "entry %llu is neither what was written (status %d) nor what it was: word %llx",
			   (unsigned long long)request->first + i, status, (unsigned long long)look.word);
	if (word_is_claimed(look.word))
		model_fail(m, "entry %llu is still claimed", (unsigned long long)request->first + i);
	e->backing = (uint8_t)backing;
	e->value = new ? request->value[i] : e->value;
}

/* A page was to be read. If there were too many wrong bytes, its entry is lost. */
static void page_read(struct swap_model *m, const struct model_request *request, uint32_t i, int status)
{
	struct model_entry *e = model_entry(m, request->first + i);
	struct table_look look;

	if (status == 0) {
		if (!model_page_holds(request->buf + (size_t)i * FSW_PAGE_SIZE, e->value))
			model_fail(m, "entry %llu was read and is not what was stored", (unsigned long long)request->first + i);
		request->value[i] = e->value;
		return;
	}
	table_look(&m->f->vswap->tables, request->first + i, &look);
	if (word_tag(look.word) != WORD_POISON || e->backing == BACKING_POISON)
		return;
	if (e->backing < BACKING_SLOT || request->nr_corrupt < MODEL_READ_TRIES)
		model_fail(m, "entry %llu is lost for no reason", (unsigned long long)request->first + i);
	e->backing = BACKING_POISON;
}

void model_request_end(struct swap_model *m, struct model_request *request, int status)
{
	struct model_request ended = *request;
	unsigned allowed = MAY(0);
	uint32_t i;

	if (m->in_call || sys_reactor_self() != m->f->reactors[ended.queue] || ended.doing == DOING_NOTHING)
		model_fail(m, "what was begun ends at the wrong time, or on the wrong thread");
	if (ended.doing == DOING_READ) {
		if (ended.nr_failed || ended.nr_corrupt >= MODEL_READ_TRIES)
			allowed |= MAY(EIO);
		for (i = 0; i < ended.nr_pages; i++)
			if (model_entry(m, ended.first + i)->backing == BACKING_POISON)
				allowed = MAY(EIO);
	} else if (ended.doing == DOING_COMPRESS) { /* the pool may have room, or not */
		allowed |= MAY(ENOSPC);
		for (i = 0; i < ended.nr_pages; i++)
			if (!model_page_shrinks(ended.value[i]))
				allowed = MAY(ENOSPC);
	} else {
		allowed |= ended.nr_failed >= MODEL_WRITE_TRIES ? MAY(EIO) : 0;
		allowed |= m->tight >= ended.began || model_is_tight(m) ? MAY(ENOSPC) : 0;
	}
	model_judge(m, ended.ends, status, allowed);
	m->nr_busy[ended.queue]--;
	request->doing = DOING_NOTHING;
	for (i = 0; i < ended.nr_pages; i++)
		if (ended.doing == DOING_READ)
			page_read(m, &ended, i, status);
		else if (ended.doing != DOING_ALLOC || status == 0)
			page_written(m, &ended, i, status);
}

/* ---- calls for a folio ---- */

/* Out of the cache when its bytes are elsewhere; in any case whoever has begun it goes on his way. */
void model_evict(struct swap_model *m, unsigned q, struct model_folio *f, bool stored)
{
	f->evict = false;
	if (stored)
		try_swapcache_clear(m, q, f, f->first, m->nr_ops % 2 ? model_nr_pages(f) : 0);
	if (!model_is_cached(f) && m->nr_ops % 4)
		return; /* to be used again */
	try_folio_unlock(m, q, f);
	try_folio_put(m, f);
}

static void folio_io_done(struct folio *folio, int status, void *arg)
{
	struct model_folio *f = arg;
	struct swap_model *m = f->model;
	bool was_read = f->request.doing == DOING_READ;

	assert(folio == &f->folio);
	f->flags &= ~(uint32_t)FOLIO_UNDER_IO;
	if (status == 0)
		f->flags = (f->flags & ~(uint32_t)FOLIO_DIRTY) | FOLIO_UPTODATE;
	else if (was_read)
		f->unknown = true;
	else /* what could not be stored is only here, whatever it was before */
		f->flags |= FOLIO_DIRTY;
	model_request_end(m, &f->request, status);
	model_check_folio(m, f);
	if (f->evict)
		model_evict(m, f->request.queue, f, !was_read && status == 0);
}

static const struct {
	int (*call)(struct vswap_queue *queue, struct folio *folio, folio_done done, void *arg);
	enum model_call is, ends;
} folio_ios[] = {
	[DOING_STORE] = { vswap_store_folio, CALL_vswap_store_folio, CALL_vswap_store_folio_done },
	[DOING_COMPRESS] = { vswap_store_compressed, CALL_vswap_store_compressed, CALL_vswap_store_compressed_done },
	[DOING_ASSIGN] = { vswap_assign_slot, CALL_vswap_assign_slot, CALL_vswap_assign_slot_done },
	[DOING_READ] = { swap_read_folio, CALL_swap_read_folio, CALL_swap_read_folio_done },
};

int try_folio_io(struct swap_model *m, unsigned q, struct model_folio *f, enum model_doing doing)
{
	struct model_entry *e = model_is_cached(f) ? model_entry(m, f->first) : NULL;
	bool is_read = doing == DOING_READ, is_busy = f->request.doing != DOING_NOTHING;
	unsigned errors = f->locked && e && (is_read || (f->flags & FOLIO_UPTODATE)) ? 0 : MAY(EINVAL);
	uint32_t i;
	int err;

	for (i = 0; is_read && e && i < model_nr_pages(f); i++)
		errors |= e[i].backing == BACKING_FOLIO ? MAY(EINVAL) : 0;
	errors |= is_busy || m->nr_busy[q] == m->nr_ios ? MAY(EBUSY) : 0;
	if (doing == DOING_COMPRESS && !m->f->vswap->comp)
		errors = MAY(ENOSPC);
	if (!is_busy) {
		f->request = (struct model_request){ .doing = doing, .queue = q, .began = m->turn, .first = f->first,
						     .nr_pages = model_nr_pages(f), .buf = f->folio.data, .value = f->value,
						     .ends = folio_ios[doing].ends };
	}
	err = MODEL_CALL(m, folio_ios[doing].call(model_queue(m, q), &f->folio, folio_io_done, f));
	model_judge(m, folio_ios[doing].is, err, errors ? errors : MAY(0));
	if (err == 0) {
		f->flags = (f->flags | FOLIO_UNDER_IO) & ~(uint32_t)(is_read ? FOLIO_UPTODATE : 0);
		m->nr_busy[q]++;
	} else if (!is_busy) {
		f->request.doing = DOING_NOTHING;
	}
	model_check_folio(m, f);
	return err;
}

void try_vswap_set_same(struct swap_model *m, unsigned q, struct model_folio *f, uint32_t page, uint64_t value)
{
	bool valid = f->locked && model_is_cached(f) && page < model_nr_pages(f);
	int err = vswap_set_same(model_queue(m, q), &f->folio, page, value);
	unsigned errors = valid ? 0 : MAY(EINVAL);

	errors |= f->flags & FOLIO_UNDER_IO ? MAY(EBUSY) : 0;
	errors |= value > WORD_PAYLOAD_MAX ? MAY(ERANGE) : 0;
	model_judge(m, CALL_vswap_set_same, err, errors ? errors : MAY(0));
	if (err == 0) {
		model_entry(m, f->first + page)->backing = BACKING_SAME;
		model_entry(m, f->first + page)->value = value;
	}
	if (valid)
		model_check_entry(m, f->first + page);
	model_check_folio(m, f);
}
