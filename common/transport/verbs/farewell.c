/*
 * The end of a connection in good order. The lender learns from beats what has been done, and the last one takes its time to
 * arrive, for which no reactor may wait: a thread of the driver's does, and takes the connection apart, which is system calls.
 *
 * Nothing that the device still does for such a connection touches memory of an operation: it has none.
 */
#include <assert.h>
#include <poll.h>

#include "common/sys/thread.h"
#include "common/transport/verbs/conn.h"

#define FAREWELL_NS (100 * SYS_NS_PER_MS)

static uint64_t farewell_now_ns(void)
{
	return sys_clock_now_ns(sys_clock_monotonic());
}

/* Whether there is nothing more to wait for: the last work request is complete, or one has failed. */
static bool farewell_is_over(struct verbs_conn *conn)
{
	struct ibv_wc wc;
	int nr;

	while ((nr = ibv_poll_cq(conn->cq, 1, &wc)) == 1)
		if (wc.status != IBV_WC_SUCCESS || wc.wr_id == conn->next_wr - 1)
			return true;
	return nr < 0;
}

/* Sleeps until the completion queue tells of something. False when the time is over. */
static bool farewell_sleep(struct verbs_conn *conn)
{
	struct pollfd pollfd = { .fd = conn->channel->fd, .events = POLLIN };
	uint64_t now_ns = farewell_now_ns();
	struct ibv_cq *cq;
	void *context;

	if (now_ns >= conn->leaves_at_ns)
		return false;
	(void)poll(&pollfd, 1, (int)((conn->leaves_at_ns - now_ns + SYS_NS_PER_MS - 1) / SYS_NS_PER_MS));
	if (ibv_get_cq_event(conn->channel, &cq, &context) == 0) {
		ibv_ack_cq_events(cq, 1);
		conn->armed = false;
	}
	return true;
}

static void farewell_end(struct verbs_conn *conn)
{
	while (!farewell_is_over(conn)) {
		if (!conn->armed) {
			/* And once more a look: what came before it is not told of. */
			if (ibv_req_notify_cq(conn->cq, 0) != 0)
				break;
			conn->armed = true;
			continue;
		}
		if (!farewell_sleep(conn))
			break;
	}
	verbs_conn_sever(conn);
	verbs_conn_free(conn);
}

static void *farewell_main(void *arg)
{
	struct verbs_driver *driver = arg;
	struct verbs_conn *conn;

	lock_acquire(&driver->lock);
	for (;;) {
		while (!(conn = TAILQ_FIRST(&driver->leaving)) && !driver->stop)
			pthread_cond_wait(&driver->left, &driver->lock.m);
		if (!conn)
			break;
		TAILQ_REMOVE(&driver->leaving, conn, leaving_link);
		lock_release(&driver->lock);
		farewell_end(conn);
		lock_acquire(&driver->lock);
	}
	lock_release(&driver->lock);
	return NULL;
}

void verbs_farewell_wait(struct verbs_conn *conn)
{
	struct verbs_driver *driver = conn->driver;

	assert(conn->head.in_flight == 0);
	/* However many leave at once: the time is that of each from here on, not from its turn. */
	conn->leaves_at_ns = farewell_now_ns() + FAREWELL_NS;
	lock_acquire(&driver->lock);
	TAILQ_INSERT_TAIL(&driver->leaving, conn, leaving_link);
	pthread_cond_signal(&driver->left);
	lock_release(&driver->lock);
}

int verbs_farewell_start(struct verbs_driver *driver)
{
	int ret;

	lock_acquire(&driver->lock);
	TAILQ_INIT(&driver->leaving);
	lock_release(&driver->lock);
	pthread_cond_init(&driver->left, NULL);
	ret = sys_thread_start(&driver->farewell, "rdma-farewell", -1, farewell_main, driver);
	if (ret < 0)
		pthread_cond_destroy(&driver->left);
	return ret;
}

void verbs_farewell_stop(struct verbs_driver *driver)
{
	lock_acquire(&driver->lock);
	driver->stop = true;
	pthread_cond_signal(&driver->left);
	lock_release(&driver->lock);
	pthread_join(driver->farewell, NULL);
	pthread_cond_destroy(&driver->left);
}
