/**
 * @file endpoint.c  The path at which workers attach, and who may
 */
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <switch.h>

#include "endpoint.h"

#define BACKLOG 16
#define GROUPS_MAX 1024u

static int fault(const char *path, const char *what)
{
	int err = errno;

	switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_ERROR, "handoff socket %s: %s: %s\n", path,
	                  what, strerror(err));
	return err ? -err : -EINVAL;
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	switch_copy_string(sa.sun_path, path, sizeof(sa.sun_path));
	return sa;
}

static int seqpacket(void)
{
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Removes what a switch that was killed has left; nothing that is in use. */
static int remove_stale(const char *path)
{
	struct sockaddr_un sa = address(path);
	struct stat st;
	int fd, err;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : fault(path, "cannot be looked at");
	if (!S_ISSOCK(st.st_mode)) {
		errno = EEXIST;
		return fault(path, "is there, and is not a socket");
	}
	fd = seqpacket();
	if (fd < 0)
		return fault(path, "socket");
	err = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) ? errno : 0;
	close(fd);
	if (err != ECONNREFUSED) {
		errno = EADDRINUSE;
		return fault(path, "another switch listens there: give each its own handoff-socket");
	}
	return unlink(path) && errno != ENOENT ? fault(path, "cannot be replaced") : 0;
}

static int find_group(const char *name, gid_t *gid)
{
	char buf[16384];
	struct group grp, *found = NULL;

	*gid = getegid();
	if (!*name)
		return 0;
	if (getgrnam_r(name, &grp, buf, sizeof(buf), &found) || !found) {
		switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_ERROR,
		                  "handoff-group %s: there is no such group\n", name);
		return -EINVAL;
	}
	*gid = found->gr_gid;
	return 0;
}

/* Between bind and listen nobody can connect: there is no moment with wrong rights. */
static int bind_path(struct endpoint *ep)
{
	struct sockaddr_un sa = address(ep->path);
	struct stat st;

	ep->fd = seqpacket();
	if (ep->fd < 0)
		return fault(ep->path, "socket");
	if (bind(ep->fd, (struct sockaddr *)&sa, sizeof(sa)))
		return fault(ep->path, "bind");
	if (lstat(ep->path, &st))
		return fault(ep->path, "cannot be looked at");
	ep->dev = st.st_dev;
	ep->ino = st.st_ino;
	if (ep->gid != st.st_gid && chown(ep->path, (uid_t)-1, ep->gid))
		return fault(ep->path, "cannot be given to handoff-group");
	if (chmod(ep->path, ep->mode))
		return fault(ep->path, "cannot be given handoff-mode");
	if (listen(ep->fd, BACKLOG))
		return fault(ep->path, "listen");
	return 0;
}

/**
 * Makes the socket. What is wrong is logged.
 *
 * @param ep  To be filled in
 * @param s   Settings
 *
 * @return 0, or a negative errno value
 */
int endpoint_open(struct endpoint *ep, const struct settings *s)
{
	int err;

	*ep = (struct endpoint){.fd = -1, .mode = s->mode};
	switch_copy_string(ep->path, s->socket, sizeof(ep->path));
	err = find_group(s->group, &ep->gid);
	if (!err)
		err = remove_stale(ep->path);
	if (!err)
		err = bind_path(ep);
	if (err)
		endpoint_close(ep);
	return err;
}

/**
 * Closes the socket and removes its file, if it is still ours.
 *
 * @param ep  Endpoint
 */
void endpoint_close(struct endpoint *ep)
{
	struct stat st;

	if (ep->fd < 0)
		return;
	if (ep->ino && !lstat(ep->path, &st) && st.st_dev == ep->dev && st.st_ino == ep->ino)
		(void)unlink(ep->path);
	close(ep->fd);
	ep->fd = -1;
}

static bool in_group(int fd, gid_t gid)
{
	gid_t groups[GROUPS_MAX];
	socklen_t len = sizeof(groups);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len))
		return false;
	for (unsigned i = 0; i < len / sizeof(*groups); i++) {
		if (groups[i] == gid)
			return true;
	}
	return false;
}

/**
 * Whether a peer may attach: as the mode of the socket says, checked by who the
 * peer is, for a path can be reached through a descriptor that was passed on.
 *
 * @param ep   Endpoint
 * @param fd   Connection
 * @param uid  User of the peer is stored here
 * @param pid  Its process id is stored here
 *
 * @return true if so
 */
bool endpoint_allows(const struct endpoint *ep, int fd, uid_t *uid, pid_t *pid)
{
	struct ucred cred = {.uid = (uid_t)-1, .gid = (gid_t)-1};
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return false;
	*uid = cred.uid;
	*pid = cred.pid;
	if (cred.uid == 0 || cred.uid == geteuid())
		return true;
	if (cred.gid == ep->gid || in_group(fd, ep->gid))
		return (ep->mode & S_IWGRP) != 0;
	return (ep->mode & S_IWOTH) != 0;
}
