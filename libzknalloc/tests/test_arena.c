/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Arenas: bounds, exhaustion, marks, residency, colours, misuse, threads and
 * forks.  The last cases need an environment of their own and run in a process
 * started afresh.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "cases.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static zkn_arena_t *create(size_t capacity)
{
    zkn_arena_t *arena = zkn_arena_create(capacity, 0);
    CHECK_TRUE(arena != NULL);
    CHECK(zkn_arena_capacity(arena), ==, capacity);
    CHECK(zkn_arena_used(arena), ==, 0);
    return arena;
}

static bool is_all(char value, const char *bytes, size_t size)
{
    return size == 0 ||
           (*bytes == value && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* ----------------------------------------------------------- allocation */

static void random_allocations(void)
{
    enum { N = 400 };
    zkn_arena_t *arena = create(8 * MIB);
    uint64_t seed = 1;
    for (int round = 0; round < (SANITIZED ? 5 : 20); round++) {
        char *ptrs[N];
        size_t sizes[N], count = 0, used = 0;
        while (count < N) {
            size_t size = random_next(&seed) % 2 ? random_next(&seed) % 300
                                                 : random_next(&seed) % MIB;
            size_t align = (size_t)1 << random_next(&seed) % 17;
            char *ptr = zkn_arena_alloc(arena, size, align);
            if (ptr == NULL) {
                CHECK(zkn_arena_used(arena), ==, used);
                break;
            }
            CHECK((uintptr_t)ptr % align, ==, 0);
            CHECK(zkn_arena_used(arena), >=, used + size);
            used = zkn_arena_used(arena);
            memset(ptr, (int)count, size);
            ptrs[count] = ptr;
            sizes[count++] = size;
        }
        CHECK(used, <=, 8 * MIB);
        for (size_t i = 0; i < count; i++)
            CHECK_TRUE(is_all((char)i, ptrs[i], sizes[i]));
        zkn_arena_reset(arena);
        CHECK(zkn_arena_used(arena), ==, 0);
        CHECK(zkn_arena_peak(arena), >=, used);
    }
    zkn_arena_destroy(arena);
}

static void capacity_is_exact(void)
{
    static const size_t capacities[] = {1,   100,         4096,    64 * KIB,
                                        MIB, 3 * MIB + 1, 64 * MIB};
    for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++) {
        size_t capacity = capacities[i], done = 0;
        zkn_arena_t *arena = create(capacity);
        CHECK_TRUE(zkn_arena_alloc(arena, capacity + 1, 1) == NULL);
        CHECK(zkn_arena_used(arena), ==, 0);
        char *all = zkn_arena_alloc(arena, capacity, 64);
        CHECK_TRUE(all != NULL);
        memset(all, 1, capacity);
        CHECK_TRUE(zkn_arena_alloc(arena, 0, 1) == NULL);
        CHECK(errno, ==, ENOMEM);
        zkn_arena_reset(arena);
        /* The same in pieces of 1 MiB, each of which takes a step. */
        for (; capacity - done >= MIB; done += MIB)
            memset(zkn_arena_alloc(arena, MIB, 64), 2, MIB);
        if (done < capacity)
            memset(zkn_arena_alloc(arena, capacity - done, 64), 3,
                   capacity - done);
        CHECK(zkn_arena_used(arena), ==, capacity);
        CHECK(zkn_arena_peak(arena), ==, capacity);
        errno = 0;
        CHECK_TRUE(zkn_arena_alloc(arena, 1, 1) == NULL);
        CHECK(errno, ==, ENOMEM);
        zkn_arena_destroy(arena);
    }
}

static void bad_arguments(void)
{
    zkn_arena_t *arena = create(MIB);
    static const size_t aligns[] = {0, 3, 48, SIZE_MAX};
    for (size_t i = 0; i < sizeof aligns / sizeof *aligns; i++) {
        volatile size_t align = aligns[i]; /* or the compiler complains */
        errno = 0;
        CHECK_TRUE(zkn_arena_alloc(arena, 1, align) == NULL);
        CHECK(errno, ==, EINVAL);
    }
    volatile size_t most = SIZE_MAX, aligned = (size_t)1 << 63;
    CHECK_TRUE(zkn_arena_alloc(arena, 1, aligned) == NULL);
    CHECK_TRUE(zkn_arena_alloc(arena, most, 64) == NULL);
    CHECK(errno, ==, ENOMEM);
    CHECK(zkn_arena_used(arena), ==, 0);
    /* A size that overflows with its padding only. */
    CHECK_TRUE(zkn_arena_alloc(arena, 1, 1) != NULL);
    CHECK_TRUE(zkn_arena_alloc(arena, most - 100, 4096) == NULL);
    CHECK(zkn_arena_used(arena), ==, 1);
    zkn_arena_destroy(arena);

    errno = 0;
    CHECK_TRUE(zkn_arena_create(MIB, 2) == NULL);
    CHECK(errno, ==, EINVAL);
    CHECK_TRUE(zkn_arena_create(most, 0) == NULL);
    CHECK(errno, ==, ENOMEM);
    errno = 0;
    CHECK_TRUE(zkn_arena_create((size_t)1 << 48, 0) == NULL);
    CHECK(errno, ==, ENOMEM);
    zkn_arena_destroy(NULL);

    arena = create(0);
    CHECK_TRUE(zkn_arena_alloc(arena, 0, 1) == NULL);
    zkn_arena_reset(arena);
    zkn_arena_destroy(arena);
}

/* -------------------------------------------------------------- memory */

static void stays_resident(void)
{
    zkn_arena_t *arena = create(16 * MIB);
    char *ptr = zkn_arena_alloc(arena, 16 * MIB, 64);
    CHECK_TRUE(zkn_owns(ptr));
    memset(ptr, 1, 16 * MIB);
    zkn_arena_reset(arena);
    zkn_stats_t before = stats_now();
    long faults = minor_faults();
    for (int i = 0; i < (SANITIZED ? 10 : 100); i++) {
        memset(zkn_arena_alloc(arena, 16 * MIB, 64), i, 16 * MIB);
        zkn_arena_reset(arena);
        zkn_release_cache(); /* it is not the cache's as long as it lives */
    }
    CHECK(minor_faults() - faults, <, 100); /* of 409 600 pages touched */
    CHECK(stats_now().misses, ==, before.misses);
    CHECK(stats_now().frees, ==, before.frees);
    zkn_arena_destroy(arena);
    CHECK(stats_now().frees, ==, before.frees + 1);
    CHECK(stats_now().regions_now, ==, before.regions_now - 1);
    /* The next arena takes the same memory over. */
    uint64_t hits = stats_now().hits;
    zkn_arena_destroy(create(16 * MIB));
    CHECK(stats_now().hits, ==, hits + 1);
}

static void small_arenas_are_cached(void)
{
    zkn_arena_t *arena = create(100);
    CHECK_TRUE(zkn_owns(arena));
    CHECK_TRUE(zkn_owns(zkn_arena_alloc(arena, 100, 1)));
    zkn_arena_destroy(arena);
}

static void populates(void)
{
    zkn_release_cache();
    zkn_arena_t *arena = zkn_arena_create(32 * MIB, ZKN_ARENA_POPULATE);
    char *ptr = zkn_arena_alloc(arena, 32 * MIB, 64);
    long faults = minor_faults();
    memset(ptr, 1, 32 * MIB);
    CHECK(minor_faults() - faults, <, 16); /* fewer than huge pages */
    zkn_arena_destroy(arena);
    zkn_release_cache();
    /* The control: without the flag they come now. */
    arena = create(32 * MIB);
    ptr = zkn_arena_alloc(arena, 32 * MIB, 64);
    faults = minor_faults();
    memset(ptr, 1, 32 * MIB);
    if (!under_valgrind()) /* huge pages, or 8192 small */
        CHECK(minor_faults() - faults, >=, 16);
    zkn_arena_destroy(arena);
}

static void columns_start_at_different_sets(void)
{
    enum { N = 64 };
    zkn_arena_t *arena = create(N * MIB);
    bool seen[64] = {false};
    char *last = NULL;
    for (int i = 0; i < N; i++) {
        char *column = zkn_arena_alloc(arena, MIB, 64);
        CHECK((uintptr_t)column % 64, ==, 0);
        CHECK_TRUE(column > last);
        size_t set = (uintptr_t)column / 64 % 64; /* of a 4 KiB way */
        CHECK(seen[set], ==, 0);
        seen[set] = true;
        last = column;
    }
    zkn_arena_destroy(arena);
}

/* --------------------------------------------------------------- marks */

static void marks_nest(void)
{
    zkn_arena_t *arena = create(MIB);
    char *kept = zkn_arena_alloc(arena, 1000, 64);
    int outer = zkn_arena_mark(arena);
    CHECK(outer, >=, 0);
    char *first = zkn_arena_alloc(arena, 1000, 64);
    int inner = zkn_arena_mark(arena);
    char *second = zkn_arena_alloc(arena, 1000, 64);
    CHECK(zkn_arena_rewind(arena, inner), ==, 0);
    CHECK_TRUE(zkn_arena_alloc(arena, 500, 64) == second);
    CHECK(zkn_arena_rewind(arena, inner), ==, -EINVAL); /* ended */
    CHECK(zkn_arena_rewind(arena, outer), ==, 0);
    CHECK(zkn_arena_used(arena), ==, 1000);
    CHECK_TRUE(zkn_arena_alloc(arena, 1000, 64) == first);
    CHECK_TRUE(kept < first);
    CHECK(zkn_arena_peak(arena), ==, 3048); /* 2 x 24 bytes of padding */
    zkn_arena_destroy(arena);
}

/* An ended mark must not cut through what was allocated since, nor end a mark
 * that has its place now. */
static void ended_marks(void)
{
    zkn_arena_t *arena = create(MIB);
    int outer = zkn_arena_mark(arena);
    (void)!zkn_arena_alloc(arena, 1000, 1);
    int inner = zkn_arena_mark(arena);
    CHECK(zkn_arena_rewind(arena, outer), ==, 0);
    CHECK_TRUE(zkn_arena_alloc(arena, 5000, 1) != NULL);
    int again = zkn_arena_mark(arena); /* in outer's place */
    int below = zkn_arena_mark(arena); /* in inner's */
    CHECK(again, !=, outer);
    CHECK(below, !=, inner);
    CHECK(zkn_arena_rewind(arena, inner), ==, -EINVAL);
    CHECK(zkn_arena_rewind(arena, outer), ==, -EINVAL);
    CHECK(zkn_arena_used(arena), ==, 5000);
    CHECK(zkn_arena_rewind(arena, below), ==, 0);
    zkn_arena_reset(arena);
    CHECK(zkn_arena_rewind(arena, again), ==, -EINVAL);
    static const int never[] = {-1, -ENOMEM, 0, 5000, 1 << 30, -(1 << 30)};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        CHECK(zkn_arena_rewind(arena, never[i]), ==, -EINVAL);
    zkn_arena_destroy(arena);
}

static void marks_are_limited(void)
{
    zkn_arena_t *arena = create(MIB);
    int marks[ZKN_ARENA_MARKS];
    for (int i = 0; i < ZKN_ARENA_MARKS; i++) {
        marks[i] = zkn_arena_mark(arena);
        CHECK(marks[i], >=, 0);
        (void)!zkn_arena_alloc(arena, 100, 1);
    }
    CHECK(zkn_arena_mark(arena), ==, -ENOMEM);
    CHECK(zkn_arena_used(arena), ==, 100 * ZKN_ARENA_MARKS);
    for (int i = ZKN_ARENA_MARKS - 1; i >= 0; i--) {
        CHECK(zkn_arena_rewind(arena, marks[i]), ==, 0);
        CHECK(zkn_arena_used(arena), ==, 100 * i);
    }
    /* The serial numbers start over without becoming negative. */
    int before = 0;
    for (long i = 0; i < (1L << 31) / ZKN_ARENA_MARKS + 10; i++) {
        int mark = zkn_arena_mark(arena);
        CHECK(mark, >=, 0);
        CHECK(mark, !=, before);
        CHECK(zkn_arena_rewind(arena, mark), ==, 0);
        before = mark;
        if (SANITIZED && i > 1000)
            break; /* they are slow, and this is arithmetic */
    }
    zkn_arena_destroy(arena);
}

/* --------------------------------------------------------------- misuse */

static void destroy_twice(void)
{
    zkn_arena_t *arena = create(MIB);
    zkn_arena_destroy(arena);
    zkn_arena_destroy(arena);
}

static void alloc_destroyed(void)
{
    zkn_arena_t *arena = create(MIB);
    zkn_arena_destroy(arena);
    (void)!zkn_arena_alloc(arena, 1, 1);
}

static void reset_destroyed(void)
{
    zkn_arena_t *arena = create(MIB);
    zkn_arena_destroy(arena);
    zkn_arena_reset(arena);
}

static void mark_destroyed(void)
{
    zkn_arena_t *arena = create(MIB);
    zkn_arena_destroy(arena);
    (void)!zkn_arena_mark(arena);
}

static void misuse(void)
{
    static void (*const cases[])(void) = {destroy_twice, alloc_destroyed,
                                          reset_destroyed, mark_destroyed};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        int status = run_child(cases[i], text, sizeof text);
        CHECK_TRUE(WIFSIGNALED(status));
        CHECK(WTERMSIG(status), ==, SIGABRT);
        CHECK_TRUE(strstr(text, "libzknalloc: not an arena (destroyed "
                                "before?) at 0x") == text);
    }
}

