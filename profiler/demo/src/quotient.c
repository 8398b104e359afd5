/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * quotient.c - see quotient.h.
 */
#include "quotient.h"

#include <stdatomic.h>

#include "parallel.h"
#include "vectorised.h"
#include "weights.h"

/* One row per point of H; the quotient on all cosets, side by side. */
#define VALUES_WIDTH (BLOWUP * EXT_DEGREE)

struct job {
    const struct air *air;
    const struct statement *statement;
    const struct twiddles *t;
    const struct matrix *extended;
    struct weights transition, first, last;
    /* The round constants on each coset: AIR_PERIOD rows of AIR_WIDTH. */
    fe (*constants)[AIR_PERIOD][AIR_WIDTH];
    struct matrix *values;
    struct matrix *pieces;
    atomic_bool broken;
};

static void weights_of_all(ext alpha, struct weights *transition,
                           struct weights *first, struct weights *last)
{
    ext next = ext_of(FE_ONE);
    *transition = weights_new(alpha, &next, AIR_WIDTH);
    *first = weights_new(alpha, &next, AIR_ZEROS);
    *last = weights_new(alpha, &next, AIR_OUTPUT);
}

/* ----------------------------------------------- values on the domain */

#define TILE 256 /* points that share one inversion */

VECTORISED static void subtract(fe *out, const fe *a, const fe *b, size_t count)
{
    for (size_t k = 0; k < count; k++)
        out[k] = fe_sub(a[k], b[k]);
}

/* Points [begin, begin + count) of coset B. */
static void tile(struct job *job, size_t b, size_t begin, size_t count)
{
    unsigned log_n = job->t->log_n;
    size_t n = (size_t)1 << log_n;
    fe root = fe_root(log_n), end = fe_inv(root);
    fe shift = coset_shift(log_n, (unsigned)b);
    /* x^n - 1 is the same all over the coset. */
    fe vanishing_inverse = fe_inv(fe_sub(fe_pow(shift, n), FE_ONE));

    fe x[TILE], inverse[2 * TILE], scratch[2 * TILE];
    x[0] = fe_mul(shift, fe_pow(root, begin));
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            x[i] = fe_mul(x[i - 1], root);
        inverse[2 * i] = fe_sub(x[i], FE_ONE);
        inverse[2 * i + 1] = fe_sub(x[i], end);
    }
    fe_batch_inv(inverse, scratch, 2 * count);

    const fe *coset = job->extended->data + b * n * AIR_WIDTH;
    for (size_t i = 0; i < count; i++) {
        size_t at = begin + i;
        const fe *row = coset + at * AIR_WIDTH;
        const fe *next = coset + (at + 1) % n * AIR_WIDTH;
        fe rest[AIR_WIDTH];
        air_round(job->air, job->constants[b][at % AIR_PERIOD], row, rest);
        subtract(rest, next, rest, AIR_WIDTH);
        ext transition = weights_dot(&job->transition, rest);
        ext first = weights_dot(&job->first, row + AIR_SECRET);
        subtract(rest, row, job->statement->output, AIR_OUTPUT);
        ext last = weights_dot(&job->last, rest);

        ext sum =
            ext_scale(transition, fe_mul(vanishing_inverse, fe_sub(x[i], end)));
        sum = ext_add(sum, ext_scale(first, inverse[2 * i]));
        sum = ext_add(sum, ext_scale(last, inverse[2 * i + 1]));
        memcpy(job->values->data + at * VALUES_WIDTH + b * EXT_DEGREE, &sum,
               sizeof sum);
    }
}

static void value_range(void *context, size_t begin, size_t end)
{
    struct job *job = context;
    size_t n = (size_t)1 << job->t->log_n;
    for (size_t count; begin < end; begin += count) {
        size_t left = n - begin % n; /* a tile stays inside its coset */
        count = end - begin < TILE ? end - begin : TILE;
        count = count < left ? count : left;
        tile(job, begin / n, begin % n, count);
    }
}

/* ------------------------------------------------- values to pieces */

/* Interpolating each coset alone gave, for coset b and power r < n,
 *
 *     d_b = s_b^r * sum over k of h_(kn + r) * s_b^(kn),
 *
 * with h the coefficients of the whole quotient.  As s_b = g * v^b and v^n is
 * a root of unity of order BLOWUP, an inverse DFT over b gives the h_(kn + r).
 */
struct split {
    fe inverse[BLOWUP][BLOWUP]; /* of the map h -> d, for r = 0 */
    fe shift_inverse;           /* 1 / s_0 */
    fe step_inverse;            /* 1 / v */
};

static struct split split_new(unsigned log_n)
{
    struct split s = {
        .shift_inverse = fe_inv(coset_shift(log_n, 0)),
        .step_inverse = fe_inv(fe_root(log_n + LOG_BLOWUP)),
    };
    fe g_inverse = fe_pow(s.shift_inverse, (size_t)1 << log_n);
    fe root_inverse = fe_inv(fe_root(LOG_BLOWUP));
    fe scale = fe_inv(fe_of(BLOWUP));
    for (unsigned k = 0; k < BLOWUP; k++)
        for (unsigned b = 0; b < BLOWUP; b++)
            s.inverse[k][b] =
                fe_mul(scale, fe_mul(fe_pow(g_inverse, k),
                                     fe_pow(root_inverse, k * b)));
    return s;
}

