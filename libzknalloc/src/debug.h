/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * debug.h - ZK_NALLOC_DEBUG: catching the misuse of large regions.
 *
 *   poison   a freed region is filled with 0xdd; memory that is neither that
 *            nor zero when it is handed out again was written by a former
 *            owner: the process ends with a message;
 *   unmap    a freed region is made inaccessible and its addresses are not
 *            used again for long: any use of it is a SIGSEGV at the place;
 *   guard    a region ends, up to the alignment promised, at a page that is
 *            inaccessible: running over its end is a SIGSEGV at the place.
 *
 * For finding bugs: each mode costs time, "unmap" address space, and the last
 * two a mapping or two for each region.  With any of them there are no
 * magazines, no colours and no sparse regions, and realloc always moves.
 *
 * Locks: the functions work on a HELD region of the caller's; the quarantine of
 * "unmap" has a lock of its own, under which nothing else is done.
 */
#ifndef ZKN_DEBUG_H
#define ZKN_DEBUG_H

#include "heap.h"

enum debug_mode { DEBUG_OFF, DEBUG_POISON, DEBUG_UNMAP, DEBUG_GUARD };

/* Turn off what gets in the way of the mode in force. */
HIDDEN void debug_open(void);

/* Pages that a request needs beyond what it asked for. */
HIDDEN uint32_t debug_extra_pages(void);

/* Prepare REGION for a request of SIZE bytes at a multiple of ALIGNMENT: sets
 * its addr.  Before it is cleared, if it is to be. */
HIDDEN void debug_take(struct region *region, size_t size, size_t alignment);

/* Take leave of REGION.  Returns a region that may go back to the heap: it, an
 * older one, or NULL. */
HIDDEN struct region *debug_give(struct region *region);

#endif /* ZKN_DEBUG_H */
