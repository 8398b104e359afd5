/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * recorded.c - a program whose large requests are known, for the tests of
 * `zk-nalloc record`:
 *
 *   calls      one of each call, then what must not be recorded
 *   threads    four threads that pass their blocks around, with small ones
 *   windows N  N pairs of malloc and free
 *   live N     N blocks at once, given back in another order
 *   fork       a child that frees its parent's block and has its own
 *   kill       a block, and SIGKILL
 *   small      nothing of 64 KiB
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The compiler must not leave a pair of calls out. */
static void *volatile sink;

static void *kept(void *p)
{
    sink = p;
    return sink;
}

/* Whether P cannot be resized; the compiler must not conclude that P is gone.
 */
__attribute__((noinline)) static int refused(void *volatile p, size_t size)
{
    return realloc(p, size) == NULL;
}

static void calls(void)
{
    char *a = kept(malloc(100000));
    char *b = kept(calloc(2, 50000));
    char *c = kept(malloc(1000));
    void *d = NULL;
    volatile size_t most = PTRDIFF_MAX;
    if (posix_memalign(&d, 4096, 65536) != 0)
        abort();
    memset(c, 7, 1000);
    a = kept(realloc(a, 300000));
    c = kept(realloc(c, 70000));
    if (c[999] != 7 || kept(malloc(most)) != NULL || !refused(a, most) ||
        kept(calloc(most, 8)) != NULL)
        abort();
    b = kept(realloc(b, 10));
    free(b);
    free(d);
    free(kept(realloc(NULL, 65535)));
    c = kept(reallocarray(c, 40000, 2));
    free(a);
    /* c lives on */
}

enum { THREADS = 4, ROUNDS = 2000, SHELF = 16 };

static void *shelf[SHELF];
static pthread_mutex_t shelf_lock = PTHREAD_MUTEX_INITIALIZER;

static void *pass_around(void *seed)
{
    unsigned state = (unsigned)(uintptr_t)seed;
    for (int i = 0; i < ROUNDS; i++) {
        state = state * 1103515245u + 12345u;
        unsigned at = (state >> 16) % SHELF;
        void *mine = kept(malloc(65536 + (state >> 8) % 100000));
        free(kept(malloc(100)));
        pthread_mutex_lock(&shelf_lock);
        void *other = shelf[at];
        shelf[at] = mine;
        pthread_mutex_unlock(&shelf_lock);
        if (other != NULL && i % 4 == 0)
            other = kept(realloc(other, 70000 + (state >> 8) % 200000));
        free(other);
    }
    return NULL;
}

static void threads(void)
{
    pthread_t all[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&all[i], NULL, pass_around, (void *)(i + 1));
    for (int i = 0; i < THREADS; i++)
        pthread_join(all[i], NULL);
    for (int i = 0; i < SHELF; i++)
        free(shelf[i]);
}

static void live(size_t n)
{
    void **all = calloc(n, sizeof *all); /* small: not recorded */
    for (size_t i = 0; i < n; i++)
        all[i] = kept(malloc(65536));
    for (size_t i = 0; i < n; i++)
        free(all[7 * i % n]);
    free(all);
}

static void forked(void)
{
    void *before = kept(malloc(111111));
    pid_t child = fork();
    if (child == 0) {
        free(before);
        for (int i = 0; i < 3; i++)
            free(kept(malloc(222222)));
        exit(0);
    }
    if (waitpid(child, NULL, 0) != child)
        abort();
    free(before);
    for (int i = 0; i < 9; i++)
        free(kept(malloc(333333)));
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "calls") == 0) {
        calls();
    } else if (strcmp(what, "threads") == 0) {
        threads();
    } else if (strcmp(what, "windows") == 0 && argc > 2) {
        for (long i = atol(argv[2]); i > 0; i--)
            free(kept(malloc(65536)));
    } else if (strcmp(what, "live") == 0 && argc > 2) {
        live((size_t)atol(argv[2]));
    } else if (strcmp(what, "fork") == 0) {
        forked();
    } else if (strcmp(what, "kill") == 0) {
        free(kept(malloc(99999)));
        raise(SIGKILL);
    } else if (strcmp(what, "small") != 0) {
        return 2;
    }
    return argc > 3 ? atoi(argv[3]) : 0;
}
