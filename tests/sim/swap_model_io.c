/* Of the model in swap_model.h: the calls that change what backs a folio's entries, or read it. */
#include "client/vswap/folio.h"
#include "tests/sim/swap_model.h"

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
