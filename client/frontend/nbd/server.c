/*
 * The server as a whole: it listens, if it has an address, hands each connection to the worker that has the fewest, and is
 * taken down.
 *
 * Connections are accepted by a thread of their own, so that no reactor has a listening socket to ask epoll about.
 */
#include "client/frontend/nbd/internal.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/frontend/frontend.h"
#include "common/base/err.h"
#include "common/log/log.h"
#include "common/sys/thread.h"

#define DEFAULT_CONNECTIONS 64u
#define DEFAULT_QUEUE_DEPTH 128u
#define DEFAULT_HANDSHAKE_MS 10000u
#define DEFAULT_STALL_MS 60000u
#define CONNECTIONS_MAX 4096u
#define QUEUE_DEPTH_MAX 1024u
/* How long to leave the queue of the listening socket alone when there are no descriptors to be had. */
#define EXHAUSTED_WAIT_MS 100

/* One that is given to a worker. NULL when all are in use. */
static struct nbd_conn *take_free(struct nbd_server *server) LOCK_EXCLUDES(server->lock)
{
	struct nbd_conn *conn;
	unsigned best = 0;

	lock_acquire(&server->lock);
	conn = TAILQ_FIRST(&server->free_conns);
	if (conn) {
		TAILQ_REMOVE(&server->free_conns, conn, link);
		for (unsigned i = 1; i < server->nr_queues; i++)
			if (server->nr_conns[i] < server->nr_conns[best])
				best = i;
		server->nr_conns[best]++;
		conn->worker = &server->workers[best];
	}
	lock_release(&server->lock);
	return conn;
}

void nbd_server_release(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->worker->server;

	lock_acquire(&server->lock);
	server->nr_conns[conn->worker - server->workers]--;
	/* At the end: the longest time passes before it is used again. */
	TAILQ_INSERT_TAIL(&server->free_conns, conn, link);
	lock_release(&server->lock);
}

static void hand_over(struct nbd_conn *conn, int fd, bool attached)
{
	conn->fd = fd;
	conn->attached = attached;
	sys_reactor_send(conn->worker->reactor, &conn->adopt);
}

int nbd_server_attach(struct nbd_server *server, int fd)
{
	struct nbd_conn *conn = take_free(server);

	if (!conn)
		return -EMFILE;
	stats_counter_add(&server->attached, 1);
	hand_over(conn, fd, true);
	return 0;
}

static void accept_one(struct nbd_server *server)
{
	struct pollfd stop = { .fd = server->stop_fd, .events = POLLIN };
	struct nbd_conn *conn;
	int fd;

	fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			log_warning("nbd: cannot take a connection: %s", err_text(-errno));
			(void)poll(&stop, 1, EXHAUSTED_WAIT_MS);
		}
		return;
	}
	stats_counter_add(&server->accepted, 1);
	conn = take_free(server);
	if (!conn) {
		stats_counter_add(&server->turned_away, 1);
		log_info("nbd: a client was turned away: %u connections are the limit", server->max_connections);
		close(fd);
		return;
	}
	sys_socket_tune(fd, 0, 0);
	hand_over(conn, fd, false);
}

static void *acceptor_main(void *arg)
{
	struct nbd_server *server = arg;
	struct pollfd fds[2] = {
		{ .fd = server->stop_fd, .events = POLLIN },
		{ .fd = server->listen_fd, .events = POLLIN },
	};

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[0].revents)
			return NULL;
		if (fds[1].revents)
			accept_one(server);
	}
}

static int take_options(struct nbd_server *server, const struct nbd_server_options *options)
{
	server->vswap = options->vswap;
	server->export_bytes = vswap_nr_pages(options->vswap) << FSW_PAGE_SHIFT;
	server->nr_queues = options->nr_queues;
	server->max_connections = options->max_connections ? options->max_connections : DEFAULT_CONNECTIONS;
	server->queue_depth = options->queue_depth ? options->queue_depth : DEFAULT_QUEUE_DEPTH;
	server->spin_ns = options->spin_us * SYS_NS_PER_US;
	server->handshake_ns =
		(options->handshake_ms ? options->handshake_ms : DEFAULT_HANDSHAKE_MS) * SYS_NS_PER_MS;
	server->stall_ns = (options->stall_ms ? options->stall_ms : DEFAULT_STALL_MS) * SYS_NS_PER_MS;
	if (server->nr_queues == 0 || server->max_connections > CONNECTIONS_MAX ||
	    server->queue_depth > QUEUE_DEPTH_MAX)
		return -EINVAL;
	server->listens = options->address != NULL;
	if (!server->listens)
		return 0;
	return sys_address_parse(options->address, true, &server->address);
}

static int open_conns(struct nbd_server *server) LOCK_NO_ANALYSIS
{
	int ret;

	server->conns = calloc(server->max_connections, sizeof(*server->conns));
	server->nr_conns = calloc(server->nr_queues, sizeof(*server->nr_conns));
	if (!server->conns || !server->nr_conns)
		return -ENOMEM;
	ret = frontend_memory_open(&server->staging, (size_t)server->max_connections * NBD_STAGING_BYTES, "nbd");
	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < server->max_connections; i++) {
		struct nbd_conn *conn = &server->conns[i];

		nbd_conn_init(conn);
		conn->staging = (unsigned char *)server->staging.base + (size_t)i * NBD_STAGING_BYTES;
		TAILQ_INSERT_TAIL(&server->free_conns, conn, link);
	}
	return 0;
}

