/*
 * What must outlive the daemon, in one file of memory: the cluster tables of the virtual swap layer (forward words and
 * checksums), which slabs back them, and the sessions with the servers that lend these. A daemon that is killed while its
 * device is in use leaves the file; the next one maps it, and goes on. Everything else is derived from it (vswap_rebuild).
 *
 * The file is only ever mapped and stored to, so it costs the data path nothing, and a store has been done when it was
 * executed: what dies is the process, not the machine. So no more is needed than an order of stores that can end anywhere,
 * which each record here and the tables (table.h) say of themselves.
 *
 * Memory that is swapped out to the device which it describes could never be read again, and the lock of a daemon's memory
 * ends with the daemon. So the file belongs on a file system whose pages stay: see state_folder_open.
 *
 * Threads: a record has one writer at a time, its owner. The rest is for control threads.
 */
#ifndef FARSWAP_CLIENT_STATE_STATE_H
#define FARSWAP_CLIENT_STATE_STATE_H

#include <stdatomic.h>

#include "common/base/base.h"
#include "common/mem/region.h"

#define STATE_ERROR_MAX 512
#define STATE_MAX_SESSIONS 64u
#define STATE_NAME_BYTES 128u
#define STATE_PATH_BYTES 256u
#define STATE_TOKEN_BYTES 32u
#define STATE_DISK UINT32_MAX /* in struct state_slab: the slab is the disk's */

struct state;

/* What pages depend on, so that it cannot change while there are any. */
struct state_shape {
	uint64_t nr_pages;
	uint32_t nr_queues;
	uint32_t max_slabs;
	uint64_t disk_bytes; /* as configured */
	uint64_t disk_slab_bytes;
	char disk[STATE_PATH_BYTES]; /* empty: none */
};

enum state_wish_kind {
	STATE_WISH_NONE,
	STATE_WISH_NOTHING_NEW, /* no page is placed there */
	STATE_WISH_EMPTY,	/* and those that are there are to be moved */
};

/* What the operator wants of a backend. `kind` is written last. */
struct state_wish {
	_Atomic uint32_t kind;	 /* enum state_wish_kind */
	_Atomic uint32_t target; /* of EMPTY: where to, as the virtual swap layer numbers it */
};

/* A session with a memory server. `stands` is written last when it begins, and first when it has ended. */
struct state_session {
	_Atomic uint32_t stands;
	uint32_t heartbeat_ms;
	uint64_t lease_id;
	uint64_t instance_id;
	uint64_t slab_bytes;
	uint32_t term_ms;
	uint32_t by_rdma;
	uint8_t token[STATE_TOKEN_BYTES];
	char server[STATE_NAME_BYTES];	     /* as configured */
	char data_address[STATE_NAME_BYTES]; /* where its connections go */
	_Atomic uint64_t request_number;     /* of the last call for slabs */
	_Atomic uint32_t unanswered;	     /* from before that call until all that it has lent is in records */
	struct state_wish wish;		     /* of the server, whether or not the session stands */
};

enum state_slab_status {
	STATE_SLAB_NONE,
	STATE_SLAB_HELD,      /* words may name it */
	STATE_SLAB_RETURNING, /* none does any more, and its lender has it not yet again */
};

/* A slab, at the number by which words name it. `status` is written last when it comes, and alone when it goes. */
struct state_slab {
	_Atomic uint32_t status;
	uint32_t session; /* the number of its record, or STATE_DISK */
	uint32_t index;	  /* the lender's number of it, and key */
	uint32_t key;
	uint32_t nr_slots;
};

/*
 * Control thread. Sees to it that the folder is there and that pages of files in it are never swapped: mounts a ramfs on it
 * if they might be. 0; -ENOENT and others of mkdir; or those of mount, and the folder is there, but as it was.
 */
int state_folder_open(const char *path) BASE_MUST_CHECK;

/*
 * Opens the file, or makes it. Of what a dead daemon has left (state_is_left) only sessions are forgotten that had ended;
 * not what the operator wants of their servers.
 *
 * 0; -EBUSY: a daemon that runs has it; -EUCLEAN: it is damaged, or of another version; -ENOMEM; others of open. Each with a
 * line in ret_error that names the file.
 */
int state_open(const char *path, const struct state_shape *shape, struct state **ret_state,
	       char ret_error[STATE_ERROR_MAX]) BASE_MUST_CHECK;
/* With `remove`, which is for when nobody needs it any more, the file goes. Accepts NULL. */
void state_close(struct state *state, bool remove);

/* There is something to go on with. */
bool state_is_left(const struct state *state);
/* Whether it can be gone on with in this shape: 0, or -EINVAL with a line that names the setting that is different. */
int state_check_shape(const struct state *state, const struct state_shape *shape, char ret_error[STATE_ERROR_MAX])
	BASE_MUST_CHECK;
/* What was left is of no use: begins anew. 0, -ENOMEM or those of ftruncate. */
int state_discard(struct state *state, const struct state_shape *shape) BASE_MUST_CHECK;

/* The device whose holders the pages belong to; an empty kind: there was none yet, so nobody holds any. */
void state_set_device(struct state *state, const char *kind, uint32_t id, uint64_t identity);
/* identity: what tells it from others that have the same number before or after it. */
const char *state_device(const struct state *state, uint32_t *ret_id, uint64_t *ret_identity);
bool state_has_device(const struct state *state);
/* A number, 1 .. 4095, that is the same for the same path, and of two paths most likely not. */
unsigned state_number(const struct state *state);

/* ---- records ---- */

/* The session with this server, or a free record of its name. NULL: there is no room, or the name is too long. */
struct state_session *state_session_of(struct state *state, const char *server);
uint32_t state_session_number(const struct state *state, const struct state_session *session);
struct state_session *state_session(struct state *state, uint32_t number); /* below STATE_MAX_SESSIONS */

/* By the number of its session's record, or STATE_DISK. */
struct state_wish *state_wish(struct state *state, uint32_t number);

struct state_slab *state_slab(struct state *state, uint32_t id); /* below max_slabs of the shape */
uint32_t state_max_slabs(const struct state *state);
/* Writes a record, which is free. */
void state_slab_hold(struct state_slab *slab, uint32_t session, uint32_t index, uint32_t key, uint32_t nr_slots);

/* ---- items: memory of equal pieces, which only grows ---- */

/* How many items of this size there are. 0 or -EUCLEAN: they have another size. */
int state_items_begin(struct state *state, size_t item_bytes, uint64_t *ret_nr) BASE_MUST_CHECK;
/* Maps nr items that are there, from the first. */
int state_items_map(struct state *state, uint64_t nr, struct mem_region *ret_region) BASE_MUST_CHECK;
/* Adds nr items, all zeros, a multiple of STATE_ITEMS_UNIT. 0, -ENOMEM, or those of ftruncate. */
#define STATE_ITEMS_UNIT 64u /* of items that are cache lines as a whole: whole pages */
int state_items_add(struct state *state, uint64_t nr, struct mem_region *ret_region) BASE_MUST_CHECK;

#endif
