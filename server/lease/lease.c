#include "server/lease/lease.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"

struct lease_table {
	struct lease_limits limits;
	uint32_t nr_leases;
	struct lease *leases;	  /* max_leases of them */
	struct lease_slab *slabs; /* nr_slabs of them */
};

int lease_table_create(const struct lease_limits *limits, struct lease_table **ret_table)
{
	struct lease_table *table;

	if (limits->max_leases == 0 || limits->max_leases > LEASE_MAX_LEASES || limits->nr_slabs == 0 ||
	    limits->nr_slabs == UINT32_MAX || limits->term_ns == 0)
		return -EINVAL;
	if (sodium_init() < 0)
		return -ENOSYS;
	table = calloc(1, sizeof(*table));
	if (!table)
		return -ENOMEM;
	table->limits = *limits;
	if (table->limits.max_slabs == 0 || table->limits.max_slabs > limits->nr_slabs)
		table->limits.max_slabs = limits->nr_slabs;
	table->leases = calloc(limits->max_leases, sizeof(*table->leases));
	table->slabs = calloc(limits->nr_slabs, sizeof(*table->slabs));
	if (!table->leases || !table->slabs) {
		lease_table_free(table);
		return -ENOMEM;
	}
	*ret_table = table;
	return 0;
}

void lease_table_free(struct lease_table *table)
{
	if (!table)
		return;
	if (table->leases)
		sodium_memzero(table->leases, table->limits.max_leases * sizeof(*table->leases));
	free(table->leases);
	free(table->slabs);
	free(table);
}

const struct lease_limits *lease_table_limits(const struct lease_table *table)
{
	return &table->limits;
}

uint32_t lease_table_nr_leases(const struct lease_table *table)
{
	return table->nr_leases;
}

struct lease *lease_find_by_id(struct lease_table *table, uint64_t id)
{
	if (id == 0)
		return NULL;
	for (uint32_t i = 0; i < table->limits.max_leases; i++) {
		if (table->leases[i].id == id)
			return &table->leases[i];
	}
	return NULL;
}

static uint64_t table_new_id(struct lease_table *table)
{
	uint64_t id;

	do
		randombytes_buf(&id, sizeof(id));
	while (id == 0 || lease_find_by_id(table, id));
	return id;
}

int lease_open(struct lease_table *table, const char *client_name, uint64_t client_id, uint64_t now_ns,
	       struct lease **ret_lease)
{
	struct lease *lease = table->leases;
	int ret = lease_name_check(client_name);

	if (ret < 0)
		return ret;
	if (table->nr_leases == table->limits.max_leases)
		return -EMFILE;
	while (lease->id != 0)
		lease++;
	lease->id = table_new_id(table);
	lease->state = LEASE_ACTIVE;
	randombytes_buf(lease->token, sizeof(lease->token));
	snprintf(lease->client_name, sizeof(lease->client_name), "%s", client_name);
	lease->client_id = client_id;
	lease->opened_ns = now_ns;
	lease->renewed_ns = now_ns;
	lease->request_number = 0;
	lease->nr_slabs = 0;
	LIST_INIT(&lease->slabs);
	table->nr_leases++;
	*ret_lease = lease;
	return 0;
}

int lease_find(struct lease_table *table, uint64_t id, const uint8_t *token, size_t token_bytes,
	       struct lease **ret_lease)
{
	struct lease *lease = lease_find_by_id(table, id);

	if (!lease || lease->state != LEASE_ACTIVE)
		return -ENOENT;
	if (token_bytes != sizeof(lease->token) || sodium_memcmp(token, lease->token, sizeof(lease->token)) != 0)
		return -EACCES;
	*ret_lease = lease;
	return 0;
}

struct lease *lease_next(struct lease_table *table, struct lease *lease)
{
	struct lease *end = table->leases + table->limits.max_leases;

	for (lease = lease ? lease + 1 : table->leases; lease < end; lease++) {
		if (lease->id != 0)
			return lease;
	}
	return NULL;
}

void lease_renew(struct lease *lease, uint64_t now_ns)
{
	if (lease->state == LEASE_ACTIVE)
		lease->renewed_ns = base_max_u64(lease->renewed_ns, now_ns);
}

void lease_forgive(struct lease_table *table, uint64_t gap_ns)
{
	for (struct lease *lease = NULL; (lease = lease_next(table, lease)) != NULL;) {
		if (lease->state == LEASE_ACTIVE)
			lease->renewed_ns += gap_ns;
	}
}

uint64_t lease_expires_ns(const struct lease_table *table, const struct lease *lease)
{
	return lease->renewed_ns + table->limits.term_ns;
}

struct lease *lease_find_expired(struct lease_table *table, uint64_t now_ns)
{
	for (struct lease *lease = NULL; (lease = lease_next(table, lease)) != NULL;) {
		if (lease->state == LEASE_ACTIVE && now_ns > lease_expires_ns(table, lease))
			return lease;
	}
	return NULL;
}

uint32_t lease_room(const struct lease_table *table, const struct lease *lease)
{
	return lease->state == LEASE_ACTIVE ? table->limits.max_slabs - lease->nr_slabs : 0;
}

uint32_t lease_slab_add(struct lease_table *table, struct lease *lease, uint32_t slab)
{
	struct lease_slab *record;
	uint32_t key;

	assert(slab < table->limits.nr_slabs && lease_room(table, lease) > 0);
	record = &table->slabs[slab];
	assert(!record->lease);
	do
		key = randombytes_random();
	while (key == 0 || key == record->key);
	record->key = key;
	record->request_number = lease->request_number;
	record->lease = lease;
	LIST_INSERT_HEAD(&lease->slabs, record, link);
	lease->nr_slabs++;
	return key;
}

bool lease_slab_held(const struct lease_table *table, const struct lease *lease, uint32_t slab, uint32_t key)
{
	return slab < table->limits.nr_slabs && table->slabs[slab].lease == lease && table->slabs[slab].key == key;
}

void lease_slab_remove(struct lease_table *table, struct lease *lease, uint32_t slab)
{
	struct lease_slab *record;

	assert(slab < table->limits.nr_slabs);
	record = &table->slabs[slab];
	assert(record->lease == lease);
	LIST_REMOVE(record, link);
	record->lease = NULL;
	lease->nr_slabs--;
}

uint32_t lease_slab_number(const struct lease_table *table, const struct lease_slab *slab)
{
	return (uint32_t)(slab - table->slabs);
}

void lease_end(struct lease *lease)
{
	lease->state = LEASE_ENDING;
}

void lease_remove(struct lease_table *table, struct lease *lease)
{
	assert(lease->id != 0 && lease->state == LEASE_ENDING && lease->nr_slabs == 0);
	sodium_memzero(lease, sizeof(*lease));
	table->nr_leases--;
}
