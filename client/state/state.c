#include "client/state/state.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/err.h"

#define STATE_MAGIC "farswap\n"
#define STATE_VERSION 2u

/* The beginning of the file. */
struct state_header {
	char magic[8];
	uint32_t version;
	uint32_t record_bytes; /* all of what lies before the items, but for the slabs */
	uint32_t item_bytes;   /* 0: there are none yet */
	uint32_t device_id;
	uint64_t device_identity;
	char device_kind[16]; /* empty: there is no device; else written after the two */
	struct state_shape shape;
	struct state_wish disk_wish;
	struct state_session session[STATE_MAX_SESSIONS];
};

struct state {
	int fd;
	char *path;
	bool left;
	uint64_t nr_items;
	struct mem_region region; /* header and slabs */
	struct state_header *header;
	struct state_slab *slabs;
};

static BASE_PRINTF(3, 4) int failed(char error[STATE_ERROR_MAX], int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(error, STATE_ERROR_MAX, fmt, args);
	va_end(args);
	return err;
}

/* ---- the file ---- */

static uint64_t slabs_offset(void)
{
	return base_align_up(sizeof(struct state_header), FSW_CACHE_LINE);
}

static uint64_t items_offset(uint32_t max_slabs)
{
	return base_align_up(slabs_offset() + (uint64_t)max_slabs * sizeof(struct state_slab), FSW_PAGE_SIZE);
}

static int map_records(struct state *state, uint32_t max_slabs)
{
	int ret = mem_region_open_file(&state->region, state->fd, 0, items_offset(max_slabs), MEM_REGION_TOUCH);

	if (ret < 0)
		return ret;
	state->header = state->region.base;
	state->slabs = (struct state_slab *)(void *)((char *)state->region.base + slabs_offset());
	return 0;
}

static void unmap_records(struct state *state)
{
	mem_region_close(&state->region);
	state->header = NULL;
	state->slabs = NULL;
}

/* As map_records, of what turns out to be longer. */
static int remap_records(struct state *state, uint32_t max_slabs, char error[STATE_ERROR_MAX])
{
	int ret;

	unmap_records(state);
	ret = map_records(state, max_slabs);
	return ret < 0 ? failed(error, ret, "state_file: %s cannot be read: %s", state->path, err_text(ret)) : 0;
}

static int make_anew(struct state *state, const struct state_shape *shape)
{
	int ret;

	state->left = false;
	state->nr_items = 0;
	unmap_records(state);
	if (ftruncate(state->fd, 0) < 0 || ftruncate(state->fd, (off_t)items_offset(shape->max_slabs)) < 0)
		return -errno;
	ret = map_records(state, shape->max_slabs);
	if (ret < 0)
		return ret;
	state->header->version = STATE_VERSION;
	state->header->record_bytes = (uint32_t)slabs_offset();
	state->header->shape = *shape;
	/* Last: until it is there, there is nothing. */
	atomic_signal_fence(memory_order_release);
	memcpy(state->header->magic, STATE_MAGIC, sizeof(state->header->magic));
	return 0;
}

/* But for what is wanted of its server, if that is anything. */
static void forget_session(struct state_session *session)
{
	uint32_t kind = atomic_load(&session->wish.kind), target = atomic_load(&session->wish.target);
	struct state_session ended = { .wish = { .kind = kind, .target = target } };

	if (kind != STATE_WISH_NONE)
		memcpy(ended.server, session->server, sizeof(ended.server));
	memcpy(session, &ended, sizeof(ended));
}

/* Those that had ended. What a record says of texts is not believed. */
static void forget_sessions(struct state *state)
{
	for (uint32_t i = 0; i < STATE_MAX_SESSIONS; i++) {
		struct state_session *session = state_session(state, i);

		if (!atomic_load(&session->stands))
			forget_session(session);
		session->server[sizeof(session->server) - 1] = '\0';
	}
	state->header->device_kind[sizeof(state->header->device_kind) - 1] = '\0';
}

