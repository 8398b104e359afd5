/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * stark.h - prove and verify.
 */
#ifndef DEMO_STARK_H
#define DEMO_STARK_H

#include "air.h"

/* Prove that the chain of 2^LOG_ROWS rows from SECRET ends in the output that
 * STATEMENT receives.  Returns the proof, *SIZE bytes, to be freed. */
uint8_t *stark_prove(unsigned log_rows, const fe secret[AIR_SECRET],
                     unsigned threads, struct statement *statement,
                     size_t *size);

/* NULL where PROOF proves STATEMENT, else why it does not. */
const char *stark_verify(const struct statement *statement,
                         const uint8_t *proof, size_t size);

#endif