static void close_conns(struct nbd_server *server) LOCK_NO_ANALYSIS
{
	mem_region_close(&server->staging);
	free(server->nr_conns);
	free(server->conns);
}

static int open_workers(struct nbd_server *server)
{
	unsigned nr;
	int ret;

	server->workers = aligned_alloc(FSW_CACHE_LINE, server->nr_queues * sizeof(*server->workers));
	if (!server->workers)
		return -ENOMEM;
	memset(server->workers, 0, server->nr_queues * sizeof(*server->workers));
	for (nr = 0; nr < server->nr_queues; nr++) {
		ret = nbd_worker_init(&server->workers[nr], server, nr);
		if (ret < 0)
			goto out_workers;
	}
	return 0;

out_workers:
	while (nr > 0)
		nbd_worker_done(&server->workers[--nr]);
	free(server->workers);
	return ret;
}

static void close_workers(struct nbd_server *server)
{
	for (unsigned i = 0; i < server->nr_queues; i++)
		nbd_worker_done(&server->workers[i]);
	free(server->workers);
}

/* The port that the kernel chose, if it was left to it. */
static void read_back_address(struct nbd_server *server)
{
	struct sys_address bound = { .len = sizeof(bound.addr) };

	if (getsockname(server->listen_fd, (struct sockaddr *)&bound.addr, &bound.len) == 0)
		server->address = bound;
}

static void unlink_socket(const struct nbd_server *server)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&server->address.addr;

	if (un->sun_family == AF_UNIX && un->sun_path[0] != '\0')
		(void)unlink(un->sun_path);
}

static int open_listener(struct nbd_server *server)
{
	int ret;

	if (!server->listens)
		return 0;
	server->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (server->stop_fd < 0)
		return -errno;
	server->listen_fd = sys_socket_listen(&server->address, 128);
	if (server->listen_fd < 0) {
		ret = server->listen_fd;
		goto out_stop_fd;
	}
	read_back_address(server);
	ret = sys_thread_start(&server->acceptor, "nbd-accept", -1, acceptor_main, server);
	if (ret < 0)
		goto out_listen;
	return 0;

out_listen:
	unlink_socket(server);
	close(server->listen_fd);
out_stop_fd:
	close(server->stop_fd);
	return ret;
}

static void close_listener(struct nbd_server *server)
{
	uint64_t one = 1;
	ssize_t written;

	if (!server->listens)
		return;
	written = write(server->stop_fd, &one, sizeof(one));
	assert(written == sizeof(one));
	(void)written;
	pthread_join(server->acceptor, NULL);
	unlink_socket(server);
	close(server->listen_fd);
	close(server->stop_fd);
}

int nbd_server_open(const struct nbd_server_options *options, struct nbd_server **ret_server)
{
	struct nbd_server *server;
	int ret;

	server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	lock_mutex_init(&server->lock);
	TAILQ_INIT(&server->free_conns);
	ret = take_options(server, options);
	if (ret < 0)
		goto out_free;
	ret = open_conns(server);
	if (ret < 0)
		goto out_conns;
	ret = open_workers(server);
	if (ret < 0)
		goto out_conns;
	ret = open_listener(server);
	if (ret < 0)
		goto out_workers;
	*ret_server = server;
	return 0;

out_workers:
	close_workers(server);
out_conns:
	close_conns(server);
out_free:
	lock_mutex_done(&server->lock);
	free(server);
	return ret;
}

/* Gives the turn in which something happened its end. */
static void pass_by(void *arg)
{
	(void)arg;
}

void nbd_server_close(struct nbd_server *server)
{
	if (!server)
		return;
	close_listener(server);
	for (unsigned i = 0; i < server->nr_queues; i++)
		sys_reactor_call(server->workers[i].reactor, nbd_worker_shut_down, &server->workers[i]);
	for (unsigned i = 0; i < server->nr_queues; i++) {
		while (sem_wait(&server->workers[i].idle) < 0)
			assert(errno == EINTR);
		sys_reactor_call(server->workers[i].reactor, pass_by, NULL);
	}
	close_workers(server);
	close_conns(server);
	lock_mutex_done(&server->lock);
	free(server);
}

void nbd_server_address(const struct nbd_server *server, struct sys_address *ret_address)
{
	*ret_address = server->address;
}

void nbd_server_counters(const struct nbd_server *server, struct nbd_server_counters *ret_counters)
{
	struct nbd_server_counters sum = {
		.accepted = stats_counter_read(&server->accepted) + stats_counter_read(&server->attached),
		.refused = stats_counter_read(&server->turned_away),
	};

	for (unsigned i = 0; i < server->nr_queues; i++) {
		const struct nbd_worker_counters *counters = &server->workers[i].counters;
		uint64_t closed = stats_counter_read(&counters->closed);

		sum.refused += stats_counter_read(&counters->refused);
		sum.protocol_errors += stats_counter_read(&counters->protocol_errors);
		sum.truncated += stats_counter_read(&counters->truncated);
		sum.timeouts += stats_counter_read(&counters->timeouts);
		sum.connections += stats_counter_read(&counters->opened) - closed;
		sum.reads += stats_counter_read(&counters->reads);
		sum.writes += stats_counter_read(&counters->writes);
		sum.trims += stats_counter_read(&counters->trims);
		sum.flushes += stats_counter_read(&counters->flushes);
		sum.bad_requests += stats_counter_read(&counters->bad_requests);
		sum.io_errors += stats_counter_read(&counters->io_errors);
	}
	*ret_counters = sum;
}