/* From the d_b of one power to all its h, BLOWUP extension elements each. */
VECTORISED static void split_row(const struct split *s, size_t r, const fe *in,
                                 fe *out)
{
    fe power = fe_pow(s->shift_inverse, r), step = fe_pow(s->step_inverse, r);
    fe scaled[VALUES_WIDTH];
    for (unsigned b = 0; b < BLOWUP; b++, power = fe_mul(power, step))
        for (unsigned i = 0; i < EXT_DEGREE; i++)
            scaled[b * EXT_DEGREE + i] = fe_mul(in[b * EXT_DEGREE + i], power);
    for (unsigned k = 0; k < BLOWUP; k++) {
        fe sum[EXT_DEGREE] = {0};
        for (unsigned b = 0; b < BLOWUP; b++)
            for (unsigned i = 0; i < EXT_DEGREE; i++)
                sum[i] = fe_add(sum[i], fe_mul(scaled[b * EXT_DEGREE + i],
                                               s->inverse[k][b]));
        memcpy(out + k * EXT_DEGREE, sum, sizeof sum);
    }
}

static void piece_range(void *context, size_t begin, size_t end)
{
    struct job *job = context;
    unsigned log_n = job->t->log_n;
    struct split split = split_new(log_n);
    for (size_t row = begin; row < end; row++) {
        fe all[VALUES_WIDTH];
        split_row(&split, bit_reverse(row, log_n),
                  job->values->data + row * VALUES_WIDTH, all);
        memcpy(job->pieces->data + row * QUOTIENT_WIDTH, all,
               QUOTIENT_WIDTH * sizeof(fe));
        for (unsigned k = QUOTIENT_WIDTH; k < VALUES_WIDTH; k++)
            if (all[k] != 0)
                job->broken = true;
    }
}

struct matrix *quotient_pieces(const struct air *air,
                               const struct statement *statement,
                               const struct twiddles *t,
                               const struct matrix *extended, ext alpha,
                               unsigned threads)
{
    size_t n = (size_t)1 << t->log_n;
    struct job job = {.air = air,
                      .statement = statement,
                      .t = t,
                      .extended = extended,
                      .constants = memory_alloc(BLOWUP, sizeof *job.constants),
                      .values = matrix_new(n, VALUES_WIDTH)};
    weights_of_all(alpha, &job.transition, &job.first, &job.last);
    for (unsigned b = 0; b < BLOWUP; b++) {
        fe y = fe_pow(coset_shift(t->log_n, b), n / AIR_PERIOD);
        for (unsigned r = 0; r < AIR_PERIOD; r++) {
            ext at[AIR_WIDTH];
            air_constants_at(air, ext_of(y), at);
            for (unsigned k = 0; k < AIR_WIDTH; k++)
                job.constants[b][r][k] = at[k].c[0];
            y = fe_mul(y, fe_root(AIR_LOG_PERIOD));
        }
    }
    parallel_for(threads, BLOWUP * n, value_range, &job);
    free(job.constants);

    struct matrix *values = job.values;
    job.values = matrix_interpolate(t, values, threads);
    free(values);
    job.pieces = matrix_new(n, QUOTIENT_WIDTH);
    parallel_for(threads, n, piece_range, &job);
    free(job.values);
    if (job.broken) {
        fputs("the trace breaks its constraints; nothing to prove\n", stderr);
        exit(1);
    }
    return job.pieces;
}

/* --------------------------------------------------------- at one point */

ext quotient_expected(const struct air *air, const struct statement *statement,
                      ext alpha, ext z, const ext *at_z, const ext *at_next)
{
    unsigned log_n = statement->log_rows;
    size_t n = (size_t)1 << log_n;
    struct weights w_transition, w_first, w_last;
    weights_of_all(alpha, &w_transition, &w_first, &w_last);

    ext constants[AIR_WIDTH], rest[AIR_WIDTH];
    air_constants_at(air, ext_pow(z, n / AIR_PERIOD), constants);
    air_round_ext(air, constants, at_z, rest);
    for (unsigned k = 0; k < AIR_WIDTH; k++)
        rest[k] = ext_sub(at_next[k], rest[k]);
    ext transition = weights_dot_ext(&w_transition, rest);
    ext first = weights_dot_ext(&w_first, at_z + AIR_SECRET);
    for (unsigned k = 0; k < AIR_OUTPUT; k++)
        rest[k] = ext_sub(at_z[k], ext_of(statement->output[k]));
    ext last = weights_dot_ext(&w_last, rest);

    ext to_first = ext_sub(z, ext_of(FE_ONE));
    ext to_last = ext_sub(z, ext_of(fe_inv(fe_root(log_n))));
    ext vanishing = ext_sub(ext_pow(z, n), ext_of(FE_ONE));
    ext sum = ext_mul(transition, ext_mul(to_last, ext_inv(vanishing)));
    sum = ext_add(sum, ext_mul(first, ext_inv(to_first)));
    return ext_add(sum, ext_mul(last, ext_inv(to_last)));
}
