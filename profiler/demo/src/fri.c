/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * fri.c - see fri.h.
 */
#include "fri.h"

#include "parallel.h"

struct fold {
    const struct layout *l;
    unsigned layer;
    ext beta;
    const ext *word;
    ext *next;
};

static void fold_range(void *context, size_t begin, size_t end)
{
    struct fold *job = context;
    unsigned log_m = job->l->log_rows - job->layer;
    size_t m = (size_t)1 << log_m, half = m / 2;
    fe step = fe_inv(fe_root(log_m)), x_inverse = 0;

    for (size_t leaf = begin; leaf < end; leaf++) {
        size_t b = leaf / half, i = leaf % half;
        if (leaf == begin || i == 0) {
            fe shift = fe_pow(coset_shift(job->l->log_rows, (unsigned)b),
                              1ull << job->layer);
            x_inverse = fe_mul(fe_inv(shift), fe_pow(step, i));
        }
        const ext *pair = job->word + 2 * leaf;
        size_t to = 2 * fri_leaf(half, b, i) + fri_side(half, i);
        job->next[to] = fri_fold(pair[0], pair[1], x_inverse, job->beta);
        x_inverse = fe_mul(x_inverse, step);
    }
}

/* The coefficients of the last word, from the values on its first coset. */
static void interpolate_final(const struct layout *l, const ext *word,
                              ext coefficients[PROOF_FINAL])
{
    fe shift = fe_pow(coset_shift(l->log_rows, 0), 1ull << l->layers);
    fe shift_inverse = fe_inv(shift), power = fe_inv(fe_of(PROOF_FINAL));
    fe root_inverse = fe_inv(fe_root(PROOF_LOG_FINAL));
    for (size_t k = 0; k < PROOF_FINAL; k++) {
        ext sum = ext_of(0);
        for (size_t i = 0; i < PROOF_FINAL; i++) {
            size_t at =
                2 * fri_leaf(PROOF_FINAL, 0, i) + fri_side(PROOF_FINAL, i);
            sum =
                ext_add(sum, ext_scale(word[at], fe_pow(root_inverse, i * k)));
        }
        coefficients[k] = ext_scale(sum, power);
        power = fe_mul(power, shift_inverse);
    }
}

struct fri fri_commit(const struct layout *l, ext *word, transcript *t,
                      unsigned threads, uint8_t *proof)
{
    struct fri fri = {.layers = l->layers};
    size_t leaves = (size_t)1 << (l->log_domain - 1);
    for (unsigned layer = 0; layer < l->layers; layer++, leaves /= 2) {
        fri.words[layer] = word;
        fri.trees[layer] = merkle_new(word, leaves, 2 * sizeof(ext), threads);
        digest root = merkle_root(fri.trees[layer]);
        memcpy(proof + l->layer_roots + layer * sizeof root, &root,
               sizeof root);
        transcript_absorb(t, &root, sizeof root);

        struct fold job = {l, layer, transcript_challenge(t), word,
                           memory_alloc(leaves, sizeof(ext))};
        parallel_for(threads, leaves, fold_range, &job);
        word = job.next;
    }

    ext final[PROOF_FINAL];
    interpolate_final(l, word, final);
    free(word);
    memcpy(proof + l->final, final, sizeof final);
    transcript_absorb(t, final, sizeof final);
    return fri;
}

void fri_open(const struct fri *fri, const struct layout *l, size_t b, size_t i,
              uint8_t *query)
{
    size_t m = (size_t)1 << l->log_rows;
    for (unsigned layer = 0; layer < fri->layers; layer++, m /= 2) {
        size_t leaf = fri_leaf(m, b, i % m);
        memcpy(query + l->pair[layer], fri->words[layer] + 2 * leaf,
               2 * sizeof(ext));
        merkle_open(fri->trees[layer], leaf, query + l->pair_path[layer]);
    }
}

void fri_free(struct fri *fri)
{
    for (unsigned layer = 0; layer < fri->layers; layer++) {
        free(fri->words[layer]);
        free(fri->trees[layer]);
    }
}

bool fri_read(struct fri_claim *claim, const struct layout *l, transcript *t,
              const uint8_t *proof)
{
    claim->roots = proof + l->layer_roots;
    for (unsigned layer = 0; layer < l->layers; layer++) {
        transcript_absorb(t, claim->roots + layer * sizeof(digest),
                          sizeof(digest));
        claim->betas[layer] = transcript_challenge(t);
    }
    transcript_absorb(t, proof + l->final, sizeof claim->final);
    return ext_load(claim->final, proof + l->final, PROOF_FINAL);
}

const char *fri_check(const struct fri_claim *claim, const struct layout *l,
                      size_t b, size_t i, ext value, const uint8_t *query)
{
    fe shift = coset_shift(l->log_rows, (unsigned)b);
    for (unsigned layer = 0; layer < l->layers; layer++) {
        unsigned log_m = l->log_rows - layer;
        size_t m = (size_t)1 << log_m;
        const uint8_t *bytes = query + l->pair[layer];
        ext pair[2];
        if (!ext_load(pair, bytes, 2))
            return "a FRI value is no field element";
        if (!merkle_check(claim->roots + layer * sizeof(digest),
                          l->log_domain - layer - 1, fri_leaf(m, b, i), bytes,
                          sizeof pair, query + l->pair_path[layer]))
            return "a FRI pair is not under its root";
        if (!ext_equal(pair[fri_side(m, i)], value))
            return layer == 0 ? "FRI starts from another word"
                              : "a FRI layer is not the fold of the last";
        i %= m / 2;
        fe x = fe_mul(shift, fe_pow(fe_root(log_m), i));
        value = fri_fold(pair[0], pair[1], fe_inv(x), claim->betas[layer]);
        shift = fe_mul(shift, shift);
    }

    fe x = fe_mul(shift, fe_pow(fe_root(PROOF_LOG_FINAL), i));
    ext sum = ext_of(0);
    for (unsigned k = PROOF_FINAL; k-- > 0;)
        sum = ext_add(ext_scale(sum, x), claim->final[k]);
    return ext_equal(sum, value) ? NULL
                                 : "the final polynomial is not the last fold";
}
