/*
 * libfarswap: swap entries and their swap cache over the memory of other machines, for programs.
 *
 * A program opens a farswap: the memory servers and the local disk that its pages are stored on, and the queues on
 * which it works. What it can do with entries and folios is in swap.h; each of those calls is made on the thread of a
 * queue, a thread of the library's, and farswap_run and farswap_call are the way there. Everything else here is for the
 * program's own threads: it may block, and is never called on the thread of a queue.
 *
 * What the library does to a process, and what not. It has threads of its own, with all signals blocked, and so has
 * gRPC, which is started by the first farswap_open and stays. It sets no signal handler, no limit and no score, and
 * locks no memory: a program that must not wait for its own swap locks itself (mlockall). After farswap_open the
 * process must not fork, but to exec; posix_spawn is safe. The library is never unloaded. liburcu's QSBR flavour is
 * used by it: a thread that is registered there by the program calls nothing of this.
 *
 * A structure that begins with its size can grow in later versions: the caller sets it to sizeof, and what it does not
 * set to 0. A 0 means the default wherever one is named. Errors are negative errno values; -EINVAL or -E2BIG for such a
 * structure is a size that is none, or a field that this version does not know.
 */
#ifndef FARSWAP_CLIENT_LIB_FARSWAP_H
#define FARSWAP_CLIENT_LIB_FARSWAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/vswap/swap.h"

