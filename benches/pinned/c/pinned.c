/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * pinned.c - a prover's rounds as a GPU sees them, on one way to come by
 * memory.
 *
 *   pinned CUDA WAY ROUNDS SIZE [SIZE ...]     CUDA: the path of libcuda.so.1
 *   pinned CUDA --probe                        see probe.c
 *   pinned --list                              names the ways
 *
 * A round is a proof's share of this: each buffer is taken, filled by the CPU,
 * and copied to the device, one after the other; at the end all are given back.
 * Copies are waited for at once, so that what a copy costs can be told from
 * what filling costs; a prover that overlaps the two gains from pinned memory
 * besides what is seen here.
 *
 * Every word that is written depends on the round, and after each round, with
 * the clock stopped, one of the buffers, another in each, is copied back and
 * compared with what must be there.  A wrong byte ends the program with status
 * 3.  A line of JSON for each round, then one for the process.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "clock.h"
#include "cuda.h"
#include "probe.h"
#include "ways.h"
#include "zknalloc.h"

static cuda_address device_buffer[BUFFERS_MOST];
static void *host_buffer[BUFFERS_MOST];
static unsigned char *back; /* what was copied back */

/* ---------------------------------------------------------------- content */

static uint64_t seed_of(unsigned round, unsigned buffer)
{
    return ((uint64_t)round * BUFFERS_MOST + buffer + 1) *
           UINT64_C(0x9e3779b97f4a7c15);
}

static uint64_t word_at(uint64_t seed, size_t index)
{
    return seed + (uint64_t)index * UINT64_C(0xd1342543de82ef95);
}

static void fill(void *ptr, size_t size, uint64_t seed)
{
    uint64_t *words = ptr;
    size_t count = size / sizeof *words;
    for (size_t i = 0; i < count; i++)
        words[i] = word_at(seed, i);
    uint64_t last = word_at(seed, count);
    memcpy(words + count, &last, size % sizeof *words);
}

static bool holds(const void *ptr, size_t size, uint64_t seed)
{
    const uint64_t *words = ptr;
    size_t count = size / sizeof *words;
    uint64_t differs = 0;
    for (size_t i = 0; i < count; i++)
        differs |= words[i] ^ word_at(seed, i);
    uint64_t last = word_at(seed, count);
    return differs == 0 &&
           memcmp(words + count, &last, size % sizeof *words) == 0;
}

static void check(unsigned round, unsigned buffer)
{
    size_t size = buffer_size[buffer];
    cuda_must(cuda.to_host(back, device_buffer[buffer], size), "cuMemcpyDtoH");
    if (holds(back, size, seed_of(round, buffer)))
        return;
    fprintf(stderr, "pinned: round %u: buffer %u is not what was written\n",
            round, buffer);
    exit(STATUS_WRONG);
}

/* ------------------------------------------------------------------ rounds */

static long faults_now(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

static void one_round(const struct way *way, unsigned round)
{
    uint64_t take = 0, filled = 0, copy = 0;
    long faults = faults_now();
    uint64_t began = clock_ns(), last = began, now;
    for (unsigned i = 0; i < buffer_count; i++) {
        host_buffer[i] = way->take(i);
        take += (now = clock_ns()) - last;
        last = now;
        fill(host_buffer[i], buffer_size[i], seed_of(round, i));
        filled += (now = clock_ns()) - last;
        last = now;
        cuda_must(cuda_copy(device_buffer[i], host_buffer[i], buffer_size[i]),
                  "cuMemcpyHtoDAsync");
        copy += (now = clock_ns()) - last;
        last = now;
    }
    for (unsigned i = 0; i < buffer_count; i++)
        way->give(i, host_buffer[i]);
    uint64_t end = clock_ns();
    faults = faults_now() - faults;
    printf("{\"round\": %u, \"wall_ns\": %" PRIu64 ", \"take_ns\": %" PRIu64
           ", \"fill_ns\": %" PRIu64 ", \"copy_ns\": %" PRIu64
           ", \"give_ns\": %" PRIu64 ", \"faults\": %ld}\n",
           round, end - began, take, filled, copy, end - last, faults);
    check(round, round % buffer_count);
}

/* Bytes of the line KEY of /proc/self/status. */
static uint64_t memory_of(const char *key)
{
    char line[256];
    uint64_t kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0)
            kib = strtoull(line + strlen(key), NULL, 10);
    }
    if (file != NULL)
        fclose(file);
    return kib * 1024;
}

