/**
 * @file report.h  What runs, for operators and workers
 */
#ifndef LISTEN_REPORT_H
#define LISTEN_REPORT_H

#include <stdbool.h>

#include <switch.h>

void report_list(switch_stream_handle_t *stream, const char *uuid, bool json);
void report_workers(switch_stream_handle_t *stream, bool json);
void report_status(switch_stream_handle_t *stream, bool json);

#endif
