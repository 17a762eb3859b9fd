#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/ctl/admin_private.h"
#include "common/base/err.h"
#include "common/sys/clock.h"
#include "common/sys/rcu.h"

#define POLL_MS 20    /* how often the end is looked for */
#define REPORT_MS 200 /* how often a message is sent meanwhile */
#define MAX_WINDOW_PAGES (1u << 20)
#define LINE_MAX_BYTES 200

/* Who streams, and since when; a rate is taken over about a second. */
struct drain_report {
	struct rpc_call *call;
	struct backend *backend;
	uint64_t rate_ns;
	uint64_t rate_moved;
	uint64_t bytes_per_second;
	struct vswap_drain_progress progress;
	char message[LINE_MAX_BYTES];
	char slot_text[VSWAP_DRAIN_MAX_STUCK][48];
	Farswap__Admin__V1__StuckSlot stuck[VSWAP_DRAIN_MAX_STUCK];
	Farswap__Admin__V1__StuckSlot *stuck_pointers[VSWAP_DRAIN_MAX_STUCK];
};

static uint64_t now_ns(void)
{
	return sys_clock_now_ns(sys_clock_monotonic());
}

/* VSWAP_DRAIN_NONE: it was cancelled and the server is in use again already. */
static Farswap__Admin__V1__DrainState drain_state(enum vswap_drain_state state)
{
	switch (state) {
	case VSWAP_DRAIN_RUNNING:
		return FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_RUNNING;
	case VSWAP_DRAIN_DRAINED:
		return FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_DRAINED;
	case VSWAP_DRAIN_NONE:
	case VSWAP_DRAIN_CANCELLED:
		return FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_CANCELLED;
	case VSWAP_DRAIN_DEADLINE:
		return FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_DEADLINE;
	case VSWAP_DRAIN_NO_ROOM:
		return FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_NO_ROOM;
	case VSWAP_DRAIN_FAILED:
		return FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_FAILED;
	}
	return FARSWAP__ADMIN__V1__DRAIN_STATE__DRAIN_STATE_UNSPECIFIED;
}

static void drain_say(struct drain_report *report)
{
	const struct vswap_drain_progress *progress = &report->progress;
	const char *name = report->backend->name;
	char *line = report->message;
	size_t size = sizeof(report->message);

	switch (progress->state) {
	case VSWAP_DRAIN_RUNNING:
		snprintf(line, size, "%" PRIu64 " pages left on %s", progress->nr_left, name);
		break;
	case VSWAP_DRAIN_DRAINED:
		snprintf(line, size, "no page is left on %s; undrain takes it back into use", name);
		break;
	case VSWAP_DRAIN_NONE:
	case VSWAP_DRAIN_CANCELLED:
		snprintf(line, size, "cancelled with %" PRIu64 " pages left on %s", progress->nr_left, name);
		break;
	case VSWAP_DRAIN_DEADLINE:
		snprintf(line, size, "the deadline has passed with %" PRIu64 " pages left on %s; nothing is lost",
			 progress->nr_left, name);
		break;
	case VSWAP_DRAIN_NO_ROOM:
		snprintf(line, size, "nowhere is room for the %" PRIu64 " pages left on %s; nothing is lost",
			 progress->nr_left, name);
		break;
	case VSWAP_DRAIN_FAILED:
		snprintf(line, size, "%" PRIu64 " pages on %s cannot be moved", progress->nr_left, name);
		break;
	}
}

static uint64_t rate_of(uint64_t nr_pages, uint64_t elapsed_ns)
{
	return elapsed_ns ? (uint64_t)((double)nr_pages * FSW_PAGE_SIZE * SYS_NS_PER_S / (double)elapsed_ns) : 0;
}

static void drain_measure(struct drain_report *report)
{
	const struct vswap_drain_progress *progress = &report->progress;
	uint64_t now = now_ns();

	if (progress->state != VSWAP_DRAIN_RUNNING) {
		report->bytes_per_second = rate_of(progress->nr_moved, progress->elapsed_ns);
	} else if (now - report->rate_ns >= SYS_NS_PER_S || report->bytes_per_second == 0) {
		report->bytes_per_second = rate_of(progress->nr_moved - report->rate_moved, now - report->rate_ns);
		if (now - report->rate_ns >= SYS_NS_PER_S) {
			report->rate_ns = now;
			report->rate_moved = progress->nr_moved;
		}
	}
}

