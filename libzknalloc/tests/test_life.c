/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What a process may do in its life besides allocating: start others, become a
 * daemon, take signals, be traced, end while its threads run.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "cases.h"
#include "heap.h"

#define MIB ((size_t)1 << 20)

extern char **environ;

static atomic_bool stop;

/* Allocate, write, check, free; forever or ROUNDS times. */
static void *churn(void *rounds)
{
    uint64_t seed = (uintptr_t)&seed;
    for (uintptr_t i = 0; !stop && (rounds == NULL || i < (uintptr_t)rounds);
         i++) {
        size_t size = ZKN_THRESHOLD + random_next(&seed) % (2 * MIB);
        char *ptr = zkn_calloc(1, size);
        CHECK_TRUE(ptr != NULL);
        CHECK(ptr[0] + ptr[size / 2] + ptr[size - 1], ==, 0);
        ptr[0] = ptr[size / 2] = ptr[size - 1] = 1;
        ptr = zkn_realloc(ptr, size / 2 + ZKN_THRESHOLD);
        CHECK_TRUE(ptr != NULL && ptr[0] == 1);
        zkn_free(ptr);
        pthread_testcancel();
    }
    return NULL;
}

#define CREW 4

static pthread_t crew[CREW];

static void start_crew(void *rounds)
{
    for (size_t i = 0; i < CREW; i++)
        CHECK(pthread_create(&crew[i], NULL, churn, rounds), ==, 0);
}

static void join_crew(void)
{
    stop = true;
    for (size_t i = 0; i < CREW; i++)
        CHECK(pthread_join(crew[i], NULL), ==, 0);
}

static void end_crew(void)
{
    join_crew();
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
    CHECK(stats_now().regions_now, ==, 0);
}

static int wait_for(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    return status;
}

/* ------------------------------------------------------------------- cases */

static void spawns(void)
{
    char *const arguments[] = {"true", NULL};
    start_crew(NULL);
    for (int i = 0; i < 50; i++) {
        pid_t child;
        CHECK(posix_spawnp(&child, "true", NULL, NULL, arguments, environ), ==,
              0);
        CHECK(wait_for(child), ==, 0);
        child = vfork();
        if (child == 0) {
            execvp("true", arguments);
            _exit(1);
        }
        CHECK(wait_for(child), ==, 0);
    }
    end_crew();
}

/* A child of a child of ... each forked while threads allocate in its parent,
 * and each with threads of its own.  What those held is lost to the child. */
static void generations(void)
{
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    /* One takes the child's threads for its parent's, the other (GCC 12) may
     * leave its allocator's lock taken in the child. */
    skip("the sanitizers do not follow forks of threads");
#endif
    for (int depth = 0; depth < 4; depth++) {
        start_crew(NULL);
        usleep(3000);
        pid_t child = fork();
        CHECK(child, >=, 0);
        if (child > 0) {
            int status = wait_for(child);
            join_crew();
            CHECK(stats_now().regions_now, <=, CREW * 2 * (uint64_t)depth);
            _exit(status != 0);
        }
        churn((void *)50);
    }
}

static void daemonised(void)
{
    int fds[2];
    CHECK(pipe(fds), ==, 0);
    churn((void *)20);
    pid_t child = fork();
    if (child == 0) {
        close(fds[0]);
        CHECK(daemon(1, 1), ==, 0);
        churn((void *)20);
        CHECK(write(fds[1], "x", 1), ==, 1);
        _exit(0);
    }
    close(fds[1]);
    char byte = 0;
    CHECK(read(fds[0], &byte, 1), ==, 1);
    CHECK(wait_for(child), ==, 0);
}

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
    char folder[] = "/tmp/zkn-core-XXXXXX", name[64], pattern[256] = "";
    struct rlimit limit = {256 * MIB, 256 * MIB};
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    skip("the sanitizers' shadow memory would be in it");
#endif
    FILE *file = fopen("/proc/sys/kernel/core_pattern", "r");
    if (file == NULL || fgets(pattern, sizeof pattern, file) == NULL ||
        strcmp(pattern, "core\n") != 0)
        skip("core files go elsewhere");
    fclose(file);
    CHECK_TRUE(mkdtemp(folder) != NULL);
    CHECK(chdir(folder), ==, 0);
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
    CHECK(chdir("/"), ==, 0);
    CHECK(rmdir(folder), ==, 0);
    CHECK(core.st_size, <, (off_t)(128 * MIB));
    zkn_free(ptr);
}

