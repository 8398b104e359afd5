/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What a process may do in its life besides allocating: start and end threads,
 * end while they run, be traced, dump core, run for somebody else.  test_fork.c
 * has forks and signals.
 */
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>

#include "cases.h"
#include "crew.h"

/* ------------------------------------------------------------------- cases */

/* Many threads that live for a moment leave nothing behind. */
static void thread_storm(void)
{
    size_t before = proc_status("VmSize");
    for (int i = 0; i < 100; i++) {
        stop = false;
        start_crew((void *)2);
        for (size_t j = 0; j < CREW; j++)
            pthread_join(crew[j], NULL);
    }
    stop = true;
    CHECK(stats_now().regions_now, ==, 0);
    /* Stacks that the C library keeps, and its arenas. */
    CHECK(proc_status("VmSize"), <=, before + 1024 * MIB);
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
}

static void cancelled_threads(void)
{
    start_crew(NULL);
    usleep(5000);
    for (size_t i = 0; i < CREW; i++)
        CHECK(pthread_cancel(crew[i]), ==, 0);
    end_crew();
}

static void exit_while_threads_run(void)
{
    start_crew(NULL);
    usleep(5000);
    exit(0);
}

static void at_exit(void)
{
    churn((void *)5);
}

/* Constructors ran churn() before main(), see below; so does this after it. */
static void late_calls(void)
{
    CHECK(atexit(at_exit), ==, 0);
    exit(0);
}

/* A program with so many thread-local variables that little of a small stack
 * is left: the watcher must start, and must not run over. */
static _Thread_local volatile char locals[122 * 1024];

static void thread_local_variables(void)
{
    locals[1] = 1;
    char *ptr = zkn_alloc(96 * MIB);
    memset(ptr, 1, 96 * MIB);
    zkn_free(ptr);
    CHECK(stats_now().fallback_watch, ==, 0);
    for (int i = 0; i < 600 && stats_now().cached_now > 0; i++)
        usleep(100 * 1000);
    CHECK(stats_now().cached_now, ==, 0);
}

static void *forever(void *unused)
{
    (void)unused;
    for (;;)
        churn((void *)1000);
    return NULL;
}

/* Stopped and looked at by a debugger, again and again. */
static void traced(void)
{
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, forever, NULL), ==, 0);
        forever(NULL);
    }
    for (int i = 0; i < 20; i++) {
        if (ptrace(PTRACE_ATTACH, child, NULL, NULL) != 0) {
            kill(child, SIGKILL);
            skip("no process may be traced");
        }
        CHECK_TRUE(WIFSTOPPED(wait_for(child)));
        CHECK(ptrace(PTRACE_DETACH, child, NULL, NULL), ==, 0);
        usleep(1000);
    }
    CHECK(kill(child, SIGTERM), ==, 0);
    CHECK(WTERMSIG(wait_for(child)), ==, SIGTERM);
}

/* The reservation is no part of a core file. */
static void core_dump(void)
{
    char folder[] = CORE_FOLDER, name[64];
    struct rlimit limit = {256 * MIB, 256 * MIB};
    enter_core_folder(folder);
    char *ptr = zkn_alloc(8 * MIB);
    memset(ptr, 1, 8 * MIB);
    pid_t child = fork();
    if (child == 0) {
        if (setrlimit(RLIMIT_CORE, &limit) != 0)
            _exit(SKIPPED);
        abort();
    }
    int status = wait_for(child);
    if (WIFEXITED(status))
        skip("no core file may be written");
    CHECK(WTERMSIG(status), ==, SIGABRT);
    struct stat core = {0};
    snprintf(name, sizeof name, "core.%d", child);
    bool found = stat("core", &core) == 0 || stat(name, &core) == 0;
    CHECK(!WCOREDUMP(status) || found, ==, 1);
    unlink("core");
    unlink(name);
    leave_core_folder(folder);
    CHECK(core.st_size, <, (off_t)(128 * MIB));
    zkn_free(ptr);
}

