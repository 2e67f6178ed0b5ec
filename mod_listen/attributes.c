/**
 * @file attributes.c  What is known of a call
 */
#include <stdlib.h>

#include "attributes.h"
#include "text.h"

static void add(cJSON *obj, const char *key, const char *value)
{
	char *line;

	if (zstr(value))
		return;
	line = text_one_line(value);
	cJSON_AddStringToObject(obj, key, line);
	free(line);
}

static const char *variable(switch_channel_t *channel, const char *name)
{
	return switch_channel_get_variable_dup(channel, name, SWITCH_FALSE, -1);
}

static void add_status(cJSON *obj, switch_channel_t *channel)
{
	const char *status = "ringing";
	int sip = 180;

	if (switch_channel_test_flag(channel, CF_ANSWERED)) {
		status = "in-progress";
		sip = 200;
	} else if (switch_channel_test_flag(channel, CF_EARLY_MEDIA)) {
		status = "early-media";
		sip = 183;
	}
	add(obj, "callStatus", status);
	cJSON_AddNumberToObject(obj, "sipStatus", sip);
}

static void add_parties(cJSON *obj, switch_channel_t *channel)
{
	switch_caller_profile_t *p = switch_channel_get_caller_profile(channel);
	switch_caller_profile_t *parent = switch_channel_get_originator_caller_profile(channel);

	if (p) {
		add(obj, "from", p->caller_id_number);
		add(obj, "to", p->destination_number);
		add(obj, "callerId", p->caller_id_number);
		add(obj, "callerName", p->caller_id_name);
	}
	if (parent && switch_channel_direction(channel) == SWITCH_CALL_DIRECTION_OUTBOUND)
		add(obj, "parentCallSid", parent->uuid);
}

/**
 * Reads the call attributes of the first text frame. Absent ones are left out.
 *
 * @param session  Session of the call
 *
 * @return JSON object as text, to be freed
 */
char *attributes_of(switch_core_session_t *session)
{
	switch_channel_t *channel = switch_core_session_get_channel(session);
	cJSON *obj = cJSON_CreateObject();
	const char *ip = variable(channel, "sip_received_ip");
	char *text;

	add(obj, "callSid", switch_core_session_get_uuid(session));
	add(obj, "direction", switch_channel_direction(channel) == SWITCH_CALL_DIRECTION_OUTBOUND
	                          ? "outbound" : "inbound");
	add_parties(obj, channel);
	add(obj, "callId", variable(channel, "sip_call_id"));
	add_status(obj, channel);
	add(obj, "originatingSipIp", ip ? ip : variable(channel, "sip_network_ip"));
	add(obj, "fsHost", switch_core_get_hostname());
	text = cJSON_PrintUnformatted(obj);
	cJSON_Delete(obj);
	switch_assert(text);
	return text;
}
