/*
 * The part that libfuse plays: the handshake with the kernel, and the rare requests. It reads and writes nothing itself:
 * the queues hand it the requests that they read, and its answers leave by the descriptor that the request came from,
 * because the kernel looks for a request only there.
 */
#include "client/frontend/fuse/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)
#include <fuse_lowlevel.h>

#include "common/log/log.h"

/* Nothing about the file ever changes. */
#define FOREVER_S 1e6
/* Requests that the kernel keeps under way at a time on behalf of asynchronous I/O: those of a loop device. */
#define MAX_BACKGROUND 512u

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fuse_frontend *frontend = userdata;

	conn->max_write = FUSE_WIRE_MAX_BYTES;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	conn->want |= conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO);
	sem_post(&frontend->initialized);
}

static bool get_attributes(const struct fuse_frontend *frontend, fuse_ino_t node, struct stat *ret_stat)
{
	struct stat st = { .st_ino = node, .st_uid = geteuid(), .st_gid = getegid(), .st_blksize = FSW_PAGE_SIZE };

	if (node == FUSE_ROOT_ID) {
		st.st_mode = S_IFDIR | 0700;
		st.st_nlink = 2;
	} else if (node == FUSE_WIRE_FILE_NODE) {
		st.st_mode = S_IFREG | 0600;
		st.st_nlink = 1;
		st.st_size = (off_t)(frontend->nr_pages << FSW_PAGE_SHIFT);
		st.st_blocks = st.st_size / 512;
	} else {
		return false;
	}
	*ret_stat = st;
	return true;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = {
		.ino = FUSE_WIRE_FILE_NODE,
		.attr_timeout = FOREVER_S,
		.entry_timeout = FOREVER_S,
	};

	if (parent != FUSE_ROOT_ID || strcmp(name, FUSE_FRONTEND_FILE) != 0) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	get_attributes(fuse_req_userdata(req), entry.ino, &entry.attr);
	fuse_reply_entry(req, &entry);
}

static void on_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
	struct stat st;

	(void)info;
	if (get_attributes(fuse_req_userdata(req), node, &st))
		fuse_reply_attr(req, &st, FOREVER_S);
	else
		fuse_reply_err(req, ENOENT);
}

static void on_readdir(fuse_req_t req, fuse_ino_t node, size_t size_bytes, off_t offset, struct fuse_file_info *info)
{
	static const char *const names[] = { ".", "..", FUSE_FRONTEND_FILE };
	char buf[512];
	size_t used = 0;

	(void)info;
	if (node != FUSE_ROOT_ID) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	if (size_bytes > sizeof(buf))
		size_bytes = sizeof(buf);
	for (size_t i = offset < 0 ? 0 : (size_t)offset; i < BASE_ARRAY_SIZE(names); i++) {
		struct stat st = { .st_ino = i < 2 ? FUSE_ROOT_ID : FUSE_WIRE_FILE_NODE,
				   .st_mode = i < 2 ? S_IFDIR : S_IFREG };
		size_t len = fuse_add_direntry(req, buf + used, size_bytes - used, names[i], &st, (off_t)i + 1);

		if (len > size_bytes - used)
			break;
		used += len;
	}
	fuse_reply_buf(req, buf, used);
}

/* The loop device takes the size of its discards from f_bsize. */
static void on_statfs(fuse_req_t req, fuse_ino_t node)
{
	struct fuse_frontend *frontend = fuse_req_userdata(req);
	struct statvfs st = {
		.f_bsize = FSW_PAGE_SIZE,
		.f_frsize = FSW_PAGE_SIZE,
		.f_blocks = frontend->nr_pages,
		.f_files = 1,
		.f_namemax = 255,
	};

	(void)node;
	fuse_reply_statfs(req, &st);
}

static const struct fuse_lowlevel_ops session_ops = {
	.init = on_init,
	.lookup = on_lookup,
	.getattr = on_getattr,
	.readdir = on_readdir,
	.statfs = on_statfs,
};

static ssize_t write_answer(int fd, struct iovec *iov, int nr_iov, void *userdata)
{
	int current = fuse_queue_current_fd();

	(void)userdata;
	return writev(current < 0 ? fd : current, iov, nr_iov);
}

/* Asked for by fuse_session_custom_io; the queues read. */
static ssize_t read_request(int fd, void *buf, size_t len_bytes, void *userdata)
{
	(void)userdata;
	return read(fd, buf, len_bytes);
}

static const struct fuse_custom_io session_io = { .writev = write_answer, .read = read_request };

static void BASE_PRINTF(2, 0) on_log(enum fuse_log_level level, const char *fmt, va_list args)
{
	char line[256];
	size_t len;

	vsnprintf(line, sizeof(line), fmt, args);
	len = strlen(line);
	if (len > 0 && line[len - 1] == '\n')
		line[len - 1] = '\0';
	if (level <= FUSE_LOG_ERR)
		log_error("libfuse: %s", line);
	else
		log_debug("libfuse: %s", line);
}

int fuse_library_open(struct fuse_frontend *frontend, int fd)
{
	char program[] = "farswap";
	char *argv[] = { program, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_session *session;
	int ret;

	fuse_set_log_func(on_log);
	session = fuse_session_new(&args, &session_ops, sizeof(session_ops), frontend);
	fuse_opt_free_args(&args);
	if (!session)
		return -ENOMEM;
	ret = fuse_session_custom_io(session, &session_io, fd);
	if (ret < 0) {
		fuse_session_destroy(session);
		return ret;
	}
	frontend->session = session;
	return 0;
}

void fuse_library_close(struct fuse_frontend *frontend)
{
	/* Closes the descriptor, too. */
	fuse_session_destroy(frontend->session);
	frontend->session = NULL;
}
