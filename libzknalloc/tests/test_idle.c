/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Memory comes back: when a stage ends, and by itself when it lies idle, in
 * the process and in a forked child.  Polls for up to a minute; what is
 * asserted is resident memory and counters, not when.
 */
#include <time.h>

#include "testing.h"

#define SIZE ((size_t)96 << 20)

static void churn(void)
{
    char *ptr = zkn_alloc(SIZE);
    CHECK_TRUE(ptr != NULL);
    memset(ptr, 1, SIZE);
    zkn_free(ptr);
}

static void wait_until_released(void)
{
    uint64_t softened = stats_now().bytes_softened;
    for (int i = 0; i < 600 && stats_now().cached_now > 0; i++)
        usleep(100 * 1000);
    CHECK(stats_now().cached_now, ==, 0);
    CHECK(stats_now().bytes_softened, >=, softened);
    CHECK(proc_status("RssAnon"), <, SIZE / 2);
}

static void test_stage(void)
{
    churn();
    CHECK(zkn_stage_boundary(), >=, SIZE);
    CHECK(stats_now().cached_now, ==, 0);
    CHECK(proc_status("RssAnon"), <, SIZE / 2);
    /* The budget of the next stage is its own: two small regions, freed, are
     * all that is kept, though the stage before kept much more. */
    uint64_t peak = stats_now().live_peak;
    CHECK(peak, >=, SIZE);
    void *a = zkn_alloc(SIZE / 4), *b = zkn_alloc(SIZE / 4);
    zkn_free(a);
    zkn_free(b);
    CHECK(stats_now().committed_now, <=, SIZE / 2 + SIZE / 64 + (8 << 20));
    CHECK(zkn_stage_boundary(), >=, SIZE / 2);
}

int main(void)
{
    setenv("ZK_NALLOC_IDLE_SECONDS", "1", 1);
    char *const self[] = {"test_idle", "again", NULL};
    if (getenv("ZK_NALLOC_IDLE_TEST") == NULL) {
        /* Options are read when the library is loaded. */
        setenv("ZK_NALLOC_IDLE_TEST", "1", 1);
        execv("/proc/self/exe", self);
        CHECK_TRUE(!"execv");
    }
    test_stage();
    churn();
    wait_until_released();
    pid_t child = fork();
    if (child == 0) {
        churn();
        wait_until_released();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);
    return 0;
}
