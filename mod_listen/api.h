/**
 * @file api.h  The API commands
 */
#ifndef LISTEN_API_H
#define LISTEN_API_H

#include <switch.h>

#define UUID_LISTEN_SYNTAX \
	"<uuid> start <url> [key=value ...]|{json} | stop|kill|resume [name] | " \
	"pause [name] [silence|drop] | send [name] <text> | list [json]"
#define LISTEN_SYNTAX "status|list|workers|reload|drain <worker> [json]"
#define LISTEN_CTL_SYNTAX "describe|accept <listen-id> | event|end <listen-id> {json}"

switch_status_t uuid_listen_api(const char *cmd, switch_core_session_t *session,
                                switch_stream_handle_t *stream);
switch_status_t listen_api(const char *cmd, switch_core_session_t *session,
                           switch_stream_handle_t *stream);
switch_status_t listen_ctl_api(const char *cmd, switch_core_session_t *session,
                               switch_stream_handle_t *stream);

#endif
