/**
 * @file handoff.c  Hands workers the memory, and knows who is alive
 *
 * A worker says HELLO, gets WELCOME with three descriptors, and from then on
 * the connection carries nothing: its end is the death of the peer.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <switch.h>

#include "adoption.h"
#include "endpoint.h"
#include "handoff.h"
#include "registry.h"
#include "text.h"
#include "workers.h"

#define HELLO_NS 2000000000u /* how long a connection may take to say who it is */

enum status { WELCOME, BAD_HELLO, ABI_MISMATCH, NOT_ALLOWED, NAME_IN_USE, TOO_MANY_WORKERS };

struct hello {
	uint32_t magic;
	uint16_t abi_major;
	uint16_t abi_minor;
	uint64_t layout;
	char name[WORKER_NAME_MAX + 1];
};

struct welcome {
	uint32_t magic;
	uint16_t abi_major;
	uint16_t abi_minor;
	uint32_t status;
	uint32_t worker;
	char text[128];
};

_Static_assert(sizeof(struct hello) == 48, "HELLO is 48 bytes");
_Static_assert(sizeof(struct welcome) == 144, "WELCOME is 144 bytes");

struct peer {
	int fd; /* -1 = none */
	uint32_t worker;
	uint64_t deadline_ns; /* for its HELLO */
};

static struct endpoint endpoint = {.fd = -1};
static struct peer peers[HANDOFF_PEERS];

/**
 * Makes the socket.
 *
 * @param s  Settings
 *
 * @return 0, or a negative errno value
 */
int handoff_open(const struct settings *s)
{
	for (unsigned i = 0; i < HANDOFF_PEERS; i++)
		peers[i] = (struct peer){.fd = -1, .worker = LSN_NO_WORKER};
	return endpoint_open(&endpoint, s);
}

static bool unchanged(const struct settings *a, const struct settings *b)
{
	return !strcmp(a->socket, b->socket) && !strcmp(a->group, b->group) && a->mode == b->mode;
}

/**
 * Makes the socket anew, if its settings have changed.
 *
 * @param s  Settings
 *
 * @return 1 if that was done, 0 if nothing has changed, or a negative errno value
 */
int handoff_rebind(const struct settings *s)
{
	struct settings old;
	int err;

	registry_settings(&old);
	if (unchanged(&old, s))
		return 0;
	for (unsigned i = 0; i < HANDOFF_PEERS; i++) {
		if (peers[i].fd >= 0)
			return -EBUSY;
	}
	endpoint_close(&endpoint);
	err = endpoint_open(&endpoint, s);
	if (err)
		(void)endpoint_open(&endpoint, &old);
	return err ? err : 1;
}

static void drop(struct peer *peer)
{
	close(peer->fd);
	peer->fd = -1;
	if (peer->worker != LSN_NO_WORKER)
		adoption_lost(peer->worker);
	peer->worker = LSN_NO_WORKER;
}

/**
 * Closes all connections and the socket.
 */
void handoff_close(void)
{
	for (unsigned i = 0; i < HANDOFF_PEERS; i++) {
		if (peers[i].fd >= 0)
			drop(&peers[i]);
	}
	endpoint_close(&endpoint);
}

/**
 * Says what is to be waited for.
 *
 * @param fds  HANDOFF_FDS entries, the first of which is the socket's
 *
 * @return Number of entries that were filled in
 */
nfds_t handoff_poll(struct pollfd *fds)
{
	nfds_t n = 1;
	bool full = true;

	for (unsigned i = 0; i < HANDOFF_PEERS; i++) {
		if (peers[i].fd >= 0)
			fds[n++] = (struct pollfd){.fd = peers[i].fd, .events = POLLIN};
		else
			full = false;
	}
	fds[0] = (struct pollfd){.fd = full ? -1 : endpoint.fd, .events = POLLIN};
	return n;
}

static int reply(int fd, const struct welcome *w, const int *fds, unsigned n)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(3 * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)w, .iov_len = sizeof(*w)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n) {
		struct cmsghdr *c;

		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof(*w) ? 0 : -errno;
}

