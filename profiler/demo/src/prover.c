/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * prover.c - the proof, phase by phase.
 *
 *   1 commit to the trace, extended to BLOWUP times its rows
 *   2 commit to the quotient of the constraints, extended likewise
 *   3 open trace and quotient at a point z outside the domain
 *   4 combine (f(x) - f(z)) / (x - z) over all columns into one word, which
 *     is near a polynomial only if the openings are right, and run FRI on it
 *   5 open everything at the queried points
 */
#include "stark.h"

#include "fri.h"
#include "merkle.h"
#include "parallel.h"
#include "quotient.h"
#include "vectorised.h"
#include "weights.h"

/* ------------------------------------------- openings outside the domain */

struct opening {
    const struct matrix *coefficients;
    const ext *powers; /* of the point, natural order */
    unsigned log_n;
    ext *out; /* one value per column */
};

VECTORISED static void add_scaled(uint64_t *sums, fe factor, const fe *row,
                                  size_t count)
{
    for (size_t k = 0; k < count; k++)
        sums[k] += fe_mul(factor, row[k]);
}

static void open_columns(void *context, size_t begin, size_t end)
{
    struct opening *job = context;
    const struct matrix *m = job->coefficients;
    size_t count = end - begin;
    /* Sums of up to 2^22 values below 2^31: no need to reduce on the way. */
    uint64_t *sums = memory_zeroed(EXT_DEGREE * count, sizeof *sums);
    for (size_t r = 0; r < m->rows; r++) {
        ext power = job->powers[bit_reverse(r, job->log_n)];
        for (size_t i = 0; i < EXT_DEGREE; i++)
            add_scaled(sums + i * count, power.c[i],
                       m->data + r * m->width + begin, count);
    }
    for (size_t k = 0; k < count; k++)
        for (size_t i = 0; i < EXT_DEGREE; i++)
            job->out[begin + k].c[i] = (fe)(sums[i * count + k] % FIELD_P);
    free(sums);
}

static void open_at(const struct matrix *coefficients, unsigned log_n, ext z,
                    unsigned threads, ext *out)
{
    size_t n = coefficients->rows;
    ext *powers = memory_alloc(n, sizeof(ext));
    powers[0] = ext_of(FE_ONE);
    for (size_t i = 1; i < n; i++)
        powers[i] = ext_mul(powers[i - 1], z);
    struct opening job = {coefficients, powers, log_n, out};
    parallel_for(threads, coefficients->width, open_columns, &job);
    free(powers);
}

/* ------------------------------------------------- the word that FRI gets */

struct combination {
    unsigned log_n;
    const struct matrix *trace, *quotient;
    ext z, next_z;
    struct weights trace_weights, quotient_weights;
    ext next_weight;   /* of all trace columns at w z */
    ext at_z, at_next; /* the weighed openings */
    ext *word;         /* in pairs, as FRI wants it */
};

#define TILE 256 /* points that share one inversion */

/* Points [begin, begin + count) of coset B.  The weights of the trace at z
 * and at w z differ by one factor only, so each row is weighed once. */
static void combine_tile(struct combination *job, size_t b, size_t begin,
                         size_t count)
{
    size_t n = (size_t)1 << job->log_n;
    fe root = fe_root(job->log_n);
    fe x = fe_mul(coset_shift(job->log_n, (unsigned)b), fe_pow(root, begin));

    ext adjoints[2 * TILE]; /* 1 / (x - z) is the adjoint over the norm */
    fe norms[2 * TILE], scratch[2 * TILE];
    for (size_t i = 0; i < count; i++, x = fe_mul(x, root)) {
        norms[2 * i] = ext_norm(ext_sub(ext_of(x), job->z), &adjoints[2 * i]);
        norms[2 * i + 1] =
            ext_norm(ext_sub(ext_of(x), job->next_z), &adjoints[2 * i + 1]);
    }
    fe_batch_inv(norms, scratch, 2 * count);

    const fe *trace_row = job->trace->data + (b * n + begin) * AIR_WIDTH;
    const fe *quotient_row =
        job->quotient->data + (b * n + begin) * QUOTIENT_WIDTH;
    for (size_t i = 0; i < count; i++) {
        ext trace = weights_dot(&job->trace_weights, trace_row);
        ext quotient = weights_dot(&job->quotient_weights, quotient_row);
        ext here = ext_sub(ext_add(trace, quotient), job->at_z);
        ext there = ext_mul(ext_sub(trace, job->at_next), job->next_weight);
        here = ext_scale(ext_mul(here, adjoints[2 * i]), norms[2 * i]);
        there =
            ext_scale(ext_mul(there, adjoints[2 * i + 1]), norms[2 * i + 1]);
        size_t at = begin + i;
        job->word[2 * fri_leaf(n, b, at) + fri_side(n, at)] =
            ext_add(here, there);
        trace_row += AIR_WIDTH;
        quotient_row += QUOTIENT_WIDTH;
    }
}