/* What a daemon has left, which may be anything. `len_bytes` is the length of the file. */
static int take_left(struct state *state, uint64_t len_bytes, char error[STATE_ERROR_MAX])
{
	const struct state_header *header;
	char magic[sizeof(header->magic)];
	uint64_t items;
	int ret;

	if (pread(state->fd, magic, sizeof(magic), 0) != sizeof(magic) || memcmp(magic, STATE_MAGIC, sizeof(magic)) != 0)
		return failed(error, -EUCLEAN, "state_file: %s is not what a farswapd leaves", state->path);
	if (len_bytes < items_offset(1))
		return failed(error, -EUCLEAN, "state_file: %s is damaged: it is too short", state->path);
	ret = map_records(state, 1);
	if (ret < 0)
		return failed(error, ret, "state_file: %s cannot be read: %s", state->path, err_text(ret));
	header = state->header;
	if (header->version != STATE_VERSION || header->record_bytes != slabs_offset())
		return failed(error, -EUCLEAN, "state_file: %s was left by a farswapd of another version", state->path);
	items = items_offset(header->shape.max_slabs);
	if (len_bytes < items || header->shape.max_slabs == 0)
		return failed(error, -EUCLEAN, "state_file: %s is damaged: it is too short", state->path);
	/* A growth that was cut short may have left some that nobody has used yet. */
	state->nr_items = header->item_bytes ? (len_bytes - items) / header->item_bytes : 0;
	state->nr_items -= state->nr_items % STATE_ITEMS_UNIT;
	ret = remap_records(state, header->shape.max_slabs, error);
	if (ret == 0)
		forget_sessions(state);
	return ret;
}

/* One that was being made when its daemon ended. */
static bool was_never_used(int fd)
{
	static const char none[8];
	char magic[8] = { 0 };

	return pread(fd, magic, sizeof(magic), 0) >= 0 && memcmp(magic, none, sizeof(none)) == 0;
}

