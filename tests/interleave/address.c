#include "tests/interleave/address.h"

#include <assert.h>
#include <string.h>

#include "tests/interleave/interleave.h"

#define NR_ADDRESSES (1u << 14) /* of the table; a power of two */

struct held {
	uintptr_t lock[ADDRESS_MAX_GUARDS];
	uint8_t nr;
};

static struct {
	struct address address[NR_ADDRESSES];
	struct address_counters counters;
	uint32_t nr_numbers;
	struct held held[INTERLEAVE_MAX_SCRIPTS];
} known;

void addresses_forget(void)
{
	memset(&known, 0, sizeof(known));
}

void addresses_begin(void)
{
	memset(known.held, 0, sizeof(known.held));
}

const struct address_counters *addresses_counters(void)
{
	return &known.counters;
}

/* ---- locks ---- */

/* held->nr when it is not one of them. */
static uint8_t held_find(const struct held *held, uintptr_t lock)
{
	uint8_t i = 0;

	while (i < held->nr && held->lock[i] != lock)
		i++;
	return i;
}

void addresses_locked(unsigned script, uintptr_t lock)
{
	struct held *held = &known.held[script];

	assert(held->nr < ADDRESS_MAX_GUARDS);
	held->lock[held->nr++] = lock;
}

void addresses_unlocked(unsigned script, uintptr_t lock)
{
	struct held *held = &known.held[script];
	uint8_t i = held_find(held, lock);

	assert(i < held->nr);
	held->lock[i] = held->lock[--held->nr];
}

/* ---- addresses ---- */

struct address *address_find(uintptr_t at)
{
	uint32_t i = (uint32_t)(at * 0x9e3779b97f4a7c15u >> 40) & (NR_ADDRESSES - 1);

	while (known.address[i].at && known.address[i].at != at)
		i = (i + 1) & (NR_ADDRESSES - 1);
	if (!known.address[i].at) {
		known.address[i].at = at;
		assert(++known.counters.nr < NR_ADDRESSES / 2);
	}
	return &known.address[i];
}

uint32_t address_number(struct address *address)
{
	if (address->number == 0)
		address->number = ++known.nr_numbers;
	return address->number;
}

/* Locks that are not held this time guard it no more. False: all are. */
static bool address_guard(struct address *address, const struct held *held)
{
	uint8_t nr_before = address->nr_guards, i = 0;

	while (i < address->nr_guards)
		if (held_find(held, address->guard[i]) < held->nr)
			i++;
		else
			address->guard[i] = address->guard[--address->nr_guards];
	return address->nr_guards != nr_before;
}

/* Those of the scripts in `mask` for whom there is another one in `others`. */
static uint8_t who_meets(uint8_t mask, uint8_t others)
{
	bool several = (others & (others - 1)) != 0;

	if (others == 0 || several)
		return several ? mask : 0;
	return mask & (uint8_t)~others;
}

static void address_open(struct address *address)
{
	uint8_t readers = 0, writers = 0;
	bool mattered = address_matters(address);

	if (address->nr_guards == 0) {
		readers = who_meets(address->readers, address->writers);
		writers = who_meets(address->writers, address->readers | address->writers);
	}
	known.counters.nr_learned += readers != address->open_readers || writers != address->open_writers;
	address->open_readers = readers;
	address->open_writers = writers;
	known.counters.nr_mattering += !mattered && address_matters(address);
}

void address_learn(struct address *address, unsigned script, bool writes)
{
	const struct held *held = &known.held[script];
	uint8_t *mask = writes ? &address->writers : &address->readers, bit = (uint8_t)(1u << script);
	bool is_new = !(*mask & bit);

	if (!address->readers && !address->writers) {
		address->nr_guards = held->nr;
		memcpy(address->guard, held->lock, sizeof(address->guard));
	}
	*mask |= bit;
	if (address_guard(address, held) || is_new)
		address_open(address);
}
