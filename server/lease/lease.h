/*
 * Leases: which client holds which slabs, with which keys, and until when.
 *
 * Owns the table of leases, all of it allocated at start. Pure book-keeping: it touches no memory that is lent, no
 * connection and no clock (the time is passed in), and does nothing by itself when a lease runs out; its caller asks
 * lease_find_expired and ends them.
 *
 *     ACTIVE --lease_end--> ENDING --its last slab is removed, lease_remove--> gone
 *
 * Not synchronised: everything is called under the one lock_mutex of its owner (server/ctl).
 */
#ifndef FARSWAP_SERVER_LEASE_LEASE_H
#define FARSWAP_SERVER_LEASE_LEASE_H

#include <sys/queue.h>

#include "common/base/base.h"
#include "server/lease/name.h"

#define LEASE_TOKEN_BYTES 32
#define LEASE_MAX_LEASES (1u << 16)

struct lease_table;

struct lease_limits {
	uint32_t max_leases; /* 1 .. LEASE_MAX_LEASES */
	uint32_t max_slabs;  /* that one lease may hold; 0: as many as there are */
	uint32_t nr_slabs;   /* of the server; slabs are numbered 0 .. nr_slabs - 1 */
	uint64_t term_ns;    /* how long a lease lives without a renewal; not 0 */
};

enum lease_state {
	LEASE_ACTIVE,
	LEASE_ENDING, /* gets no more slabs, cannot be renewed; its slabs are being taken back */
};

struct lease_slab {
	LIST_ENTRY(lease_slab) link;
	struct lease *lease; /* NULL: nobody's */
	uint64_t request_number; /* of the lease, when it got the slab */
	uint32_t key;		 /* nobody's: the one that it had last, 0 before the first */
};

struct lease {
	uint64_t id; /* never 0; 0 marks an unused place in the table */
	enum lease_state state;
	uint8_t token[LEASE_TOKEN_BYTES];
	char client_name[LEASE_NAME_MAX];
	uint64_t client_id; /* the client's own word; nothing rests on it */
	uint64_t opened_ns;
	uint64_t renewed_ns;
	uint64_t request_number; /* the last one under which it got slabs, or that was closed; 0: none yet */
	uint32_t nr_slabs;
	LIST_HEAD(, lease_slab) slabs; /* those that it got last come first */
	void *owner; /* the caller's own; NULL to begin with */
};

/* 0, -EINVAL for limits out of range, -ENOMEM; -ENOSYS when libsodium has no source of random numbers. */
int lease_table_create(const struct lease_limits *limits, struct lease_table **ret_table) BASE_MUST_CHECK;
/* Wipes the tokens. Accepts NULL. */
void lease_table_free(struct lease_table *table);

const struct lease_limits *lease_table_limits(const struct lease_table *table);
uint32_t lease_table_nr_leases(const struct lease_table *table);

/*
 * A new lease with no slabs, its id and token random. It is the table's, alive until lease_remove. 0; -EINVAL or
 * -ENAMETOOLONG for the name, see lease_name_check; -EMFILE when max_leases are open.
 */
int lease_open(struct lease_table *table, const char *client_name, uint64_t client_id, uint64_t now_ns,
	       struct lease **ret_lease) BASE_MUST_CHECK;

/*
 * The lease with this id if the token is its own (compared in constant time). 0; -ENOENT no such lease, or it is
 * ending; -EACCES a wrong token.
 */
int lease_find(struct lease_table *table, uint64_t id, const uint8_t *token, size_t token_bytes,
	       struct lease **ret_lease) BASE_MUST_CHECK;
/* Without a token, for the operator and for the ticker; ending ones too. NULL when there is none. */
struct lease *lease_find_by_id(struct lease_table *table, uint64_t id);

/* A walk over all leases: NULL to begin with, NULL at the end. Meanwhile leases may be ended, but not removed. */
struct lease *lease_next(struct lease_table *table, struct lease *lease);

/* renewed_ns never goes back; ignored for a lease that is ending. */
void lease_renew(struct lease *lease, uint64_t now_ns);
/* Gives every active lease gap_ns more: the time in which the server itself did not run. */
void lease_forgive(struct lease_table *table, uint64_t gap_ns);
/* The time at which the lease runs out if it is not renewed. */
uint64_t lease_expires_ns(const struct lease_table *table, const struct lease *lease);
/* Any active lease that has run out, or NULL. */
struct lease *lease_find_expired(struct lease_table *table, uint64_t now_ns);

/* How many slabs the lease may still get; 0 when it is ending. */
uint32_t lease_room(const struct lease_table *table, const struct lease *lease);
/*
 * Gives a slab that is nobody's to a lease that has room for it, under the lease's request_number. Returns its new random
 * key, which is never 0 nor the one that the slab had before.
 */
uint32_t lease_slab_add(struct lease_table *table, struct lease *lease, uint32_t slab);
/* Whether the lease holds it under this key. Any two numbers are a good question. */
bool lease_slab_held(const struct lease_table *table, const struct lease *lease, uint32_t slab, uint32_t key);
/* Takes a slab from the lease that holds it. */
void lease_slab_remove(struct lease_table *table, struct lease *lease, uint32_t slab);
/* The number of a slab that was found by walking lease->slabs. */
uint32_t lease_slab_number(const struct lease_table *table, const struct lease_slab *slab);

/* ACTIVE -> ENDING. Safe if it is already. */
void lease_end(struct lease *lease);
/* Forgets an ending lease that has no slabs any more. */
void lease_remove(struct lease_table *table, struct lease *lease);

#endif
