#include "tests/bench/device.h"

#include <stdlib.h>
#include <string.h>

#include "common/sys/rcu.h"
#include "common/sys/thread.h"

/* ---- a backend that forgets ---- */

static int null_submit(struct backend *backend, unsigned queue, struct backend_io *io)
{
	struct null_server *server = BASE_CONTAINER_OF(backend, struct null_server, backend);

	TAILQ_INSERT_TAIL(&server->queue[queue].pending, io, link);
	return 0;
}

static void null_read(const struct device *device, struct backend_io *io)
{
	uint32_t i;
	size_t at;

	for (i = 0; i < io->nr_iov; i++)
		for (at = 0; at < io->iov[i].iov_len; at += FSW_PAGE_SIZE)
			memcpy((char *)io->iov[i].iov_base + at, device->io.buf, FSW_PAGE_SIZE);
}

static unsigned null_poll(struct sys_poller *poller)
{
	struct null_queue *queue = BASE_CONTAINER_OF(poller, struct null_queue, poller);
	struct backend_io *io;
	unsigned nr = 0;

	for (; (io = TAILQ_FIRST(&queue->pending)) != NULL; nr++) {
		TAILQ_REMOVE(&queue->pending, io, link);
		if (io->op == IO_READ)
			null_read(queue->server->device, io);
		io->done(io, 0);
	}
	return nr;
}

static const struct backend_ops null_ops = { .name = "null", .submit = null_submit };

static void null_server_init(struct device *device, struct null_server *server)
{
	unsigned i;

	server->device = device;
	server->backend.ops = &null_ops;
	server->backend.kind = BACKEND_REMOTE;
	server->backend.nr_queues = DEVICE_QUEUES + 1;
	atomic_store(&server->backend.state, BACKEND_UP);
	for (i = 0; i <= DEVICE_QUEUES; i++) {
		server->queue[i].server = server;
		TAILQ_INIT(&server->queue[i].pending);
		server->queue[i].poller.poll = null_poll;
		sys_poller_add(device->reactor[i], &server->queue[i].poller);
	}
	bench_check("backend", vswap_backend_add(device->vswap, &server->backend));
}

/* Every page of it is the same, and nothing that a SAME page could hold. */
static void device_create_buffer(struct device *device)
{
	struct rand_state rand = { .s = 1 };
	char *pages = aligned_alloc(FSW_PAGE_SIZE, DEVICE_RUN * FSW_PAGE_SIZE);
	unsigned i;

	for (i = 0; i < FSW_PAGE_SIZE / 8; i++)
		((uint64_t *)(void *)pages)[i] = rand_next(&rand);
	for (i = 1; i < DEVICE_RUN; i++)
		memcpy(pages + (size_t)i * FSW_PAGE_SIZE, pages, FSW_PAGE_SIZE);
	device->io.buf = pages;
}

struct device *device_create(uint64_t nr_pages, uint64_t nr_entries)
{
	struct vswap_options options = { .nr_pages = nr_pages, .nr_entries = nr_entries, .nr_queues = DEVICE_QUEUES,
					 .max_slabs = 1024 };
	struct device *device = calloc(1, sizeof(*device));
	unsigned i;

	device_create_buffer(device);
	bench_check("vswap", vswap_create(&options, &device->vswap));
	for (i = 0; i <= DEVICE_QUEUES; i++) {
		struct sys_reactor_options reactor = { .name = "bench", .cpu = -1, .manual = true };

		bench_check("reactor", sys_reactor_create(&reactor, &device->reactor[i]));
		vswap_queue_bind(device->vswap, i, device->reactor[i]);
	}
	for (i = 0; i < DEVICE_SERVERS; i++)
		null_server_init(device, &device->server[i]);
	return device;
}

void device_free(struct device *device)
{
	unsigned i, s;

	vswap_free(device->vswap);
	for (s = 0; s < DEVICE_SERVERS; s++)
		for (i = 0; i <= DEVICE_QUEUES; i++)
			sys_poller_remove(&device->server[s].queue[i].poller);
	for (i = 0; i <= DEVICE_QUEUES; i++)
		sys_reactor_free(device->reactor[i]);
	free(device->io.buf);
	free(device);
}

