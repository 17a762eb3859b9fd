#include "server/daemon.h"

#include <assert.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/sys/reactor.h"
#include "common/sys/socket.h"
#include "common/transport/tcp/tcp.h"
#include "common/transport/verbs/verbs.h"
#include "server/ctl/lender.h"
#include "server/ctl/service.h"

/* A peer has so long to prove itself, which takes it one round trip. */
#define HANDSHAKE_MS 5000
/* Of one lease: every queue of a client (33 at most), and those that are being replaced after a failure. */
#define MAX_LEASE_CONNECTIONS 128
/* Records on the data path beyond max_leases: leases that have ended and whose connections are being cut. */
#define LEASE_RECORDS_FACTOR 2
/* How long calls that run may take to end when the server stops. */
#define SERVICE_GRACE_MS 2000

struct daemon {
	const struct settings *settings;
	struct arena *arena;
	struct expose *expose;
	struct lender *lender;
	struct sys_reactor *reactors[SETTINGS_MAX_REACTORS];
	unsigned nr_reactors;
	struct tcp_listener *listener;
	char data_address[SYS_ADDRESS_MAX]; /* that it got */
	struct sys_reactor *rdma_reactor;
	struct verbs_listener *rdma_listener;	 /* NULL: there is no RDMA */
	char rdma_address[SYS_ADDRESS_MAX];	 /* that it got */
	struct service *service;
	char control_address[CONFIG_STRING_MAX + 8]; /* that it got */
	bool ready_file_written;
};

static int daemon_open_arena(struct daemon *daemon)
{
	static const char *const page_kinds[] = {
		[MEM_REGION_PAGES_SMALL] = "small",
		[MEM_REGION_PAGES_TRANSPARENT] = "transparent huge",
		[MEM_REGION_PAGES_HUGE] = "huge",
	};
	const struct settings *settings = daemon->settings;
	char size[CONFIG_VALUE_MAX];
	int ret;

	config_format_size(settings->memory_bytes, size);
	ret = arena_open(settings->memory_bytes, settings->slab_bytes, &daemon->arena);
	if (ret == -ENOMEM) {
		log_error("memory: this machine does not have %s (%" PRIu64 "M are available)", size,
			  mem_available_bytes() >> 20);
		return ret;
	}
	if (ret < 0) {
		log_error("memory: %s cannot be locked (see RLIMIT_MEMLOCK, CAP_IPC_LOCK): %s", size, err_text(ret));
		return ret;
	}
	ret = arena_scrubber_start(daemon->arena);
	if (ret < 0) {
		log_error("the scrubber cannot be started: %s", err_text(ret));
		return ret;
	}
	log_info("%s of memory locked, in %s pages, %u slabs", size, page_kinds[arena_pages(daemon->arena)],
		 arena_nr_slabs(daemon->arena));
	return 0;
}

static int daemon_create_lender(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct expose_options expose_options = {
		.arena = daemon->arena,
		.max_leases = settings->max_leases * LEASE_RECORDS_FACTOR,
		.max_sessions = settings->max_connections,
		.max_lease_sessions = MAX_LEASE_CONNECTIONS,
	};
	struct lender_options lender_options = {
		.arena = daemon->arena,
		.clock = sys_clock_monotonic(),
		.max_leases = settings->max_leases,
		.max_lease_slabs = (uint32_t)base_min_u64(settings->max_lease_bytes / settings->slab_bytes, UINT32_MAX),
		.term_ms = (uint32_t)settings->lease_term_ms,
	};
	int ret = expose_create(&expose_options, &daemon->expose);

	if (ret == 0) {
		lender_options.expose = daemon->expose;
		ret = lender_create(&lender_options, &daemon->lender);
	}
	if (ret < 0)
		log_error("max_leases: tables for %u leases cannot be made: %s", settings->max_leases, err_text(ret));
	return ret;
}