static void drain_list_stuck(struct drain_report *report, Farswap__Admin__V1__DrainProgress *message)
{
	const struct vswap_drain_progress *progress = &report->progress;

	for (unsigned i = 0; i < progress->nr_stuck_listed; i++) {
		farswap__admin__v1__stuck_slot__init(&report->stuck[i]);
		snprintf(report->slot_text[i], sizeof(report->slot_text[i]), "slab %u slot %u", progress->stuck[i].slab,
			 progress->stuck[i].slot);
		report->stuck[i].slot = report->slot_text[i];
		report->stuck[i].reason = (char *)(uintptr_t)err_text(progress->stuck[i].err);
		report->stuck_pointers[i] = &report->stuck[i];
	}
	message->n_stuck = progress->nr_stuck_listed;
	message->stuck = report->stuck_pointers;
}

/* 0 or the error of rpc_call_send. */
static int drain_send(struct drain_report *report)
{
	Farswap__Admin__V1__DrainProgress message = FARSWAP__ADMIN__V1__DRAIN_PROGRESS__INIT;
	const struct vswap_drain_progress *progress = &report->progress;

	drain_measure(report);
	drain_say(report);
	message.state = drain_state(progress->state);
	message.pages_total_at_start = progress->nr_start;
	message.pages_moved = progress->nr_moved;
	message.pages_left = progress->nr_left;
	message.pages_stuck = progress->nr_stuck;
	message.bytes_per_second = report->bytes_per_second;
	message.elapsed_ms = progress->elapsed_ns / SYS_NS_PER_MS;
	message.longest_read_stall_ns = progress->longest_read_ns;
	message.message = report->message;
	if (progress->state != VSWAP_DRAIN_RUNNING)
		drain_list_stuck(report, &message);
	return rpc_call_send(report->call, &message.base);
}

/* 0 when the drain has ended and that was said; else why nobody is told any more. */
static int drain_follow(struct admin *admin, struct drain_report *report)
{
	uint64_t report_ns = 0;
	int ret;

	report->rate_ns = now_ns();
	do {
		vswap_drain_progress(admin->options.vswap, report->backend, &report->progress);
		ret = 0;
		if (report->progress.state != VSWAP_DRAIN_RUNNING || now_ns() >= report_ns) {
			ret = drain_send(report);
			report_ns = now_ns() + REPORT_MS * SYS_NS_PER_MS;
		}
		if (ret < 0 || report->progress.state != VSWAP_DRAIN_RUNNING)
			return ret;
		ret = rpc_call_wait(report->call, POLL_MS);
	} while (ret >= 0);
	return ret;
}

/* RPC_OK, or the call has failed: what is asked for makes no sense. */
static enum rpc_code drain_options_unpack(struct rpc_call *call, const Farswap__Admin__V1__DrainRequest *request,
					  struct vswap_drain_options *options)
{
	*options = (struct vswap_drain_options){
		.deadline_ms = request->deadline_ms,
		.window_pages = request->window_pages,
	};
	if (strcmp(request->target, "") == 0 || strcmp(request->target, "any") == 0)
		options->target = VSWAP_DRAIN_TO_ANY;
	else if (strcmp(request->target, "remote") == 0)
		options->target = VSWAP_DRAIN_TO_REMOTE;
	else if (strcmp(request->target, "disk") == 0)
		options->target = VSWAP_DRAIN_TO_DISK;
	else
		return rpc_call_fail(call, RPC_INVALID_ARGUMENT, "target: '%.40s' is none of any, remote, disk",
				     request->target);
	if (request->window_pages > MAX_WINDOW_PAGES)
		return rpc_call_fail(call, RPC_INVALID_ARGUMENT, "window_pages: %u is more than %u",
				     request->window_pages, MAX_WINDOW_PAGES);
	if (request->deadline_ms > UINT64_MAX / SYS_NS_PER_MS / 2)
		return rpc_call_fail(call, RPC_INVALID_ARGUMENT, "deadline_ms: %" PRIu64 " is too far away",
				     request->deadline_ms);
	return RPC_OK;
}

static enum rpc_code drain_begin(struct rpc_call *call, const struct admin_place *place,
				 const struct vswap_drain_options *options)
{
	struct admin *admin = rpc_call_user(call);
	const char *name = place->backend->name;
	const struct backend *busy = NULL;
	int ret;

	if (!place->keeper && options->target == VSWAP_DRAIN_TO_DISK)
		return rpc_call_fail(call, RPC_INVALID_ARGUMENT, "target: %s cannot be drained to itself", name);
	if (options->target == VSWAP_DRAIN_TO_DISK && !admin->options.disk)
		return rpc_call_fail(call, RPC_INVALID_ARGUMENT, "target: this daemon has no disk");
	ret = drains_start(admin->options.drains, place->backend, options, &busy);
	provision_wake(admin->options.provision);
	if (ret == 0 || ret == -EALREADY)
		return RPC_OK;
	if (ret == -ENOTCONN)
		return rpc_call_fail(call, RPC_FAILED_PRECONDITION, "%s holds no pages: it is not connected", name);
	if (ret == -EBUSY)
		return rpc_call_fail(call, RPC_FAILED_PRECONDITION, "a drain of %s is running; one at a time",
				     busy ? busy->name : "another server");
	return rpc_call_fail_errno(call, ret, "drain of %s", name);
}

