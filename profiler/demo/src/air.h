/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * air.h - what is proved: knowledge of the start of a long permutation chain.
 *
 * The state has AIR_WIDTH field elements, one trace column each.  One row of
 * the trace follows from the one before by a round
 *
 *     state <- M * (state + constants(row)) ^ 7
 *
 * where M is the all-ones matrix plus diag(1, 2, ..., AIR_WIDTH) and the
 * constants repeat every AIR_PERIOD rows.  x^7 permutes the field, for 7 does
 * not divide p - 1.  The chain starts from AIR_SECRET elements that only the
 * prover knows, followed by zeros; the statement gives the number of rows and
 * the first AIR_OUTPUT elements of the last row.
 *
 *   transition   every row but the last is followed by its round: degree 7
 *   boundary     the zeros in the first row, the output in the last
 *
 * The round has the shape of Poseidon2's and was not studied as a hash: it
 * stands for the arithmetic of a real trace.
 */
#ifndef DEMO_AIR_H
#define DEMO_AIR_H

#include "memory.h"

#define AIR_WIDTH      64
#define AIR_SECRET     32
#define AIR_ZEROS      (AIR_WIDTH - AIR_SECRET)
#define AIR_OUTPUT     8
#define AIR_LOG_PERIOD 5
#define AIR_PERIOD     (1u << AIR_LOG_PERIOD)
#define AIR_DEGREE     7

struct statement {
    uint32_t log_rows;
    fe output[AIR_OUTPUT];
};

struct air {
    fe diagonal[AIR_WIDTH];
    fe constants[AIR_PERIOD][AIR_WIDTH];
    /* The same by column, as coefficients of a polynomial in
     * y = x^(rows / AIR_PERIOD): row i of the trace lies at y = w^i for the
     * root of unity w of order AIR_PERIOD. */
    fe periodic[AIR_WIDTH][AIR_PERIOD];
};

void air_init(struct air *air);

/* One round, and the same over the extension. */
void air_round(const struct air *air, const fe *constants, const fe *in,
               fe *out);
void air_round_ext(const struct air *air, const ext *constants, const ext *in,
                   ext *out);
/* The constants at any y of the extension. */
void air_constants_at(const struct air *air, ext y, ext *constants);

/* The trace of 2^LOG_ROWS rows from SECRET, and the statement it proves. */
struct matrix *air_trace(const struct air *air, unsigned log_rows,
                         const fe secret[AIR_SECRET], struct statement *out);

#endif
