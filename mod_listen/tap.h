/**
 * @file tap.h  The two media bugs of a channel, shared by all its listens
 */
#ifndef LISTEN_TAP_H
#define LISTEN_TAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <switch.h>

#include "listen.h"

#define TAP_PLACES 16u

enum tap_side { TAP_READ = 0, TAP_WRITE = 1 };

struct tap {
	_Atomic uint32_t refs;
	char *uuid;
	pthread_mutex_t lock; /* adding and removing bugs; never taken in a callback */
	pthread_mutex_t digits;

	_Atomic(struct listen *) places[TAP_PLACES];
	_Atomic uint32_t inside; /* callbacks that may hold a pointer from `places` */

	_Atomic(switch_media_bug_t *) bugs[2];
	atomic_bool gone;     /* its bugs were removed: a new listen needs a new tap */
	atomic_bool settling; /* they are being removed by us */

	_Atomic uint64_t written_ns; /* when somebody else wrote last; 0 = never */
	uint64_t played_ns;          /* when playback was mixed last; of the writing thread */
	atomic_bool writing;         /* the idle writer runs */
	_Atomic uint64_t writer_retry_ns;
};

struct tap *tap_new(const char *uuid);
struct tap *tap_ref(struct tap *tap);
void tap_unref(struct tap *tap);

int tap_join(switch_core_session_t *session, struct listen *l, struct refusal *refusal);
int tap_attach(switch_core_session_t *session, struct listen *l);
void tap_leave(struct listen *l);
void tap_settle(struct tap *tap, switch_core_session_t *session);

void tap_enter(struct tap *tap);
void tap_exit(struct tap *tap);
struct listen *tap_at(struct tap *tap, uint32_t place);
bool tap_pending(struct tap *tap);

#endif