static void on_alarm(int signal)
{
    (void)signal;
    zkn_free(zkn_alloc(8 * MIB));
}

/* Undefined, and forbidden by signal-safety(7): the process must go on, or say
 * what is wrong and end.  It must never hang. */
static void signal_handler(void)
{
    struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
    CHECK_TRUE(signal(SIGALRM, on_alarm) != SIG_ERR);
    CHECK(setitimer(ITIMER_REAL, &often, NULL), ==, 0);
    churn((void *)3000);
    CHECK(setitimer(ITIMER_REAL, &never, NULL), ==, 0);
    signal(SIGALRM, SIG_IGN);
}

static void on_alarm_fork(int signal)
{
    (void)signal;
    pid_t child = fork();
    if (child == 0) {
        void *volatile ptr = malloc(100);
        free(ptr);
        _exit(0);
    }
    if (child > 0)
        waitpid(child, NULL, 0);
}

/* A process with one thread may fork in a signal handler, wherever it is. */
static void fork_in_handler(void)
{
#if defined(__SANITIZE_THREAD__)
    skip("the sanitizer has a thread of its own");
#endif
    struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    CHECK_TRUE(signal(SIGALRM, on_alarm_fork) != SIG_ERR);
    CHECK(setitimer(ITIMER_REAL, &often, NULL), ==, 0);
    for (int i = 0; i < 100; i++) {
        churn((void *)2);
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        while (waitpid(child, NULL, 0) != child)
            CHECK(errno, ==, EINTR);
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL), ==, 0);
}

/* A handler that allocates, at the worst moment. */
static void signal_in_lock(void)
{
    alarm(20); /* should it hang */
    heap_quiet();
    zkn_free(zkn_alloc(8 * MIB));
}

/* ------------------------------------------------------------------- set-uid
 */

static void report(void)
{
    (void)zkn_options_print(STDERR_FILENO);
}

static char copy[64];

static void run_copy(void)
{
    CHECK(setenv("ZK_NALLOC_CACHE_BYTES", "12Q", 1), ==, 0);
    CHECK(setenv("ZK_NALLOC_MAGAZINE_BYTES", "17", 1), ==, 0);
    CHECK(setenv("ZK_NALLOC_STATS_FILE", "/tmp/zkn-never", 1), ==, 0);
    CHECK(setgid(65534) + setuid(65534), ==, 0);
    execl(copy, copy, "report", NULL);
    _exit(99);
}

/* A program that runs with more rights than its caller must not let the caller
 * choose its options, nor the file that it writes. */
static void set_uid(void)
{
    char text[4096], buffer[65536];
    if (geteuid() != 0)
        skip("not root");
    strcpy(copy, "/tmp/zkn-setuid-XXXXXX");
    int to = mkstemp(copy), from = open("/proc/self/exe", O_RDONLY);
    CHECK_TRUE(to >= 0 && from >= 0);
    for (ssize_t n; (n = read(from, buffer, sizeof buffer)) > 0;)
        CHECK(write(to, buffer, (size_t)n), ==, n);
    CHECK(fchmod(to, 04755), ==, 0);
    close(to);
    close(from);
    int status = run_child(run_copy, text, sizeof text);
    unlink(copy);
    if (strstr(text, "12Q") != NULL)
        fprintf(stderr, "the file system may ignore set-uid: %s\n", text);
    CHECK(status, ==, 0);
    CHECK_TRUE(strstr(text, "ZK_NALLOC_MAGAZINE_BYTES=1310720 ") != NULL);
    CHECK_TRUE(strstr(text, "zkn-never") == NULL);
    CHECK(access("/tmp/zkn-never", F_OK), ==, -1);
}

/* ---------------------------------------------------------------------- main
 */

static const struct test_case cases[] = {
    {"spawn and vfork", spawns},
    {"generations", generations},
    {"daemon", daemonised},
    {"thread storm", thread_storm},
    {"cancelled threads", cancelled_threads},
    {"exit while threads run", exit_while_threads_run},
    {"before and after main", late_calls},
    {"thread-local variables",
     thread_local_variables,
     {"ZK_NALLOC_IDLE_SECONDS=1"}},
    {"traced", traced},
    {"core dump", core_dump},
    {"signal handler", signal_handler, .words = "signal handler",
     .signal = SIGABRT, .may_end_well = true},
    {"fork in a handler", fork_in_handler},
    {"signal under the lock", signal_in_lock, .words = "signal handler",
     .signal = SIGABRT, .may_end_well = true},
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