void device_turn(struct device *device)
{
	unsigned i;

	for (i = 0; i <= DEVICE_QUEUES; i++)
		sys_reactor_turn(device->reactor[i]);
}

void device_add_slabs(struct device *device, unsigned server, unsigned nr)
{
	for (; nr; nr--) {
		struct backend_slab *slab = &device->slab[device->nr_slabs];

		*slab = (struct backend_slab){ .backend = &device->server[server].backend, .index = device->nr_slabs++,
					       .nr_slots = DEVICE_SLAB_SLOTS };
		bench_check("slab", vswap_slab_add(device->vswap, slab));
	}
}

void device_done(struct fsw_io *io, int status)
{
	BASE_CONTAINER_OF(io, struct device, io)->done = true;
	bench_check("request", status);
}

static void device_submit_on_reactor(void *arg)
{
	struct device *device = arg;

	vswap_submit(vswap_queue(device->vswap, 0), &device->io);
}

void device_do(struct device *device, enum io_op op, uint64_t page)
{
	device->io.op = (uint8_t)op;
	device->io.page = page;
	device->io.nr_pages = DEVICE_RUN;
	device->io.done = device_done;
	device->done = false;
	sys_reactor_call(device->reactor[0], device_submit_on_reactor, device);
	while (!device->done)
		device_turn(device);
}

void device_fill(struct device *device, uint64_t first, uint64_t nr_pages)
{
	uint64_t page;

	for (page = first; page < first + nr_pages; page += DEVICE_RUN) {
		if (page % (DEVICE_RUN * 32) == 0)
			bench_check("refill", vswap_refill(device->vswap));
		device_do(device, IO_WRITE, page);
	}
}

/* ---- steps ---- */

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	uint64_t began;

	sys_rcu_thread_init();
	sys_rcu_read_lock();
	pthread_barrier_wait(worker->barrier);
	began = bench_now_ns();
	worker->run(worker);
	worker->elapsed_ns = bench_now_ns() - began;
	sys_rcu_read_unlock();
	sys_rcu_thread_done();
	return NULL;
}

/* ns per step of each of so many threads. */
static double step_ns(struct device *device, const struct bench_options *options, unsigned nr_threads,
		      uint64_t range_pages, unsigned nr_steps, void (*run)(struct worker *worker))
{
	struct worker worker[DEVICE_THREADS];
	pthread_barrier_t barrier;
	uint64_t sum_ns = 0;
	unsigned i;

	pthread_barrier_init(&barrier, NULL, nr_threads);
	for (i = 0; i < nr_threads; i++) {
		worker[i] = (struct worker){ .device = device, .number = i, .range_pages = range_pages, .run = run,
					     .nr_steps = nr_steps,
					     .barrier = &barrier };
		bench_check("thread", sys_thread_start(&worker[i].thread, "bench-step", bench_cpu(options, (int)i),
						       worker_main, &worker[i]));
	}
	for (i = 0; i < nr_threads; i++) {
		pthread_join(worker[i].thread, NULL);
		sum_ns += worker[i].elapsed_ns;
	}
	pthread_barrier_destroy(&barrier);
	return (double)sum_ns / nr_threads / nr_steps;
}

json_t *measure_step(struct device *device, const struct bench_options *options, uint64_t range_pages, unsigned nr_steps,
		     void (*run)(struct worker *worker), void (*empty)(struct worker *worker))
{
	static const char *const name[DEVICE_THREADS] = { "ns_1_thread", "ns_2_threads" };
	json_t *object = json_object();
	double ns[BENCH_MAX_RUNS];
	unsigned nr, i;

	for (nr = 1; nr <= DEVICE_THREADS; nr++) {
		for (i = 0; i < options->nr_runs; i++)
			ns[i] = step_ns(device, options, nr, range_pages, nr_steps, run) -
				(empty ? step_ns(device, options, nr, range_pages, nr_steps, empty) : 0);
		json_object_set_new(object, name[nr - 1], json_real(bench_median(ns, options->nr_runs)));
	}
	return object;
}
