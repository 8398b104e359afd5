/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * watch.c - see watch.h.
 *
 * The thread takes heap.lock like any other, through trim_tick().  It never
 * ends by itself: a prover that freed much once will again.
 */
#include "watch.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "heap.h"
#include "magazine.h"
#include "options.h"
#include "os.h"
#include "stats.h"
#include "trim.h"

/* Per cent of the last ten seconds in which some task waited for memory. */
#define PRESSURE_SOFTEN  10
#define PRESSURE_RELEASE 40

static size_t hard_pages;
static atomic_bool watching;

void watch_open(size_t hard)
{
    hard_pages = hard >> heap.page_shift;
}

static void tick(void)
{
    struct trim_rules rules = {.release_after = (unsigned)options.idle_seconds,
                               .hard = hard_pages};
    rules.soften_after = (rules.release_after + 9) / 10;
    unsigned pressure = os_memory_pressure();
    if (pressure >= PRESSURE_RELEASE)
        rules.release_after = 0;
    else if (pressure >= PRESSURE_SOFTEN)
        rules.hard = 0;
    /* A magazine holds a MiB or so, and is emptied by the next big request;
     * in an idle process there is none. */
    struct region *chain = magazine_tick();
    if (chain != NULL)
        (void)heap_give(chain);
    (void)trim_tick(&rules);
    heap_follow_limit(); /* lowered by another process, say */
}

static void *watch(void *unused)
{
    (void)unused;
    for (;;) {
        struct timespec second = {.tv_sec = 1};
        while (nanosleep(&second, &second) != 0 && errno == EINTR)
            continue;
        tick();
    }
    return NULL;
}

/* pthread_create() allocates, a little: below the threshold, so it does not
 * come back here.  The stack is of the default size, address space mostly: a
 * smaller one may be too small, since glibc takes from it what the program's
 * thread-local variables need. */
static COLD void start(void)
{
    if (atomic_exchange(&watching, true))
        return;
    int saved = errno;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attr;
    pthread_t thread;
    bool started = false;
    if (pthread_attr_init(&attr) == 0) {
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        started = pthread_create(&thread, &attr, watch, NULL) == 0;
        pthread_attr_destroy(&attr);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!started)
        stats_add(STAT_fallback_watch, 1); /* and never again */
    errno = saved;
}

void watch_free(size_t pages)
{
    if (unlikely(pages_to_bytes(pages) >= WATCH_LEAST) &&
        unlikely(!load_relaxed(&watching)) && options.idle_seconds > 0)
        start();
}

void watch_forked(void)
{
    atomic_store(&watching, false);
}