static int daemon_create_reactors(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;

	while (daemon->nr_reactors < settings->nr_reactors) {
		char name[16];
		struct sys_reactor_options options = {
			.name = name,
			.cpu = settings->cpus[daemon->nr_reactors],
			.spin_us = settings->spin_us,
		};
		int ret;

		snprintf(name, sizeof(name), "data-%u", daemon->nr_reactors);
		ret = sys_reactor_create(&options, &daemon->reactors[daemon->nr_reactors]);
		if (ret < 0) {
			log_error("reactors: number %u cannot be made: %s", daemon->nr_reactors, err_text(ret));
			return ret;
		}
		daemon->nr_reactors++;
	}
	return 0;
}

static int daemon_listen_data(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct tcp_listener_options options = {
		.address = settings->data_listen,
		.target = expose_target(daemon->expose),
		.reactors = daemon->reactors,
		.nr_reactors = daemon->nr_reactors,
		.max_connections = settings->max_connections,
		.handshake_ms = HANDSHAKE_MS,
		/* By then its lease is over anyway, if the peer has no other connection. */
		.silence_ms = (unsigned)settings->lease_term_ms,
	};
	struct sys_address address;
	int ret = tcp_listener_open(&options, &daemon->listener);

	if (ret < 0) {
		log_error("data_listen: cannot listen on %s: %s", settings->data_listen, err_text(ret));
		return ret;
	}
	tcp_listener_address(daemon->listener, &address);
	sys_address_format(&address, daemon->data_address);
	return 0;
}

/* A thread of its own, which looks at heartbeats and registers slabs; operations need none. */
static int daemon_open_rdma(struct daemon *daemon, const char *listen)
{
	const struct settings *settings = daemon->settings;
	struct sys_reactor_options reactor_options = { .name = "rdma", .cpu = -1 };
	struct verbs_listener_options options = {
		.address = listen,
		.target = expose_target(daemon->expose),
		.max_connections = settings->max_connections,
		.handshake_ms = HANDSHAKE_MS,
		.silence_ms = (unsigned)settings->lease_term_ms,
	};
	struct sys_address address;
	int ret = sys_reactor_create(&reactor_options, &daemon->rdma_reactor);

	if (ret < 0)
		return ret;
	options.reactor = daemon->rdma_reactor;
	ret = verbs_listener_open(&options, &daemon->rdma_listener);
	if (ret < 0) {
		sys_reactor_free(daemon->rdma_reactor);
		daemon->rdma_reactor = NULL;
		return ret;
	}
	verbs_listener_address(daemon->rdma_listener, &address);
	sys_address_format(&address, daemon->rdma_address);
	return 0;
}

static int daemon_listen_rdma(struct daemon *daemon)
{
	const char *listen = daemon->settings->rdma_listen;
	int ret;

	if (strcmp(listen, "off") == 0)
		return 0;
	if (strcmp(listen, "auto") != 0) {
		ret = daemon_open_rdma(daemon, listen);
		if (ret < 0)
			log_error("rdma_listen: cannot listen on %s: %s", listen, err_text(ret));
		return ret;
	}
	if (!verbs_available()) {
		log_info("no RDMA device: data connections are TCP alone");
		return 0;
	}
	/* The port's number is free: RDMA has ports of its own. */
	ret = daemon_open_rdma(daemon, daemon->data_address);
	if (ret < 0)
		log_notice("no RDMA on %s (%s): data connections are TCP alone", daemon->data_address, err_text(ret));
	return 0;
}

static bool address_is_wildcard(const struct sys_address *address)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)&address->addr;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->addr;

	if (address->addr.ss_family == AF_INET)
		return in->sin_addr.s_addr == htonl(INADDR_ANY);
	return address->addr.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
}

/*
 * What clients are told. A wildcard is no address to connect to, and which of this machine's addresses a client can
 * reach only the client knows: it is the one by which it reached the control service, so it gets ":port" and fills that
 * in.
 */
