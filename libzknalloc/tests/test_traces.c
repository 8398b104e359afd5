/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What is left of a secret where others may look: in the process's memory when
 * it is gone, in a forked child, in a core file; and in the time that comparing
 * it takes.  Each search is seen to find what is not protected.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>

#include "cases.h"
#include "secrets.h"

/* Bytes of the content that are searched for. */
enum { NEEDLE = 64 };

static void stop_for_parent(void)
{
    CHECK(raise(SIGSTOP), ==, 0);
}

/* ------------------------------------------------- what is left afterwards */

/* Whether any readable memory of process PID holds the content of fill(). */
static bool found_in(pid_t pid)
{
    static unsigned char needle[NEEDLE];
    char path[64], line[512];
    for (size_t i = 0; i < NEEDLE; i++)
        needle[i] = byte_at(i);
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int memory = open(path, O_RDONLY);
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "r");
    CHECK_TRUE(memory >= 0 && maps != NULL);
    bool found = false;
    static char chunk[1 << 16];
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long start, end;
        CHECK(sscanf(line, "%lx-%lx ", &start, &end), ==, 2);
        if (end - start > (1UL << 30))
            continue; /* reservations */
        for (; start < end; start += sizeof chunk - NEEDLE) {
            size_t length =
                end - start < sizeof chunk ? end - start : sizeof chunk;
            ssize_t n = pread(memory, chunk, length, (off_t)start);
            if (n >= NEEDLE && memmem(chunk, (size_t)n, needle, NEEDLE) != NULL)
                found = true;
        }
    }
    fclose(maps);
    close(memory);
    return found;
}

/* A debugger searches the process: with the secret alive (which proves that
 * the search works, where the kernel shows it at all), after it was destroyed,
 * after another was left to the end of the process, when all handlers have
 * run. */
static void nothing_left(void)
{
    zkn_secret_t *probe = create(1);
    bool hidden = (zkn_secret_info(probe) & ZKN_SECRET_MEMFD) != 0;
    zkn_secret_destroy(probe);
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0), ==, 0);
        zkn_secret_t *secret = create(5000);
        fill(secret);
        CHECK(zkn_secret_protect(secret, ZKN_SECRET_NO_ACCESS), ==, 0);
        stop_for_parent();
        zkn_secret_destroy(secret);
        stop_for_parent();
        fill(create(5000));
        secret = create(5000);
        fill(secret);
        CHECK(zkn_secret_protect(secret, ZKN_SECRET_NO_ACCESS), ==, 0);
        stop_for_parent();
        exit(0);
    }
    int status;
    const bool expected[] = {true, false, true, false};
    for (int i = 0; i < 4; i++) {
        CHECK(waitpid(child, &status, 0), ==, child);
        CHECK_TRUE(WIFSTOPPED(status));
        if (i == 0)
            CHECK(ptrace(PTRACE_SETOPTIONS, child, 0,
                         PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL),
                  ==, 0);
        if (i == 3)
            CHECK(status >> 8, ==, SIGTRAP | PTRACE_EVENT_EXIT << 8);
        CHECK(found_in(child), ==, expected[i] && !hidden);
        CHECK(ptrace(PTRACE_CONT, child, 0, 0), ==, 0);
    }
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);
}

/* The same from inside, as no debugger reads memfd_secret() pages: this runs
 * after the library's own destructor, which has a later priority. */
static zkn_secret_t *at_exit;

__attribute__((destructor(101))) static void look_at_exit(void)
{
    if (at_exit != NULL && !is_zero(zkn_secret_data(at_exit), 5000))
        _exit(1);
}

static void wiped_at_exit(void)
{
    at_exit = create(5000);
    fill(at_exit);
    exit(0);
}

/* ------------------------------------------------------ a forked child's */

static void stopped_child(pid_t child, bool expected)
{
    int status;
    CHECK(waitpid(child, &status, WUNTRACED), ==, child);
    CHECK_TRUE(WIFSTOPPED(status));
    CHECK(found_in(child), ==, expected);
    CHECK(kill(child, SIGCONT), ==, 0);
}

/* Nothing of it is in the child's memory; what the child writes to its heap
 * is, which proves that the search works. */
static void forked(void)
{
    zkn_secret_t *secret = create(5000);
    fill(secret);
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        stop_for_parent();
        volatile unsigned char *plain = malloc(5000);
        for (size_t i = 0; i < 5000; i++)
            plain[i] = byte_at(i);
        stop_for_parent();
        free((void *)(uintptr_t)plain);
        _exit(0);
    }
    stopped_child(child, false);
    stopped_child(child, true);
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);
    zkn_secret_destroy(secret);
}

/* ---------------------------------------------------------- in a core file */

