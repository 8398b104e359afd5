/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Under the memory limit of a control group, of version 1 or 2: what is cached
 * goes when it is needed, and a process that needs too much is killed and
 * nothing else happens.
 *
 * Makes a group, with each case in it, and removes it; that needs root and a
 * control-group file system that may be written, else the cases are skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "cases.h"
#include "os.h"

#define LIMIT (256 * MIB)

static char group[128];

static bool write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", group, name);
    int fd = open(path, O_WRONLY);
    bool done =
        fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return done;
}

/* Whether the group was made below ROOT, with its limit in the file NAME. */
static bool make_group(const char *root, const char *name)
{
    char limit[32];
    snprintf(group, sizeof group, "%s/zkn-test-%d", root, (int)getpid());
    snprintf(limit, sizeof limit, "%zu", LIMIT);
    if (mkdir(group, 0755) != 0)
        return false;
    if (write_file(name, limit)) {
        /* Version 1: swap is limited, too, where it is counted. */
        (void)write_file("memory.memsw.limit_in_bytes", limit);
        (void)write_file("memory.swap.max", "0");
        return true;
    }
    (void)rmdir(group);
    return false;
}

static void in_group(void (*body)(void), int *status)
{
    if (SANITIZED)
        skip("the sanitizers need memory");
    if (!make_group("/sys/fs/cgroup/memory", "memory.limit_in_bytes") &&
        !make_group("/sys/fs/cgroup", "memory.max"))
        skip("no memory control group may be made");
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        CHECK_TRUE(write_file("cgroup.procs", "0"));
        body();
        exit(0);
    }
    CHECK(waitpid(child, status, 0), ==, child);
    /* The kernel may take a moment to let go of it. */
    for (int i = 0; i < 100 && rmdir(group) != 0; i++)
        usleep(50 * 1000);
    CHECK(access(group, F_OK), ==, -1);
}

/* Volatile, or a compiler leaves out what nobody reads. */
static void fill(volatile char *ptr, size_t size)
{
    CHECK_TRUE(ptr != NULL);
    for (size_t at = 0; at < size; at += 4096)
        ptr[at] = 1;
}

/* -------------------------------------------------------------------- bodies
 */

/* What is soft is taken by the kernel, and no more than that. */
static void take_soft(void)
{
    CHECK(os_memory_limit(), ==, LIMIT);
    char *live = zkn_alloc(32 * MIB), *cached = zkn_alloc(160 * MIB);
    memset(live, 7, 32 * MIB);
    fill(cached, 160 * MIB);
    zkn_free(cached);
    CHECK(zkn_soften_cache(), >=, 160 * MIB);
    size_t other = 140 * MIB;
    char *rest = mmap(NULL, other, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK_TRUE(rest != MAP_FAILED);
    fill(rest, other);
    CHECK(proc_status("VmRSS"), <, LIMIT + 16 * MIB);
    CHECK_TRUE(live[0] == 7 && memcmp(live, live + 1, 32 * MIB - 1) == 0);
    CHECK(munmap(rest, other), ==, 0);
    char *zero = zkn_calloc(1, 160 * MIB);
    CHECK_TRUE(is_zero(zero, 160 * MIB));
    zkn_free(zero);
    zkn_free(live);
}

/* A program that frees much and needs it elsewhere: the watcher sees that the
 * group is nearly full and gives the cache back. */
static void give_back(void)
{
    char *ptr = zkn_alloc(242 * MIB);
    fill(ptr, 242 * MIB);
    zkn_free(ptr);
    for (int i = 0; i < 300 && stats_now().cached_now > 0; i++)
        usleep(100 * 1000);
    CHECK(stats_now().cached_now, ==, 0);
    CHECK(os_memory_pressure(), <, 100);
}

static void need_too_much(void)
{
    char *ptr = zkn_alloc(2 * LIMIT);
    fill(ptr, 2 * LIMIT);
}

/* Many rounds whose sum is far above the limit, and whose peak is not. */
static void churn_below(void)
{
    uint64_t seed = 9;
    for (int i = 0; i < 300; i++) {
        char *a = zkn_alloc(MIB + random_next(&seed) % (64 * MIB));
        char *b = zkn_calloc(1, MIB + random_next(&seed) % (64 * MIB));
        fill(a, zkn_usable_size(a));
        CHECK_TRUE(is_zero(b, MIB));
        fill(b, zkn_usable_size(b));
        zkn_free(a);
        zkn_free(b);
    }
}

/* --------------------------------------------------------------------- cases
 */

static void reclaim(void)
{
    int status;
    in_group(take_soft, &status);
    CHECK(status, ==, 0);
}

static void pressure(void)
{
    int status;
    in_group(give_back, &status);
    CHECK(status, ==, 0);
}

static void out_of_memory(void)
{
    int status;
    in_group(need_too_much, &status);
    CHECK(status, ==, SIGKILL);
}

static void below_the_limit(void)
{
    int status;
    in_group(churn_below, &status);
    CHECK(status, ==, 0);
}

static const struct test_case cases[] = {
    {"reclaim", reclaim},
    {"pressure", pressure, {"ZK_NALLOC_IDLE_SECONDS=3600"}},
    {"out of memory", out_of_memory},
    {"below the limit", below_the_limit},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}