static const char *daemon_advertised(const struct daemon *daemon)
{
	struct sys_address address;

	if (daemon->settings->data_advertise[0] != '\0')
		return daemon->settings->data_advertise;
	tcp_listener_address(daemon->listener, &address);
	return address_is_wildcard(&address) ? strrchr(daemon->data_address, ':') : daemon->data_address;
}

/* The same for RDMA; NULL when there is none. */
static const char *daemon_advertised_rdma(const struct daemon *daemon)
{
	struct sys_address address;

	if (!daemon->rdma_listener)
		return NULL;
	if (daemon->settings->rdma_advertise[0] != '\0')
		return daemon->settings->rdma_advertise;
	verbs_listener_address(daemon->rdma_listener, &address);
	return address_is_wildcard(&address) ? strrchr(daemon->rdma_address, ':') : daemon->rdma_address;
}

static void daemon_data_port(void *user, struct service_data_port *ret_port)
{
	const struct daemon *daemon = user;
	struct tcp_listener_counters came_in;
	struct verbs_listener_counters rdma = { 0 };
	struct expose_counters asked;

	tcp_listener_counters(daemon->listener, &came_in);
	if (daemon->rdma_listener)
		verbs_listener_counters(daemon->rdma_listener, &rdma);
	expose_counters(daemon->expose, &asked);
	*ret_port = (struct service_data_port){
		.accepted = came_in.accepted + rdma.accepted,
		.admitted = came_in.admitted + rdma.admitted,
		.refused = came_in.refused + rdma.refused,
		.protocol_errors = came_in.protocol_errors + rdma.protocol_errors,
		.truncated = came_in.truncated,
		.timeouts = came_in.timeouts + rdma.timeouts,
		.denied_access = asked.denied_access,
		.denied_range = asked.denied_range,
		.connections = (uint32_t)(came_in.connections + rdma.connections),
	};
}

static int daemon_listen_control(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct service_options options = {
		.lender = daemon->lender,
		.data_port = daemon_data_port,
		.user = daemon,
		.server_name = settings->name,
		.data_address = daemon_advertised(daemon),
		.rdma_address = daemon_advertised_rdma(daemon),
		.instance_id = expose_target(daemon->expose)->instance_id,
		.arena_bytes = settings->memory_bytes,
		.slab_bytes = settings->slab_bytes,
		.term_ms = (uint32_t)settings->lease_term_ms,
		.heartbeat_ms = (uint32_t)settings->heartbeat_ms,
		.max_leases = settings->max_leases,
	};
	struct rpc_status status;
	int ret = service_create(&options, &daemon->service);
	int port;

	if (ret < 0) {
		log_error("listen: the control service cannot be made: %s", err_text(ret));
		return ret;
	}
	ret = service_listen(daemon->service, settings->listen, &port, &status);
	if (ret < 0) {
		log_error("listen: %s", status.message);
		return ret;
	}
	if (port == 0)
		snprintf(daemon->control_address, sizeof(daemon->control_address), "%s", settings->listen);
	else
		snprintf(daemon->control_address, sizeof(daemon->control_address), "%.*s:%d",
			 (int)(strrchr(settings->listen, ':') - settings->listen), settings->listen, port);
	return 0;
}

/* Everything is there: let it run, the data path first, since a lease's term begins when the lease does. */
static int daemon_run(struct daemon *daemon)
{
	int ret;

	for (unsigned i = 0; i < daemon->nr_reactors; i++) {
		ret = sys_reactor_start(daemon->reactors[i]);
		if (ret < 0) {
			log_error("reactors: number %u cannot be started on cpu %d: %s", i, daemon->settings->cpus[i],
				  err_text(ret));
			return ret;
		}
	}
	if (daemon->rdma_reactor) {
		ret = sys_reactor_start(daemon->rdma_reactor);
		if (ret < 0) {
			log_error("the thread of RDMA connections cannot be started: %s", err_text(ret));
			return ret;
		}
	}
	ret = lender_ticker_start(daemon->lender);
	if (ret == 0)
		ret = service_start(daemon->service);
	if (ret < 0)
		log_error("threads cannot be started: %s", err_text(ret));
	return ret;
}

