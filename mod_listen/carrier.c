/**
 * @file carrier.c  Silent frames for playback to be mixed into
 */
#include <string.h>

#include "carrier.h"

/**
 * Makes a carrier fit for what the channel sends now.
 *
 * @param c        Carrier, zeroed before its first use
 * @param session  Session of the channel
 *
 * @return false if the core has no L16 of that rate and frame length
 */
bool carrier_prepare(struct carrier *c, switch_core_session_t *session)
{
	switch_codec_implementation_t impl;

	switch_core_session_get_write_impl(session, &impl);
	if (switch_core_codec_ready(&c->codec) && impl.actual_samples_per_second == c->rate &&
	    impl.number_of_channels == c->channels && impl.microseconds_per_packet == c->frame_us)
		return true;
	carrier_close(c);
	if (!impl.actual_samples_per_second ||
	    switch_core_codec_init(&c->codec, "L16", NULL, NULL, impl.actual_samples_per_second,
	                           impl.microseconds_per_packet / 1000, impl.number_of_channels,
	                           SWITCH_CODEC_FLAG_ENCODE | SWITCH_CODEC_FLAG_DECODE, NULL,
	                           NULL) != SWITCH_STATUS_SUCCESS)
		return false;
	c->rate = impl.actual_samples_per_second;
	c->channels = impl.number_of_channels;
	c->frame_us = impl.microseconds_per_packet;
	return true;
}

/**
 * Writes one silent frame.
 *
 * @param c        Carrier that has been prepared
 * @param session  Session of the channel
 *
 * @return What the core says
 */
switch_status_t carrier_write(struct carrier *c, switch_core_session_t *session)
{
	uint32_t bytes = c->codec.implementation->decoded_bytes_per_packet;

	if (bytes > sizeof(c->data))
		return SWITCH_STATUS_FALSE;
	/* anew each time: playback is mixed into this very buffer */
	memset(c->data, 0, bytes);
	c->frame = (switch_frame_t){
		.codec = &c->codec,
		.data = c->data,
		.buflen = sizeof(c->data),
		.datalen = bytes,
		.samples = bytes / 2u / c->channels,
		.rate = c->rate,
		.channels = c->channels,
	};
	return switch_core_session_write_frame(session, &c->frame, SWITCH_IO_FLAG_NONE, 0);
}

/**
 * Frees what a carrier holds.
 *
 * @param c  Carrier
 */
void carrier_close(struct carrier *c)
{
	if (switch_core_codec_ready(&c->codec))
		switch_core_codec_destroy(&c->codec);
	memset(&c->codec, 0, sizeof(c->codec));
}
