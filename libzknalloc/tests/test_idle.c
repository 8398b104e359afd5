/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Memory comes back: when a stage ends, and by itself when it lies idle, in
 * the process and in a forked child.  Polls for up to a minute; what is
 * asserted is resident memory and counters, not when.
 */
#include <time.h>

#include "testing.h"

#define SIZE ((size_t)96 << 20)

/* Resident memory while the cache holds SIZE bytes. */
static size_t churn(void)
{
    char *ptr = zkn_alloc(SIZE);
    CHECK_TRUE(ptr != NULL);
    memset(ptr, 1, SIZE);
    zkn_free(ptr);
    return proc_status("RssAnon");
}

static void check_gone(size_t resident)
{
    CHECK(stats_now().cached_now, ==, 0);
    CHECK(proc_status("RssAnon") + SIZE / 2, <, resident);
}

static void wait_until_released(size_t resident)
{
    uint64_t softened = stats_now().bytes_softened;
    for (int i = 0; i < 600 && stats_now().cached_now > 0; i++)
        usleep(100 * 1000);
    CHECK(stats_now().bytes_softened, >=, softened);
    check_gone(resident);
}

static void test_stage(void)
{
    size_t resident = churn();
    CHECK(zkn_stage_boundary(), >=, SIZE);
    check_gone(resident);
    /* The budget of the next stage is its own: two small regions, freed, are
     * all that is kept, though the stage before kept much more. */
    uint64_t peak = stats_now().live_peak;
    CHECK(peak, >=, SIZE);
    void *a = zkn_alloc(SIZE / 4), *b = zkn_alloc(SIZE / 4);
    zkn_free(a);
    zkn_free(b);
    CHECK(stats_now().committed_now, <=, SIZE / 2 + SIZE / 24 + (8 << 20));
    CHECK(zkn_stage_boundary(), >=, SIZE / 2);
}

int main(void)
{
    setenv("ZK_NALLOC_IDLE_SECONDS", "1", 1);
    char *const self[] = {"test_idle", "again", NULL};
    if (getenv("ZK_NALLOC_IDLE_TEST") == NULL) {
        /* Options are read when the library is loaded. */
        setenv("ZK_NALLOC_IDLE_TEST", "1", 1);
        start_again(self);
        CHECK_TRUE(false); /* execv failed */
    }
    test_stage();
    wait_until_released(churn());
    pid_t child = fork();
    if (child == 0) {
        wait_until_released(churn());
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);
    return 0;
}
