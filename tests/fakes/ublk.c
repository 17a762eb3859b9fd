#include "tests/fakes/ublk.h"

#include <assert.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/frontend/ublk/abi.h"
#include "client/frontend/ublk/internal.h"
#include "common/base/rand.h"
#include "tests/fakes/ublk_internal.h"
#include "tests/fakes/uring.h"

#define DESCS_BYTES (UBLK_MAX_QUEUE_DEPTH * sizeof(struct ublksrv_io_desc))
#define SECTORS_PER_PAGE (FSW_PAGE_SIZE >> UBLK_SECTOR_SHIFT)

struct fake_tag {
	uint64_t page; /* from here on it is asked for */
	unsigned nr_pages;
	bool fetched; /* the server has fetched for it */
	bool busy;    /* and has a request of it */
	bool asked;   /* it has been asked where to copy this write's data */
};

static struct {
	struct ublksrv_io_desc *descs;
	struct fake_tag tags[FAKE_RING_ENTRIES];
	unsigned nr_tags;
	unsigned nr_fetched;
	bool plain; /* numbers of commands are not encoded */
	int fetch_error;
	struct sys_reactor *fetched_by;
	char pattern[FSW_PAGE_SIZE]; /* of every page, but for its first word */

	struct fake_ublk_load load;
	struct rand_state rand;
	uint64_t nr_started, nr_ended;
	sem_t over;
} fake;

/* ---- requests ---- */

static uint64_t total(void)
{
	return fake.load.nr_before + fake.load.nr_requests + fake.load.nr_after;
}

/* Asks the server for what the tag has yet to do. */
static void ask(unsigned tag)
{
	struct ublksrv_io_desc *desc = &fake.descs[tag];

	desc->op_flags = fake.load.write ? UBLK_IO_OP_WRITE : UBLK_IO_OP_READ;
	desc->nr_sectors = fake.tags[tag].nr_pages * SECTORS_PER_PAGE;
	desc->start_sector = fake.tags[tag].page * SECTORS_PER_PAGE;
	fake_ring_complete(FAKE_RING_64, tag, fake.load.write ? UBLK_IO_RES_NEED_GET_DATA : UBLK_IO_RES_OK);
}

static void start(unsigned tag)
{
	uint64_t nr = fake.load.nr_pages / fake.load.nr_pages_each;
	uint64_t at = fake.load.in_order ? fake.nr_started % nr : rand_below(&fake.rand, nr);

	if (fake.nr_started == fake.load.nr_before && fake.load.begin)
		fake.load.begin();
	fake.nr_started++;
	fake.tags[tag] = (struct fake_tag){ .page = at * fake.load.nr_pages_each, .nr_pages = fake.load.nr_pages_each,
					    .fetched = fake.tags[tag].fetched, .busy = true };
	ask(tag);
}

/* How many of the pages the driver can copy now. */
static unsigned nr_copied(const struct fake_tag *tag)
{
	switch (fake.load.copies) {
	case FAKE_UBLK_COPIES_NOTHING_FIRST:
		return tag->asked ? tag->nr_pages : 0;
	case FAKE_UBLK_COPIES_HALF:
		return tag->nr_pages - tag->nr_pages / 2;
	case FAKE_UBLK_COPIES_ALL:
		break;
	}
	return tag->nr_pages;
}

static void fill_page(uint64_t page, char *bytes)
{
	memcpy(bytes, fake.pattern, FSW_PAGE_SIZE);
	memcpy(bytes, &page, sizeof(page));
}

/* The server asks for what a write has. */
static void give_data(unsigned tag, char *to)
{
	unsigned nr = nr_copied(&fake.tags[tag]);

	fake.tags[tag].asked = true;
	fake.descs[tag].addr = (uintptr_t)to; /* as the driver says where it has put them */
	if (nr == 0) {
		ask(tag);
		return;
	}
	for (unsigned i = 0; i < nr; i++)
		fill_page(fake.tags[tag].page + i, to + (size_t)i * FSW_PAGE_SIZE);
	fake.descs[tag].nr_sectors = nr * SECTORS_PER_PAGE;
	fake_ring_complete(FAKE_RING_64, tag, UBLK_IO_RES_OK);
}

static void check_page(uint64_t page, const char *bytes)
{
	if (memcmp(bytes, &page, sizeof(page)) != 0 || memcmp(bytes + 8, fake.pattern + 8, FSW_PAGE_SIZE - 8) != 0)
		abort();
}

