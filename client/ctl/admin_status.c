#include <stdlib.h>
#include <unistd.h>

#include "client/backend/remote/remote.h"
#include "client/ctl/admin_private.h"
#include "common/base/err.h"
#include "common/sys/clock.h"
#include "common/sys/rcu.h"

/* Protobuf-c has no const strings. */
static char *text_of(const char *text)
{
	return (char *)(uintptr_t)text;
}

/* ---- status ---- */

static Farswap__Admin__V1__DaemonState daemon_state(enum admin_state state)
{
	switch (state) {
	case ADMIN_STARTING:
		return FARSWAP__ADMIN__V1__DAEMON_STATE__DAEMON_STATE_STARTING;
	case ADMIN_SERVING:
		return FARSWAP__ADMIN__V1__DAEMON_STATE__DAEMON_STATE_SERVING;
	case ADMIN_IDLE:
		return FARSWAP__ADMIN__V1__DAEMON_STATE__DAEMON_STATE_IDLE;
	case ADMIN_STOPPING:
		return FARSWAP__ADMIN__V1__DAEMON_STATE__DAEMON_STATE_STOPPING;
	}
	return FARSWAP__ADMIN__V1__DAEMON_STATE__DAEMON_STATE_UNSPECIFIED;
}

/* All that a status points at, in one piece of the call's memory. */
struct status_parts {
	Farswap__Admin__V1__FrontendStatus frontend;
	Farswap__Admin__V1__FrontendCounters counters;
	Farswap__Admin__V1__DeviceStatus device;
	Farswap__Admin__V1__IoStatus io;
	Farswap__Admin__V1__Latency reads, writes;
	Farswap__Admin__V1__ProcessStatus process;
	struct admin_frontend found;
	struct stats_snapshot snapshot[2];
};

static void fill_frontend_counters(const struct admin_frontend_counters *found,
				   Farswap__Admin__V1__FrontendCounters *counters)
{
	farswap__admin__v1__frontend_counters__init(counters);
	counters->accepted = found->accepted;
	counters->connections = found->connections;
	counters->refused = found->refused;
	counters->protocol_errors = found->protocol_errors;
	counters->truncated = found->truncated;
	counters->timeouts = found->timeouts;
	counters->bad_requests = found->bad_requests;
	counters->io_errors = found->io_errors;
	counters->kernel_errors = found->kernel_errors;
}

static void fill_frontend(const struct admin *admin, struct status_parts *parts)
{
	Farswap__Admin__V1__FrontendStatus *frontend = &parts->frontend;

	farswap__admin__v1__frontend_status__init(frontend);
	admin->options.owner.frontend(admin->options.owner.user, &parts->found);
	frontend->kind = text_of(parts->found.kind);
	frontend->endpoint = parts->found.endpoint;
	frontend->chosen_because = parts->found.chosen_because;
	frontend->swap_on = parts->found.swap_on;
	frontend->swap_used_bytes = parts->found.swap_used_bytes;
	frontend->size_bytes = vswap_nr_pages(admin->options.vswap) << FSW_PAGE_SHIFT;
	fill_frontend_counters(&parts->found.counters, &parts->counters);
	frontend->counters = &parts->counters;
}

static void fill_device(const struct admin *admin, const struct vswap_stats *stats, struct status_parts *parts)
{
	Farswap__Admin__V1__DeviceStatus *device = &parts->device;

	farswap__admin__v1__device_status__init(device);
	device->size_bytes = vswap_nr_pages(admin->options.vswap) << FSW_PAGE_SHIFT;
	device->pages_in_use = stats->nr_remote + stats->nr_disk + stats->nr_same + stats->nr_comp + stats->nr_poisoned;
	device->pages_stored_remote = stats->nr_remote;
	device->pages_stored_disk = stats->nr_disk;
	device->pages_same = stats->nr_same;
	device->pages_poisoned = stats->nr_poisoned;
	device->metadata_bytes = stats->metadata_bytes;
	device->pages_compressed = stats->nr_comp;
	device->pages_written_back = stats->nr_written_back;
	device->compressed_bytes = stats->comp.used_bytes;
	device->compress_limit_bytes = stats->comp.limit_bytes;
}

