/*
 * What the cases of the transports' suite stand on: a lender with two leases and a slab for each, and a client of it,
 * over each of the transports.
 */
#ifndef FARSWAP_TESTS_CONFORM_TRANSPORT_ENV_H
#define FARSWAP_TESTS_CONFORM_TRANSPORT_ENV_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/transport/tcp/tcp.h"
#include "common/transport/verbs/verbs.h"
#include "tests/conform/client.h"
#include "tests/conform/target.h"

#define INSTANCE 77
#define LEASE 5
#define OTHER_LEASE 6
#define KEY 0xabcdef01u
#define OTHER_KEY 0x10203040u
#define SLAB_BYTES (4u << 20)
#define DEPTH 32

enum { SLAB, OTHER_SLAB };

struct env {
	struct target target;
	struct transport_driver *driver;
	struct transport_driver *inner; /* below driver, if it is a layer */
	struct tcp_listener *listener;
	struct verbs_listener *verbs_listener;
	struct sys_reactor *reactors[2];
	char address[SYS_ADDRESS_MAX];
	struct client client;
	char *bytes;
	char *other_bytes;
};

struct factory {
	const char *name;
	void (*open)(struct env *env);
	void (*close)(struct env *env);
	/* A slab that was reached before and is taken back may take the connection down with it (transport_op.done). */
	bool revoked_takes_down;
};

#define NR_FACTORIES 4u
extern const struct factory factories[NR_FACTORIES];

struct state {
	const struct factory *factory;
	struct env env;
};

/* For cmocka: from a factory to a state, and its end. */
int env_set_up(void **arg);
int env_tear_down(void **arg);

struct transport_connect_options options_for(struct env *env, uint64_t lease_id, uint32_t channel);
void fill(char *bytes, size_t len_bytes, uint64_t seed);
/* A page goes to the first lease's slab and comes back. */
void check_works(struct env *env, struct client *client, uint64_t offset_bytes);

#endif
