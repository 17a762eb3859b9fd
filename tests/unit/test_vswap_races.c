/* deps: client_vswap */
/*
 * Two queues with threads of their own that work on the same pages at the same time. What may be read afterwards is known
 * although the order is not.
 */
#include "client/vswap/page.h"
#include "tests/unit/vswap_fixture.h"

#include <semaphore.h>

#define RACE_ROUNDS 400u

struct racer {
	struct sys_reactor *reactor;
	struct vswap_queue *queue;
	struct fsw_io io;
	struct sys_message go;
	sem_t ended;
	int status;
};

static void racer_done(struct fsw_io *io, int status)
{
	struct racer *racer = BASE_CONTAINER_OF(io, struct racer, io);

	racer->status = status;
	sem_post(&racer->ended);
}

static void racer_go(struct sys_message *message)
{
	struct racer *racer = BASE_CONTAINER_OF(message, struct racer, go);

	vswap_submit(racer->queue, &racer->io);
}

static void racer_start(struct racer *racer, enum io_op op, uint64_t page, uint64_t nr_pages)
{
	racer->io.op = (uint8_t)op;
	racer->io.page = page;
	racer->io.nr_pages = nr_pages;
	racer->io.done = racer_done;
	racer->go.run = racer_go;
	sys_reactor_send(racer->reactor, &racer->go);
}

static void racer_wait(struct racer *racer)
{
	while (sem_wait(&racer->ended) < 0)
		;
	assert_int_equal(racer->status, 0);
}

static void racers_open(struct vswap **ret_vswap, struct racer racer[3])
{
	struct vswap_options options = { .nr_pages = 1 << 20, .nr_queues = 2, .max_slabs = 4, .reserve_tables = 8192,
					 .seed = 1 };
	unsigned i;

	assert_int_equal(vswap_create(&options, ret_vswap), 0);
	for (i = 0; i < 3; i++) {
		struct sys_reactor_options reactor = { .name = "race", .cpu = -1 };

		memset(&racer[i], 0, sizeof(racer[i]));
		assert_int_equal(sem_init(&racer[i].ended, 0, 0), 0);
		assert_int_equal(sys_reactor_create(&reactor, &racer[i].reactor), 0);
		vswap_queue_bind(*ret_vswap, i, racer[i].reactor);
		racer[i].queue = vswap_queue(*ret_vswap, i);
		racer[i].io.buf = aligned_alloc(FSW_PAGE_SIZE, IO_MAX_PAGES * FSW_PAGE_SIZE);
		assert_non_null(racer[i].io.buf);
	}
	for (i = 0; i < 3; i++)
		assert_int_equal(sys_reactor_start(racer[i].reactor), 0);
}

static void racers_close(struct vswap *vswap, struct racer racer[3])
{
	unsigned i;

	for (i = 0; i < 3; i++)
		sys_reactor_stop(racer[i].reactor);
	assert_int_equal(vswap_check(vswap), 0);
	vswap_free(vswap);
	for (i = 0; i < 3; i++) {
		sys_reactor_free(racer[i].reactor);
		sem_destroy(&racer[i].ended);
		free(racer[i].io.buf);
	}
}

/*
 * One queue writes a cluster that was never used while another discards the first half of it. What the discard does to
 * pages that the write has just published must not make the table look empty while the write still works in it: the second
 * half was written, acknowledged and touched by nobody else.
 */
static void test_discard_of_what_is_being_written(void **state)
{
	struct racer racer[3];
	struct vswap *vswap;
	unsigned round, i;

	(void)state;
	racers_open(&vswap, racer);
	for (round = 0; round < RACE_ROUNDS; round++) {
		uint64_t page = (uint64_t)round * TABLE_ENTRIES;

		for (i = 0; i < TABLE_ENTRIES; i++) /* one value per page, and one that fits into a word */
			page_fill(request_page(&racer[0].io, i), round + 1);
		racer_start(&racer[0], IO_WRITE, page, TABLE_ENTRIES);
		for (i = 0; i < 8; i++) {
			racer_start(&racer[1], IO_DISCARD, page, TABLE_ENTRIES / 2);
			racer_wait(&racer[1]);
		}
		racer_wait(&racer[0]);
		memset(racer[0].io.buf, 0xff, TABLE_ENTRIES * FSW_PAGE_SIZE);
		racer_start(&racer[0], IO_READ, page + TABLE_ENTRIES / 2, TABLE_ENTRIES / 2);
		racer_wait(&racer[0]);
		for (i = 0; i < TABLE_ENTRIES / 2; i++) {
			const uint64_t *words = request_page(&racer[0].io, i);

			if (words[0] != round + 1)
				fail_msg("round %u: page %u was written and holds %llu", round, TABLE_ENTRIES / 2 + i,
					 (unsigned long long)words[0]);
		}
	}
	racers_close(vswap, racer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_discard_of_what_is_being_written),
	};

	log_init("test_vswap_races", LOG_LEVEL_ERROR);
	sys_rcu_thread_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
