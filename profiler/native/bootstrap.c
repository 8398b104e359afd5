/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * bootstrap.c - how far a share could be off by chance.
 *
 * Samples close in time resemble each other (a phase of the program lasts
 * longer than a sampling period), so the binomial formula promises too much.
 * Drawing whole blocks of time with replacement, again and again, and looking
 * at the spread of the result keeps that resemblance.
 */
#include "zkprof_native.h"

#include <errno.h>
#include <stdlib.h>

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Fill SHARES, a row of RESAMPLES for each column. */
static void resample(const double *parts, const double *whole, size_t n_blocks,
                     size_t n_cols, size_t resamples, double *shares)
{
    uint64_t random = 0x2545f4914f6cdd1d;
    for (size_t r = 0; r < resamples; r++) {
        double total = 0;
        for (size_t c = 0; c < n_cols; c++)
            shares[c * resamples + r] = 0;
        for (size_t b = 0; b < n_blocks; b++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            size_t drawn = (size_t)((random >> 11) % n_blocks);
            total += whole[drawn];
            for (size_t c = 0; c < n_cols; c++)
                shares[c * resamples + r] += parts[drawn * n_cols + c];
        }
        for (size_t c = 0; c < n_cols; c++)
            shares[c * resamples + r] /= total > 0 ? total : 1;
    }
}

int zkp_bootstrap(const double *parts, const double *whole, size_t n_blocks,
                  size_t n_cols, size_t resamples, double *low, double *high)
{
    if (!n_blocks || !n_cols || resamples < 40)
        return -EINVAL;
    double *shares = calloc(n_cols * resamples, sizeof *shares);
    if (!shares)
        return -ENOMEM;
    resample(parts, whole, n_blocks, n_cols, resamples, shares);
    for (size_t c = 0; c < n_cols; c++) {
        double *row = shares + c * resamples;
        qsort(row, resamples, sizeof *row, compare_double);
        low[c] = row[resamples / 40];
        high[c] = row[resamples - 1 - resamples / 40];
    }
    free(shares);
    return 0;
}
