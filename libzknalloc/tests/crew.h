/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * crew.h - threads that allocate, for tests of what happens to them.
 */
#ifndef ZKN_CREW_H
#define ZKN_CREW_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "base.h"
#include "testing.h"

static atomic_bool stop;

/* Allocate, write, check, free; forever or ROUNDS times. */
static inline void *churn(void *rounds)
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

static inline void start_crew(void *rounds)
{
    for (size_t i = 0; i < CREW; i++)
        CHECK(pthread_create(&crew[i], NULL, churn, rounds), ==, 0);
}

static inline void join_crew(void)
{
    stop = true;
    for (size_t i = 0; i < CREW; i++)
        CHECK(pthread_join(crew[i], NULL), ==, 0);
}

static inline void end_crew(void)
{
    join_crew();
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
    CHECK(stats_now().regions_now, ==, 0);
}

static inline int wait_for(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    return status;
}

#endif /* ZKN_CREW_H */