static void fill_latency(const struct stats_snapshot *snapshot, Farswap__Admin__V1__Latency *latency)
{
	farswap__admin__v1__latency__init(latency);
	latency->p50_ns = stats_snapshot_percentile(snapshot, 50);
	latency->p99_ns = stats_snapshot_percentile(snapshot, 99);
	latency->p999_ns = stats_snapshot_percentile(snapshot, 99.9);
	latency->max_ns = snapshot->max;
}

static void fill_io(const struct admin *admin, const struct vswap_stats *stats, struct status_parts *parts)
{
	Farswap__Admin__V1__IoStatus *io = &parts->io;

	farswap__admin__v1__io_status__init(io);
	io->reads = stats->nr_reads;
	io->writes = stats->nr_writes;
	io->discards = stats->nr_discards;
	io->read_pages = stats->nr_pages_read;
	io->write_pages = stats->nr_pages_written;
	io->discard_pages = stats->nr_pages_discarded;
	io->read_errors = stats->nr_read_errors;
	io->write_errors = stats->nr_write_errors;
	io->checksum_errors = stats->nr_checksum_errors;
	vswap_latency(admin->options.vswap, &parts->snapshot[0], &parts->snapshot[1]);
	fill_latency(&parts->snapshot[0], &parts->reads);
	fill_latency(&parts->snapshot[1], &parts->writes);
	io->read_latency = &parts->reads;
	io->write_latency = &parts->writes;
}

static char *granted_text(int err)
{
	return text_of(err == 0 ? "yes" : err_text(err));
}

static void fill_process(const struct admin *admin, struct status_parts *parts)
{
	Farswap__Admin__V1__ProcessStatus *process = &parts->process;

	farswap__admin__v1__process_status__init(process);
	process->memory_locked = granted_text(admin->options.rights->memory_locked);
	process->io_flusher = granted_text(admin->options.rights->io_flusher);
	process->oom_protected = granted_text(admin->options.rights->oom_score);
}

enum rpc_code admin_get_status(struct rpc_call *call, const ProtobufCMessage *request, ProtobufCMessage *message)
{
	struct admin *admin = rpc_call_user(call);
	Farswap__Admin__V1__Status *reply = (Farswap__Admin__V1__Status *)message;
	struct status_parts *parts = rpc_call_alloc(call, sizeof(*parts));
	struct vswap_stats stats;

	(void)request;
	if (!parts)
		return rpc_call_fail_memory(call);
	sys_rcu_thread_init();
	vswap_stats(admin->options.vswap, &stats);
	fill_frontend(admin, parts);
	fill_device(admin, &stats, parts);
	fill_io(admin, &stats, parts);
	fill_process(admin, parts);
	sys_rcu_thread_done();
	reply->version = text_of(FARSWAP_VERSION);
	reply->pid = (uint32_t)getpid();
	reply->uptime_ms = (sys_clock_now_ns(sys_clock_monotonic()) - admin->started_ns) / SYS_NS_PER_MS;
	reply->state = daemon_state(admin->options.owner.state(admin->options.owner.user));
	reply->frontend = &parts->frontend;
	reply->device = &parts->device;
	reply->io = &parts->io;
	reply->process = &parts->process;
	return RPC_OK;
}

/* ---- servers ---- */

static Farswap__Admin__V1__ServerState server_state(struct admin *admin, struct backend *backend)
{
	struct vswap_drain_progress progress;

	switch (backend_state(backend)) {
	case BACKEND_CONNECTING:
		return FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_CONNECTING;
	case BACKEND_DOWN:
		return FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_DOWN;
	case BACKEND_LOST:
		return FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_LOST;
	case BACKEND_UP:
		break;
	}
	if (!vswap_backend_draining(backend))
		return FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_UP;
	vswap_drain_progress(admin->options.vswap, backend, &progress);
	return progress.state == VSWAP_DRAIN_DRAINED ? FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_DRAINED
						     : FARSWAP__ADMIN__V1__SERVER_STATE__SERVER_STATE_DRAINING;
}

static void fill_counters(const struct backend *backend, Farswap__Admin__V1__Server *server)
{
	for (unsigned i = 0; i < backend->nr_queues; i++) {
		const struct backend_counters *counters = &backend->counters[i];

		server->pages_in += atomic_load_explicit(&counters->pages_read, memory_order_relaxed);
		server->pages_out += atomic_load_explicit(&counters->pages_written, memory_order_relaxed);
		server->read_errors += atomic_load_explicit(&counters->read_errors, memory_order_relaxed);
		server->write_errors += atomic_load_explicit(&counters->write_errors, memory_order_relaxed);
	}
	server->latency_ns = atomic_load_explicit(&backend->latency_ns, memory_order_relaxed);
}

