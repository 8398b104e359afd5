/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * transcript.h - Fiat-Shamir: the verifier's coins, drawn from all that was
 * said so far.
 *
 * The state is one digest.  Whatever the prover says is absorbed before the
 * next challenge is drawn, and drawing changes the state as well, so prover
 * and verifier agree exactly when they heard the same things in one order.
 */
#ifndef DEMO_TRANSCRIPT_H
#define DEMO_TRANSCRIPT_H

#include "field.h"
#include "hash.h"

typedef struct transcript {
    digest state;
} transcript;

transcript transcript_start(const void *statement, size_t len);
void transcript_absorb(transcript *t, const void *data, size_t len);
ext transcript_challenge(transcript *t);
/* A uniform index below 2^BITS, BITS <= 32. */
size_t transcript_index(transcript *t, unsigned bits);

#endif