static void combine_range(void *context, size_t begin, size_t end)
{
    struct combination *job = context;
    size_t n = (size_t)1 << job->log_n;
    for (size_t count; begin < end; begin += count) {
        size_t left = n - begin % n; /* a tile stays inside its coset */
        count = end - begin < TILE ? end - begin : TILE;
        count = count < left ? count : left;
        combine_tile(job, begin / n, begin % n, count);
    }
}

/* ------------------------------------------------------------- the proof */

/* Commit to all rows of M: the root goes into the proof and the transcript. */
static struct merkle *commit(const struct matrix *m, unsigned threads,
                             transcript *t, uint8_t *root)
{
    struct merkle *tree =
        merkle_new(m->data, m->rows, m->width * sizeof(fe), threads);
    memcpy(root, merkle_root(tree).bytes, sizeof(digest));
    transcript_absorb(t, root, sizeof(digest));
    return tree;
}

static void open_row(const struct matrix *m, const struct merkle *tree,
                     size_t index, uint8_t *row, uint8_t *path)
{
    memcpy(row, m->data + index * m->width, m->width * sizeof(fe));
    merkle_open(tree, index, path);
}

uint8_t *stark_prove(unsigned log_rows, const fe secret[AIR_SECRET],
                     unsigned threads, struct statement *statement,
                     size_t *size)
{
    struct layout l = layout_of(log_rows);
    size_t domain = (size_t)1 << l.log_domain;
    uint8_t *proof = memory_zeroed(1, l.total);
    struct twiddles twiddles = twiddles_new(log_rows);
    struct air air;
    air_init(&air);

    /* 1 */
    struct matrix *values = air_trace(&air, log_rows, secret, statement);
    transcript t = transcript_start(statement, sizeof *statement);
    struct matrix *trace_coefficients =
        matrix_interpolate(&twiddles, values, threads);
    free(values);
    struct matrix *trace =
        matrix_extend(&twiddles, trace_coefficients, threads);
    struct merkle *trace_tree =
        commit(trace, threads, &t, proof + l.trace_root);

    /* 2 */
    ext alpha = transcript_challenge(&t);
    struct matrix *pieces =
        quotient_pieces(&air, statement, &twiddles, trace, alpha, threads);
    struct matrix *quotient = matrix_extend(&twiddles, pieces, threads);
    struct merkle *quotient_tree =
        commit(quotient, threads, &t, proof + l.quotient_root);

    /* 3 */
    struct combination job = {.log_n = log_rows,
                              .trace = trace,
                              .quotient = quotient,
                              .z = transcript_challenge(&t)};
    job.next_z = ext_scale(job.z, fe_root(log_rows));
    ext opened[OPENED];
    open_at(trace_coefficients, log_rows, job.z, threads, opened);
    open_at(trace_coefficients, log_rows, job.next_z, threads,
            opened + AIR_WIDTH);
    open_at(pieces, log_rows, job.z, threads, opened + 2 * AIR_WIDTH);
    free(trace_coefficients);
    free(pieces);
    memcpy(proof + l.opened, opened, sizeof opened);
    transcript_absorb(&t, opened, sizeof opened);

    /* 4 */
    ext gamma = transcript_challenge(&t);
    job.next_weight = ext_of(FE_ONE);
    job.trace_weights = weights_new(gamma, &job.next_weight, AIR_WIDTH);
    job.quotient_weights = weights_new(gamma, &job.next_weight, QUOTIENT_WIDTH);
    job.at_z =
        ext_add(weights_dot_ext(&job.trace_weights, opened),
                weights_dot_ext(&job.quotient_weights, opened + 2 * AIR_WIDTH));
    job.at_next = weights_dot_ext(&job.trace_weights, opened + AIR_WIDTH);
    job.word = memory_alloc(domain, sizeof(ext));
    parallel_for(threads, domain, combine_range, &job);
    struct fri fri = fri_commit(&l, job.word, &t, threads, proof);

    /* 5 */
    for (unsigned q = 0; q < PROOF_QUERIES; q++) {
        uint8_t *query = proof + l.queries + q * l.query_size;
        size_t index = (size_t)transcript_index(&t, l.log_domain);
        open_row(trace, trace_tree, index, query + l.trace_row,
                 query + l.trace_path);
        open_row(quotient, quotient_tree, index, query + l.quotient_row,
                 query + l.quotient_path);
        fri_open(&fri, &l, index >> log_rows,
                 index & (((size_t)1 << log_rows) - 1), query);
    }

    fri_free(&fri);
    free(quotient_tree);
    free(quotient);
    free(trace_tree);
    free(trace);
    twiddles_free(&twiddles);
    *size = l.total;
    return proof;
}