/* -------------------------------------------------------------- threads */

#define WORKERS 4
#define PIECE   96

static zkn_arena_t *shared;
static pthread_barrier_t barrier;
static atomic_bool done;

/* Take pieces until there are none, tag them, and look at the tags once all
 * have theirs: of two threads that got one piece, one would see it. */
static void *fill(void *argument)
{
    char tag = (char)(uintptr_t)argument;
    enum { MOST = 3 * MIB / PIECE };
    char **pieces = malloc(MOST * sizeof *pieces);
    for (int round = 0; round < (SANITIZED ? 5 : 20); round++) {
        size_t count = 0;
        pthread_barrier_wait(&barrier);
        for (char *piece; (piece = zkn_arena_alloc(shared, PIECE, 32)) != NULL;
             pieces[count++] = piece)
            memset(piece, tag, PIECE);
        pthread_barrier_wait(&barrier);
        CHECK(zkn_arena_used(shared), ==, MOST * PIECE);
        for (size_t i = 0; i < count; i++)
            CHECK_TRUE(is_all(tag, pieces[i], PIECE));
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
            zkn_arena_reset(shared);
    }
    free(pieces);
    return NULL;
}

static void threads_share(void)
{
    pthread_t threads[WORKERS];
    shared = create(3 * MIB / PIECE * PIECE);
    pthread_barrier_init(&barrier, NULL, WORKERS);
    for (uintptr_t i = 0; i < WORKERS; i++)
        pthread_create(&threads[i], NULL, fill, (void *)(i + 1));
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    zkn_arena_destroy(shared);
}

