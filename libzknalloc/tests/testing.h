/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * testing.h - the whole test framework.  A test is a program: exit status 0
 * passed, 1 failed, 77 skipped (ctest shows it as such).  CHECK prints both
 * operands and ends the program.
 */
#ifndef ZKN_TESTING_H
#define ZKN_TESTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zknalloc.h"

#define SKIPPED 77

#define CHECK(left, op, right)                                                 \
    do {                                                                       \
        long long left_ = (long long)(left), right_ = (long long)(right);      \
        if (!(left_ op right_)) {                                              \
            fprintf(stderr, "%s:%d: %s %s %s: %lld against %lld\n", __FILE__,  \
                    __LINE__, #left, #op, #right, left_, right_);              \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

#define CHECK_TRUE(condition) CHECK(!!(condition), ==, 1)

static inline zkn_stats_t stats_now(void)
{
    zkn_stats_t stats = ZKN_STATS_INIT;
    CHECK(zkn_stats_get(&stats), ==, 0);
    return stats;
}

static inline long minor_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage); /* not the watcher's */
    return usage.ru_minflt;
}

/* One field of /proc/self/status, in bytes. */
static inline size_t proc_status(const char *field)
{
    FILE *file = fopen("/proc/self/status", "r");
    CHECK_TRUE(file != NULL);
    char line[256];
    size_t kib = 0, length = strlen(field);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, field, length) == 0 && line[length] == ':')
            kib = strtoul(line + length + 1, NULL, 10);
    }
    fclose(file);
    return kib * 1024;
}

static inline bool is_zero(const void *ptr, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)ptr;
    return size == 0 ||
           (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* A small generator with a printed seed (xorshift64*, Vigna 2016). */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dULL;
}

/* Run BODY in a child; returns its wait status and up to SIZE - 1 bytes of
 * what it wrote to stderr. */
static inline int run_child(void (*body)(void), char *text, size_t size)
{
    int fds[2];
    CHECK(pipe(fds), ==, 0);
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        close(fds[1]);
        body();
        _exit(0);
    }
    close(fds[1]);
    size_t length = 0;
    ssize_t n;
    char rest[256];
    while ((n = length < size - 1
                    ? read(fds[0], text + length, size - 1 - length)
                    : read(fds[0], rest, sizeof rest)) > 0)
        length += length < size - 1 ? (size_t)n : 0;
    text[length] = '\0';
    close(fds[0]);
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    return status;
}

#endif /* ZKN_TESTING_H */
