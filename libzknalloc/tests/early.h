/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * early.h - what early.c, a preloaded library, tells test_early.c.
 */
#ifndef ZKN_TESTS_EARLY_H
#define ZKN_TESTS_EARLY_H

#include <stddef.h>

struct early_block {
    unsigned char *ptr;
    size_t size;
};

#define EARLY_BLOCKS 5

/* Symbols of early.c, to be looked up: blocks from inside of the look-up, each
 * filled with its number, from 1; what did not hold, or NULL; inside of which
 * first call they were asked for. */
#define EARLY_BLOCKS_SYMBOL   "early_blocks"
#define EARLY_WRONG_SYMBOL    "early_wrong"
#define EARLY_ASKED_IN_SYMBOL "early_asked_in"

#endif /* ZKN_TESTS_EARLY_H */
