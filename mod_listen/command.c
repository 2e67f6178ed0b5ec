/**
 * @file command.c  What the API commands have in common
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

/**
 * Takes the next word off a command. The rest stays as it was typed: JSON and
 * texts keep their quotes and spaces.
 *
 * @param rest  The rest of the command; moved on
 *
 * @return The word, empty if there is none
 */
char *command_word(char **rest)
{
	char *word = *rest, *end;

	while (isspace((unsigned char)*word))
		word++;
	end = word;
	while (*end && !isspace((unsigned char)*end))
		end++;
	*rest = end;
	if (*end) {
		*end = '\0';
		*rest = end + 1;
	}
	while (isspace((unsigned char)**rest))
		(*rest)++;
	return word;
}

/**
 * Whether what is left of a command is the word json.
 *
 * @param rest  The rest of the command
 *
 * @return true if so
 */
bool command_json(char *rest)
{
	return !strcmp(command_word(&rest), "json");
}

/**
 * Answers that something was refused.
 *
 * @param stream   Where to
 * @param refusal  Why
 */
void command_refused(switch_stream_handle_t *stream, const struct refusal *refusal)
{
	stream->write_function(stream, "-ERR %s %s\n", refusal->code, refusal->text);
}

/**
 * Answers with JSON, on one line.
 *
 * @param stream  Where to
 * @param prefix  What stands before it, such as "+OK "
 * @param json    JSON; deleted
 */
void command_write_json(switch_stream_handle_t *stream, const char *prefix, cJSON *json)
{
	char *text = cJSON_PrintUnformatted(json);

	switch_assert(text);
	stream->write_function(stream, "%s%s\n", prefix, text);
	free(text);
	cJSON_Delete(json);
}
