#include "tests/bench/device.h"

#include <stdlib.h>

#include "common/sys/rcu.h"
#include "common/sys/thread.h"

/* ---- a backend that forgets ---- */

static int null_submit(struct backend *backend, unsigned queue, struct backend_io *io)
{
	struct device *device = BASE_CONTAINER_OF(backend, struct device, backend);

	TAILQ_INSERT_TAIL(&device->queue[queue].pending, io, link);
	return 0;
}

static unsigned null_poll(struct sys_poller *poller)
{
	struct null_queue *queue = BASE_CONTAINER_OF(poller, struct null_queue, poller);
	struct backend_io *io;
	unsigned nr = 0;

	for (; (io = TAILQ_FIRST(&queue->pending)) != NULL; nr++) {
		TAILQ_REMOVE(&queue->pending, io, link);
		io->done(io, 0);
	}
	return nr;
}

static const struct backend_ops null_ops = { .name = "null", .submit = null_submit };

void device_turn(struct device *device)
{
	unsigned i;

	for (i = 0; i <= DEVICE_QUEUES; i++)
		sys_reactor_turn(device->reactor[i]);
}

struct device *device_create(uint64_t nr_pages, uint64_t nr_entries)
{
	struct vswap_options options = { .nr_pages = nr_pages, .nr_entries = nr_entries, .nr_queues = DEVICE_QUEUES,
					 .max_slabs = 1024 };
	struct device *device = calloc(1, sizeof(*device));
	struct rand_state rand = { .s = 1 };
	unsigned i;

	device->io.buf = aligned_alloc(FSW_PAGE_SIZE, DEVICE_RUN * FSW_PAGE_SIZE);
	for (i = 0; i < DEVICE_RUN * FSW_PAGE_SIZE / 8; i++)
		((uint64_t *)device->io.buf)[i] = rand_next(&rand);

	bench_check("vswap", vswap_create(&options, &device->vswap));
	device->backend.ops = &null_ops;
	device->backend.kind = BACKEND_REMOTE;
	device->backend.nr_queues = DEVICE_QUEUES + 1;
	atomic_store(&device->backend.state, BACKEND_UP);
	for (i = 0; i <= DEVICE_QUEUES; i++) {
		struct sys_reactor_options reactor = { .name = "bench", .cpu = -1, .manual = true };

		bench_check("reactor", sys_reactor_create(&reactor, &device->reactor[i]));
		vswap_queue_bind(device->vswap, i, device->reactor[i]);
		TAILQ_INIT(&device->queue[i].pending);
		device->queue[i].poller.poll = null_poll;
		sys_poller_add(device->reactor[i], &device->queue[i].poller);
	}
	bench_check("backend", vswap_backend_add(device->vswap, &device->backend));
	return device;
}

void device_free(struct device *device)
{
	unsigned i;

	vswap_free(device->vswap);
	for (i = 0; i <= DEVICE_QUEUES; i++) {
		sys_poller_remove(&device->queue[i].poller);
		sys_reactor_free(device->reactor[i]);
	}
	free(device->io.buf);
	free(device);
}

void device_add_slabs(struct device *device, unsigned nr)
{
	for (; nr; nr--) {
		struct backend_slab *slab = &device->slab[device->nr_slabs];

		*slab = (struct backend_slab){ .backend = &device->backend, .index = device->nr_slabs++,
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
