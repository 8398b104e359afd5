/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * testing.h - CHECK, CHECK_EQUAL, and a source of numbers.
 */
#ifndef DEMO_TESTING_H
#define DEMO_TESTING_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "field.h"

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__,         \
                    #condition);                                               \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

#define CHECK_EQUAL(a, b)                                                      \
    do {                                                                       \
        unsigned long long a_ = (a), b_ = (b);                                 \
        if (a_ != b_) {                                                        \
            fprintf(stderr, "%s:%d: %s is %llu, not %llu\n", __FILE__,         \
                    __LINE__, #a, a_, b_);                                     \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

/* The same numbers in every run (splitmix64). */
static inline uint64_t next_number(void)
{
    static uint64_t state = 1;
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline fe next_fe(void)
{
    return (fe)(next_number() % FIELD_P);
}

static inline ext next_ext(void)
{
    return (ext){{next_fe(), next_fe(), next_fe(), next_fe()}};
}

#endif
