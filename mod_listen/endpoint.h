/**
 * @file endpoint.h  The path at which workers attach, and who may
 */
#ifndef LISTEN_ENDPOINT_H
#define LISTEN_ENDPOINT_H

#include <stdbool.h>
#include <sys/types.h>

#include "settings.h"

struct endpoint {
	int fd; /* -1 = closed */
	char path[SETTINGS_PATH_MAX + 1];
	mode_t mode;
	gid_t gid;
	dev_t dev; /* of the socket file, so that another's is not removed */
	ino_t ino;
};

int endpoint_open(struct endpoint *ep, const struct settings *s);
void endpoint_close(struct endpoint *ep);
bool endpoint_allows(const struct endpoint *ep, int fd, uid_t *uid, pid_t *pid);

#endif
