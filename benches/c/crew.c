/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * crew.c - the threads of a pattern.
 *
 * They live as long as the run, as a prover's thread pool does, and meet the
 * main thread twice a round: it raises `generation` to start them, they lower
 * `working` when they are done.  Both waits spin, since a futex would add
 * system calls and scheduling delays to what is measured.
 *
 * Pinned: lane i runs on the i-th CPU of the process's affinity mask, modulo
 * their number.  The main thread is lane 0 and is pinned too.
 */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#define SPINS_BEFORE_YIELD 4096

static pthread_t threads[MAX_LANES];
static atomic_uint generation;
static atomic_uint working;
static atomic_bool over;

void crew_pause(unsigned spins)
{
    if (spins % SPINS_BEFORE_YIELD == SPINS_BEFORE_YIELD - 1) {
        sched_yield();
        return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("" : : : "memory");
#endif
}

static void pin(unsigned index)
{
    cpu_set_t allowed, one;
    unsigned wanted;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
        harness_die("sched_getaffinity", errno);
    }
    wanted = index % (unsigned)CPU_COUNT(&allowed);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && wanted-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            if (sched_setaffinity(0, sizeof(one), &one) != 0) {
                harness_die("sched_setaffinity", errno);
            }
            return;
        }
    }
}

static void *work(void *argument)
{
    struct lane *lane = argument;
    unsigned seen = 0;

    pin(lane->index);
    atomic_fetch_sub(&working, 1);
    for (;;) {
        for (unsigned spins = 0; atomic_load(&generation) == seen; spins++) {
            crew_pause(spins);
        }
        seen++;
        if (atomic_load(&over)) {
            return NULL;
        }
        lane->run->pattern->round(lane);
        atomic_fetch_sub(&working, 1);
    }
}

static void wait_for_the_others(void)
{
    for (unsigned spins = 0; atomic_load(&working) != 0; spins++) {
        crew_pause(spins);
    }
}

void crew_start(struct run *run)
{
    atomic_store(&working, run->threads - 1);
    for (unsigned i = 1; i < run->threads; i++) {
        int error = pthread_create(&threads[i], NULL, work, &run->lanes[i]);

        if (error != 0) {
            harness_die("pthread_create", error);
        }
    }
    wait_for_the_others();
    pin(0); /* last: threads inherit the mask that they choose from */
}

void crew_round(struct run *run)
{
    atomic_store(&working, run->threads - 1);
    atomic_fetch_add(&generation, 1);
    run->pattern->round(&run->lanes[0]);
    wait_for_the_others();
}

void crew_stop(struct run *run)
{
    atomic_store(&over, true);
    atomic_fetch_add(&generation, 1);
    for (unsigned i = 1; i < run->threads; i++) {
        pthread_join(threads[i], NULL);
    }
}
