/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Children of every kind, of processes whose threads allocate meanwhile, and
 * signal handlers that allocate or fork.
 */
#include <errno.h>
#include <spawn.h>
#include <sys/time.h>

#include "cases.h"
#include "crew.h"
#include "heap.h"

extern char **environ;

static void spawns(void)
{
    char *const arguments[] = {"true", NULL};
    start_crew(NULL);
    for (int i = 0; i < (under_valgrind() ? 5 : 50); i++) {
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

/* What threads free while another forks is not lost to their process. */
static void forks(void)
{
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    skip("the sanitizers do not follow forks of threads");
#endif
    start_crew(NULL);
    for (int i = 0; i < (under_valgrind() ? 10 : 100); i++) {
        pid_t child = fork();
        if (child == 0) {
            churn((void *)3);
            _exit(0);
        }
        CHECK(wait_for(child), ==, 0);
    }
    end_crew();
}

static ssize_t write_nowhere(void *cookie, const char *text, size_t size)
{
    (void)cookie, (void)text;
    char *ptr = zkn_alloc(MIB);
    ptr[size] = 1;
    ptr = zkn_realloc(ptr, 3 * MIB);
    ptr = zkn_realloc(ptr, MIB / 2);
    zkn_free(ptr);
    zkn_free(zkn_calloc(1, 8 * MIB));
    zkn_release_cache();
    return (ssize_t)size;
}

static void *print(void *stream)
{
    while (!stop) {
        fputc('x', stream);
        fflush(NULL); /* holds the lock of the list of streams, and writes */
        usleep(1000);
    }
    return NULL;
}

/* fork() takes stdio's locks after it ran our handlers. */
static void forks_beside_stdio(void)
{
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    skip("the sanitizers do not follow forks of threads");
#endif
    static const cookie_io_functions_t functions = {.write = write_nowhere};
    FILE *stream = fopencookie(NULL, "w", functions);
    CHECK_TRUE(stream != NULL);
    pthread_t printers[2];
    alarm(under_valgrind() ? 600 : 60); /* should it hang */
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&printers[i], NULL, print, stream), ==, 0);
    start_crew(NULL);
    for (int i = 0; i < (under_valgrind() ? 5 : 50); i++) {
        pid_t child = fork();
        if (child == 0) {
            churn((void *)3);
            _exit(0);
        }
        CHECK(wait_for(child), ==, 0);
    }
    stop = true;
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(printers[i], NULL), ==, 0);
    end_crew();
    fclose(stream);
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

/* ------------------------------------------------------------------ signals
 */

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

/* A while after the handler's end, however long that took: signals that come
 * as often as a handler needs would let nothing else run (valgrind). */
static void set_alarm(void)
{
    struct itimerval soon = {{0, 0}, {0, 2000}};
    CHECK(setitimer(ITIMER_REAL, &soon, NULL), ==, 0);
}

static void on_alarm_fork(int signal)
{
    (void)signal;
    int saved = errno;
    pid_t child = fork();
    if (child == 0) {
        void *volatile ptr = malloc(100);
        free(ptr);
        _exit(0);
    }
    if (child > 0)
        waitpid(child, NULL, 0);
    set_alarm();
    errno = saved;
}

/* A process with one thread may fork in a signal handler, wherever it is. */
static void fork_in_handler(void)
{
#if defined(__SANITIZE_THREAD__)
    skip("the sanitizer has a thread of its own");
#endif
    CHECK_TRUE(signal(SIGALRM, on_alarm_fork) != SIG_ERR);
    set_alarm();
    for (int i = 0; i < (under_valgrind() ? 10 : 100); i++) {
        churn((void *)2);
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        while (waitpid(child, NULL, 0) != child)
            CHECK(errno, ==, EINTR);
    }
    signal(SIGALRM, SIG_IGN);
}

/* A handler that allocates, at the worst moment. */
static void signal_in_lock(void)
{
    alarm(20); /* should it hang */
    heap_quiet();
    zkn_free(zkn_alloc(8 * MIB));
}

/* A handler that forks, at another bad moment: there is a second thread. */
static void fork_inside(void)
{
    start_crew((void *)1);
    alarm(20); /* should it hang */
    CHECK_TRUE(heap_hold());
    (void)fork();
}

/* -------------------------------------------------------------------- cases
 */

static const struct test_case cases[] = {
    {"spawn and vfork", spawns},
    {"generations", generations},
    {"forks", forks},
    {"forks beside stdio", forks_beside_stdio},
    {"daemon", daemonised},
    {"signal handler", signal_handler, .words = "signal handler",
     .signal = SIGABRT, .may_end_well = true},
    {"fork in a handler", fork_in_handler},
    {"signal under the lock", signal_in_lock, .words = "signal handler",
     .signal = SIGABRT, .may_end_well = true},
    {"fork inside", fork_inside, .words = "signal handler", .signal = SIGABRT},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}
