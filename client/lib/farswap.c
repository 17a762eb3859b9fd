#include "client/lib/farswap.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/private.h"
#include "common/log/log.h"
#include "common/rpc/rpc.h"
#include "common/sys/rcu.h"
#include "common/sys/thread.h"

static_assert(sizeof(struct sys_message) <= sizeof(((struct farswap_task *)0)->message_), "the message fits");
static_assert(FARSWAP_ERROR_MAX == NODE_ERROR_MAX, "an error fits");
static_assert((int)FARSWAP_LOG_ERROR == LOG_LEVEL_ERROR && (int)FARSWAP_LOG_DEBUG == LOG_LEVEL_DEBUG,
	      "the same levels");

const char *farswap_version(void)
{
	return FARSWAP_VERSION;
}

/* ---- once per process ---- */

static void init_log(void)
{
	log_init("libfarswap", LOG_LEVEL_WARNING);
}

static void init_log_once(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init_log);
}

/* liburcu's own thread is made by the first thread that registers, and has that one's signals: so it is made here. */
static void init_threads(void)
{
	rpc_init_guest();
	sys_rcu_thread_init();
	sys_rcu_thread_done();
}

static struct {
	void (*write)(enum farswap_log_level level, const char *text, void *arg);
	void *arg;
} user_log;

static void write_to_user(enum log_level level, const char *text, void *arg)
{
	(void)arg;
	user_log.write((enum farswap_log_level)level, text, user_log.arg);
}

void farswap_set_log(enum farswap_log_level max_level,
		     void (*write)(enum farswap_log_level level, const char *text, void *arg), void *arg)
{
	init_log_once();
	atomic_store_explicit(&log_max_level, (int)max_level, memory_order_relaxed);
	user_log.write = write;
	user_log.arg = arg;
	log_set_writer(write ? write_to_user : NULL, NULL);
}

/* ---- open and close ---- */

/* Threads are born with the signals of who makes them. The program's own are back when what makes threads returns. */
static void block_signals(sigset_t *ret_before)
{
	pthread_sigmask(SIG_SETMASK, NULL, ret_before);
	sys_signals_block();
}

static void restore_signals(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

static void end_node(struct node *node)
{
	sigset_t before;

	block_signals(&before);
	node_stop(node);
	sys_rcu_barrier(); /* folios are released by the last grace periods */
	node_free(node);
	restore_signals(&before);
}

static int start_node(const struct library_options *options, struct node **ret_node, char error[NODE_ERROR_MAX])
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct node_options node_options = library_options_of_node(options);
	struct node *node = NULL;
	sigset_t before;
	int ret;

	block_signals(&before);
	pthread_once(&once, init_threads);
	ret = node_create(&node_options, &node, error);
	if (ret == 0)
		ret = node_start(node, error);
	restore_signals(&before);
	if (ret == 0)
		*ret_node = node;
	else if (node)
		end_node(node);
	return ret;
}

/* The error says that there is no room: why not, by the first server that there is. The log has all of them. */
static void add_reason(const struct node *node, char error[NODE_ERROR_MAX])
{
	size_t at = strlen(error);
	struct keeper_info info;
	const char *reason;

	if (node->nr_servers == 0)
		return;
	keeper_info(node->keeper[0], &info);
	reason = info.has_session ? "has no slab to give" : "has not answered yet";
	snprintf(error + at, NODE_ERROR_MAX - at, "; %s: %s", node->remote[0]->name,
		 info.last_error[0] ? info.last_error : reason);
}

static int open_node(const struct farswap_options *options, struct node **ret_node, char error[NODE_ERROR_MAX])
{
	struct library_options taken;
	struct node *node = NULL;
	int ret = library_options_take(options, &taken, error);

	if (ret < 0)
		return ret;
	ret = start_node(&taken, &node, error);
	if (ret < 0)
		return ret;
	ret = node_wait_for_room(node, taken.given.start_timeout_ms, error);
	if (ret < 0) {
		add_reason(node, error);
		end_node(node);
		return ret;
	}
	*ret_node = node;
	return 0;
}

int farswap_open(const struct farswap_options *options, struct farswap **ret_farswap, char *ret_error,
		 size_t error_bytes)
{
	struct farswap *farswap = calloc(1, sizeof(*farswap));
	char error[NODE_ERROR_MAX] = "out of memory";
	int ret = -ENOMEM;

	init_log_once();
	if (farswap)
		ret = open_node(options, &farswap->node, error);
	if (ret == 0) {
		*ret_farswap = farswap;
		return 0;
	}
	free(farswap);
	if (ret_error)
		snprintf(ret_error, error_bytes, "%s", error);
	return ret;
}

static uint64_t nr_live_entries(struct node *node)
{
	struct vswap_stats stats;

	sys_rcu_thread_init();
	vswap_stats(node->vswap, &stats);
	sys_rcu_thread_done();
	return stats.nr_remote + stats.nr_disk + stats.nr_same + stats.nr_comp + stats.nr_folio + stats.nr_poisoned;
}

int farswap_close(struct farswap *farswap)
{
	if (!farswap)
		return 0;
	/* Nothing is under way, so the queues' counts are exact: the program has seen the end of every call. */
	if (nr_live_entries(farswap->node) != 0)
		return -EBUSY;
	end_node(farswap->node);
	free(farswap);
	return 0;
}

/* ---- to the thread of a queue ---- */

struct vswap_queue *farswap_queue(struct farswap *farswap, uint32_t index)
{
	return index < farswap->node->options.nr_queues ? vswap_queue(farswap->node->vswap, index) : NULL;
}

static void run_task(struct sys_message *message)
{
	struct farswap_task *task = BASE_CONTAINER_OF(message, struct farswap_task, message_);

	task->run(task->queue_, task);
}

void farswap_run(struct vswap_queue *queue, struct farswap_task *task)
{
	struct sys_message *message = (struct sys_message *)(void *)task->message_;

	task->queue_ = queue;
	message->run = run_task;
	sys_reactor_send(vswap_queue_reactor(queue), message);
}

struct queue_call {
	struct vswap_queue *queue;
	void (*fn)(struct vswap_queue *queue, void *arg);
	void *arg;
};

static void run_call(void *arg)
{
	struct queue_call *call = arg;

	call->fn(call->queue, call->arg);
}

void farswap_call(struct vswap_queue *queue, void (*fn)(struct vswap_queue *queue, void *arg), void *arg)
{
	struct queue_call call = { .queue = queue, .fn = fn, .arg = arg };

	sys_reactor_call(vswap_queue_reactor(queue), run_call, &call);
}
