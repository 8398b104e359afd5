/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Surroundings that a container or an administrator makes: no /proc, a file
 * system that cannot be written, huge pages that are switched off, no mapping
 * and no memory to be had, system calls that are forbidden.
 *
 * What must be so before the library starts is made in a mount namespace of the
 * case's own, in which the program starts once more as one of the inner cases.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>

#include "cases.h"
#include "heap.h"

#define MIB ((size_t)1 << 20)

/* Buffers of which little is used, again and again, always zero at first. */
static void buckets(void)
{
    enum { WINDOWS = 8, WINDOW = 6 << 20 };
    char *windows[WINDOWS];
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < WINDOWS; i++) {
            windows[i] = zkn_calloc(1, WINDOW);
            CHECK_TRUE(is_zero(windows[i], WINDOW));
            for (int at = 0; at < WINDOW; at += WINDOW / 16)
                windows[i][at] = 1;
        }
        for (int i = 0; i < WINDOWS; i++)
            zkn_free(windows[i]);
    }
}

/* ------------------------------------------------------------- namespaces */

static char program[512];

static void enter_namespace(void)
{
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    CHECK(length, >, 0);
    program[length] = '\0';
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        skip("no mount namespace may be made");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/mnt", "tmpfs", 0, NULL) != 0)
        skip("nothing may be mounted");
}

static _Noreturn void start_inside(const char *name)
{
    execl(program, program, name, NULL);
    _exit(99);
}

static void no_proc(void)
{
    if (SANITIZED)
        skip("the sanitizers need /proc");
    enter_namespace();
    CHECK(mount("none", "/proc", "tmpfs", 0, NULL), ==, 0);
    start_inside("inside, no proc");
}

/* Used in every way that has a way to do without. */
static void use_all(void)
{
    use(64 * MIB);
    buckets();
    char *ptr = zkn_realloc(zkn_alloc(16 * MIB), 64 * MIB);
    CHECK_TRUE(ptr != NULL);
    zkn_free(ptr);
    zkn_soften_cache();
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
    zkn_secret_t *secret = zkn_secret_create(100, 0);
    CHECK_TRUE(secret != NULL);
    zkn_secret_destroy(secret);
    CHECK(stats_now().fallback_system, ==, 0);
}

static void inside_no_proc(void)
{
    CHECK(access("/proc/self", F_OK), ==, -1);
    use(64 * MIB);
    use(64 * MIB);
    CHECK(stats_now().hits, ==, 1);
    buckets();
    CHECK(stats_now().fallback_scan, >, 0);
    use_all();
}

/* Wiping looks into /proc for what to wipe; without it, it wipes all. */
static void inside_no_proc_wiped(void)
{
    CHECK(access("/proc/self", F_OK), ==, -1);
    char *volatile stale = zkn_alloc(4 * MIB);
    memset(stale, 1, 4 * MIB);
    zkn_free(stale);
    CHECK_TRUE(is_zero(stale, 4 * MIB));
}

static void no_proc_wiped(void)
{
    if (SANITIZED)
        skip("the sanitizers need /proc");
    enter_namespace();
    CHECK(mount("none", "/proc", "tmpfs", 0, NULL), ==, 0);
    start_inside("inside, no proc, wiped");
}

