/**
 * @file version.h  The module's version; the same as pylisten's
 */
#ifndef LISTEN_VERSION_H
#define LISTEN_VERSION_H

#define MOD_LISTEN_VERSION "0.1.0"

#endif
