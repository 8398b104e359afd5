/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The malloc family under the preload library: large requests are ours, small
 * ones are not, and each member keeps its contract at both sizes.
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>

#include "testing.h"

#define SMALL ((size_t)1000)
#define LARGE ((size_t)1 << 20)

void cfree(void *ptr);
void free_sized(void *ptr, size_t size);
void free_aligned_sized(void *ptr, size_t alignment, size_t size);

static volatile size_t huge = SIZE_MAX;

/* Every byte can be written, and the block is whose it should be. */
static void check_block(void *ptr, size_t size)
{
    CHECK_TRUE(ptr != NULL);
    CHECK(zkn_owns(ptr), ==, size >= ZKN_THRESHOLD);
    CHECK(malloc_usable_size(ptr), >=, size);
    memset(ptr, 0x5a, size);
}

static void test_family(size_t size)
{
    void *ptr = malloc(size);
    check_block(ptr, size);
    free(ptr);

    ptr = calloc(size / 4, 4);
    CHECK_TRUE(is_zero(ptr, size / 4 * 4));
    check_block(ptr, size / 4 * 4);
    free_sized(ptr, size / 4 * 4);

    for (size_t align = 16; align <= 65536; align *= 4) {
        ptr = aligned_alloc(align, size);
        CHECK((uintptr_t)ptr % align, ==, 0);
        check_block(ptr, size);
        free_aligned_sized(ptr, align, size);

        ptr = memalign(align, size);
        CHECK((uintptr_t)ptr % align, ==, 0);
        check_block(ptr, size);
        free(ptr);

        CHECK(posix_memalign(&ptr, align, size), ==, 0);
        CHECK((uintptr_t)ptr % align, ==, 0);
        check_block(ptr, size);
        cfree(ptr);
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    ptr = valloc(size);
    CHECK((uintptr_t)ptr % page, ==, 0);
    check_block(ptr, size);
    free(ptr);
    ptr = pvalloc(size);
    CHECK((uintptr_t)ptr % page, ==, 0);
    CHECK(malloc_usable_size(ptr) + page, >, size);
    free(ptr);
}

static void test_realloc(void)
{
    unsigned char *ptr = realloc(NULL, SMALL);
    check_block(ptr, SMALL);
    ptr = reallocarray(ptr, 1024, 1024);
    CHECK_TRUE(ptr != NULL && zkn_owns(ptr));
    CHECK(ptr[SMALL - 1], ==, 0x5a);
    memset(ptr, 0x77, LARGE);
    ptr = realloc(ptr, 64 * LARGE);
    CHECK(ptr[LARGE - 1], ==, 0x77);
    ptr = realloc(ptr, SMALL);
    CHECK_TRUE(ptr != NULL && !zkn_owns(ptr));
    CHECK(ptr[SMALL - 1], ==, 0x77);
    free(realloc(ptr, 0)); /* small: NULL or not, as the next one has it */
    ptr = malloc(LARGE);
    CHECK_TRUE(realloc(ptr, 0) == NULL);
}

static void test_errors(void)
{
    errno = 0;
    CHECK_TRUE(malloc(huge) == NULL);
    CHECK(errno, ==, ENOMEM);
    errno = 0;
    CHECK_TRUE(calloc(huge / 2, 4) == NULL);
    CHECK(errno, ==, ENOMEM);
    errno = 0;
    CHECK_TRUE(reallocarray(NULL, huge / 2, 4) == NULL);
    CHECK(errno, ==, ENOMEM);
    errno = 0;
    CHECK_TRUE(pvalloc(huge) == NULL);
    CHECK(errno, ==, ENOMEM);
    void *ptr = &ptr;
    errno = 33;
    CHECK(posix_memalign(&ptr, 24, LARGE), ==, EINVAL);
    CHECK(posix_memalign(&ptr, 4, LARGE), ==, EINVAL);
    CHECK(errno, ==, 33);
    CHECK(posix_memalign(&ptr, 64, huge / 2), ==, ENOMEM);
    CHECK(errno, ==, ENOMEM);
    CHECK_TRUE(ptr == &ptr);
    errno = 33;
    CHECK(posix_memalign(&ptr, 64, LARGE), ==, 0);
    free(ptr);
    free(malloc(LARGE));
    free(NULL);
    CHECK(errno, ==, 33);
}

/* The promise of the README: no fault per round, once warm. */
static void test_fills(void)
{
    for (size_t size = (size_t)8 << 20; size <= (size_t)128 << 20; size *= 4) {
        for (int round = 0; round < 2; round++) {
            void *ptr = malloc(size);
            memset(ptr, round, size);
            free(ptr);
        }
        long before = minor_faults();
        for (int round = 0; round < 3; round++) {
            char *volatile ptr = malloc(size);
            memset(ptr, round, size);
            free(ptr);
        }
        CHECK(minor_faults(), ==, before);
    }
}

/* Small requests must not fault more than they would without the library:
 * glibc's heap must not be trimmed at each end of a phase.  What another
 * allocator, preloaded after us, does with its memory is its own affair. */
static void test_small_phases(void)
{
    const char *preload = getenv("LD_PRELOAD");
    if (preload != NULL && strchr(preload, ':') != NULL)
        return;
    enum { BLOCKS = 200, BYTES = 48 << 10 };
    static char *blocks[BLOCKS];
    long before = 0;
    free(malloc((size_t)8 << 20)); /* what a prover does in each phase */
    for (int round = 0; round < 6; round++) {
        if (round == 3)
            before = minor_faults();
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = malloc(BYTES);
            memset(blocks[i], round, BYTES);
        }
        for (int i = BLOCKS - 1; i >= 0; i--)
            free(blocks[i]);
    }
    CHECK(minor_faults() - before, <=, BLOCKS);
}

