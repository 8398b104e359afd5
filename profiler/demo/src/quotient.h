/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * quotient.h - from a trace that keeps its constraints to a polynomial.
 *
 * Each constraint is a polynomial that must vanish on some rows, so it can be
 * divided by the polynomial Z that vanishes exactly there:
 *
 *   transition   Z = (x^n - 1) / (x - last)    every row but the last
 *   first row    Z = x - 1
 *   last row     Z = x - last                  last = w^(n - 1)
 *
 * The quotient is the sum of all, weighted by powers of alpha.  It has a
 * degree below QUOTIENT_PIECES * n exactly where every constraint holds, and
 * is cut into pieces: quotient(x) = sum of x^(k n) * piece_k(x).
 */
#ifndef DEMO_QUOTIENT_H
#define DEMO_QUOTIENT_H

#include "proof.h"

/* The pieces as coefficients, in bit-reversed order: n rows of
 * QUOTIENT_WIDTH columns, EXT_DEGREE per piece.  EXTENDED is the extended
 * trace. Ends the program where the trace breaks a constraint. */
struct matrix *quotient_pieces(const struct air *air,
                               const struct statement *statement,
                               const struct twiddles *t,
                               const struct matrix *extended, ext alpha,
                               unsigned threads);

/* The quotient at Z, as the constraints demand it, from the trace at z and
 * at w * z. */
ext quotient_expected(const struct air *air, const struct statement *statement,
                      ext alpha, ext z, const ext *at_z, const ext *at_next);

#endif
