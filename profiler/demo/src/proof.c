/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * proof.c - see proof.h.
 */
#include "proof.h"

/* Take SIZE bytes at *END and return where they begin. */
static size_t place(size_t *end, size_t size)
{
    size_t begin = *end;
    *end += size;
    return begin;
}

struct layout layout_of(unsigned log_rows)
{
    struct layout l = {.log_rows = log_rows,
                       .log_domain = log_rows + LOG_BLOWUP,
                       .layers = log_rows - PROOF_LOG_FINAL};

    size_t *query = &l.query_size;
    l.trace_row = place(query, AIR_WIDTH * sizeof(fe));
    l.trace_path = place(query, l.log_domain * sizeof(digest));
    l.quotient_row = place(query, QUOTIENT_WIDTH * sizeof(fe));
    l.quotient_path = place(query, l.log_domain * sizeof(digest));
    for (unsigned layer = 0; layer < l.layers; layer++) {
        l.pair[layer] = place(query, 2 * sizeof(ext));
        l.pair_path[layer] =
            place(query, (l.log_domain - layer - 1) * sizeof(digest));
    }

    size_t *total = &l.total;
    l.trace_root = place(total, sizeof(digest));
    l.quotient_root = place(total, sizeof(digest));
    l.opened = place(total, OPENED * sizeof(ext));
    l.layer_roots = place(total, l.layers * sizeof(digest));
    l.final = place(total, PROOF_FINAL * sizeof(ext));
    l.queries = place(total, PROOF_QUERIES * l.query_size);
    return l;
}
