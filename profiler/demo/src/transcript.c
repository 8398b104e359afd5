/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * transcript.c - see transcript.h.
 */
#include "transcript.h"

transcript transcript_start(const void *statement, size_t len)
{
    return (transcript){hash("zkdStart", statement, len)};
}

void transcript_absorb(transcript *t, const void *data, size_t len)
{
    /* Two hashes rather than a copy: data may be long. */
    digest pair[2] = {t->state, hash("zkdData.", data, len)};
    t->state = hash("zkdAbsor", pair, sizeof pair);
}

static void draw(transcript *t, uint32_t words[8])
{
    t->state = hash("zkdDraw.", &t->state, sizeof t->state);
    digest out = hash("zkdOut..", &t->state, sizeof t->state);
    memcpy(words, out.bytes, sizeof out.bytes);
}

ext transcript_challenge(transcript *t)
{
    /* 31 bits are an element 15 times in 16; others are passed over. */
    ext out;
    for (int found = 0; found < EXT_DEGREE;) {
        uint32_t words[8];
        draw(t, words);
        for (int i = 0; i < 8 && found < EXT_DEGREE; i++) {
            uint32_t word = words[i] & 0x7fffffff;
            if (word < FIELD_P)
                out.c[found++] = word;
        }
    }
    return out;
}

size_t transcript_index(transcript *t, unsigned bits)
{
    uint32_t words[8];
    draw(t, words);
    return words[0] & (((size_t)1 << bits) - 1);
}
