/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * ntt.c - see ntt.h.
 *
 * Both transforms recurse before or after one pass of butterflies over their
 * rows.  From some depth on the rows of a half fit into the cache, whatever
 * its size, so memory is streamed only log2(matrix / cache) times.
 */
#include "ntt.h"

#include "parallel.h"
#include "vectorised.h"

struct twiddles twiddles_new(unsigned log_n)
{
    size_t half = (size_t)1 << log_n >> 1;
    struct twiddles t = {log_n, memory_alloc(half + 1, sizeof(fe)),
                         memory_alloc(half + 1, sizeof(fe))};
    fe root = fe_root(log_n), inverse = fe_inv(root);
    t.forward[0] = t.inverse[0] = FE_ONE;
    for (size_t i = 1; i < half; i++) {
        t.forward[i] = fe_mul(t.forward[i - 1], root);
        t.inverse[i] = fe_mul(t.inverse[i - 1], inverse);
    }
    return t;
}

void twiddles_free(struct twiddles *t)
{
    free(t->forward);
    free(t->inverse);
}

/* The butterflies, on COUNT columns of two rows. */

VECTORISED static void split(fe *restrict a, fe *restrict b, fe twiddle,
                             size_t count)
{
    for (size_t k = 0; k < count; k++) {
        fe u = a[k], v = b[k];
        a[k] = fe_add(u, v);
        b[k] = fe_mul(fe_sub(u, v), twiddle);
    }
}

VECTORISED static void join(fe *restrict a, fe *restrict b, fe twiddle,
                            size_t count)
{
    for (size_t k = 0; k < count; k++) {
        fe u = a[k], v = fe_mul(b[k], twiddle);
        a[k] = fe_add(u, v);
        b[k] = fe_sub(u, v);
    }
}

VECTORISED static void scale(fe *out, const fe *in, fe factor, size_t count)
{
    for (size_t k = 0; k < count; k++)
        out[k] = fe_mul(in[k], factor);
}

/* Columns [begin, end) of rows of WIDTH elements. */
struct columns {
    size_t width, begin, end;
};

/* w holds powers of a root of order n * stride. */
static void interpolate(fe *rows, size_t n, const fe *w, size_t stride,
                        struct columns c)
{
    if (n == 1)
        return;
    size_t half = n / 2;
    for (size_t i = 0; i < half; i++) {
        fe *a = rows + i * c.width, *b = a + half * c.width;
        split(a + c.begin, b + c.begin, w[i * stride], c.end - c.begin);
    }
    interpolate(rows, half, w, 2 * stride, c);
    interpolate(rows + half * c.width, half, w, 2 * stride, c);
}

static void evaluate(fe *rows, size_t n, const fe *w, size_t stride,
                     struct columns c)
{
    if (n == 1)
        return;
    size_t half = n / 2;
    evaluate(rows, half, w, 2 * stride, c);
    evaluate(rows + half * c.width, half, w, 2 * stride, c);
    for (size_t i = 0; i < half; i++) {
        fe *a = rows + i * c.width, *b = a + half * c.width;
        join(a + c.begin, b + c.begin, w[i * stride], c.end - c.begin);
    }
}

fe coset_shift(unsigned log_n, unsigned b)
{
    return fe_mul(fe_of(FIELD_GENERATOR),
                  fe_pow(fe_root(log_n + LOG_BLOWUP), b));
}

struct job {
    const struct twiddles *t;
    const struct matrix *in;
    struct matrix *out;
};

static void interpolate_columns(void *context, size_t begin, size_t end)
{
    struct job *job = context;
    fe *rows = job->out->data;
    size_t n = job->out->rows, width = job->out->width;
    interpolate(rows, n, job->t->inverse, 1,
                (struct columns){width, begin, end});
    fe factor = fe_inv(fe_of((uint32_t)n));
    for (size_t r = 0; r < n; r++) {
        fe *row = rows + r * width + begin;
        scale(row, row, factor, end - begin);
    }
}

struct matrix *matrix_interpolate(const struct twiddles *t,
                                  const struct matrix *values, unsigned threads)
{
    struct matrix *out = matrix_new(values->rows, values->width);
    memcpy(out->data, values->data, values->rows * values->width * sizeof(fe));
    struct job job = {t, values, out};
    parallel_for(threads, out->width, interpolate_columns, &job);
    return out;
}

static void extend_cosets(void *context, size_t begin, size_t end)
{
    struct job *job = context;
    size_t n = job->in->rows, width = job->in->width;
    unsigned log_n = job->t->log_n;
    fe *powers = memory_alloc(n, sizeof(fe)); /* of the shift */

    for (size_t b = begin; b < end; b++) {
        fe shift = coset_shift(log_n, (unsigned)b);
        powers[0] = FE_ONE;
        for (size_t i = 1; i < n; i++)
            powers[i] = fe_mul(powers[i - 1], shift);

        /* f(s x) has the coefficients of f(x) times powers of s. */
        fe *rows = job->out->data + b * n * width;
        for (size_t r = 0; r < n; r++)
            scale(rows + r * width, job->in->data + r * width,
                  powers[bit_reverse(r, log_n)], width);
        evaluate(rows, n, job->t->forward, 1,
                 (struct columns){width, 0, width});
    }
    free(powers);
}

struct matrix *matrix_extend(const struct twiddles *t,
                             const struct matrix *coefficients,
                             unsigned threads)
{
    struct matrix *out =
        matrix_new(coefficients->rows * BLOWUP, coefficients->width);
    struct job job = {t, coefficients, out};
    parallel_for(threads, BLOWUP, extend_cosets, &job);
    return out;
}
