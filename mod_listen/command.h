/**
 * @file command.h  What the API commands have in common
 */
#ifndef LISTEN_COMMAND_H
#define LISTEN_COMMAND_H

#include <stdbool.h>

#include <switch.h>

#include "reason.h"

char *command_word(char **rest);
bool command_json(char *rest);
void command_refused(switch_stream_handle_t *stream, const struct refusal *refusal);
void command_write_json(switch_stream_handle_t *stream, const char *prefix, cJSON *json);

#endif
