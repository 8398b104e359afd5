/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Threads that allocate, hand regions to each other and free them, while one
 * releases the cache, one reads the statistics, and the main thread forks.
 * Under TSan this is also the proof that the locks suffice.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "testing.h"

#define WORKERS 4
#define ROUNDS  3000
#define SHELF   64

/* Regions on offer: who finds a place empty leaves one, who does not takes. */
static _Atomic(unsigned char *) shelf[SHELF];
static atomic_bool done;

static void *work(void *argument)
{
    uint64_t seed = (uintptr_t)argument + 1;
    for (int i = 0; i < ROUNDS; i++) {
        size_t size = ZKN_THRESHOLD + random_next(&seed) % (3 << 20);
        unsigned char *ptr =
            random_next(&seed) % 2 ? zkn_alloc(size) : zkn_calloc(1, size);
        CHECK_TRUE(ptr != NULL);
        unsigned char tag = (unsigned char)(1 + random_next(&seed) % 255);
        ptr[0] = ptr[size / 2] = tag;
        memcpy(ptr + 8, &size, sizeof size);
        ptr[size - 1] = tag;
        if (random_next(&seed) % 8 == 0) {
            size_t larger = size + random_next(&seed) % (1 << 20);
            ptr = zkn_realloc(ptr, larger);
            CHECK_TRUE(ptr != NULL);
        }
        unsigned char *other =
            atomic_exchange(&shelf[random_next(&seed) % SHELF], ptr);
        if (other != NULL) {
            memcpy(&size, other + 8, sizeof size);
            CHECK(other[0], ==, other[size - 1]);
            CHECK(other[0], ==, other[size / 2]);
            zkn_free(other);
        }
    }
    return NULL;
}

static void *meddle(void *unused)
{
    (void)unused;
    while (!atomic_load(&done)) {
        zkn_release_cache();
        zkn_stats_t now = stats_now();
        CHECK(now.frees, <=, now.hits + now.misses);
        zkn_soften_cache();
        usleep(500);
    }
    return NULL;
}

int main(void)
{
    pthread_t workers[WORKERS], meddler;
    CHECK(pthread_create(&meddler, NULL, meddle, NULL), ==, 0);
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&workers[i], NULL, work, (void *)i), ==, 0);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            /* All locks must be free here, and the heap whole. */
            for (int j = 0; j < 50; j++) {
                char *ptr = zkn_calloc(1, (size_t)(j + 1) << 16);
                CHECK_TRUE(ptr != NULL && ptr[0] == 0);
                ptr[0] = 1;
                zkn_free(ptr);
            }
            zkn_release_cache();
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0), ==, child);
        CHECK(status, ==, 0);
        usleep(2000);
    }
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i], NULL);
    atomic_store(&done, true);
    pthread_join(meddler, NULL);
    for (int i = 0; i < SHELF; i++)
        zkn_free(shelf[i]);
    zkn_stats_t now = stats_now();
    CHECK(now.live_now, ==, 0);
    CHECK(now.regions_now, ==, 0);
    CHECK(now.hits + now.misses, ==, now.frees);
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
    return 0;
}