/* Everything at once.  Nobody may use the memory, but nothing may break, and
 * a fork must not leave the child with a lock that nobody holds. */
static void *churn(void *unused)
{
    (void)unused;
    while (!atomic_load(&done)) {
        int mark = zkn_arena_mark(shared);
        for (int i = 0; i < 20; i++)
            (void)!zkn_arena_alloc(shared, 10000, 64);
        if (mark >= 0)
            (void)zkn_arena_rewind(shared, mark); /* may have ended */
        CHECK(zkn_arena_used(shared), <=, MIB);
    }
    return NULL;
}

static void threads_rewind_and_fork(void)
{
    pthread_t threads[WORKERS];
    shared = create(MIB);
    atomic_store(&done, false);
    for (int i = 0; i < WORKERS; i++)
        pthread_create(&threads[i], NULL, churn, NULL);
    for (int i = 0; i < (SANITIZED ? 10 : 100); i++) {
        pid_t child = fork();
        CHECK(child, >=, 0);
        if (child == 0) {
            alarm(20);
            zkn_arena_reset(shared);
            int mark = zkn_arena_mark(shared);
            char *ptr = zkn_arena_alloc(shared, 1000, 64);
            memset(ptr, 1, 1000);
            _exit(zkn_arena_rewind(shared, mark) == 0 ? 0 : 1);
        }
        int status;
        CHECK(waitpid(child, &status, 0), ==, child);
        CHECK(status, ==, 0);
    }
    atomic_store(&done, true);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    zkn_arena_destroy(shared);
}

