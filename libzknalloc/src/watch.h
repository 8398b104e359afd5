/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * watch.h - giving memory back when nobody asks: a thread that looks once a
 * second while there is much free memory.
 *
 *   - What went unused for ZK_NALLOC_IDLE_SECONDS is given back; what went
 *     unused for a tenth of that is offered to the kernel.
 *   - Free memory beyond the hard tier (min(RAM, control group)/8, at most
 *     1 GiB) is offered to the kernel as soon as it went unused for a second.
 *   - Under memory pressure all of it is offered at once; under high pressure,
 *     or when the control group is nearly full, all of it is given back.
 *
 * The thread starts when free memory first exceeds WATCH_LEAST, so that small
 * programs never have it; it blocks all signals, and a forked child starts
 * its own.  ZK_NALLOC_IDLE_SECONDS=0 does without it.
 */
#ifndef ZKN_WATCH_H
#define ZKN_WATCH_H

#include "base.h"

#define WATCH_LEAST (64 * MIB)

/* Set the bound on free memory that stays hard, in bytes. */
HIDDEN void watch_open(size_t hard);

/* To be called, without locks, where memory was freed and PAGES pages are DIRTY
 * since. */
HIDDEN void watch_free(size_t pages);

/* In a forked child: the thread is not there. */
HIDDEN void watch_forked(void);

#endif /* ZKN_WATCH_H */
