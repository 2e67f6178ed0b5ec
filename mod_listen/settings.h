/**
 * @file settings.h  autoload_configs/listen.conf.xml
 */
#ifndef LISTEN_SETTINGS_H
#define LISTEN_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SETTINGS_PATH_MAX 107u /* what sockaddr_un takes, without the NUL */

struct settings {
	char socket[SETTINGS_PATH_MAX + 1];
	char group[64];
	mode_t mode;
	uint32_t max_listens;
	uint32_t ring_ms;
	uint32_t adopt_timeout_ms;
	bool idle_writer;
};

void settings_read(struct settings *s);

#endif
