/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * fri.h - FRI: commit to a word, fold it, commit again; and check that.
 *
 * FRI shows that a word on the domain is near a polynomial of degree < n.
 * Each round commits to the word, draws beta and folds the values at x and -x
 * into one value at x^2: both the domain and the degree halve.  The last word
 * is sent as the PROOF_FINAL coefficients of its polynomial.
 */
#ifndef DEMO_FRI_H
#define DEMO_FRI_H

#include "merkle.h"
#include "proof.h"
#include "transcript.h"

struct fri {
    unsigned layers;
    ext *words[PROOF_MAX_LAYERS]; /* in pairs, see fri_leaf() */
    struct merkle *trees[PROOF_MAX_LAYERS];
};

/* Takes WORD over.  Writes the layer roots and the final coefficients into
 * PROOF, absorbing all into T. */
struct fri fri_commit(const struct layout *l, ext *word, transcript *t,
                      unsigned threads, uint8_t *proof);

/* Write the opened pairs and paths for value I of coset B into QUERY. */
void fri_open(const struct fri *fri, const struct layout *l, size_t b, size_t i,
              uint8_t *query);

void fri_free(struct fri *fri);

/* What the prover said, as the verifier keeps it. */
struct fri_claim {
    const uint8_t *roots; /* one digest per layer */
    ext betas[PROOF_MAX_LAYERS];
    ext final[PROOF_FINAL];
};

/* Read the claim from PROOF and absorb it into T as the prover did.  False
 * where the final coefficients are no field elements. */
bool fri_read(struct fri_claim *claim, const struct layout *l, transcript *t,
              const uint8_t *proof);

/* Check what QUERY opens for value I of coset B against VALUE, which the word
 * has there, and the folds against each other.  NULL, or what is wrong. */
const char *fri_check(const struct fri_claim *claim, const struct layout *l,
                      size_t b, size_t i, ext value, const uint8_t *query);

#endif
