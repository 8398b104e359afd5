/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * lock.c - heap.lock, and how fork() gets along with it.
 *
 * A child must find the heap in order, so the fork handler holds the lock while
 * the process is copied, at a moment when no run is BUSY.  But it runs before
 * the C library takes stdio's locks for the child's sake, and a thread that
 * holds one of those may want ours: the functions of a stream allocate, and so
 * does getline().  The two would wait for each other for ever.
 *
 * So while a fork is under way, no thread waits for the lock.  heap_enter()
 * says no: a request then goes to the next allocator, and what is freed goes
 * onto a list that is given to the heap after the fork.  Whoever has entered
 * and drops the lock to take it again later, has counted himself in heap.busy,
 * for which the handler waits; he finds the lock free.  heap_lock(), which does
 * wait, is for those, and for threads and functions of which no stream makes
 * use.
 */
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "heap.h"
#include "log.h"
#include "watch.h"
#include "zero.h"

/* The lock is held for a fraction of a microsecond, so whoever wants it waits a
 * little before it sleeps: this many looks. */
#define SPINS 100

/* Without an owner for so many looks, the lock is our own: between taking it
 * and writing that down no thread stays so long.  The first ones only let
 * others run, the later ones wait a millisecond. */
#define OWNERLESS_YIELDS 1000
#define OWNERLESS_MOST   10000

/* So often a thread that sleeps looks whether a fork began. */
#define LOOK_NS 5000000

/* A thread forks.  Set before it waits for the lock, or with many threads it
 * might wait long for a moment when no run is BUSY. */
static _Atomic bool forking;

/* How often this thread is in heap_hold(): a handler that forks would wait for
 * the thread that it interrupted. */
static _Thread_local unsigned holds __attribute__((tls_model("initial-exec")));

/* Freed while a fork was under way; linked by left. */
static _Atomic(struct region *) deferred;

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The lock is another thread's.  Returns whether it is ours now. */
static bool sleep_for_lock(bool always)
{
    if (always)
        return pthread_mutex_lock(&heap.lock) == 0;
    while (!atomic_load(&forking)) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        if (pthread_mutex_timedlock(&heap.lock, &until) == 0)
            return true;
    }
    return false;
}

/* Wait for the lock, ALWAYS or as long as no thread forks; returns whether it
 * was taken. */
static COLD bool wait_for_lock(uintptr_t self, bool always)
{
    for (unsigned i = 0; i < SPINS; i++) {
        pause_briefly();
        uintptr_t owner = load_relaxed(&heap.owner);
        if (owner == self)
            break;
        if (owner == 0 && pthread_mutex_trylock(&heap.lock) == 0)
            return true;
    }
    for (unsigned i = 0; pthread_mutex_trylock(&heap.lock) != 0; i++) {
        uintptr_t owner = load_relaxed(&heap.owner);
        if (owner == self || i > OWNERLESS_MOST)
            log_misuse("used in a signal handler that interrupted it", &heap);
        if (owner != 0)
            return sleep_for_lock(always);
        /* The C library's function is a cancellation point, where a thread
         * may end with a region in its hands. */
        struct timespec millisecond = {.tv_nsec = 1000000};
        if (i < OWNERLESS_YIELDS)
            sched_yield();
        else
            (void)syscall(SYS_nanosleep, &millisecond, NULL);
    }
    return true;
}

void heap_lock(void)
{
    uintptr_t self = (uintptr_t)pthread_self();
    if (unlikely(pthread_mutex_trylock(&heap.lock) != 0))
        (void)wait_for_lock(self, true);
    store_relaxed(&heap.owner, self);
}

bool heap_enter(void)
{
    uintptr_t self = (uintptr_t)pthread_self();
    if (unlikely(pthread_mutex_trylock(&heap.lock) != 0) &&
        !wait_for_lock(self, false))
        return false;
    store_relaxed(&heap.owner, self);
    if (unlikely(load_relaxed(&forking))) {
        heap_unlock();
        return false;
    }
    return true;
}

void heap_unlock(void)
{
    store_relaxed(&heap.owner, 0);
    pthread_mutex_unlock(&heap.lock);
}

bool heap_hold(void)
{
    if (!heap_enter())
        return false;
    heap.busy++;
    holds++;
    heap_unlock();
    return true;
}

void heap_let_go(void)
{
    heap_lock();
    holds--;
    heap.busy--;
    heap_unlock();
}

void heap_quiet(void)
{
    heap_lock();
    while (heap.busy > 0) {
        heap_unlock();
        sched_yield();
        heap_lock();
    }
}

/* -------------------------------------------------------------------- fork */

/* Give what was deferred to the heap, which may defer it again. */
static void give_deferred(void)
{
    struct region *chain = atomic_exchange(&deferred, NULL);
    while (chain != NULL) {
        struct region *region = chain;
        chain = chain->left;
        region->left = NULL;
        watch_free(region->sparse ? zero_give(region) : heap_give(region));
    }
}

void heap_defer(struct region *chain)
{
    struct region *last = chain, *first = atomic_load(&deferred);
    while (last->left != NULL)
        last = last->left;
    do
        last->left = first;
    while (!atomic_compare_exchange_weak(&deferred, &first, chain));
    /* The fork may have been over before this was on the list. */
    if (!atomic_load(&forking))
        give_deferred();
}

void heap_fork_prepare(void)
{
    if (holds > 0)
        log_misuse("used in a signal handler that interrupted it", &heap);
    atomic_store(&forking, true);
    heap_quiet();
}

void heap_fork_parent(void)
{
    atomic_store(&forking, false);
    heap_unlock();
    give_deferred();
}

void heap_fork_child(void)
{
    /* The list may be half written.  What is on it is lost, like what the other
     * threads of the parent held. */
    atomic_store(&deferred, NULL);
    atomic_store(&forking, false);
    heap_unlock();
}