/* Whoever sees the file sees all of it. */
static int daemon_write_ready_file(struct daemon *daemon)
{
	const char *path = daemon->settings->ready_file;
	char temporary[CONFIG_STRING_MAX + 8];
	bool written;
	FILE *file;
	int ret;

	if (path[0] == '\0')
		return 0;
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	file = fopen(temporary, "we");
	if (!file) {
		ret = -errno;
		goto failed;
	}
	written = fprintf(file, "control=%s\ndata=%s\n", daemon->control_address, daemon->data_address) > 0;
	if (written && daemon->rdma_listener)
		written = fprintf(file, "rdma=%s\n", daemon->rdma_address) > 0;
	if (fclose(file) != 0 || !written || rename(temporary, path) < 0) {
		ret = errno ? -errno : -EIO;
		unlink(temporary);
		goto failed;
	}
	daemon->ready_file_written = true;
	return 0;

failed:
	log_error("ready_file: %s cannot be written: %s", path, err_text(ret));
	return ret;
}

int daemon_start(const struct settings *settings, struct daemon **ret_daemon)
{
	static int (*const steps[])(struct daemon *daemon) = {
		daemon_open_arena,     daemon_create_lender, daemon_create_reactors,	 daemon_listen_data,
		daemon_listen_rdma,    daemon_listen_control, daemon_run,		daemon_write_ready_file,
	};
	struct daemon *daemon = calloc(1, sizeof(*daemon));

	if (!daemon) {
		log_error("out of memory");
		return -ENOMEM;
	}
	daemon->settings = settings;
	for (size_t i = 0; i < BASE_ARRAY_SIZE(steps); i++) {
		int ret = steps[i](daemon);

		if (ret < 0) {
			daemon_stop(daemon);
			return ret;
		}
	}
	log_notice("ready: %s lends %u slabs, control on %s, data on %s%s%s", settings->name, arena_nr_slabs(daemon->arena),
		   daemon->control_address, daemon->data_address, daemon->rdma_listener ? ", RDMA on " : "",
		   daemon->rdma_address);
	*ret_daemon = daemon;
	return 0;
}

void daemon_begin_stop(struct daemon *daemon)
{
	uint32_t nr_leases;
	int ret;

	service_set_serving(daemon->service, false);
	ret = lender_request_drain(daemon->lender, base_max_u64(daemon->settings->stop_grace_ms, 1), "the server stops",
				   true, &nr_leases);
	assert(ret == 0); /* it fails only the second time */
	(void)ret;
}

uint32_t daemon_nr_lent(struct daemon *daemon)
{
	struct lender_capacity capacity;

	lender_capacity(daemon->lender, &capacity);
	return capacity.slabs.nr[ARENA_SLAB_LEASED];
}

void daemon_stop(struct daemon *daemon)
{
	if (!daemon)
		return;
	if (daemon->ready_file_written)
		unlink(daemon->settings->ready_file);
	if (daemon->service)
		service_stop(daemon->service, SERVICE_GRACE_MS);
	if (daemon->lender)
		lender_ticker_stop(daemon->lender);
	service_free(daemon->service);
	verbs_listener_close(daemon->rdma_listener);
	if (daemon->rdma_reactor) {
		sys_reactor_stop(daemon->rdma_reactor);
		sys_reactor_free(daemon->rdma_reactor);
	}
	tcp_listener_close(daemon->listener);
	for (unsigned i = 0; i < daemon->nr_reactors; i++) {
		sys_reactor_stop(daemon->reactors[i]);
		sys_reactor_free(daemon->reactors[i]);
	}
	lender_free(daemon->lender);
	expose_free(daemon->expose);
	arena_close(daemon->arena);
	free(daemon);
}
