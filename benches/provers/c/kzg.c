/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * kzg.c - c-kzg-4844 (C): commit to SIZE blobs of 128 KiB and prove all 128
 * cells of each, with FFTs over the field, FFTs over the curve and
 * multi-exponentiations.
 *
 * Speaks the protocol of workloads/meter.py.  A thread takes the next blob
 * until none is left; cells and proofs are fresh buffers in each proof.  The
 * library's verifier checks every cell, and must refuse a changed one.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "ckzg.h"

#ifdef LINKED_TO_ZKNALLOC
#include <zknalloc.h>
#endif

enum { CELLS = CELLS_PER_EXT_BLOB, MOST_THREADS = 64 };

typedef struct {
    KZGCommitment commitment;
    Cell *cells;
    KZGProof *proofs;
} result_t;

static KZGSettings settings;
static size_t blobs;
static Blob *inputs;
static result_t *results;
static atomic_size_t next_blob;

static void die(const char *what)
{
    fprintf(stderr, "kzg: %s\n", what);
    exit(1);
}

static void *require(void *p)
{
    if (p == NULL)
        die("out of memory");
    return p;
}

/* Field elements are big-endian and below the order: 31 bytes are safe. */
static void fill(Blob *blob, uint64_t seed)
{
    uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
    for (size_t i = 0; i < BYTES_PER_BLOB; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        blob->bytes[i] = i % BYTES_PER_FIELD_ELEMENT == 0 ? 0 : (uint8_t)x;
    }
}

static void *work(void *unused)
{
    (void)unused;
    size_t i;
    while ((i = atomic_fetch_add(&next_blob, 1)) < blobs) {
        result_t *r = &results[i];
        r->cells = require(malloc(CELLS * sizeof *r->cells));
        r->proofs = require(malloc(CELLS * sizeof *r->proofs));
        if (blob_to_kzg_commitment(&r->commitment, &inputs[i], &settings) !=
                C_KZG_OK ||
            compute_cells_and_kzg_proofs(r->cells, r->proofs, &inputs[i],
                                         &settings) != C_KZG_OK)
            die("proving failed");
    }
    return NULL;
}

static void prove(size_t threads)
{
    pthread_t all[MOST_THREADS];
    atomic_store(&next_blob, 0);
    for (size_t i = 1; i < threads; i++) {
        if (pthread_create(&all[i], NULL, work, NULL) != 0)
            die("no thread");
    }
    (void)work(NULL);
    for (size_t i = 1; i < threads; i++)
        (void)pthread_join(all[i], NULL);
}

static bool accepts(const result_t *r)
{
    Bytes48 commitments[CELLS];
    uint64_t indices[CELLS];
    for (uint64_t i = 0; i < CELLS; i++) {
        commitments[i] = r->commitment;
        indices[i] = i;
    }
    bool ok = false;
    return verify_cell_kzg_proof_batch(&ok, commitments, indices, r->cells,
                                       r->proofs, CELLS,
                                       &settings) == C_KZG_OK &&
           ok;
}

/* Verify, and free what was proved. */
static bool verify(void)
{
    bool all = true;
    for (size_t i = 0; i < blobs; i++)
        all = all && accepts(&results[i]);
    results[0].cells[5].bytes[100] ^= 1;
    all = all && !accepts(&results[0]);
    for (size_t i = 0; i < blobs; i++) {
        free(results[i].cells);
        free(results[i].proofs);
    }
    return all;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void print_hits(bool after)
{
#ifdef LINKED_TO_ZKNALLOC
    static zkn_stats_t before;
    zkn_stats_t stats = ZKN_STATS_INIT;
    if (zkn_stats_get(&stats) != 0)
        die("no statistics");
    if (after)
        printf("\"hits\": %llu, \"misses\": %llu, ",
               (unsigned long long)(stats.hits - before.hits),
               (unsigned long long)(stats.misses - before.misses));
    before = stats;
#else
    (void)after;
#endif
}

static int measure(unsigned number, size_t threads)
{
    struct rusage before, after;
    print_hits(false);
    (void)getrusage(RUSAGE_SELF, &before);
    double start = now();
    prove(threads);
    double wall = now() - start;
    (void)getrusage(RUSAGE_SELF, &after);
    printf("{\"proof\": %u, \"wall_s\": %.6f, \"user_s\": %.6f, "
           "\"sys_s\": %.6f, \"minor_faults\": %ld, ",
           number, wall, seconds(after.ru_utime) - seconds(before.ru_utime),
           seconds(after.ru_stime) - seconds(before.ru_stime),
           after.ru_minflt - before.ru_minflt);
    print_hits(true);
    bool verified = verify();
    (void)getrusage(RUSAGE_SELF, &after);
    printf("\"verified\": %s, \"peak_rss_kib\": %ld}\n",
           verified ? "true" : "false", after.ru_maxrss);
    (void)fflush(stdout);
    if (!verified)
        fprintf(stderr, "proof %u was refused by the prover's own verifier\n",
                number);
    return verified ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"size", required_argument, NULL, 's'},
        {"proofs", required_argument, NULL, 'p'},
        {"threads", required_argument, NULL, 't'},
        {"data", required_argument, NULL, 'd'},
        {"setup", required_argument, NULL, 'f'},
        {NULL, 0, NULL, 0},
    };
    double start = now();
    unsigned proofs = 0;
    size_t threads = 1;
    const char *setup = NULL;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 's':
            blobs = strtoul(optarg, NULL, 10);
            break;
        case 'p':
            proofs = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 't':
            threads = strtoul(optarg, NULL, 10);
            break;
        case 'd':
            break; /* needs no keys of its own */
        case 'f':
            setup = optarg;
            break;
        default:
            return 2;
        }
    }
    if (blobs == 0 || threads == 0 || threads > MOST_THREADS || setup == NULL)
        die("--size N --threads 1..64 --setup FILE are needed");
    FILE *file = fopen(setup, "r");
    if (file == NULL || load_trusted_setup_file(&settings, file, 0) != C_KZG_OK)
        die("the reference string cannot be read");
    (void)fclose(file);
    inputs = require(malloc(blobs * sizeof *inputs));
    results = require(calloc(blobs, sizeof *results));
    for (size_t i = 0; i < blobs; i++)
        fill(&inputs[i], i + 1);

    printf("{\"ready\": %ld, \"setup_s\": %.3f, "
           "\"what\": \"%zu blobs, all cells proved\"}\n",
           (long)getpid(), now() - start, blobs);
    (void)fflush(stdout);
    int failed = 0;
    for (unsigned i = 0; i < proofs && !failed; i++)
        failed = measure(i, threads);
    free(inputs);
    free(results);
    free_trusted_setup(&settings);
    return failed;
}