#ifdef __cplusplus
extern "C" {
#endif

struct farswap;

/* ---- open and close ---- */

enum farswap_comp { FARSWAP_COMP_LZ4, FARSWAP_COMP_ZSTD };

struct farswap_options {
	uint64_t size; /* sizeof(struct farswap_options) */

	uint64_t nr_entries;   /* that can be allocated, rounded up to clusters of 512; 1 .. 2^32 - 512 */
	uint32_t nr_queues;    /* 1 .. 32 */
	uint32_t nr_folio_ios; /* folios that each queue can have on their way, at most 4096; default 64 */

	const char *const *servers; /* "host:port" of each farmemd's control plane */
	uint32_t nr_servers;	    /* at most 63; 0 with a disk alone */
	uint32_t queue_depth;	    /* operations in flight per queue and server, at most 1024; default 128 */

	const char *disk;	  /* file or partition for when no server has room; its content is lost; NULL: none */
	uint64_t disk_bytes;	  /* how much of it; 0: all of a partition */
	uint64_t disk_slab_bytes; /* the unit in which it is used, a power of two, 1 MiB .. 1 GiB; default 64 MiB */

	/*
	 * Memory of this machine for compressed pages, where pages go first: taken at once, at least 4 MiB. When it is
	 * nearly full, the oldest are moved to the servers. 0: nothing is compressed.
	 */
	uint64_t comp_limit_bytes;

	const char *name;     /* what servers know this client by, at most 63 bytes; NULL: the host's name */
	const int *cpus;      /* that each queue and then the thread that moves pages stay on, -1 for any; NULL: any */
	uint64_t ahead_bytes; /* free room to keep ready on the servers; default four slabs */

	uint32_t comp_algorithm;     /* enum farswap_comp */
	uint32_t max_slabs;	     /* in use at a time, at most 2^18; default by nr_entries */
	uint32_t spin_us;	     /* how long a queue looks for work before it sleeps, at most 1 s */
	uint32_t start_timeout_ms;   /* how long farswap_open waits for room, at least 10; default 10 s */
	uint32_t connect_timeout_ms; /* of one attempt at a data connection, at least 10; default 1 s */
	uint32_t dead_after_ms;	     /* a connection that is silent for so long is down, at least 50; default 800 ms */
	uint32_t patience_ms;	     /* how long a page waits for a server out of reach; default 12 s; 1: hardly at all */
	uint32_t lost_after_ms;	     /* a server out of reach for so long is given up; default: when its lease ends */
};

#define FARSWAP_ERROR_MAX 512 /* of an error's line, with its end */

/*
 * Connects, and returns when there is room to store pages. The options, and what they point at, are the caller's again
 * then. Any number of farswaps may be open.
 *
 * 0; -EINVAL an option is wrong; -E2BIG; -ETIMEDOUT no server has given any room within start_timeout_ms, after which
 * it can take five seconds more to give up a call that is under way; -ENOMEM, and what opening the disk says. With an
 * error, one line that names what is wrong is in ret_error (NULL, or error_bytes long, FARSWAP_ERROR_MAX to have all of
 * it), and nothing is left behind.
 */
int farswap_open(const struct farswap_options *options, struct farswap **ret_farswap, char *ret_error,
		 size_t error_bytes);

/*
 * Gives everything back to the servers and ends the threads. No task and no call on a queue may be under way, and none
 * may follow; folios whose last reference has been put are released before it returns. Accepts NULL.
 *
 * 0; -EBUSY while an entry is live, which is to say that it has a holder or that a folio stands for it in the swap
 * cache: nothing is changed then. (A program that wants to lose its pages exits: the servers take back what it had.)
 */
int farswap_close(struct farswap *farswap);

/* Of the library that is loaded, such as "0.1.0". */
const char *farswap_version(void);

/* ---- to the thread of a queue ---- */

/* Queue number `index`; NULL when there are not so many. Any thread; it lives as long as the farswap. */
struct vswap_queue *farswap_queue(struct farswap *farswap, uint32_t index);

/* Work for a queue. Embedded by its owner, who sets run, and the library's from farswap_run until run is called. */
struct farswap_task {
	/* On the thread of the queue, once. It does not block; the task is its owner's again, and may be run anew. */
	void (*run)(struct vswap_queue *queue, struct farswap_task *task);
	struct vswap_queue *queue_;
	void *message_[2];
};

/* Any thread, those of queues included; wait-free, and never runs it at once. Tasks of one thread are run in order. */
void farswap_run(struct vswap_queue *queue, struct farswap_task *task);

/* Runs fn on the thread of the queue, and returns when it has. The program's own threads. */
void farswap_call(struct vswap_queue *queue, void (*fn)(struct vswap_queue *queue, void *arg), void *arg);

/* ---- drain: the swapoff of one server, while its pages are in use ---- */

enum farswap_drain_target { FARSWAP_DRAIN_TO_ANY, FARSWAP_DRAIN_TO_SERVERS, FARSWAP_DRAIN_TO_DISK };

struct farswap_drain_options {
	uint64_t size;	       /* sizeof(struct farswap_drain_options) */
	uint64_t deadline_ms;  /* from now; 0: none */
	uint32_t target;       /* enum farswap_drain_target */
	uint32_t window_pages; /* on their way at a time, at most 1024; more is faster, holds reads up; default 128 */
};

enum farswap_drain_state {
	FARSWAP_DRAIN_NONE, /* never drained, or taken back into use */
	FARSWAP_DRAIN_RUNNING,
	FARSWAP_DRAIN_DRAINED,	 /* no page is left on it: counted, not concluded */
	FARSWAP_DRAIN_CANCELLED, /* this and the rest are ended with pages left: nothing is lost, it can be run again */
	FARSWAP_DRAIN_DEADLINE,
	FARSWAP_DRAIN_NO_ROOM, /* nowhere to move the rest to */
	FARSWAP_DRAIN_FAILED,  /* what is left cannot be read, or the server is out of reach */
};

struct farswap_drain_progress {
	uint64_t size;	   /* sizeof(struct farswap_drain_progress) */
	uint64_t state;	   /* enum farswap_drain_state */
	uint64_t nr_start; /* pages on it when it began */
	uint64_t nr_moved; /* by the drain; those that were freed or stored elsewhere meanwhile are not counted */
	uint64_t nr_left;  /* counted now */
	uint64_t nr_stuck; /* that it could not move in its last pass */
	uint64_t elapsed_ns;
};

/*
 * `server` is an item of farswap_options.servers, or "disk". Begins to move every page off it. From now on nothing new
 * is stored there, however the drain ends, until farswap_undrain. options: NULL for the defaults.
 *
 * 0; -ENOENT no such server; -EALREADY its drain is running; -EBUSY another's is; -ENOTCONN it holds no pages, since it
 * was never connected or is lost; -EINVAL an option is out of range, or the target is not there or the server itself;
 * -E2BIG.
 */
int farswap_drain(struct farswap *farswap, const char *server, const struct farswap_drain_options *options);
/* 0; -ENOENT no such server; -EINVAL, -E2BIG. */
int farswap_drain_progress(struct farswap *farswap, const char *server, struct farswap_drain_progress *ret_progress);
/* 0; -ENOENT no such server, or its drain is not running. Returns at once; the state changes soon. */
int farswap_drain_cancel(struct farswap *farswap, const char *server);
/*
 * Takes the server back into use, and cancels its drain first if that is running. 0; -ENOENT no such server; -ETIMEDOUT
 * after ten seconds: the drain is still being cancelled, and the server is taken back into use when it is.
 */
int farswap_undrain(struct farswap *farswap, const char *server);

/* ---- books ---- */

struct farswap_stats {
	uint64_t size; /* sizeof(struct farswap_stats) */
	/* Live entries by what backs them, now. */
	uint64_t nr_remote;
	uint64_t nr_disk;
	uint64_t nr_same;	 /* the page is one value over and over, and needs no slot */
	uint64_t nr_comp;	 /* the page is in the pool of compressed pages */
	uint64_t nr_folio;	 /* its bytes are in the folio that stands for it, and nowhere else */
	uint64_t nr_poisoned;	 /* its bytes are lost */
	uint64_t nr_hibernation; /* of these, allocated for hibernation */
	/* Since farswap_open. */
	uint64_t nr_pages_read;
	uint64_t nr_pages_written;
	uint64_t nr_read_errors; /* folios that could not be read, and stored */
	uint64_t nr_write_errors;
	uint64_t nr_checksum_errors; /* pages whose bytes were not what had been stored, each counted once */
	/* Now. */
	uint64_t nr_slots;	  /* pages of room that servers and disk have lent, used or not */
	uint64_t nr_used_slots;	  /* of these, also those that are soon free again */
	uint64_t comp_used_bytes; /* of the pool of compressed pages */
	uint64_t metadata_bytes;  /* of memory, for tables and slot maps */
};

enum farswap_server_state {
	FARSWAP_SERVER_CONNECTING, /* never yet up, or not since it was lost */
	FARSWAP_SERVER_UP,
	FARSWAP_SERVER_DOWN, /* out of reach; what it holds may come back */
	FARSWAP_SERVER_LOST, /* what it held is gone */
};

struct farswap_server_stats {
	uint64_t size;	   /* sizeof(struct farswap_server_stats) */
	uint64_t state;	   /* enum farswap_server_state */
	uint64_t nr_slots; /* as in farswap_stats, of this one */
	uint64_t nr_used_slots;
	uint64_t nr_pages_read;
	uint64_t nr_pages_written;
	uint64_t nr_read_errors; /* operations that failed */
	uint64_t nr_write_errors;
	uint64_t latency_ns; /* of one operation, on average over the last ones */
};

/* Numbers of different fields are not of the same instant. 0; -EINVAL, -E2BIG. */
int farswap_stats(struct farswap *farswap, struct farswap_stats *ret_stats);
/* `server` as for farswap_drain. 0; -ENOENT no such server; -EINVAL, -E2BIG. */
int farswap_server_stats(struct farswap *farswap, const char *server, struct farswap_server_stats *ret_stats);

/* ---- log ---- */

enum farswap_log_level {
	FARSWAP_LOG_ERROR,
	FARSWAP_LOG_WARNING,
	FARSWAP_LOG_NOTICE,
	FARSWAP_LOG_INFO,
	FARSWAP_LOG_DEBUG,
};

/*
 * Messages up to max_level go to `write`, or to stderr when it is NULL. Without this call, errors and warnings go to
 * stderr. Before the first farswap_open. write is called on any thread, with one line without its end, and calls
 * nothing of this.
 */
void farswap_set_log(enum farswap_log_level max_level,
		     void (*write)(enum farswap_log_level level, const char *text, void *arg), void *arg);

#ifdef __cplusplus
}
#endif

#endif
