/*
 * What the files of the FUSE front end share.
 *
 * fuse.c puts it up and takes it down; mount.c has its place in the file system; session.c is the part
 * that libfuse plays; queue.c serves the kernel's requests on one reactor.
 */
#ifndef FARSWAP_CLIENT_FRONTEND_FUSE_INTERNAL_H
#define FARSWAP_CLIENT_FRONTEND_FUSE_INTERNAL_H

#include <semaphore.h>
#include <sys/queue.h>

#include "client/frontend/fuse/fuse.h"
#include "client/frontend/fuse/loop.h"
#include "client/frontend/fuse/wire.h"
#include "common/mem/region.h"
#include "common/stats/counter.h"

#define FUSE_QUEUE_NR_TAGS 64u
#define FUSE_QUEUE_NR_BIG 8u
#define FUSE_SMALL_BYTES (64u << 10)
/* A page in front, at whose end the head of the request lies, so that a WRITE's payload is page aligned. */
#define FUSE_SLOT_BYTES (FSW_PAGE_SIZE + FUSE_SMALL_BYTES)

struct fuse_session;
struct fuse_queue;

/* A request, from the read that brought it to the write that answers it. */
struct fuse_tag {
	struct fsw_io io;
	TAILQ_ENTRY(fuse_tag) link;
	struct fuse_queue *queue;
	struct fuse_wire_request request;
	char *head;  /* FUSE_WIRE_HEAD_BYTES, then data without a gap */
	char *small; /* the first FUSE_SMALL_BYTES of data */
	void *big;   /* for a request that needs more, else NULL */
};

TAILQ_HEAD(fuse_tag_list, fuse_tag);

struct fuse_queue_counters {
	struct stats_counter reads, writes, discards, syncs, other, bad_requests, io_errors, kernel_errors;
};

/* One reactor's channel to the kernel. All of it runs on that reactor. */
struct fuse_queue {
	struct vswap_queue *vqueue;
	struct sys_reactor *reactor;
	struct fuse_session *session;
	struct sys_watch watch;	  /* while cold */
	struct sys_poller poller; /* while hot */
	int fd;
	bool open; /* neither closed nor given up */
	bool hot;
	bool closing;
	uint64_t spin_ns, busy_ns;
	uint64_t nr_pages;
	struct fuse_tag_list free_tags;
	void *free_big[FUSE_QUEUE_NR_BIG];
	unsigned nr_free_big;
	unsigned nr_busy; /* tags in the device */
	sem_t idle;	  /* posted once, when it is closing and nothing is busy */
	struct mem_region tags, buffers;
	struct fuse_queue_counters counters __attribute__((aligned(FSW_CACHE_LINE)));
};

struct fuse_frontend {
	struct vswap *vswap;
	char *mount_dir, *file, *lock_file;
	bool made_dir;
	int lock_fd;
	struct fuse_session *session;
	uint64_t nr_pages;
	sem_t initialized; /* posted when the kernel and libfuse have agreed */
	struct loop_device loop;
	char device[LOOP_PATH_BYTES]; /* "" without one */
	unsigned nr_queues;
	struct fuse_queue *queues;
};

/* queue.c */
int fuse_queue_init(struct fuse_queue *queue, struct fuse_frontend *frontend, unsigned index,
		    unsigned spin_us) BASE_MUST_CHECK;
/* Control thread. Begins to serve fd, which stays the caller's. */
int fuse_queue_open(struct fuse_queue *queue, int fd) BASE_MUST_CHECK;
/* Control thread; the reactor runs. Serves no more; what is under way has come back. Safe if never opened. */
void fuse_queue_close(struct fuse_queue *queue);
void fuse_queue_done(struct fuse_queue *queue);
/* The descriptor on which the request that this thread is serving came in: its answer must go out there. */
int fuse_queue_current_fd(void);

/* session.c. Control thread. The session owns fd from then on. */
int fuse_library_open(struct fuse_frontend *frontend, int fd) BASE_MUST_CHECK;
void fuse_library_close(struct fuse_frontend *frontend);

/* mount.c. Control thread. (libfuse has a fuse_mount of its own: ours must not stand in for it.) */
/*
 * Makes the directory, takes its lock and removes what a dead process has left there. 0; -EBUSY when another process
 * serves it, a file system of another kind is mounted there or the dead one's device is in use as swap; others of the
 * calls involved.
 */
int fuse_mountpoint_take(struct fuse_frontend *frontend) BASE_MUST_CHECK;
void fuse_mountpoint_leave(struct fuse_frontend *frontend);
/* The descriptor of the connection, not blocking. */
int fuse_mountpoint_mount(const char *dir) BASE_MUST_CHECK;
void fuse_mountpoint_unmount(const char *dir);
/* The mount point of one line of /proc/self/mountinfo is dir: true, and its type. Pure. */
bool fuse_mountpoint_match_line(const char *line, const char *dir, char *type, size_t type_bytes);

#endif
