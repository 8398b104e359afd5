/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * look.h - what pages hold, by the kernel's page table and by reading them.
 *
 * Pages are counted from the heap's base and are the caller's, where nothing
 * else is said; no lock is needed.
 */
#ifndef ZKN_LOOK_H
#define ZKN_LOOK_H

#include "base.h"

/* Whether SIZE bytes, a multiple of 32, are zero. */
HIDDEN bool look_is_zero(const char *addr, size_t size);

/* Count the LENGTH pages from FIRST on that hold something into *TOUCHED and,
 * as long as they are no more than LIMIT, clear them.  Returns 0 or -errno. */
HIDDEN int look_clear(uint32_t first, uint32_t length, size_t limit,
                      uint32_t *touched);

/* Make COUNT pages from PAGE on read as zero, so that nothing of what they held
 * is left in memory. */
HIDDEN void look_wipe(uint32_t page, uint32_t count);

/* The resident pages of COUNT from PAGE on, which may be anybody's. */
HIDDEN uint32_t look_resident(uint32_t page, uint32_t count);

#endif /* ZKN_LOOK_H */
