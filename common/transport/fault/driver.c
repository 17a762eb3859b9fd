/* The driver: what is to go wrong, what has, and which connections there are. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/transport/fault/conn.h"

struct fault_message {
	struct sys_message message;
	struct fault_driver *driver;
	uint64_t number; /* of the connection, which may have gone */
	int err;
};

static struct fault_driver *fault_driver_from_head(struct transport_driver *head)
{
	return BASE_CONTAINER_OF(head, struct fault_driver, head);
}

/* 0, or the error that this connect fails with. */
static int fault_driver_draw(struct fault_driver *driver)
{
	int err = 0;

	lock_acquire(&driver->lock);
	if (rand_below(&driver->rand, FAULT_PPM) < driver->plan.connect_fail_ppm) {
		err = driver->plan.connect_err ? driver->plan.connect_err : -ECONNREFUSED;
		driver->counters.connects_failed++;
	}
	lock_release(&driver->lock);
	return err;
}

static int fault_connect(struct transport_driver *head, const struct transport_connect_options *options,
			 struct transport_conn **ret_conn)
{
	struct fault_driver *driver = fault_driver_from_head(head);
	struct transport_conn *inner;
	struct transport_conn *conn;
	int err;

	err = fault_driver_draw(driver);
	if (err == 0)
		err = transport_connect(driver->inner, options, &inner);
	if (err < 0)
		return err;
	conn = fault_conn_create(driver, inner, options);
	if (!conn)
		return -ENOMEM;
	*ret_conn = conn;
	return 0;
}

struct transport_driver *fault_driver_create(struct transport_driver *inner, uint64_t seed)
{
	struct fault_driver *driver = calloc(1, sizeof(*driver));

	if (!driver)
		return NULL;
	driver->head = (struct transport_driver){ .name = "fault", .connect = fault_connect };
	driver->inner = inner;
	driver->seed = seed;
	lock_mutex_init(&driver->lock);
	lock_acquire(&driver->lock);
	driver->rand.s = seed;
	TAILQ_INIT(&driver->conns);
	lock_release(&driver->lock);
	return &driver->head;
}

void fault_driver_free(struct transport_driver *head)
{
	struct fault_driver *driver;

	if (!head)
		return;
	driver = fault_driver_from_head(head);
	lock_acquire(&driver->lock);
	assert(TAILQ_EMPTY(&driver->conns));
	lock_release(&driver->lock);
	lock_mutex_done(&driver->lock);
	free(driver);
}

void fault_driver_set_plan(struct transport_driver *head, const struct fault_plan *plan)
{
	struct fault_driver *driver = fault_driver_from_head(head);

	lock_acquire(&driver->lock);
	driver->plan = plan ? *plan : (struct fault_plan){ 0 };
	lock_release(&driver->lock);
}

static void fault_message_run(struct sys_message *message)
{
	struct fault_message *order = BASE_CONTAINER_OF(message, struct fault_message, message);
	struct fault_driver *driver = order->driver;
	struct fault_conn *conn;

	lock_acquire(&driver->lock);
	TAILQ_FOREACH(conn, &driver->conns, link)
		if (conn->number == order->number)
			break;
	if (conn)
		driver->counters.disconnected++;
	lock_release(&driver->lock);
	if (conn) /* on its own reactor, where nobody else can close it */
		fault_conn_fail(conn, order->err);
	free(order);
}

int fault_driver_disconnect_all(struct transport_driver *head, int err)
{
	struct fault_driver *driver = fault_driver_from_head(head);
	struct fault_conn *conn;
	int ret = 0;

	lock_acquire(&driver->lock);
	TAILQ_FOREACH(conn, &driver->conns, link) {
		struct fault_message *order = malloc(sizeof(*order));

		if (!order) {
			ret = -ENOMEM;
			break;
		}
		*order = (struct fault_message){
			.message.run = fault_message_run,
			.driver = driver,
			.number = conn->number,
			.err = err,
		};
		sys_reactor_send(conn->head.reactor, &order->message);
	}
	lock_release(&driver->lock);
	return ret;
}

void fault_driver_counters(struct transport_driver *head, struct fault_counters *ret_counters)
{
	struct fault_driver *driver = fault_driver_from_head(head);

	lock_acquire(&driver->lock);
	*ret_counters = driver->counters;
	lock_release(&driver->lock);
}
