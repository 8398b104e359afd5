/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * ntt.h - number-theoretic transforms of whole matrices.
 *
 * A column of n = 2^k values is a polynomial of degree < n, given by its
 * values on the subgroup H of n elements.  All columns of a row-major matrix
 * are transformed together: one butterfly works on two rows, and streams.
 *
 *   interpolation   values in natural order -> coefficients in bit-reversed
 *                   order (decimation in frequency)
 *   evaluation      coefficients in bit-reversed order -> values in natural
 *                   order (decimation in time)
 *
 * so that neither needs a permutation pass.
 *
 * The low-degree extension evaluates on BLOWUP * n points: the cosets s_b H,
 * b < BLOWUP, one after the other, with s_b = generator * w^b and w a root of
 * unity of order BLOWUP * n.  In this order the row after row i, at w_n times
 * its point, is row i + 1 of the same coset, and the row at minus its point is
 * row i + n / 2.
 */
#ifndef DEMO_NTT_H
#define DEMO_NTT_H

#include "field.h"
#include "memory.h"

#define LOG_BLOWUP 3
#define BLOWUP     (1u << LOG_BLOWUP)

/* Powers of the root of unity of order 2^log_n, and of its inverse. */
struct twiddles {
    unsigned log_n;
    fe *forward, *inverse; /* 2^(log_n - 1) powers each */
};

struct twiddles twiddles_new(unsigned log_n);
void twiddles_free(struct twiddles *t);

/* s_b, the first point of coset B for columns of 2^LOG_N rows. */
fe coset_shift(unsigned log_n, unsigned b);

/* A copy of VALUES, turned into coefficients in bit-reversed order. */
struct matrix *matrix_interpolate(const struct twiddles *t,
                                  const struct matrix *values,
                                  unsigned threads);
/* The low-degree extension: BLOWUP * n rows from n rows of coefficients. */
struct matrix *matrix_extend(const struct twiddles *t,
                             const struct matrix *coefficients,
                             unsigned threads);

#endif