enum rpc_code admin_drain(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Farswap__Admin__V1__DrainRequest *request = (const Farswap__Admin__V1__DrainRequest *)message;
	struct admin *admin = rpc_call_user(call);
	struct drain_report *report = rpc_call_alloc(call, sizeof(*report));
	struct vswap_drain_options options;
	struct admin_place place;
	enum rpc_code code;
	int ret;

	if (!report)
		return rpc_call_fail_memory(call);
	code = admin_find(call, request->server, &place);
	if (code == RPC_OK)
		code = drain_options_unpack(call, request, &options);
	if (code != RPC_OK)
		return code;
	sys_rcu_thread_init();
	code = drain_begin(call, &place, &options);
	if (code == RPC_OK) {
		report->call = call;
		report->backend = place.backend;
		ret = drain_follow(admin, report);
		if (ret == -ESHUTDOWN)
			code = rpc_call_fail(call, RPC_UNAVAILABLE, "the daemon stops");
		else if (ret < 0)
			code = rpc_call_fail_errno(call, ret, "drain of %s", place.backend->name);
	}
	sys_rcu_thread_done();
	return code;
}

/* ---- swapoff ---- */

static int swapoff_send(struct rpc_call *call, const struct admin *admin, bool done)
{
	Farswap__Admin__V1__SwapoffProgress message = FARSWAP__ADMIN__V1__SWAPOFF_PROGRESS__INIT;
	struct admin_frontend frontend;
	char line[LINE_MAX_BYTES];

	admin->options.owner.frontend(admin->options.owner.user, &frontend);
	message.swap_used_bytes = frontend.swap_on ? frontend.swap_used_bytes : 0;
	message.done = done;
	if (done)
		snprintf(line, sizeof(line), "swap is off and the front end is down");
	else
		snprintf(line, sizeof(line), "%" PRIu64 " MiB still to be read back", message.swap_used_bytes >> 20);
	message.message = line;
	return rpc_call_send(call, &message.base);
}

/* 0 done; -ENODATA: the kernel refused, see *ret_refused; else nobody is told any more. */
static int swapoff_follow(struct rpc_call *call, struct admin *admin, uint64_t ticket, int *ret_refused)
{
	uint64_t report_ns = 0;
	int ret;

	do {
		int result = admin->options.owner.swapoff_result(admin->options.owner.user, ticket);

		if (result == 0)
			return swapoff_send(call, admin, true);
		if (result != -EINPROGRESS) {
			*ret_refused = result;
			return -ENODATA;
		}
		ret = 0;
		if (now_ns() >= report_ns) {
			ret = swapoff_send(call, admin, false);
			report_ns = now_ns() + REPORT_MS * SYS_NS_PER_MS;
		}
		if (ret == 0)
			ret = rpc_call_wait(call, POLL_MS);
	} while (ret >= 0);
	/* A daemon that leaves stops this service as soon as the front end is down: that is success. */
	if (ret == -ESHUTDOWN && admin->options.owner.swapoff_result(admin->options.owner.user, ticket) == 0)
		ret = swapoff_send(call, admin, true);
	return ret;
}

enum rpc_code admin_swapoff(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Farswap__Admin__V1__SwapoffRequest *request = (const Farswap__Admin__V1__SwapoffRequest *)message;
	struct admin *admin = rpc_call_user(call);
	uint64_t ticket;
	int ret, refused = 0;

	ret = admin->options.owner.swapoff(admin->options.owner.user, request->exit, &ticket);
	if (ret == -EALREADY)
		return rpc_call_fail(call, RPC_UNAVAILABLE, "the daemon is being stopped");
	if (ret == -EBUSY)
		return rpc_call_fail(call, RPC_FAILED_PRECONDITION, "a swapoff is under way already");
	if (ret < 0)
		return rpc_call_fail_errno(call, ret, "swapoff");
	ret = swapoff_follow(call, admin, ticket, &refused);
	if (ret == -ENODATA)
		return rpc_call_fail(call, RPC_FAILED_PRECONDITION, "swap cannot be turned off: %s", err_text(refused));
	if (ret == -ESHUTDOWN)
		return rpc_call_fail(call, RPC_UNAVAILABLE, "the daemon stops");
	return ret < 0 ? rpc_call_fail_errno(call, ret, "swapoff") : RPC_OK;
}
