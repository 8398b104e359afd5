/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * proof.h - the proof as bytes: where everything lies.
 *
 * The length of a proof depends on the number of rows alone, and so does the
 * place of each part.  Prover and verifier both work on the layout computed
 * here; there is nothing to parse and no length to trust.
 *
 *   trace root, quotient root               one digest each
 *   opened                                  columns at the point z:
 *       trace at z, trace at w z, quotient at z     (ext each)
 *   layer roots                             one digest per FRI layer
 *   final                                   PROOF_FINAL coefficients (ext)
 *   PROOF_QUERIES times                     what each query opens:
 *       trace row, its Merkle path
 *       quotient row, its Merkle path
 *       per FRI layer: a pair of values, its Merkle path
 *
 * Security.  The code rate is 1 / BLOWUP, so a query catches a word that is
 * far from the code with probability 1 - 2^-1.5 by the proven (Johnson)
 * bound: 64 queries give 96 bits for the query phase.  The other terms of the
 * soundness error depend on the extension's 124 bits and the domain's size;
 * nobody has added them up for this prover.  It is a demonstration.  It is
 * not zero-knowledge: the rows it opens tell about the trace.
 */
#ifndef DEMO_PROOF_H
#define DEMO_PROOF_H

#include "air.h"
#include "hash.h"
#include "ntt.h"

#define PROOF_MIN_LOG_ROWS 6
#define PROOF_MAX_LOG_ROWS 22
#define PROOF_QUERIES      64
#define PROOF_LOG_FINAL    5
#define PROOF_FINAL        (1u << PROOF_LOG_FINAL)
#define PROOF_MAX_LAYERS   (PROOF_MAX_LOG_ROWS - PROOF_LOG_FINAL)

/* The quotient has a degree below (AIR_DEGREE - 1) * rows: so many pieces of
 * degree < rows, each of EXT_DEGREE columns over the base field. */
#define QUOTIENT_PIECES (AIR_DEGREE - 1)
#define QUOTIENT_WIDTH  (EXT_DEGREE * QUOTIENT_PIECES)
#define OPENED          (2 * AIR_WIDTH + QUOTIENT_WIDTH)

struct layout {
    unsigned log_rows, log_domain, layers;
    /* Offsets into the proof. */
    size_t trace_root, quotient_root, opened, layer_roots, final, queries;
    size_t total;
    /* Offsets into one query. */
    size_t trace_row, trace_path, quotient_row, quotient_path;
    size_t pair[PROOF_MAX_LAYERS], pair_path[PROOF_MAX_LAYERS];
    size_t query_size;
};

struct layout layout_of(unsigned log_rows);

/* FRI layer L holds, for each of BLOWUP cosets, M = rows >> L values.  The
 * values at x and -x, M / 2 apart, are folded together, so they make one leaf.
 * Value I of coset B is side fri_side() of leaf fri_leaf(). */
static inline size_t fri_leaf(size_t m, size_t b, size_t i)
{
    return b * (m / 2) + i % (m / 2);
}

static inline size_t fri_side(size_t m, size_t i)
{
    return i / (m / 2);
}

/* From f(x) and f(-x) to (even + beta * odd)(x^2), where
 * f(x) = even(x^2) + x * odd(x^2). */
static inline ext fri_fold(ext at_x, ext at_minus_x, fe x_inverse, ext beta)
{
    const fe half = FE_ONE / 2; /* FE_ONE is even */
    ext even = ext_add(at_x, at_minus_x);
    ext odd = ext_scale(ext_sub(at_x, at_minus_x), x_inverse);
    return ext_scale(ext_add(even, ext_mul(beta, odd)), half);
}

#endif
