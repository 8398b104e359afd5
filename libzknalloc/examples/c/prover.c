/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * prover.c - buffers from the cache, round after round.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <zknalloc.h>

enum { ROUNDS = 5 };

static const size_t rows = (size_t)1 << 20;

/* A column is extended to twice its length and folded down to one value. */
static int prove(uint64_t *out)
{
    uint64_t *column = zkn_alloc(rows * sizeof *column);
    if (column == NULL)
        return -1;
    for (size_t i = 0; i < rows; i++)
        column[i] = i * i;

    /* Moves page tables where it cannot grow in place: nothing is copied. */
    uint64_t *extended = zkn_realloc(column, 2 * rows * sizeof *extended);
    if (extended == NULL) {
        zkn_free(column);
        return -1;
    }
    for (size_t i = 0; i < rows; i++)
        extended[rows + i] = 3 * extended[i] + 1;
    for (size_t half = rows; half > 0; half /= 2) {
        for (size_t i = 0; i < half; i++)
            extended[i] += extended[half + i];
    }
    *out = extended[0];
    zkn_free(extended); /* stays resident for the next round */
    return 0;
}

int main(void)
{
    uint64_t first = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t result;
        if (prove(&result) != 0) {
            perror("prove");
            return 1;
        }
        if (round == 0)
            first = result;
        if (result != first) {
            fprintf(stderr, "round %d differs\n", round);
            return 1;
        }
    }

    zkn_stats_t stats = ZKN_STATS_INIT;
    if (zkn_stats_get(&stats) != 0 || stats.hits < ROUNDS - 1) {
        fprintf(stderr, "%llu hits in %d rounds\n",
                (unsigned long long)stats.hits, ROUNDS);
        return 1;
    }
    printf("%d rounds on zknalloc %s\n", ROUNDS, zkn_version());

    (void)zkn_stage_boundary(); /* the proof is out: give the memory back */
    return 0;
}
