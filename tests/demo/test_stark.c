/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * test_stark.c - proofs are accepted; whatever was changed in one is not.
 */
#include "fri.h"
#include "stark.h"
#include "testing.h"

struct proof {
    struct statement statement;
    uint8_t *bytes;
    size_t size;
    struct layout l;
};

static struct proof prove(unsigned log_rows, unsigned threads)
{
    struct proof p = {.l = layout_of(log_rows)};
    fe secret[AIR_SECRET];
    for (unsigned k = 0; k < AIR_SECRET; k++)
        secret[k] = fe_of(k + 1);
    p.bytes = stark_prove(log_rows, secret, threads, &p.statement, &p.size);
    return p;
}

static const char *verify(const struct proof *p)
{
    return stark_verify(&p->statement, p->bytes, p->size);
}

/* Flip one bit at OFFSET, expect a rejection, for REASON if that is not
 * NULL, and put the bit back. */
static void expect_rejected(struct proof *p, size_t offset, const char *reason)
{
    p->bytes[offset] ^= 1;
    const char *why = verify(p);
    if (why == NULL || (reason != NULL && strcmp(why, reason) != 0)) {
        fprintf(stderr, "bit at %zu: got '%s', expected '%s'\n", offset,
                why ? why : "accepted", reason ? reason : "any rejection");
        exit(1);
    }
    p->bytes[offset] ^= 1;
}

static void test_accepted(void)
{
    for (unsigned log_rows = PROOF_MIN_LOG_ROWS; log_rows <= 10; log_rows++) {
        struct proof p = prove(log_rows, 1), q = prove(log_rows, 3);
        CHECK(verify(&p) == NULL);
        CHECK_EQUAL(p.size, p.l.total);
        /* Threads change nothing. */
        CHECK(p.size == q.size && memcmp(p.bytes, q.bytes, p.size) == 0);
        free(p.bytes);
        free(q.bytes);
    }
}

static void test_parts(struct proof *p)
{
    const struct layout *l = &p->l;
    /* What the verifier's coins depend on. */
    expect_rejected(p, l->trace_root, "the constraints do not hold at z");
    expect_rejected(p, l->quotient_root, "the constraints do not hold at z");
    expect_rejected(p, l->opened, "the constraints do not hold at z");
    expect_rejected(p, l->layer_roots, NULL);
    expect_rejected(p, l->final, NULL);
    expect_rejected(p, l->final + (PROOF_FINAL - 1) * sizeof(ext), NULL);
    /* What each query opens. */
    for (unsigned q = 0; q < PROOF_QUERIES; q += 21) {
        size_t at = l->queries + q * l->query_size;
        const char *trace = "a trace row is not under its root";
        const char *quotient = "a quotient row is not under its root";
        expect_rejected(p, at + l->trace_row, trace);
        expect_rejected(p, at + l->trace_path, trace);
        expect_rejected(p, at + l->quotient_row, quotient);
        expect_rejected(p, at + l->quotient_path, quotient);
        for (unsigned layer = 0; layer < l->layers; layer++) {
            const char *pair = "a FRI pair is not under its root";
            expect_rejected(p, at + l->pair[layer], pair);
            expect_rejected(p, at + l->pair[layer] + sizeof(ext), pair);
            expect_rejected(p, at + l->pair_path[layer], pair);
        }
    }
}

/* No byte of a proof is there for nothing. */
static void test_everywhere(struct proof *p)
{
    for (size_t offset = 0; offset < p->size; offset += 251)
        expect_rejected(p, offset, NULL);
}

/* A second form of the same element, a + p, must not pass. */
static void test_canonical(struct proof *p)
{
    size_t changed = 0;
    for (unsigned q = 0; q < PROOF_QUERIES; q++)
        for (unsigned k = 0; k < AIR_WIDTH; k++) {
            uint8_t *at = p->bytes + p->l.queries + q * p->l.query_size +
                          p->l.trace_row + k * sizeof(fe);
            uint32_t value, other;
            memcpy(&value, at, sizeof value);
            if (value > UINT32_MAX - FIELD_P)
                continue;
            other = value + FIELD_P;
            memcpy(at, &other, sizeof other);
            const char *why = verify(p);
            CHECK(why && !strcmp(why, "a row value is no field element"));
            memcpy(at, &value, sizeof value);
            if (++changed == 20)
                return;
        }
    CHECK(changed > 0);
}

