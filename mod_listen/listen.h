/**
 * @file listen.h  One listen: what it is, how it begins and ends
 */
#ifndef LISTEN_LISTEN_H
#define LISTEN_LISTEN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <switch.h>

#include "audio.h"
#include "player.h"
#include "reason.h"
#include "request.h"
#include "shm/shm.h"
#include "workers.h"

struct tap;

enum listen_state { LISTEN_LIVE, LISTEN_ENDING, LISTEN_ENDED };
enum pause { PAUSE_NONE, PAUSE_SILENCE, PAUSE_DROP };

/* How a listen ended; texts are owned by the listen. */
struct ending {
	enum reason reason;
	char *error;
	char *digits;
	char *close_reason;
	uint64_t bytes_sent;
	uint64_t gap_ms;
	uint64_t duration_ms;
	uint64_t close_code;
};

struct listen {
	_Atomic uint32_t refs;
	_Atomic int state; /* enum listen_state */
	pthread_mutex_t order; /* start is announced before end */

	/* does not change while it lives */
	char id[SWITCH_UUID_FORMATTED_LENGTH + 1];
	char uuid[SWITCH_UUID_FORMATTED_LENGTH * 4]; /* of the channel; users may choose it */
	char name[NAME_MAX_CHARS + 1];
	char *verb;       /* JSON */
	char *attributes; /* JSON */
	struct lsn_arena *arena;
	struct tap *tap;
	uint32_t place; /* in the tap */
	uint32_t slot;
	uint32_t gen;
	uint32_t rate;
	uint32_t mix;
	bool playback;
	bool include_playback;
	bool blocking;
	uint64_t start_ns;
	int64_t start_epoch_ms;

	/* under the registry's lock */
	uint32_t worker;
	bool published;
	bool accepted;
	bool adopted;
	atomic_int paused; /* enum pause: what the next worker must know */
	uint64_t orphan_ns; /* since when it has no worker; 0 = it has one */
	char lost[WORKER_NAME_MAX + 1]; /* the worker that it had then */

	/* under `order`, by the one that ends it */
	struct ending end;

	/* of the thread that reads from the channel, and of the one that writes */
	struct converter near;
	struct converter far;
	struct player player;
	bool heard; /* the player made something for this frame */
};

int listen_start(switch_core_session_t *session, const struct request *req, bool blocking,
                 struct listen **lp, struct refusal *refusal);
bool listen_end(struct listen *l, switch_core_session_t *session, const struct ending *end);
bool listen_end_reason(struct listen *l, switch_core_session_t *session, enum reason reason);

struct listen *listen_ref(struct listen *l);
void listen_unref(struct listen *l);
bool listen_live(const struct listen *l);
bool listen_wants_far(const struct listen *l);
const char *listen_mix_name(const struct listen *l);

void listen_set_result(switch_channel_t *channel, const char *id, const struct ending *end);

#endif