/* ------------------------------------------------------------------- set-uid
 */

static void report(void)
{
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK_TRUE(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        if (strstr(line, "libzknalloc_preload") != NULL) {
            fprintf(stderr, "preloaded\n");
            break;
        }
    }
    fclose(maps);
    (void)zkn_options_print(STDERR_FILENO);
}

#ifndef ZKN_PRELOAD
#define ZKN_PRELOAD "" /* the sanitizers' builds have none */
#endif

static char copy[64];

static void run_copy(void)
{
    CHECK(setenv("ZK_NALLOC_MAGAZINE_BYTES", "17", 1), ==, 0);
    CHECK(setenv("ZK_NALLOC_STATS_FILE", "/tmp/zkn-never", 1), ==, 0);
    CHECK(setenv("LD_PRELOAD", ZKN_PRELOAD, 1), ==, 0);
    CHECK(setgid(65534) + setuid(65534), ==, 0);
    execl(copy, copy, "report", NULL);
    _exit(99);
}

/* A program that runs with more rights than its caller must not let the caller
 * choose its options, the file that it writes, or a library. */
static void set_uid(void)
{
    char text[4096], buffer[65536];
    if (geteuid() != 0)
        skip("not root");
    if (under_valgrind())
        skip("valgrind runs no set-uid programs");
    if (access("/tmp/zkn-never", F_OK) == 0)
        skip("/tmp/zkn-never exists");
    strcpy(copy, "/tmp/zkn-setuid-XXXXXX");
    int to = mkstemp(copy), from = open("/proc/self/exe", O_RDONLY);
    CHECK_TRUE(to >= 0 && from >= 0);
    for (ssize_t n; (n = read(from, buffer, sizeof buffer)) > 0;)
        CHECK(write(to, buffer, (size_t)n), ==, n);
    close(from);
    /* Without those rights the caller may choose. */
    CHECK(fchmod(to, 0755), ==, 0);
    close(to);
    CHECK(run_child(run_copy, text, sizeof text), ==, 0);
    CHECK_TRUE(strstr(text, "ZK_NALLOC_MAGAZINE_BYTES=17 ") != NULL);
    if (strstr(text, "cannot be preloaded") == NULL) /* out of reach, say */
        CHECK(strstr(text, "preloaded") != NULL, ==, *ZKN_PRELOAD != '\0');
    CHECK(unlink("/tmp/zkn-never"), ==, 0);

    CHECK(chmod(copy, 04755), ==, 0);
    int status = run_child(run_copy, text, sizeof text);
    unlink(copy);
    CHECK(status, ==, 0);
    if (strstr(text, "ZK_NALLOC_MAGAZINE_BYTES=17 ") != NULL)
        skip("the file system ignores set-uid");
    CHECK_TRUE(strstr(text, "ZK_NALLOC_MAGAZINE_BYTES=1310720 ") != NULL);
    CHECK_TRUE(strstr(text, "preloaded") == NULL);
    CHECK_TRUE(strstr(text, "zkn-never") == NULL);
    CHECK(access("/tmp/zkn-never", F_OK), ==, -1);
}

/* ---------------------------------------------------------------------- main
 */

static const struct test_case cases[] = {
    {"thread storm", thread_storm},
    {"cancelled threads", cancelled_threads},
    {"exit while threads run", exit_while_threads_run},
    {"before and after main", late_calls},
    {"thread-local variables",
     thread_local_variables,
     {"ZK_NALLOC_IDLE_SECONDS=1"}},
    {"traced", traced},
    {"core dump", core_dump},
    {"set-uid", set_uid},
};

/* Priority 101 runs before all constructors but the loader's own. */
__attribute__((constructor(101))) static void before_main(void)
{
    churn((void *)5);
}

__attribute__((destructor)) static void after_main(void)
{
    zkn_free(zkn_alloc(MIB));
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "report") == 0) {
        report();
        return 0;
    }
    return RUN_CASES(argc, argv, cases);
}