/* The peak of resident memory is from now on. */
static void reset_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (file == NULL || fputs("5", file) < 0 || fclose(file) != 0)
        fprintf(stderr, "pinned: the peak of resident memory is from the "
                        "process's start\n");
}

static void run(const struct way *way, unsigned rounds)
{
    size_t largest = 0, bytes = 0;
    for (unsigned i = 0; i < buffer_count; i++) {
        cuda_must(cuda.device_alloc(&device_buffer[i], buffer_size[i]),
                  "cuMemAlloc");
        bytes += buffer_size[i];
        if (buffer_size[i] > largest)
            largest = buffer_size[i];
    }
    /* Not by malloc(), which is what is measured. */
    back = mmap(NULL, largest, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (back == MAP_FAILED) {
        perror("pinned: mmap");
        exit(STATUS_FAILED);
    }
    /* The driver sets its own copying up on the first copies. */
    memset(back, 1, largest);
    cuda_must(cuda_copy(device_buffer[0], back, buffer_size[0]),
              "cuMemcpyHtoDAsync");
    cuda_must(cuda.to_host(back, device_buffer[0], buffer_size[0]),
              "cuMemcpyDtoH");

    reset_peak();
    uint64_t base = memory_of("VmRSS:");
    uint64_t began = clock_ns();
    way->start();
    uint64_t started = clock_ns() - began;
    for (unsigned round = 0; round < rounds; round++)
        one_round(way, round);
    uint64_t peak = memory_of("VmHWM:");
    zkn_stats_t stats = ZKN_STATS_INIT;
    if (zkn_stats_get(&stats) != 0)
        exit(STATUS_FAILED);
    way->finish();
    printf("{\"way\": \"%s\", \"device\": \"%s\", \"driver\": %d, "
           "\"bytes\": %zu, \"start_ns\": %" PRIu64 ", \"base_rss\": %" PRIu64
           ", \"peak_rss\": %" PRIu64 ", \"registrations\": %" PRIu64
           ", \"unregistrations\": %" PRIu64 ", \"refused\": %" PRIu64
           ", \"registered_most\": %" PRIu64 ", \"registered_left\": %" PRIu64
           ", \"hits\": %" PRIu64 ", \"misses\": %" PRIu64
           ", \"fallback_system\": %" PRIu64 "}\n",
           way->name, cuda.device, cuda.version, bytes, started, base, peak,
           registered.calls, registered.undone, registered.refused,
           registered.most, registered.bytes, stats.hits, stats.misses,
           stats.fallback_system);
}

/* ------------------------------------------------------------------- usage */

static int usage(void)
{
    fprintf(stderr, "usage: pinned CUDA WAY ROUNDS SIZE [SIZE ...] | "
                    "CUDA --probe | --list\n");
    return STATUS_FAILED;
}

static bool parse(const char *text, size_t *out)
{
    char *end;
    *out = strtoull(text, &end, 10);
    return *end == '\0' && *out > 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        way_list();
        return STATUS_OK;
    }
    if (argc == 3 && strcmp(argv[2], "--probe") == 0) {
        cuda_open(argv[1]);
        probe();
        return STATUS_OK;
    }
    size_t rounds;
    const struct way *way = argc > 2 ? way_find(argv[2]) : NULL;
    if (way == NULL || argc < 5 || argc - 4 > BUFFERS_MOST ||
        !parse(argv[3], &rounds))
        return usage();
    for (int i = 4; i < argc; i++) {
        if (!parse(argv[i], &buffer_size[buffer_count++]))
            return usage();
    }
    cuda_open(argv[1]);
    run(way, (unsigned)rounds);
    return STATUS_OK;
}
