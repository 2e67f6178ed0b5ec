/**
 * @file request.c  What somebody asks for when a listen is to begin
 *
 * Only what the module itself needs is looked at here; the worker checks the
 * verb as a whole. The text of a JSON verb is passed on as it came, so that
 * metadata is not touched.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <switch.h>

#include "request.h"
#include "shm/shm.h"
#include "shorthand.h"
#include "text.h"

#define SHOWN 60 /* characters of a wrong value that are shown */

static int bad(struct refusal *refusal, const char *path, const cJSON *found, const char *expected)
{
	char *text = found ? cJSON_PrintUnformatted(found) : NULL;
	char *line = text_one_line(text);
	int err = refuse(refusal, REASON_BAD_REQUEST, "BAD_REQUEST",
	                 "%s: found %.*s, expected %s", path, SHOWN, line ? line : "nothing", expected);

	free(line);
	free(text);
	return err;
}

static int read_bool(const cJSON *obj, const char *key, const char *path, bool *value,
                     struct refusal *refusal)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(obj, key);

	if (!item)
		return 0;
	if (!cJSON_IsBool(item))
		return bad(refusal, path, item, "true or false");
	*value = cJSON_IsTrue(item);
	return 0;
}

static int read_rate(const cJSON *obj, const char *key, const char *path, uint32_t *value,
                     struct refusal *refusal)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(obj, key);

	if (!item)
		return 0;
	if (!cJSON_IsNumber(item) || item->valuedouble != (double)item->valueint ||
	    item->valueint < 0 || !lsn_rate_ok((uint32_t)item->valueint))
		return bad(refusal, path, item, "8000, 16000, 24000, 32000, 48000 or 64000");
	*value = (uint32_t)item->valueint;
	return 0;
}

static int read_mix(const cJSON *verb, uint32_t *mix, struct refusal *refusal)
{
	static const char *const names[] = {
		[LSN_MONO] = "mono", [LSN_STEREO] = "stereo", [LSN_MIXED] = "mixed"};
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(verb, "mixType");

	if (!item)
		return 0;
	for (uint32_t i = LSN_MONO; i <= LSN_MIXED; i++) {
		if (cJSON_IsString(item) && !strcmp(item->valuestring, names[i])) {
			*mix = i;
			return 0;
		}
	}
	return bad(refusal, "mixType", item, "\"mono\", \"stereo\" or \"mixed\"");
}

static int check_verb(const cJSON *verb, struct refusal *refusal)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(verb, "verb");

	if (!item || (cJSON_IsString(item) &&
	              (!strcmp(item->valuestring, "listen") || !strcmp(item->valuestring, "stream"))))
		return 0;
	return bad(refusal, "verb", item, "\"listen\"");
}

static int read_name(const cJSON *verb, char *name, struct refusal *refusal)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(verb, "name");

	if (!item)
		return 0;
	if (!cJSON_IsString(item) || !text_label_ok(item->valuestring, NAME_MAX_CHARS))
		return bad(refusal, "name", item, "1 to 64 characters of A-Z a-z 0-9 . _ -");
	switch_copy_string(name, item->valuestring, NAME_MAX_CHARS + 1);
	return 0;
}

static bool has_user_info(const char *authority)
{
	const char *at = strchr(authority, '@');

	return at && strcspn(authority, "/?#") > (size_t)(at - authority);
}

static int check_url(const cJSON *verb, struct refusal *refusal)
{
	static const char *const schemes[] = {"ws://", "wss://", "http://", "https://", NULL};
	const cJSON *url = cJSON_GetObjectItemCaseSensitive(verb, "url");
	const cJSON *profile = cJSON_GetObjectItemCaseSensitive(verb, "profile");

	if (profile && (!cJSON_IsString(profile) || !*profile->valuestring))
		return bad(refusal, "profile", profile, "the name of a profile");
	if (!url && profile)
		return 0;
	for (const char *const *s = schemes; cJSON_IsString(url) && *s; s++) {
		size_t n = strlen(*s);

		if (strncasecmp(url->valuestring, *s, n) || !url->valuestring[n])
			continue;
		if (!has_user_info(url->valuestring + n))
			return 0;
		/* the value is not shown: it may hold a password */
		return refuse(refusal, REASON_BAD_REQUEST, "BAD_REQUEST",
		              "url: found user-info, expected credentials in wsAuth or a profile");
	}
	if (cJSON_IsString(url)) /* nor is this one shown: it may hold a token */
		return refuse(refusal, REASON_BAD_REQUEST, "BAD_REQUEST",
		              "url: found another kind of URL, expected ws, wss, http or https");
	return bad(refusal, "url", url, "a ws, wss, http or https URL, or a profile");
}

