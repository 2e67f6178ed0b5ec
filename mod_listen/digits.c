/**
 * @file digits.c  DTMF of a channel, for all its listens
 *
 * The receive hook has what this leg's phone pressed, the send hook what the
 * far end of a bridge pressed. The core's event DTMF would come only when an
 * application takes the digit from the queue, if at all.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "digits.h"
#include "taps.h"

#define UNITS_PER_S 8000u /* what a worker is given */

/* The clock of telephone events received with `payload`, by the remote SDP. */
static uint32_t clock_in_sdp(const char *sdp, int payload)
{
	for (const char *p = strstr(sdp, "a=rtpmap:"); p; p = strstr(p + 1, "a=rtpmap:")) {
		unsigned clock = 0;
		int pt = -1;

		if (sscanf(p, "a=rtpmap:%d telephone-event/%u", &pt, &clock) == 2 && pt == payload)
			return clock;
	}
	return 0;
}

/* The core passes the duration on as it was sent, in units of whatever clock
 * the events have: 48 kHz beside Opus. */
static uint32_t event_clock(switch_core_session_t *session)
{
	switch_channel_t *channel = switch_core_session_get_channel(session);
	const char *sdp = switch_channel_get_variable_dup(channel, "switch_r_sdp", SWITCH_FALSE, -1);
	const char *payload =
		switch_channel_get_variable_dup(channel, "rtp_2833_recv_payload", SWITCH_FALSE, -1);
	uint32_t clock = sdp && payload ? clock_in_sdp(sdp, atoi(payload)) : 0;

	return clock ? clock : UNITS_PER_S;
}

static uint32_t source_clock(switch_core_session_t *session, const switch_dtmf_t *dtmf)
{
	switch_codec_implementation_t impl;

	if (dtmf->source == SWITCH_DTMF_RTP)
		return event_clock(session);
	if (dtmf->source == SWITCH_DTMF_INBAND_AUDIO) {
		switch_core_session_get_read_impl(session, &impl);
		if (impl.actual_samples_per_second)
			return impl.actual_samples_per_second;
	}
	return UNITS_PER_S;
}

static uint32_t duration_of(switch_core_session_t *session, const switch_dtmf_t *dtmf)
{
	uint64_t units = (uint64_t)dtmf->duration * UNITS_PER_S / source_clock(session, dtmf);

	if (!units)
		return SWITCH_DEFAULT_DTMF_DURATION;
	if (units < SWITCH_MIN_DTMF_DURATION)
		return SWITCH_MIN_DTMF_DURATION;
	return units < SWITCH_MAX_DTMF_DURATION ? (uint32_t)units : SWITCH_MAX_DTMF_DURATION;
}

/* The core marks only its own copy of a digit; hooks get one that is not marked. */
static bool sensitive(switch_core_session_t *session, const switch_dtmf_t *dtmf)
{
	switch_channel_t *channel = switch_core_session_get_channel(session);

	return switch_test_flag(dtmf, DTMF_FLAG_SENSITIVE) ||
	       switch_true(switch_channel_get_variable_dup(channel, SWITCH_SENSITIVE_DTMF_VARIABLE,
	                                                   SWITCH_FALSE, -1));
}

static void deliver(struct tap *tap, char digit, uint32_t duration, bool far)
{
	/* several threads may bring digits; the control ring takes one at a time */
	pthread_mutex_lock(&tap->digits);
	tap_enter(tap);
	for (uint32_t i = 0; i < TAP_PLACES; i++) {
		struct listen *l = tap_at(tap, i);

		if (!l)
			continue;
		(void)lsn_digit(l->arena, l->slot, lsn_now_ns(), digit, duration, far);
		workers_ring(l->arena, l->slot);
	}
	tap_exit(tap);
	pthread_mutex_unlock(&tap->digits);
}

/* `source` is the leg whose phone made the digit. */
static void handle(switch_core_session_t *session, switch_core_session_t *source,
                   const switch_dtmf_t *dtmf, bool far)
{
	char digit = (char)toupper((unsigned char)dtmf->digit);
	struct tap *tap;

	if (!digit || !strchr("0123456789*#ABCD", digit) || sensitive(source, dtmf))
		return;
	tap = taps_find(switch_core_session_get_uuid(session));
	if (!tap)
		return;
	deliver(tap, digit, duration_of(source, dtmf), far);
	tap_unref(tap);
}

static switch_status_t on_received(switch_core_session_t *session, const switch_dtmf_t *dtmf,
                                   switch_dtmf_direction_t direction)
{
	(void)direction;
	handle(session, session, dtmf, false);
	return SWITCH_STATUS_SUCCESS;
}

static switch_status_t on_sent(switch_core_session_t *session, const switch_dtmf_t *dtmf,
                               switch_dtmf_direction_t direction)
{
	switch_core_session_t *partner = NULL;

	(void)direction;
	(void)switch_core_session_get_partner(session, &partner);
	handle(session, partner ? partner : session, dtmf, true);
	if (partner)
		switch_core_session_rwunlock(partner);
	return SWITCH_STATUS_SUCCESS;
}

/**
 * Hooks into the digits of a channel; harmless if that has been done.
 *
 * @param session  Session
 */
void digits_hook(switch_core_session_t *session)
{
	switch_core_event_hook_add_recv_dtmf(session, on_received);
	switch_core_event_hook_add_send_dtmf(session, on_sent);
}

/**
 * Removes the hooks.
 *
 * @param session  Session
 */
void digits_unhook(switch_core_session_t *session)
{
	switch_core_event_hook_remove_recv_dtmf(session, on_received);
	switch_core_event_hook_remove_send_dtmf(session, on_sent);
}
