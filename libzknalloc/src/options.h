/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * options.h - the table of options.  One row makes the field, the parser, the
 * listing and (by test) the documentation.
 *
 * Options come from the environment alone, are read once, before the first
 * large request, and never change.  A value that does not parse, or is out
 * of range, is reported in one line on stderr and the default stays.
 */
#ifndef ZKN_OPTIONS_H
#define ZKN_OPTIONS_H

#include "base.h"

/* SIZE values that stand for "decided at start". */
#define OPTION_AUTO SIZE_MAX

/* X(type, field, variable, default, minimum, maximum, help)
 * SIZE: bytes, with K, M, G or T for powers of 1024, or "auto" where the
 * default is OPTION_AUTO; BOOL: 0/1, no/yes, off/on, false/true; MODE: a word
 * of debug_words; PATH: text. */
#define OPTIONS_LIST(X)                                                        \
    X(SIZE, cache_bytes, "ZK_NALLOC_CACHE_BYTES", OPTION_AUTO, 0,              \
      SIZE_MAX / 2, "free memory kept resident, at most")                      \
    X(SIZE, magazine_bytes, "ZK_NALLOC_MAGAZINE_BYTES", 1280 * KIB, 0, GIB,    \
      "free memory kept by each CPU for its own requests")                     \
    X(SIZE, reserve_bytes, "ZK_NALLOC_RESERVE_BYTES", OPTION_AUTO, 0,          \
      SIZE_MAX / 2, "address space to reserve; 0 turns the cache off")         \
    X(SIZE, idle_seconds, "ZK_NALLOC_IDLE_SECONDS", 60, 0, 65535,              \
      "give free memory back that went unused so long; 0: never")              \
    X(BOOL, thp, "ZK_NALLOC_THP", 1, 0, 1, "ask for transparent huge pages")   \
    X(BOOL, colour, "ZK_NALLOC_COLOUR", 1, 0, 1,                               \
      "start large regions at different cache sets")                           \
    X(BOOL, populate, "ZK_NALLOC_POPULATE", 0, 0, 1,                           \
      "fault new buffers in at once, not page by page as they are touched")    \
    X(BOOL, sparse, "ZK_NALLOC_SPARSE", 1, 0, 1,                               \
      "serve zeroed memory of which little is used in small pages")            \
    X(SIZE, spread, "ZK_NALLOC_SPREAD", OPTION_AUTO, 0, UINT32_MAX,            \
      "leave clearing to the threads that touch, up to so many per cent")      \
    X(BOOL, wipe, "ZK_NALLOC_WIPE", 0, 0, 1,                                   \
      "clear large regions when they are freed, not when they are reused")     \
    X(MODE, debug, "ZK_NALLOC_DEBUG", 0, 0, 3,                                 \
      "catch misuse of large regions: poison, unmap or guard")                 \
    X(PATH, stats_file, "ZK_NALLOC_STATS_FILE", 0, 0, 0,                       \
      "append the statistics, a line of JSON, at exit")

struct options {
#define OPTION_FIELD_SIZE(field) size_t field;
#define OPTION_FIELD_BOOL(field) size_t field;
#define OPTION_FIELD_MODE(field) size_t field;
#define OPTION_FIELD_PATH(field) const char *field;
#define X(type, field, variable, initial, min, max, help)                      \
    OPTION_FIELD_##type(field)
    OPTIONS_LIST(X)
#undef X
};

/* Valid once options_load() has returned; read-only after that. */
extern HIDDEN struct options options;

HIDDEN void options_load(void);

/* One line per option to FD; returns 0 or -errno. */
HIDDEN int options_print(int fd);

#endif /* ZKN_OPTIONS_H */