/* The counters cannot be written; the program ends as it would have. */
static void read_only(void)
{
    enter_namespace();
    CHECK(mount("none", "/mnt", "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), ==, 0);
    CHECK(setenv("ZK_NALLOC_STATS_FILE", "/mnt/stats", 1), ==, 0);
    start_inside("inside, read only");
}

static void inside_read_only(void)
{
    CHECK(open("/mnt/stats", O_CREAT | O_WRONLY, 0600), ==, -1);
    CHECK(errno, ==, EROFS);
    use(MIB);
}

/* The kernel says that it uses no huge pages, or that it always does. */
static void kernel_says(const char *text, const char *then)
{
    static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
    if (access(path, F_OK) != 0)
        skip("the kernel has no huge pages");
    enter_namespace();
    int fd = open("/mnt/enabled", O_CREAT | O_WRONLY, 0600);
    CHECK(write(fd, text, strlen(text)), ==, strlen(text));
    close(fd);
    CHECK(mount("/mnt/enabled", path, NULL, MS_BIND, NULL), ==, 0);
    start_inside(then);
}

static void thp_never(void)
{
    kernel_says("always madvise [never]\n", "inside, never");
}

static void thp_always(void)
{
    kernel_says("[always] madvise never\n", "inside, always");
}

/* Only the pages that were asked for count as used, or whole huge pages do:
 * what is left of the last one is free and counts, too. */
static void count_a_page_more(bool huge)
{
    CHECK(heap.huge, ==, huge);
    char *ptr = zkn_alloc(5 * MIB);
    CHECK(stats_now().cached_now > 0, ==, huge);
    zkn_free(ptr);
    use(64 * MIB);
    buckets();
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
}

static void inside_never(void)
{
    count_a_page_more(false);
}

static void inside_always(void)
{
    count_a_page_more(true);
}

/* The process is refused huge pages, though the kernel has them. */
static void thp_disabled(void)
{
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    CHECK(length, >, 0);
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
        skip("huge pages cannot be switched off for a process");
    start_inside("inside, disabled");
}

static void inside_disabled(void)
{
    char *ptr = zkn_alloc(64 * MIB);
    memset(ptr, 1, 64 * MIB);
    CHECK(huge_bytes(), ==, 0);
    zkn_free(ptr);
    long before = minor_faults();
    use(64 * MIB);
    CHECK(minor_faults() - before, <=, SANITIZED ? 64 : 0); /* their own */
    buckets();
}

/* ----------------------------------------------------------- nothing left */

/* Use whatever there is of it; what was refused says ENOMEM. */
static void use_or_not(size_t size)
{
    errno = 0;
    char *ptr = zkn_alloc(size);
    if (ptr == NULL)
        CHECK(errno, ==, ENOMEM);
    else
        memset(ptr, 1, size);
    char *more = zkn_realloc(ptr, 2 * size);
    if (more != NULL)
        CHECK(ptr == NULL || more[size - 1], ==, 1);
    zkn_free(more != NULL ? more : ptr);
    char *zero = zkn_calloc(1, size);
    CHECK_TRUE(zero == NULL || is_zero(zero, size));
    zkn_free(zero);
}

static void no_mappings(void)
{
    enum { MOST = 200000 };
    static void *maps[MOST];
    if (SANITIZED)
        skip("the sanitizers need mappings");
    char *kept = zkn_alloc(8 * MIB);
    memset(kept, 7, 8 * MIB);
    use(32 * MIB);
    size_t n = 0, page = (size_t)sysconf(_SC_PAGESIZE);
    do { /* neighbours that differ are mappings of their own */
        if (n == MOST)
            skip("the limit on mappings is high here");
        maps[n] = mmap(NULL, page, n % 2 == 0 ? PROT_READ : PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    } while (maps[n++] != MAP_FAILED);
    for (size_t size = ZKN_THRESHOLD; size <= 256 * MIB; size *= 4)
        use_or_not(size);
    zkn_soften_cache();
    zkn_release_cache();
    CHECK_TRUE(zkn_secret_create(100, 0) == NULL);
    CHECK(errno, ==, ENOMEM);
    char *grown = zkn_realloc(kept, 64 * MIB);
    kept = grown != NULL ? grown : kept;
    CHECK_TRUE(kept[0] == 7 && memcmp(kept, kept + 1, 8 * MIB - 1) == 0);

    while (--n > 0)
        CHECK(munmap(maps[n - 1], page), ==, 0);
    zkn_free(kept);
    char *big = zkn_alloc(256 * MIB);
    CHECK_TRUE(big != NULL && zkn_owns(big));
    memset(big, 1, 256 * MIB);
    zkn_free(big);
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
    CHECK(stats_now().regions_now, ==, 0);
}

/* The kernel refuses to account for more, as vm.overcommit_memory=2 does. */
static void no_commit(void)
{
    if (SANITIZED)
        skip("the sanitizers need memory");
    struct rlimit limit = {256 * MIB, 256 * MIB};
    CHECK(setrlimit(RLIMIT_DATA, &limit), ==, 0);
    char *kept = zkn_alloc(32 * MIB);
    memset(kept, 7, 32 * MIB);
    for (int i = 0; i < 3; i++) {
        errno = 0;
        CHECK_TRUE(zkn_alloc(512 * MIB) == NULL);
        CHECK(errno, ==, ENOMEM);
        errno = 0;
        CHECK_TRUE(zkn_calloc(1, 512 * MIB) == NULL);
        CHECK(errno, ==, ENOMEM);
        errno = 0;
        CHECK_TRUE(zkn_realloc(kept, 512 * MIB) == NULL);
        CHECK(errno, ==, ENOMEM);
        CHECK_TRUE(kept[0] == 7 && memcmp(kept, kept + 1, 32 * MIB - 1) == 0);
        use(64 * MIB);
    }
    CHECK(stats_now().hits, >=, 2);
    zkn_free(kept);
}

/* ---------------------------------------------------------- refused calls */

/* Looking which pages are there could be an ioctl(), and is none. */
static void no_ioctl(void)
{
    deny(SYS_ioctl, -1, 0);
    use_all();
    CHECK(stats_now().syscalls_scan, >, 0);
    CHECK(stats_now().fallback_scan, ==, 0);
    CHECK(stats_now().fallback_advise, ==, 0);
}

/* What containers forbid, all at once; test_limits and test_secret have the
 * calls that are needed, each alone. */
static void container(void)
{
    deny(SYS_ioctl, -1, 0);
    deny(SYS_perf_event_open, -1, 0);
    deny(SYS_mremap, -1, 0);
    deny(SYS_memfd_secret, -1, 0);
    use_all();
    CHECK(stats_now().bytes_moved, ==, 0);
    CHECK(stats_now().fallback_scan, ==, 0);
    zkn_secret_t *secret = zkn_secret_create(100, 0);
    CHECK_TRUE(secret != NULL);
    CHECK(zkn_secret_info(secret) & ZKN_SECRET_MEMFD, ==, 0);
    zkn_secret_destroy(secret);
}

/* ------------------------------------------------------------------ cases */

static const struct test_case cases[] = {
    {"no proc", no_proc},
    {"no proc, wiped", no_proc_wiped, {"ZK_NALLOC_WIPE=1"}},
    {"read only", read_only,
     .words = "libzknalloc: cannot write the statistics to /mnt/stats"},
    {"THP never", thp_never},
    {"THP always", thp_always},
    {"THP disabled", thp_disabled},
    {"no mappings", no_mappings},
    {"no commit", no_commit},
    {"no ioctl", no_ioctl},
    {"container", container},
};

static const struct test_case inner[] = {
    {"inside, no proc", inside_no_proc},
    {"inside, no proc, wiped", inside_no_proc_wiped},
    {"inside, read only", inside_read_only},
    {"inside, never", inside_never},
    {"inside, always", inside_always},
    {"inside, disabled", inside_disabled},
};

int main(int argc, char **argv)
{
    if (argc > 1 && strncmp(argv[1], "inside", 6) == 0)
        return RUN_CASES(argc, argv, inner);
    return RUN_CASES(argc, argv, cases);
}
