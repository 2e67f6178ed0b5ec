/**
 * @file app.h  The dialplan applications
 */
#ifndef LISTEN_APP_H
#define LISTEN_APP_H

#include <switch.h>

void listen_app(switch_core_session_t *session, const char *data);
void listen_start_app(switch_core_session_t *session, const char *data);
void listen_stop_app(switch_core_session_t *session, const char *data);

#endif