static struct welcome answer(enum status status, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static struct welcome answer(enum status status, const char *fmt, ...)
{
	struct welcome w = {
		.magic = LSN_MAGIC,
		.abi_major = LSN_ABI_MAJOR,
		.abi_minor = LSN_ABI_MINOR,
		.status = status,
		.worker = LSN_NO_WORKER,
	};
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(w.text, sizeof(w.text), fmt, ap);
	va_end(ap);
	return w;
}

static bool name_in_use(const char *name)
{
	bool used;

	registry_lock();
	used = workers_find(name) != LSN_NO_WORKER;
	registry_unlock();
	return used;
}

/* Checks what a peer says; fills in its answer. */
static struct welcome judge(int fd, const struct hello *h, ssize_t n, pid_t *pid)
{
	uid_t uid = (uid_t)-1;

	*pid = 0;
	if (n != (ssize_t)sizeof(*h) || h->magic != LSN_MAGIC)
		return answer(BAD_HELLO, "the message is not a HELLO: is this a pylisten worker?");
	if (!endpoint_allows(&endpoint, fd, &uid, pid))
		return answer(NOT_ALLOWED, "uid %u may not attach: add it to handoff-group",
		              (unsigned)uid);
	if (h->abi_major != LSN_ABI_MAJOR || h->layout != lsn_layout())
		return answer(ABI_MISMATCH,
		              "mod_listen speaks ABI %u.%u, this worker %u.%u: install both from the "
		              "same release", LSN_ABI_MAJOR, LSN_ABI_MINOR, h->abi_major, h->abi_minor);
	if (!memchr(h->name, 0, sizeof(h->name)) || !text_label_ok(h->name, WORKER_NAME_MAX))
		return answer(BAD_HELLO, "the worker's name is not 1 to %u characters of A-Z a-z 0-9 . _ -",
		              WORKER_NAME_MAX);
	if (name_in_use(h->name))
		return answer(NAME_IN_USE, "a worker named %s is attached already: choose another --name",
		              h->name);
	return answer(WELCOME, "welcome");
}

static int welcome(struct peer *peer, const struct hello *h, pid_t pid, struct welcome *w)
{
	int fds[3];
	int err;

	peer->worker = adoption_attach(h->name, pid);
	if (peer->worker == LSN_NO_WORKER) {
		*w = answer(TOO_MANY_WORKERS, "%u workers are attached already", LSN_WORKERS_MAX);
		(void)reply(peer->fd, w, NULL, 0);
		return -EUSERS;
	}
	w->worker = peer->worker;
	fds[0] = lsn_arena_fd(slots_arena());
	fds[1] = workers_doorbell(peer->worker);
	fds[2] = workers_kick_fd();
	err = reply(peer->fd, w, fds, 3);
	if (err) {
		*w = answer(BAD_HELLO, "it went away before it was welcomed");
		return err;
	}
	peer->deadline_ns = 0;
	switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_NOTICE, "worker %s is attached (pid %d)\n",
	                  h->name, (int)pid);
	adoption_welcomed();
	return 0;
}

static void greet(struct peer *peer, const struct hello *h, ssize_t n)
{
	pid_t pid;
	struct welcome w = judge(peer->fd, h, n, &pid);

	if (w.status == WELCOME && !welcome(peer, h, pid, &w))
		return;
	if (w.status != WELCOME && w.status != TOO_MANY_WORKERS)
		(void)reply(peer->fd, &w, NULL, 0);
	switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_WARNING, "a worker was turned away: %s\n",
	                  w.text);
	drop(peer);
}

static void hear(struct peer *peer)
{
	struct hello h;
	ssize_t n;

	memset(&h, 0, sizeof(h));
	n = recv(peer->fd, &h, sizeof(h), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		drop(peer);
	else if (peer->worker == LSN_NO_WORKER)
		greet(peer, &h, n);
	/* else: a worker has nothing to say after HELLO; it is not listened to */
}

static void let_in(void)
{
	int fd = accept4(endpoint.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (unsigned i = 0; i < HANDOFF_PEERS; i++) {
		if (peers[i].fd >= 0)
			continue;
		peers[i] = (struct peer){
			.fd = fd, .worker = LSN_NO_WORKER, .deadline_ns = lsn_now_ns() + HELLO_NS};
		return;
	}
	close(fd);
}

/**
 * Deals with what has happened.
 *
 * @param fds  What handoff_poll filled in, after poll
 * @param n    Number of entries
 */
void handoff_serve(const struct pollfd *fds, nfds_t n)
{
	nfds_t at = 1;

	for (unsigned i = 0; i < HANDOFF_PEERS && at < n; i++) {
		if (peers[i].fd < 0 || peers[i].fd != fds[at].fd)
			continue;
		if (fds[at].revents)
			hear(&peers[i]);
		at++;
	}
	if (n && fds[0].revents)
		let_in();
}

/**
 * Drops connections that do not say who they are.
 *
 * @return true if there are some that still may
 */
bool handoff_expire(void)
{
	uint64_t now_ns = lsn_now_ns();
	bool waiting = false;

	for (unsigned i = 0; i < HANDOFF_PEERS; i++) {
		if (peers[i].fd < 0 || !peers[i].deadline_ns)
			continue;
		if (now_ns > peers[i].deadline_ns)
			drop(&peers[i]);
		else
			waiting = true;
	}
	return waiting;
}