static void *thread_body(void *unused)
{
    (void)unused;
    void *ptr = malloc(LARGE);
    check_block(ptr, LARGE);
    return ptr;
}

static void test_process_life(void)
{
    pthread_t thread;
    void *ptr;
    CHECK(pthread_create(&thread, NULL, thread_body, NULL), ==, 0);
    pthread_join(thread, &ptr);
    free(ptr); /* on another thread, after its owner ended */

    pid_t child = fork();
    if (child == 0) {
        test_family(LARGE);
        test_family(SMALL);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);

    /* A library that is opened at run time uses the same malloc. */
    void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
    CHECK_TRUE(library != NULL);
    CHECK(dlclose(library), ==, 0);
    FILE *stream = fopen("/dev/null", "w");
    CHECK_TRUE(stream != NULL);
    char *buffer = malloc(LARGE);
    setvbuf(stream, buffer, _IOFBF, LARGE);
    fclose(stream);
    free(buffer);
}

/* ---------------------------------------------------------------- misuse */

static void free_twice(void)
{
    char *volatile ptr = malloc(LARGE);
    free(ptr);
    free(ptr);
}

static void free_inside(void)
{
    char *volatile ptr = malloc(LARGE);
    free(ptr + 64);
}

static void realloc_freed(void)
{
    char *volatile ptr = malloc(LARGE);
    free(ptr);
    (void)!realloc(ptr, 2 * LARGE);
}

static void free_sized_wrongly(void)
{
    free_sized(malloc(LARGE), 4 * LARGE);
}

static void test_misuse(void)
{
    static void (*const bodies[])(void) = {free_twice, free_inside,
                                           realloc_freed, free_sized_wrongly};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        char text[512];
        int status = run_child(bodies[i], text, sizeof text);
        CHECK_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        CHECK_TRUE(strncmp(text, "libzknalloc: ", 13) == 0);
        CHECK_TRUE(strchr(text, '\n') == text + strlen(text) - 1);
    }
}

/* Each entry of the family, near each size where a sum might wrap around. */
static void test_impossible_sizes(void)
{
    const size_t most = PTRDIFF_MAX;
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 64, SIZE_MAX - 65536, most + 1,
                            most,     most - 4096,   most / 2};
    void *large = malloc(LARGE), *small = malloc(SMALL), *out = NULL;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        volatile size_t size = sizes[i];
        CHECK_TRUE(malloc(size) == NULL);
        CHECK_TRUE(calloc(size, 1) == NULL && calloc(size / 8, 9) == NULL);
        CHECK_TRUE(realloc(large, size) == NULL);
        CHECK_TRUE(realloc(small, size) == NULL);
        CHECK_TRUE(realloc(NULL, size) == NULL);
        CHECK_TRUE(reallocarray(large, size, 2) == NULL);
        CHECK_TRUE(reallocarray(small, 2, size) == NULL);
        CHECK_TRUE(valloc(size) == NULL && pvalloc(size) == NULL);
        for (size_t align = 64; align != 0; align *= 4) {
            CHECK_TRUE(memalign(align, size) == NULL);
            CHECK_TRUE(aligned_alloc(align, size) == NULL);
            CHECK(posix_memalign(&out, align, size), ==, ENOMEM);
            CHECK_TRUE(out == NULL);
        }
    }
    free(large);
    free(small);
}