/* Left out when there is nothing to tell, or no memory to tell it in. */
static void fill_data_port(struct rpc_call *call, const struct memserver_data_port *known,
			   Farswap__Admin__V1__Server *server)
{
	Farswap__Admin__V1__DataPort *port = known->known ? rpc_call_alloc(call, sizeof(*port)) : NULL;

	if (!port)
		return;
	farswap__admin__v1__data_port__init(port);
	port->accepted = known->accepted;
	port->connections = known->connections;
	port->admitted = known->admitted;
	port->refused = known->refused;
	port->protocol_errors = known->protocol_errors;
	port->truncated = known->truncated;
	port->timeouts = known->timeouts;
	port->denied_access = known->denied_access;
	port->denied_range = known->denied_range;
	server->data_port = port;
}

static void fill_remote(struct rpc_call *call, const struct admin_place *place, Farswap__Admin__V1__Server *server)
{
	uint64_t now = sys_clock_now_ns(sys_clock_monotonic());
	struct keeper_info known;
	struct remote_info info;

	keeper_info(place->keeper, &known);
	remote_info(place->backend, &info);
	server->kind = FARSWAP__ADMIN__V1__SERVER_KIND__SERVER_KIND_REMOTE;
	server->instance_id = known.instance_id;
	server->capacity_bytes = known.arena_bytes;
	server->leased_slabs = known.nr_held;
	server->slab_bytes = known.slab_bytes;
	server->reconnects = info.nr_reconnects;
	fill_data_port(call, &known.data_port, server);
	server->heartbeat_rtt_ns = info.heartbeat_rtt_ns;
	if (info.transport && info.nr_connected > 0)
		server->transport = text_of(info.transport);
	if (info.down_since_ns && info.down_since_ns < now)
		server->down_ms = (now - info.down_since_ns) / SYS_NS_PER_MS;
	if (known.last_error[0])
		server->last_error = rpc_call_printf(call, "%s", known.last_error);
	else if (info.last_error)
		server->last_error = text_of(err_text(info.last_error));
}

void admin_fill_server(struct rpc_call *call, const struct admin_place *place, Farswap__Admin__V1__Server *server)
{
	struct admin *admin = rpc_call_user(call);
	struct vswap_space space;

	if (place->keeper) {
		fill_remote(call, place, server);
	} else {
		server->kind = FARSWAP__ADMIN__V1__SERVER_KIND__SERVER_KIND_DISK;
		server->capacity_bytes = admin->options.disk_bytes;
		server->slab_bytes = admin->options.disk_slab_bytes;
		server->leased_slabs = provision_nr_disk_slabs(admin->options.provision);
	}
	vswap_space(admin->options.vswap, place->backend, &space);
	server->name = place->backend->name;
	server->state = server_state(admin, place->backend);
	server->used_slots = space.nr_used_slots;
	server->free_slots = space.nr_slots - space.nr_used_slots;
	fill_counters(place->backend, server);
}

enum rpc_code admin_list_servers(struct rpc_call *call, const ProtobufCMessage *request, ProtobufCMessage *message)
{
	struct admin *admin = rpc_call_user(call);
	Farswap__Admin__V1__ListServersResponse *reply = (Farswap__Admin__V1__ListServersResponse *)message;
	unsigned nr = admin_nr_places(admin);
	Farswap__Admin__V1__Server *servers = rpc_call_alloc(call, nr * sizeof(*servers));
	Farswap__Admin__V1__Server **pointers = rpc_call_alloc(call, nr * sizeof(Farswap__Admin__V1__Server *));

	(void)request;
	if (!servers || !pointers)
		return rpc_call_fail_memory(call);
	sys_rcu_thread_init();
	for (unsigned i = 0; i < nr; i++) {
		struct admin_place place = admin_place(admin, i);

		farswap__admin__v1__server__init(&servers[i]);
		admin_fill_server(call, &place, &servers[i]);
		pointers[i] = &servers[i];
	}
	sys_rcu_thread_done();
	reply->n_servers = nr;
	reply->servers = pointers;
	return RPC_OK;
}