/* --------------------------------- cases with an environment of their own */

static void without_colours(void)
{
    zkn_arena_t *arena = create(4 * MIB);
    char *first = zkn_arena_alloc(arena, MIB, 64);
    CHECK_TRUE((char *)zkn_arena_alloc(arena, MIB, 64) == first + MIB);
    zkn_arena_destroy(arena);
    capacity_is_exact();
}

static void without_cache(void)
{
    zkn_arena_t *arena = zkn_arena_create(4 * MIB, ZKN_ARENA_POPULATE);
    CHECK_TRUE(arena != NULL && !zkn_owns(arena));
    memset(zkn_arena_alloc(arena, 4 * MIB, 4096), 1, 4 * MIB);
    zkn_arena_destroy(arena);
    random_allocations();
    capacity_is_exact();
}

static void without_populate(void)
{
    (void)!zkn_alloc(MIB); /* the library has started */
    deny(SYS_madvise, -1, 0);
    zkn_arena_t *arena = zkn_arena_create(4 * MIB, ZKN_ARENA_POPULATE);
    memset(zkn_arena_alloc(arena, 4 * MIB, 64), 1, 4 * MIB);
    zkn_arena_destroy(arena);
}

static void as_it_is(void)
{
    random_allocations();
    capacity_is_exact();
    bad_arguments();
    stays_resident();
    small_arenas_are_cached();
    populates();
    columns_start_at_different_sets();
    marks_nest();
    ended_marks();
    marks_are_limited();
    misuse();
    threads_share();
    threads_rewind_and_fork();
}

static const struct test_case cases[] = {
    {"as it is", as_it_is},
    {"without colours", without_colours, {"ZK_NALLOC_COLOUR=0"}},
    {"without cache", without_cache, {"ZK_NALLOC_RESERVE_BYTES=0"}},
    {"without populate", without_populate},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}