static void test_statement(struct proof *p)
{
    struct proof wrong = *p;
    for (unsigned k = 0; k < AIR_OUTPUT; k++) {
        wrong.statement = p->statement;
        wrong.statement.output[k] ^= 1;
        CHECK(verify(&wrong) != NULL);
    }
    wrong.statement = p->statement;
    wrong.statement.output[0] = FIELD_P;
    CHECK(verify(&wrong) != NULL);
    const uint32_t rows[] = {0, 5, 7, 9, 23, 64, UINT32_MAX};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        wrong.statement = p->statement;
        wrong.statement.log_rows = rows[i];
        CHECK(verify(&wrong) != NULL);
    }
    wrong = *p;
    for (wrong.size = 0; wrong.size < p->size; wrong.size += p->size / 7 + 1)
        CHECK(verify(&wrong) != NULL);
}

/* Run FRI on a word of polynomial values of degree < rows, or of noise.  The
 * openings are honest, so a rejection can only come from the folds. */
static unsigned count_rejected(bool noise)
{
    const unsigned log_rows = 8;
    struct layout l = layout_of(log_rows);
    size_t n = (size_t)1 << log_rows;
    struct twiddles t = twiddles_new(log_rows);
    struct matrix *values = matrix_new(n, EXT_DEGREE);
    for (size_t i = 0; i < n * EXT_DEGREE; i++)
        values->data[i] = next_fe();
    struct matrix *coefficients = matrix_interpolate(&t, values, 1);
    struct matrix *extended = matrix_extend(&t, coefficients, 1);

    ext *word = memory_alloc(BLOWUP * n, sizeof(ext));
    ext *kept = memory_alloc(BLOWUP * n, sizeof(ext));
    for (size_t i = 0; i < BLOWUP * n; i++) {
        memcpy(&kept[i], extended->data + i * EXT_DEGREE, sizeof(ext));
        if (noise)
            kept[i] = next_ext();
        word[2 * fri_leaf(n, i / n, i % n) + fri_side(n, i % n)] = kept[i];
    }
    uint8_t *proof = memory_zeroed(1, l.total);
    transcript prover = transcript_start("x", 1), verifier = prover;
    struct fri fri = fri_commit(&l, word, &prover, 1, proof);
    struct fri_claim claim;
    CHECK(fri_read(&claim, &l, &verifier, proof));

    unsigned rejected = 0;
    uint8_t *query = proof + l.queries;
    for (size_t i = 0; i < BLOWUP * n; i++) {
        fri_open(&fri, &l, i / n, i % n, query);
        const char *why = fri_check(&claim, &l, i / n, i % n, kept[i], query);
        if (why != NULL) {
            CHECK(!strcmp(why, "the final polynomial is not the last fold"));
            rejected++;
        }
        ext other = ext_add(kept[i], ext_of(FE_ONE));
        why = fri_check(&claim, &l, i / n, i % n, other, query);
        CHECK(why && !strcmp(why, "FRI starts from another word"));
    }
    fri_free(&fri);
    free(proof);
    free(kept);
    free(extended);
    free(coefficients);
    free(values);
    twiddles_free(&t);
    return rejected;
}

int main(void)
{
    test_accepted();
    struct proof p = prove(8, 1);
    test_parts(&p);
    test_everywhere(&p);
    test_canonical(&p);
    test_statement(&p);
    CHECK(verify(&p) == NULL); /* all changes were undone */
    free(p.bytes);

    CHECK_EQUAL(count_rejected(false), 0);
    /* The final polynomial is interpolated on one coset of eight. */
    CHECK_EQUAL(count_rejected(true), 7u * 256);
    return 0;
}
