/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * verifier.c - check a proof that may be anything.
 *
 * The only inputs are the statement and the bytes.  Every element read from
 * them must be canonical, every row must lie under its root, and:
 *
 *   - the quotient at z is what the constraints make of the trace at z;
 *   - at each queried point the word of FRI's first layer is the combination
 *     of the trace and quotient rows there with their values at z;
 *   - each FRI layer holds the fold of the one before, and the final
 *     polynomial the fold of the last.
 */
#include "stark.h"

#include "fri.h"
#include "merkle.h"
#include "quotient.h"
#include "weights.h"

/* What the verifier knows before it looks at the queries. */
struct claim {
    struct layout l;
    const uint8_t *proof;
    ext z, next_z;
    struct weights trace, quotient; /* of the columns */
    ext next;                       /* the weight of all trace columns at w z */
    ext opened[OPENED];
    struct fri_claim fri;
};

/* The quotient at z, put together from its pieces. */
static ext quotient_at_z(const struct claim *c)
{
    const ext *columns = c->opened + 2 * AIR_WIDTH;
    ext step = ext_pow(c->z, 1ull << c->l.log_rows);
    ext sum = ext_of(0);
    for (unsigned k = QUOTIENT_PIECES; k-- > 0;) {
        /* Column i of a piece carries X^i of the extension. */
        ext piece = ext_of(0), power = ext_of(FE_ONE);
        for (unsigned i = 0; i < EXT_DEGREE; i++) {
            ext column = columns[k * EXT_DEGREE + i];
            piece = ext_add(piece, ext_mul(column, power));
            power = ext_mul(power, (ext){{0, FE_ONE, 0, 0}});
        }
        sum = ext_add(ext_mul(sum, step), piece);
    }
    return sum;
}

/* The combined word at X from the opened rows. */
static ext combine(const struct claim *c, fe x, const fe *trace,
                   const fe *quotient)
{
    ext at_z[AIR_WIDTH], at_next[AIR_WIDTH], pieces[QUOTIENT_WIDTH];
    for (unsigned k = 0; k < AIR_WIDTH; k++) {
        at_z[k] = ext_sub(ext_of(trace[k]), c->opened[k]);
        at_next[k] = ext_sub(ext_of(trace[k]), c->opened[AIR_WIDTH + k]);
    }
    for (unsigned k = 0; k < QUOTIENT_WIDTH; k++)
        pieces[k] = ext_sub(ext_of(quotient[k]), c->opened[2 * AIR_WIDTH + k]);

    ext here = ext_add(weights_dot_ext(&c->trace, at_z),
                       weights_dot_ext(&c->quotient, pieces));
    ext there = ext_mul(c->next, weights_dot_ext(&c->trace, at_next));
    ext to_z = ext_sub(ext_of(x), c->z);
    ext to_next = ext_sub(ext_of(x), c->next_z);
    return ext_add(ext_mul(here, ext_inv(to_z)),
                   ext_mul(there, ext_inv(to_next)));
}

static const char *check_query(const struct claim *c, const uint8_t *query,
                               size_t index)
{
    const struct layout *l = &c->l;
    fe trace[AIR_WIDTH], quotient[QUOTIENT_WIDTH];
    if (!fe_load(trace, query + l->trace_row, AIR_WIDTH) ||
        !fe_load(quotient, query + l->quotient_row, QUOTIENT_WIDTH))
        return "a row value is no field element";
    if (!merkle_check(c->proof + l->trace_root, l->log_domain, index, trace,
                      sizeof trace, query + l->trace_path))
        return "a trace row is not under its root";
    if (!merkle_check(c->proof + l->quotient_root, l->log_domain, index,
                      quotient, sizeof quotient, query + l->quotient_path))
        return "a quotient row is not under its root";

    size_t b = index >> l->log_rows;
    size_t i = index & (((size_t)1 << l->log_rows) - 1);
    fe x = fe_mul(coset_shift(l->log_rows, (unsigned)b),
                  fe_pow(fe_root(l->log_rows), i));
    return fri_check(&c->fri, l, b, i, combine(c, x, trace, quotient), query);
}

const char *stark_verify(const struct statement *statement,
                         const uint8_t *proof, size_t size)
{
    if (statement->log_rows < PROOF_MIN_LOG_ROWS ||
        statement->log_rows > PROOF_MAX_LOG_ROWS)
        return "the statement has a bad number of rows";
    for (unsigned k = 0; k < AIR_OUTPUT; k++)
        if (statement->output[k] >= FIELD_P)
            return "the statement is no list of field elements";

    struct claim c = {.l = layout_of(statement->log_rows), .proof = proof};
    if (size != c.l.total)
        return "the proof has the wrong length";
    if (!ext_load(c.opened, proof + c.l.opened, OPENED))
        return "an opened value is no field element";

    /* Draw the challenges in the prover's order. */
    transcript t = transcript_start(statement, sizeof *statement);
    transcript_absorb(&t, proof + c.l.trace_root, sizeof(digest));
    ext alpha = transcript_challenge(&t);
    transcript_absorb(&t, proof + c.l.quotient_root, sizeof(digest));
    c.z = transcript_challenge(&t);
    c.next_z = ext_scale(c.z, fe_root(c.l.log_rows));
    transcript_absorb(&t, c.opened, sizeof c.opened);
    ext gamma = transcript_challenge(&t);
    c.next = ext_of(FE_ONE);
    c.trace = weights_new(gamma, &c.next, AIR_WIDTH);
    c.quotient = weights_new(gamma, &c.next, QUOTIENT_WIDTH);
    if (!fri_read(&c.fri, &c.l, &t, proof))
        return "a final coefficient is no field element";

    struct air air;
    air_init(&air);
    ext expected = quotient_expected(&air, statement, alpha, c.z, c.opened,
                                     c.opened + AIR_WIDTH);
    if (!ext_equal(expected, quotient_at_z(&c)))
        return "the constraints do not hold at z";

    for (unsigned q = 0; q < PROOF_QUERIES; q++) {
        size_t index = (size_t)transcript_index(&t, c.l.log_domain);
        const char *why =
            check_query(&c, proof + c.l.queries + q * c.l.query_size, index);
        if (why != NULL)
            return why;
    }
    return NULL;
}
