/**
 * @file shorthand.c  `<url> [key=value …]` as JSON
 *
 * A value is a word, a 'quoted' or "quoted" text (always a string), or JSON
 * that begins with { or [. Dots in a key nest. Words that are true, false or a
 * number are typed, except for the properties that are strings by definition:
 * finishOnKey=1 means the key 1.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "shorthand.h"

#define KEY_MAX 128u

static const char *const strings[] = {
	"verb", "url", "id", "name", "profile", "mixType", "finishOnKey", "actionHook", NULL,
};
static const char *const string_parents[] = {"actionHook.", "wsAuth.", "headers.", NULL};

static bool is_string_key(const char *key)
{
	for (const char *const *s = strings; *s; s++) {
		if (!strcmp(*s, key))
			return true;
	}
	for (const char *const *s = string_parents; *s; s++) {
		if (!strncmp(*s, key, strlen(*s)))
			return true;
	}
	return false;
}

static const char *skip_space(const char *p)
{
	while (isspace((unsigned char)*p))
		p++;
	return p;
}

static size_t word_length(const char *p)
{
	size_t n = 0;

	while (p[n] && !isspace((unsigned char)p[n]))
		n++;
	return n;
}

/* Bytes of the key before the '=', or 0 if this is not key=value. */
static size_t key_length(const char *p)
{
	size_t n = strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");

	return p[n] == '=' && n < KEY_MAX && isalpha((unsigned char)p[0]) ? n : 0;
}

/* JSON's grammar of a number; what strtod takes beyond it is a word. */
static bool is_json_number(const char *s)
{
	const char *p = s + (*s == '-');

	if (!isdigit((unsigned char)*p) || (*p == '0' && isdigit((unsigned char)p[1])))
		return false;
	p += strspn(p, "0123456789");
	if (*p == '.') {
		if (!isdigit((unsigned char)*++p))
			return false;
		p += strspn(p, "0123456789");
	}
	if (*p == 'e' || *p == 'E') {
		p += 1 + (p[1] == '+' || p[1] == '-');
		if (!isdigit((unsigned char)*p))
			return false;
		p += strspn(p, "0123456789");
	}
	return !*p;
}

static cJSON *typed(const char *key, const char *word)
{
	if (is_string_key(key))
		return cJSON_CreateString(word);
	if (!strcmp(word, "true") || !strcmp(word, "false"))
		return cJSON_CreateBool(*word == 't');
	if (!is_json_number(word))
		return cJSON_CreateString(word);
	/* metadata is passed on as it was written: a number of 19 digits keeps them all */
	return strncmp(key, "metadata.", 9) ? cJSON_Parse(word) : cJSON_CreateRaw(word);
}

static cJSON *copy_of(const char *p, size_t n)
{
	char *s = strndup(p, n);
	cJSON *item;

	switch_assert(s);
	item = cJSON_CreateString(s);
	free(s);
	return item;
}

/* Metadata is passed on as it was written: a number of 20 digits keeps them all. */
static cJSON *raw_copy(cJSON *parsed, const char *p, size_t n)
{
	char *s = strndup(p, n);
	cJSON *item;

	switch_assert(s);
	item = cJSON_CreateRaw(s);
	free(s);
	cJSON_Delete(parsed);
	return item;
}

/* Reads the value at *pp and moves *pp behind it. */
static cJSON *read_value(const char *key, const char **pp)
{
	const char *p = *pp, *end;
	cJSON *item = NULL;
	char *word;

	if (*p == '{' || *p == '[') {
		item = cJSON_ParseWithOpts(p, &end, 0);
		*pp = item ? end : p;
		if (item && !strcmp(key, "metadata"))
			item = raw_copy(item, p, (size_t)(end - p));
	} else if (*p == '\'' || *p == '"') {
		end = strchr(p + 1, *p);
		if (end) {
			item = copy_of(p + 1, (size_t)(end - p - 1));
			*pp = end + 1;
		}
	} else {
		word = strndup(p, word_length(p));
		switch_assert(word);
		item = typed(key, word);
		*pp = p + strlen(word);
		free(word);
	}
	return item;
}

/* Puts a value in its place; takes it over, whatever comes of it. */
static int put(cJSON *root, const char *key, cJSON *item, struct refusal *refusal)
{
	char part[KEY_MAX];
	cJSON *at = root;
	const char *dot;

	while ((dot = strchr(key, '.'))) {
		cJSON *next;

		switch_copy_string(part, key, (switch_size_t)(dot - key) + 1);
		next = cJSON_GetObjectItemCaseSensitive(at, part);
		if (!next)
			next = cJSON_AddObjectToObject(at, part);
		if (!cJSON_IsObject(next) || !*part)
			goto fail;
		at = next;
		key = dot + 1;
	}
	if (!*key || cJSON_GetObjectItemCaseSensitive(at, key))
		goto fail;
	cJSON_AddItemToObject(at, key, item);
	return 0;

fail:
	cJSON_Delete(item);
	return refuse(refusal, REASON_BAD_REQUEST, "BAD_REQUEST",
	              "%s: given twice, or as a value and as an object", key);
}

static int read_pair(cJSON *root, const char **pp, struct refusal *refusal)
{
	size_t n = key_length(*pp);
	char key[KEY_MAX];
	cJSON *item;

	if (!n)
		return refuse(refusal, REASON_BAD_REQUEST, "BAD_REQUEST",
		              "found \"%.60s\", expected key=value", *pp);
	switch_copy_string(key, *pp, n + 1);
	*pp += n + 1;
	item = read_value(key, pp);
	if (!item)
		return refuse(refusal, REASON_BAD_REQUEST, "BAD_REQUEST",
		              "%s: found \"%.60s\", expected a word, a quoted text or JSON", key, *pp);
	if (**pp && !isspace((unsigned char)**pp)) {
		cJSON_Delete(item);
		return refuse(refusal, REASON_BAD_REQUEST, "BAD_REQUEST",
		              "%s: found \"%.60s\" after the value, expected a space", key, *pp);
	}
	return put(root, key, item, refusal);
}

/**
 * Turns `<url> [key=value …]` into the JSON of the verb. The URL may be left
 * out, for a profile has one.
 *
 * @param text     The arguments
 * @param refusal  Filled in if they are wrong
 *
 * @return The verb, to be deleted, or NULL
 */
cJSON *shorthand_parse(const char *text, struct refusal *refusal)
{
	const char *p = skip_space(text);
	cJSON *root = cJSON_CreateObject();
	int err = 0;

	if (*p && !key_length(p)) {
		size_t n = word_length(p);

		cJSON_AddItemToObject(root, "url", copy_of(p, n));
		p = skip_space(p + n);
	}
	while (*p && !err) {
		err = read_pair(root, &p, refusal);
		p = skip_space(p);
	}
	if (err) {
		cJSON_Delete(root);
		root = NULL;
	}
	return root;
}
