/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * testing.h - the whole test framework.  A test is a program: exit status 0
 * passed, 1 failed, 77 skipped (ctest shows it as such).  CHECK prints both
 * operands and ends the program.
 */
#ifndef ZKN_TESTING_H
#define ZKN_TESTING_H

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zknalloc.h"

#define SKIPPED 77

/* Not in the headers of old kernels. */
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

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

/* Whether valgrind runs this; it preloads a library into what it runs.  It
 * refuses MREMAP_DONTUNMAP, so that nothing moves; aligns to 16 MiB at most;
 * and its own faults and memory are counted as the program's. */
static inline bool under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");
    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

/* Sanitizers and valgrind need more time, memory and address space than some
 * limits leave. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED under_valgrind()
#endif

static inline zkn_stats_t stats_now(void)
{
    zkn_stats_t stats = ZKN_STATS_INIT;
    CHECK(zkn_stats_get(&stats), ==, 0);
    return stats;
}

/* Of this thread, not the watcher's; none that would be valgrind's own. */
static inline long minor_faults(void)
{
    struct rusage usage;
    if (under_valgrind()) /* looked up first, which may cost a fault */
        return 0;
    getrusage(RUSAGE_THREAD, &usage);
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

/* Of this process, in huge pages. */
static inline size_t huge_bytes(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    CHECK_TRUE(file != NULL);
    char line[256];
    size_t kib = 0;
    while (fgets(line, sizeof line, file) != NULL)
        (void)sscanf(line, "AnonHugePages: %zu kB", &kib);
    fclose(file);
    return kib << 10;
}

/* The mappings that start within SIZE bytes from BASE on, and in *RAGGED,
 * unless that is NULL, those of them that start at no multiple of UNIT from
 * there. */
static inline size_t mappings_within(const void *base, size_t size, size_t unit,
                                     size_t *ragged)
{
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK_TRUE(file != NULL);
    char line[512];
    size_t count = 0, odd = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        size_t start = strtoul(line, NULL, 16) - (uintptr_t)base;
        if (start < size) {
            count++;
            odd += start % unit != 0;
        }
    }
    fclose(file);
    if (ragged != NULL)
        *ragged = odd;
    return count;
}

/* PTR, of which the compiler no longer knows how much was asked for: with
 * _FORTIFY_SOURCE=3, which some distributions set, the program would be ended
 * where it uses all of the usable size. */
static inline void *whole(void *ptr)
{
    __asm__ volatile("" : "+r"(ptr));
    return ptr;
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

/* Let the kernel answer NUMBER with ENOSYS from now on, where its argument
 * INDEX is VALUE (or always, for INDEX < 0). */
static inline void deny(long number, int index, unsigned value)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 (unsigned)offsetof(struct seccomp_data, args) +
                     (index < 0 ? 0 : 8 * (unsigned)index)),
        BPF_JUMP(BPF_JMP | (index < 0 ? BPF_JGE : BPF_JEQ) | BPF_K,
                 index < 0 ? 0 : value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), ==, 0);
}

/* Start this program afresh, as exec does; not by the link to it, which is to
 * valgrind's program under valgrind. */
static inline void start_again(char *const arguments[])
{
    char path[512];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    CHECK(length, >, 0);
    path[length] = '\0';
    execv(path, arguments);
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