/* Opens and locks it. -EAGAIN: the one that was opened has been removed meanwhile, by its daemon at its end. */
static int lock_file(struct state *state, struct stat *st)
{
	state->fd = open(state->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (state->fd < 0)
		return -errno;
	if (flock(state->fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(state->fd, st) < 0)
		return -errno;
	if (st->st_nlink > 0)
		return 0;
	close(state->fd);
	state->fd = -1;
	return -EAGAIN;
}

static int open_file(struct state *state, const struct state_shape *shape, char error[STATE_ERROR_MAX])
{
	struct stat st;
	int ret;

	do
		ret = lock_file(state, &st);
	while (ret == -EAGAIN);
	if (ret < 0)
		return failed(error, ret, "state_file: %s: %s", state->path,
			      ret == -EBUSY ? "another farswapd has it" : err_text(ret));
	if (!S_ISREG(st.st_mode))
		return failed(error, -EINVAL, "state_file: %s is not a file", state->path);
	if (was_never_used(state->fd)) {
		ret = make_anew(state, shape);
		return ret < 0 ? failed(error, ret, "state_file: %s cannot be made: %s", state->path, err_text(ret)) : 0;
	}
	ret = take_left(state, (uint64_t)st.st_size, error);
	state->left = ret == 0;
	return ret;
}

int state_open(const char *path, const struct state_shape *shape, struct state **ret_state, char ret_error[STATE_ERROR_MAX])
{
	struct state *state = calloc(1, sizeof(*state));
	int ret;

	if (!state)
		return failed(ret_error, -ENOMEM, "state_file: out of memory");
	state->fd = -1;
	state->path = strdup(path);
	ret = state->path ? open_file(state, shape, ret_error) : failed(ret_error, -ENOMEM, "state_file: out of memory");
	if (ret < 0) {
		state_close(state, false);
		return ret;
	}
	*ret_state = state;
	return 0;
}

void state_close(struct state *state, bool remove)
{
	if (!state)
		return;
	/* While it is locked: who has opened it by now sees that it is gone. */
	if (remove)
		unlink(state->path);
	unmap_records(state);
	if (state->fd >= 0)
		close(state->fd);
	free(state->path);
	free(state);
}

bool state_is_left(const struct state *state)
{
	return state->left;
}

int state_check_shape(const struct state *state, const struct state_shape *shape, char ret_error[STATE_ERROR_MAX])
{
	const struct state_shape *left = &state->header->shape;
	static const char why[] = "that the device in use was made with; it can be changed when swap is off";

	if (shape->nr_pages != left->nr_pages)
		return failed(ret_error, -EINVAL, "size: is not that (%llu pages) %s", (unsigned long long)left->nr_pages, why);
	if (shape->nr_queues != left->nr_queues)
		return failed(ret_error, -EINVAL, "queues: %u are not the %u %s", shape->nr_queues, left->nr_queues, why);
	if (shape->max_slabs != left->max_slabs)
		return failed(ret_error, -EINVAL, "max_slabs: %u are not the %u %s", shape->max_slabs, left->max_slabs, why);
	if (strncmp(shape->disk, left->disk, sizeof(left->disk)) != 0 || shape->disk_bytes != left->disk_bytes ||
	    shape->disk_slab_bytes != left->disk_slab_bytes)
		return failed(ret_error, -EINVAL, "disk, disk_size, disk_slab_size: are not those ('%.*s') %s",
			      (int)sizeof(left->disk), left->disk, why);
	return 0;
}

int state_discard(struct state *state, const struct state_shape *shape)
{
	return make_anew(state, shape);
}

void state_set_device(struct state *state, const char *kind, uint32_t id, uint64_t identity)
{
	struct state_header *header = state->header;

	assert(strlen(kind) < sizeof(header->device_kind));
	memset(header->device_kind, 0, sizeof(header->device_kind));
	atomic_signal_fence(memory_order_release);
	header->device_id = id;
	header->device_identity = identity;
	atomic_signal_fence(memory_order_release);
	memcpy(header->device_kind, kind, strlen(kind));
}

const char *state_device(const struct state *state, uint32_t *ret_id, uint64_t *ret_identity)
{
	*ret_id = state->header->device_id;
	*ret_identity = state->header->device_identity;
	return state->header->device_kind;
}

bool state_has_device(const struct state *state)
{
	return state->header && state->header->device_kind[0] != '\0';
}

/* FNV-1a (Fowler, Noll, Vo; 32 bits), folded. */
unsigned state_number(const struct state *state)
{
	uint32_t hash = 2166136261u;

	for (const char *at = state->path; *at; at++)
		hash = (hash ^ (unsigned char)*at) * 16777619u;
	return (hash ^ hash >> 12 ^ hash >> 24) % 4095 + 1;
}

/* ---- records ---- */

struct state_session *state_session(struct state *state, uint32_t number)
{
	assert(number < STATE_MAX_SESSIONS);
	return &state->header->session[number];
}

uint32_t state_session_number(const struct state *state, const struct state_session *session)
{
	return (uint32_t)(session - state->header->session);
}

struct state_session *state_session_of(struct state *state, const char *server)
{
	struct state_session *spare = NULL;

	if (strlen(server) >= STATE_NAME_BYTES)
		return NULL;
	for (uint32_t i = 0; i < STATE_MAX_SESSIONS; i++) {
		struct state_session *session = state_session(state, i);

		if (strncmp(session->server, server, STATE_NAME_BYTES) == 0)
			return session;
		if (!spare && session->server[0] == '\0')
			spare = session;
	}
	if (spare)
		memcpy(spare->server, server, strlen(server) + 1);
	return spare;
}

struct state_wish *state_wish(struct state *state, uint32_t number)
{
	return number == STATE_DISK ? &state->header->disk_wish : &state_session(state, number)->wish;
}

uint32_t state_max_slabs(const struct state *state)
{
	return state->header->shape.max_slabs;
}

struct state_slab *state_slab(struct state *state, uint32_t id)
{
	assert(id < state_max_slabs(state));
	return &state->slabs[id];
}

void state_slab_hold(struct state_slab *slab, uint32_t session, uint32_t index, uint32_t key, uint32_t nr_slots)
{
	assert(atomic_load_explicit(&slab->status, memory_order_relaxed) == STATE_SLAB_NONE);
	slab->session = session;
	slab->index = index;
	slab->key = key;
	slab->nr_slots = nr_slots;
	atomic_store_explicit(&slab->status, STATE_SLAB_HELD, memory_order_release);
}

/* ---- items ---- */

int state_items_begin(struct state *state, size_t item_bytes, uint64_t *ret_nr)
{
	struct state_header *header = state->header;

	assert(item_bytes % FSW_CACHE_LINE == 0 && item_bytes > 0 && item_bytes <= UINT32_MAX);
	if (header->item_bytes != 0 && header->item_bytes != item_bytes)
		return -EUCLEAN;
	header->item_bytes = (uint32_t)item_bytes;
	*ret_nr = state->nr_items;
	return 0;
}

static int map_items(struct state *state, uint64_t first, uint64_t nr, struct mem_region *ret_region)
{
	uint64_t bytes = state->header->item_bytes;

	static_assert(STATE_ITEMS_UNIT * FSW_CACHE_LINE % FSW_PAGE_SIZE == 0, "a unit is whole pages");
	return mem_region_open_file(ret_region, state->fd, items_offset(state_max_slabs(state)) + first * bytes, nr * bytes,
				    MEM_REGION_TOUCH);
}

int state_items_map(struct state *state, uint64_t nr, struct mem_region *ret_region)
{
	assert(nr <= state->nr_items);
	return map_items(state, 0, nr, ret_region);
}

int state_items_add(struct state *state, uint64_t nr, struct mem_region *ret_region)
{
	uint64_t bytes = nr * state->header->item_bytes, available = mem_available_bytes();
	uint64_t end = items_offset(state_max_slabs(state)) + state->nr_items * state->header->item_bytes + bytes;
	int ret;

	assert(nr % STATE_ITEMS_UNIT == 0);
	if (available != 0 && bytes > available)
		return -ENOMEM;
	if (ftruncate(state->fd, (off_t)end) < 0)
		return -errno;
	ret = map_items(state, state->nr_items, nr, ret_region);
	if (ret == 0)
		state->nr_items += nr;
	return ret;
}