static int read_playback(const cJSON *verb, bool *playback, struct refusal *refusal)
{
	const cJSON *both = cJSON_GetObjectItemCaseSensitive(verb, "bidirectionalAudio");
	bool disabled = false, streaming;
	uint32_t rate;
	int err;

	err = read_bool(verb, "disableBidirectionalAudio", "disableBidirectionalAudio", &disabled,
	                refusal);
	if (err)
		return err;
	*playback = !disabled;
	if (!both)
		return 0;
	if (!cJSON_IsObject(both))
		return bad(refusal, "bidirectionalAudio", both, "an object");
	err = read_bool(both, "enabled", "bidirectionalAudio.enabled", playback, refusal);
	if (!err)
		err = read_bool(both, "streaming", "bidirectionalAudio.streaming", &streaming, refusal);
	if (!err)
		err = read_rate(both, "sampleRate", "bidirectionalAudio.sampleRate", &rate, refusal);
	return err;
}

static int read_properties(struct request *req, const cJSON *verb, struct refusal *refusal)
{
	int err = check_verb(verb, refusal);
	bool beep = false;

	if (!err)
		err = check_url(verb, refusal);
	if (!err)
		err = read_name(verb, req->name, refusal);
	if (!err)
		err = read_mix(verb, &req->mix, refusal);
	if (!err)
		err = read_rate(verb, "sampleRate", "sampleRate", &req->rate, refusal);
	if (!err)
		err = read_playback(verb, &req->playback, refusal);
	if (!err)
		err = read_bool(verb, "playBeep", "playBeep", &beep, refusal);
	req->playback |= beep; /* the beep comes by the same road as the server's audio */
	if (!err)
		err = read_bool(verb, "includePlayback", "includePlayback", &req->include_playback,
		                refusal);
	if (!err)
		err = read_bool(verb, "earlyMedia", "earlyMedia", &req->early_media, refusal);
	return err;
}

static cJSON *parse_json(const char *text, struct refusal *refusal)
{
	const char *end = NULL;
	cJSON *verb = cJSON_ParseWithOpts(text, &end, 1);

	if (!verb) {
		/* nothing of the text is shown: it may hold a password */
		(void)refuse(refusal, REASON_BAD_REQUEST, "BAD_REQUEST",
		             "the verb is not JSON: fault near character %ld",
		             end ? (long)(end - text) + 1 : 1L);
	}
	return verb;
}

/**
 * Parses `<url> [key=value …]` or `{json}`.
 *
 * @param req      The request is stored here; to be closed if 0 is returned
 * @param text     The arguments
 * @param refusal  Filled in if they are wrong
 *
 * @return 0, or -EINVAL
 */
int request_parse(struct request *req, const char *text, struct refusal *refusal)
{
	cJSON *verb = NULL;
	bool json;
	int err;

	memset(req, 0, sizeof(*req));
	switch_copy_string(req->name, NAME_DEFAULT, sizeof(req->name));
	req->rate = 8000;
	req->mix = LSN_MONO;

	while (text && isspace((unsigned char)*text))
		text++;
	if (zstr(text))
		return refuse(refusal, REASON_BAD_REQUEST, "BAD_REQUEST",
		              "url: found nothing, expected <url> [key=value ...] or {json}");
	if (!text_utf8_ok(text))
		return refuse(refusal, REASON_BAD_REQUEST, "BAD_REQUEST", "the verb is not UTF-8");
	json = *text == '{';
	verb = json ? parse_json(text, refusal) : shorthand_parse(text, refusal);
	if (!verb)
		return -EINVAL;
	err = read_properties(req, verb, refusal);
	if (!err) {
		req->verb = json ? strdup(text) : cJSON_PrintUnformatted(verb);
		switch_assert(req->verb);
	}
	cJSON_Delete(verb);
	return err;
}

/**
 * Frees what a request holds.
 *
 * @param req  Request
 */
void request_close(struct request *req)
{
	free(req->verb);
	req->verb = NULL;
}
