/*
 * What the files of the ublk front end share.
 *
 * ublk.c puts the device up and takes it down; dead.c takes those down that dead servers have left; device.c is what they have
 * in common; control.c has the commands; queue.c serves the kernel's requests on one reactor.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_UBLK_INTERNAL_H
#define FARSWAP_CLIENT_FRONTEND_UBLK_INTERNAL_H

#include <semaphore.h>
#include <sys/queue.h>

#include "client/frontend/ublk/control.h"
#include "client/frontend/ublk/ublk.h"
#include "client/frontend/owner.h"
#include "common/mem/region.h"
#include "common/stats/counter.h"

#define UBLK_QUEUE_NR_TAGS 64u
#define UBLK_QUEUE_NR_BIG 8u
#define UBLK_SMALL_BYTES (64u << 10)
#define UBLK_BIG_BYTES (IO_MAX_PAGES << FSW_PAGE_SHIFT)
#define UBLK_SECTOR_SHIFT 9
/*
 * In ublksrv_flags, which are the server's to use: that the device is one of farswap's, which state file has its pages (a
 * number of 12 bits, or 0), and the mark of who has made it (owner.h).
 */
#define UBLK_OURS 0x661ull
#define UBLK_OURS_SHIFT 52
#define UBLK_KEPT_SHIFT FRONTEND_OWNER_MARK_BITS
#define UBLK_KEPT_MASK 0xfffu

static_assert(UBLK_KEPT_SHIFT + 12 == UBLK_OURS_SHIFT, "all bits are taken");

/*
 * What the kernel must be able to do. A write's data is copied when we have said where to, so that no buffer of the greatest
 * size has to be kept for every tag; and the device, with all that waits for an answer, stays when its server dies.
 */
#define UBLK_FLAGS (UBLK_F_NEED_GET_DATA | UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE)

/* A request, from the command that fetched it to the one that answers it and fetches the next. */
struct ublk_tag {
	struct fsw_io io;
	TAILQ_ENTRY(ublk_tag) link; /* while it waits for a big buffer */
	struct ublk_queue *queue;
	uint16_t number;
	struct ublksrv_io_desc desc; /* a copy: the kernel's own is shared memory */
	char *small;
	void *big; /* for a request that needs more, else NULL */
};

TAILQ_HEAD(ublk_tag_list, ublk_tag);

struct ublk_queue_counters {
	struct stats_counter reads, writes, discards, flushes, bad_requests, io_errors, kernel_errors;
};

/* One queue of the device. All of it runs on its reactor. */
struct ublk_queue {
	struct vswap_queue *vqueue; /* NULL: all requests fail */
	struct sys_reactor *reactor;
	struct io_uring ring;
	const struct ublksrv_io_desc *descs; /* of the kernel, by tag */
	size_t descs_bytes;
	struct sys_watch watch;	    /* while cold */
	struct sys_poller poller;   /* while hot */
	struct sys_deferred enter;  /* at the end of the turn */
	struct sys_timer again;
	uint16_t number, nr_tags;
	bool encoded; /* see ublk_control */
	bool hot;
	bool is_open;
	uint64_t spin_ns, busy_ns;
	void *free_big[UBLK_QUEUE_NR_BIG];
	unsigned nr_free_big;
	void *leaving_big[UBLK_QUEUE_NR_BIG]; /* the kernel reads them when it takes the commands that are in the ring */
	unsigned nr_leaving_big;
	struct ublk_tag_list waiting; /* for a big buffer */
	unsigned nr_live; /* tags that the kernel has not ended */
	int fetch_error;  /* of the first command that was refused, while it is being opened */
	sem_t ended;	  /* posted when there is none left */
	struct mem_region tags, buffers;
	struct ublk_queue_counters counters __attribute__((aligned(FSW_CACHE_LINE)));
};

/* A device that we serve: the character device, and its queues. */
struct ublk_device {
	struct ublk_control *control;
	uint32_t id;
	int fd;
	unsigned nr_queues;
	struct ublk_queue *queues;
	char path[UBLK_FRONTEND_PATH_BYTES];
};

/* ---- queue.c ---- */

/* Takes the queue's memory. vqueue: see struct ublk_queue; nr_tags: at most UBLK_QUEUE_NR_TAGS. */
int ublk_queue_init(struct ublk_queue *queue, struct vswap_queue *vqueue, struct sys_reactor *reactor, unsigned number,
		    unsigned nr_tags, unsigned spin_us) BASE_MUST_CHECK;
/* Control thread; the reactor runs. Fetches for every tag; fd, of the character device, stays the caller's. */
int ublk_queue_open(struct ublk_queue *queue, int fd, bool encoded) BASE_MUST_CHECK;
/*
 * Control thread; the reactor runs, and the kernel has ended every tag, or will. Safe if never opened. False: it does not,
 * and may still write into the queue's memory, which must stay.
 */
bool ublk_queue_close(struct ublk_queue *queue) BASE_MUST_CHECK;
void ublk_queue_done(struct ublk_queue *queue);

/* ---- device.c ---- */

enum ublk_device_use {
	UBLK_DEVICE_NEW,   /* one that we have made */
	UBLK_DEVICE_AGAIN, /* a dead server's, and the vswap has its pages */
	UBLK_DEVICE_FAIL,  /* a dead server's, all of whose requests fail */
};

/*
 * Opens device number `id`, as *info says it is, and fetches for all its tags. vswap: its reactors serve, and it does, but for
 * UBLK_DEVICE_FAIL. The log says why not; the device is stopped then, but for UBLK_DEVICE_AGAIN, which is left as it is: what
 * was fetched ends with this process.
 */
int ublk_device_open(struct ublk_device *device, struct ublk_control *control, const struct ublksrv_ctrl_dev_info *info,
		     struct vswap *vswap, enum ublk_device_use use, unsigned spin_us) BASE_MUST_CHECK;
/* Stops it, when everything has ended closes it, and deletes it. */
void ublk_device_delete(struct ublk_device *device);
/* Deletes a device that is not served. */
void ublk_device_forget(struct ublk_control *control, uint32_t id);

/* ---- dead.c ---- */

/*
 * Takes down what dead servers of ours have left. Of those whose pages are in a state file (which somebody may go on with),
 * only such as have been in number `kept`, which has nothing of them any more; and not device `except` (NULL: none). 0; -EBUSY:
 * the swap of one cannot be turned off; the error of looking for them. Whatever else goes wrong with one is logged, and the
 * next is looked at.
 */
int ublk_dead_take_down(struct ublk_control *control, struct vswap *vswap, unsigned kept,
			const struct ublk_device_name *except) BASE_MUST_CHECK;
/*
 * Takes over a dead server's device, with all that waits for answers from it. 0, and *device is served by the vswap, by as
 * many of its queues; -EBUSY: its server lives; others. The log says why not.
 */
int ublk_dead_go_on(struct ublk_control *control, struct vswap *vswap, const struct ublk_device_name *name, unsigned nr_queues,
		    unsigned spin_us, struct ublk_device *device) BASE_MUST_CHECK;
/* Whether it is a device of ours, of whatever server. */
bool ublk_dead_is_ours(const struct ublksrv_ctrl_dev_info *info);

#endif
