/**
 * @file request.h  What somebody asks for when a listen is to begin
 */
#ifndef LISTEN_REQUEST_H
#define LISTEN_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "reason.h"

#define NAME_MAX_CHARS 64u
#define NAME_DEFAULT "listen"

struct request {
	char *verb; /* the whole verb as JSON text */
	char name[NAME_MAX_CHARS + 1];
	uint32_t rate;
	uint32_t mix; /* enum lsn_mix */
	bool playback;
	bool include_playback; /* own playback is in the far track too */
	bool early_media;
};

int request_parse(struct request *req, const char *text, struct refusal *refusal);
void request_close(struct request *req);

#endif