/* ------------------------------------------------------ lowered RLIMIT_AS */

static const struct rlimit one_gib = {(rlim_t)1 << 30, (rlim_t)1 << 30};
static const struct rlimit64 one_gib64 = {(rlim64_t)1 << 30, (rlim64_t)1 << 30};

static int by_setrlimit(void)
{
    return setrlimit(RLIMIT_AS, &one_gib);
}

static int by_setrlimit64(void)
{
    return setrlimit64(RLIMIT_AS, &one_gib64);
}

static int by_prlimit(void)
{
    return prlimit(0, RLIMIT_AS, &one_gib, NULL);
}

static int by_prlimit64(void)
{
    return prlimit64(getpid(), RLIMIT_AS, &one_gib64, NULL);
}

/* What the cache reserved must not be what the process may have. */
static void test_lowered_limit(int (*lower)(void))
{
    pid_t child = fork();
    if (child == 0) {
        struct rlimit now;
        CHECK(lower(), ==, 0);
        CHECK(getrlimit(RLIMIT_AS, &now), ==, 0);
        CHECK(now.rlim_cur, ==, one_gib.rlim_cur);
        for (int i = 0; i < 10000; i++)
            CHECK_TRUE(malloc(20000) != NULL);
        pthread_t thread;
        void *ptr;
        CHECK(pthread_create(&thread, NULL, thread_body, NULL), ==, 0);
        CHECK(pthread_join(thread, &ptr), ==, 0);
        CHECK_TRUE(zkn_owns(ptr));
        errno = 0;
        CHECK(setrlimit(RLIMIT_AS, (void *)8), ==, -1);
        CHECK(errno, ==, EFAULT);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);
}

/* They do what the C library's do with every limit, and fail as those do. */
static void test_limits(void)
{
    struct rlimit had, now, one;
    struct rlimit64 one64, now64;
    CHECK(getrlimit(RLIMIT_NOFILE, &had), ==, 0);
    one = (struct rlimit){had.rlim_cur - 1, had.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &one), ==, 0);
    CHECK(prlimit(0, RLIMIT_NOFILE, NULL, &now), ==, 0);
    CHECK(now.rlim_cur, ==, had.rlim_cur - 1);
    one64 = (struct rlimit64){had.rlim_cur - 2, had.rlim_max};
    CHECK(setrlimit64(RLIMIT_NOFILE, &one64), ==, 0);
    CHECK(prlimit(0, RLIMIT_NOFILE, &had, &now), ==, 0);
    CHECK(now.rlim_cur, ==, had.rlim_cur - 2);
    CHECK(prlimit64(getpid(), RLIMIT_NOFILE, NULL, &now64), ==, 0);
    CHECK(now64.rlim_cur, ==, had.rlim_cur);
    errno = 0;
    CHECK(setrlimit((__rlimit_resource_t)1000, &had), ==, -1);
    CHECK(errno, ==, EINVAL);
    /* The limit of address space as it is changes nothing. */
    CHECK(prlimit(0, RLIMIT_AS, NULL, &had), ==, 0);
    CHECK(setrlimit(RLIMIT_AS, &had), ==, 0);
    void *ptr = malloc(LARGE);
    CHECK_TRUE(zkn_owns(ptr));
    free(ptr);
}

int main(void)
{
    /* The C++ library, where the next allocator brings it, keeps a block. */
    size_t live = stats_now().live_now;
    test_family(SMALL);
    test_family(LARGE);
    test_realloc();
    test_errors();
    test_fills();
    test_small_phases();
    test_process_life();
    /* What another one in the list makes of it is its own affair. */
    const char *preload = getenv("LD_PRELOAD");
    if (preload == NULL || strchr(preload, ':') == NULL) {
        test_misuse();
        test_impossible_sizes();
    }
    test_limits();
    test_lowered_limit(by_setrlimit);
    test_lowered_limit(by_setrlimit64);
    test_lowered_limit(by_prlimit);
    test_lowered_limit(by_prlimit64);
    CHECK(stats_now().live_now, ==, live);
    return 0;
}