static void end(unsigned tag, const struct ublksrv_io_cmd *command)
{
	struct fake_tag *request = &fake.tags[tag];
	unsigned nr = fake.descs[tag].nr_sectors / SECTORS_PER_PAGE;

	if (!request->busy || command->result != (int)(nr * FSW_PAGE_SIZE))
		abort();
	for (unsigned i = 0; i < nr && !fake.load.write; i++)
		check_page(request->page + i, (const char *)(uintptr_t)command->addr + (size_t)i * FSW_PAGE_SIZE);
	request->page += nr;
	request->nr_pages -= nr;
	if (request->nr_pages > 0) {
		ask(tag);
		return;
	}
	request->busy = false;
	if (++fake.nr_ended == fake.load.nr_before + fake.load.nr_requests && fake.load.end)
		fake.load.end();
	if (fake.nr_started < total())
		start(tag);
	else if (fake.nr_ended == total())
		sem_post(&fake.over);
}

static void fetch(unsigned tag)
{
	if (fake.tags[tag].fetched)
		abort();
	if (fake.fetch_error < 0) {
		fake_ring_complete(FAKE_RING_64, tag, fake.fetch_error);
		fake_ring_wake(FAKE_RING_64);
		return;
	}
	fake.tags[tag].fetched = true;
	fake.nr_fetched++;
	fake.fetched_by = sys_reactor_self();
}

static void carry_out(const struct io_uring_sqe *sqe)
{
	struct ublksrv_io_cmd command;
	unsigned nr = _IOC_NR(sqe->cmd_op);

	memcpy(&command, sqe->cmd, sizeof(command));
	assert(command.tag < fake.nr_tags && sqe->user_data == command.tag);
	if (sqe->cmd_op != (fake.plain ? nr : (uint32_t)UBLK_ABI_IO(nr)))
		abort();
	switch (nr) {
	case UBLK_IO_FETCH_REQ:
		fetch(command.tag);
		break;
	case UBLK_IO_NEED_GET_DATA:
		give_data(command.tag, (char *)(uintptr_t)command.addr);
		break;
	case UBLK_IO_COMMIT_AND_FETCH_REQ:
		end(command.tag, &command);
		break;
	default:
		abort();
	}
}

/* ---- for who has it ---- */

int fake_ublk_open(unsigned nr_tags)
{
	int fd = memfd_create("ublk", MFD_CLOEXEC);

	assert(nr_tags <= FAKE_RING_ENTRIES);
	if (fd < 0 || ftruncate(fd, (off_t)DESCS_BYTES) < 0)
		abort();
	fake.descs = mmap(NULL, DESCS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fake.descs == MAP_FAILED)
		abort();
	fake.nr_tags = nr_tags;
	for (size_t i = 0; i < FSW_PAGE_SIZE; i += 8) {
		uint64_t word = rand_next(&fake.rand);

		memcpy(fake.pattern + i, &word, 8);
	}
	sem_init(&fake.over, 0, 0);
	memset(fake.tags, 0, sizeof(fake.tags));
	fake.nr_fetched = 0;
	fake.plain = false;
	fake.fetch_error = 0;
	fake_ring_drive(FAKE_RING_64, carry_out);
	return fd;
}

void fake_ublk_close(int fd)
{
	sem_destroy(&fake.over);
	munmap(fake.descs, DESCS_BYTES);
	close(fd);
}

static void run_on_reactor(void *arg)
{
	const struct fake_ublk_load *load = arg;

	assert(load->depth <= fake.nr_tags && load->depth <= load->nr_before && load->nr_pages_each > 0);
	fake.load = *load;
	fake.nr_started = fake.nr_ended = 0;
	fake_ring_refuse(FAKE_RING_64, load->nr_refused);
	for (unsigned i = 0; i < fake.load.depth; i++)
		start(i);
	fake_ring_wake(FAKE_RING_64);
}

void fake_ublk_run(const struct fake_ublk_load *load)
{
	struct fake_ublk_load copy = *load;

	sys_reactor_call(load->reactor, run_on_reactor, &copy);
	while (sem_wait(&fake.over) != 0)
		;
}

static void stop_on_reactor(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < fake.nr_tags; i++) {
		if (fake.tags[i].fetched)
			fake_ring_complete(FAKE_RING_64, i, UBLK_IO_RES_ABORT);
		fake.tags[i].fetched = false;
	}
	fake.nr_fetched = 0;
	fake_ring_wake(FAKE_RING_64);
}

void fake_ublk_stop(struct sys_reactor *reactor)
{
	sys_reactor_call(reactor, stop_on_reactor, NULL);
}

/* ---- for the control device ---- */

void fake_ublk_encode(bool encoded, int fetch_error)
{
	fake.plain = !encoded;
	fake.fetch_error = fetch_error;
}

bool fake_ublk_is_fetched(void)
{
	return fake.nr_fetched == fake.nr_tags;
}

void fake_ublk_end_fetched(void)
{
	if (fake.nr_fetched > 0)
		fake_ublk_stop(fake.fetched_by);
}