static bool found_in_file(const char *name)
{
    static unsigned char needle[NEEDLE];
    static char chunk[1 << 16];
    bool found = false;
    ssize_t n;
    int fd = open(name, O_RDONLY);
    CHECK(fd, >=, 0);
    for (size_t i = 0; i < NEEDLE; i++)
        needle[i] = byte_at(i);
    for (off_t at = 0; (n = pread(fd, chunk, sizeof chunk, at)) >= NEEDLE;
         at += n - NEEDLE + 1)
        found |= memmem(chunk, (size_t)n, needle, NEEDLE) != NULL;
    close(fd);
    return found;
}

/* Whether a secret is in the core file of a process that had it. */
static bool found_in_core(void)
{
    char folder[] = CORE_FOLDER, name[32];
    enter_core_folder(folder);
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        struct rlimit limit = {256 << 20, 256 << 20};
        if (setrlimit(RLIMIT_CORE, &limit) != 0)
            _exit(SKIPPED);
        fill(create(5000));
        abort();
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    snprintf(name, sizeof name, "core.%d", (int)child);
    if (access("core", F_OK) == 0)
        strcpy(name, "core");
    bool dumped = access(name, F_OK) == 0;
    bool found = dumped && found_in_file(name);
    unlink(name);
    leave_core_folder(folder);
    if (!dumped)
        skip("no core file was written");
    return found;
}

static void core_file(void)
{
    CHECK(found_in_core(), ==, 0);
}

static void core_file_private(void)
{
    no_memfd();
    CHECK(found_in_core(), ==, 0);
}

/* Where the kernel refuses to keep it out, which zkn_secret_info() says, it is
 * there: the search works. */
static void core_file_refused(void)
{
    kind = PLAIN;
    deny(SYS_madvise, -1, 0);
    CHECK(found_in_core(), ==, 1);
}

/* ------------------------------------------------------------ comparison */

static void compares(void)
{
    unsigned char a[300], b[300];
    for (size_t size = 0; size <= sizeof a; size++) {
        memset(a, 0x5a, sizeof a);
        memset(b, 0x5a, sizeof b);
        CHECK(zkn_secret_equal(a, b, size), ==, 1);
        for (size_t at = 0; at < sizeof a; at++) {
            for (int bit = 0; bit < 8; bit += 7) {
                b[at] ^= (unsigned char)(1 << bit);
                CHECK(zkn_secret_equal(a, b, size), ==, at >= size);
                b[at] ^= (unsigned char)(1 << bit);
            }
        }
    }
    CHECK(zkn_secret_equal(NULL, NULL, 0), ==, 1);
}

/* Instructions that the comparison takes where the first difference is at AT:
 * the child is stepped through it one by one. */
static unsigned char left[64], right[64];
static volatile bool outcome;

static long instructions(size_t at)
{
    memset(right, 0, sizeof right);
    if (at < sizeof right)
        memset(right + at, 0xff, sizeof right - at);
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0), ==, 0);
        stop_for_parent();
        outcome = zkn_secret_equal(left, right, sizeof left);
        stop_for_parent();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    long steps = -1;
    do {
        CHECK(ptrace(PTRACE_SINGLESTEP, child, 0, 0), ==, 0);
        CHECK(waitpid(child, &status, 0), ==, child);
        steps++;
    } while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    CHECK_TRUE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return steps;
}

static void compares_in_constant_time(void)
{
    if (SANITIZED)
        skip("the sanitizers have branches of their own");
    long equal = instructions(sizeof left);
    CHECK(equal, >, 64);
    for (size_t at = 0; at < sizeof left; at += 9)
        CHECK(instructions(at), ==, equal);
}

/* ------------------------------------------------------------------ cases */

static void nothing_left_private(void)
{
    no_memfd();
    nothing_left();
}

static void nothing_left_plain(void)
{
    kind = PLAIN;
    deny(SYS_madvise, -1, 0);
    nothing_left();
}

static void wiped_at_exit_private(void)
{
    no_memfd();
    wiped_at_exit();
}

static void forked_private(void)
{
    no_memfd();
    forked();
}

static const struct test_case cases[] = {
    {"nothing left", nothing_left},
    {"nothing left, private", nothing_left_private},
    {"nothing left, plain", nothing_left_plain},
    {"wiped at exit", wiped_at_exit},
    {"wiped at exit, private", wiped_at_exit_private},
    {"forked", forked},
    {"forked, private", forked_private},
    {"core file", core_file},
    {"core file, private", core_file_private},
    {"core file, refused", core_file_refused},
    {"compares", compares},
    {"constant time", compares_in_constant_time},
};

int main(int argc, char **argv)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    return RUN_CASES(argc, argv, cases);
}
