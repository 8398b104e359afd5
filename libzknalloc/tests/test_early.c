/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The preload libraries before and without what they need: memory that is asked
 * for while the next allocator is being looked up (early.c), no next allocator,
 * no cache.
 */
#include <dlfcn.h>
#include <malloc.h>

#include "cases.h"
#include "early.h"

#define SMALL ((size_t)1000)
#define LARGE ((size_t)1 << 20)

static void *look_up(const char *name)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);
    if (symbol == NULL)
        fprintf(stderr, "no %s: early.c is not loaded\n", name);
    CHECK_TRUE(symbol != NULL);
    return symbol;
}

static void check_filled(const unsigned char *ptr, size_t size, size_t value)
{
    CHECK(ptr[0], ==, value);
    CHECK(memcmp(ptr, ptr + 1, size - 1), ==, 0);
}

/* Each early block is as it was left, and can be resized and freed, now that
 * there is a next allocator. */
static void use_early_blocks(bool cached)
{
    struct early_block *blocks = look_up(EARLY_BLOCKS_SYMBOL);
    const char *wrong = *(const char **)look_up(EARLY_WRONG_SYMBOL);
    const char *in = *(const char **)look_up(EARLY_ASKED_IN_SYMBOL);
    if (wrong != NULL)
        fprintf(stderr, "does not hold: %s\n", wrong);
    CHECK_TRUE(wrong == NULL);
    CHECK_TRUE(in != NULL && strcmp(in, getenv("EARLY_FIRST")) == 0);
    for (size_t i = 0; i < EARLY_BLOCKS; i++) {
        unsigned char *ptr = blocks[i].ptr;
        size_t size = blocks[i].size, to = i % 2 == 0 ? SMALL : LARGE;
        CHECK(malloc_usable_size(ptr), ==, size);
        check_filled(ptr, size, i + 1);
        unsigned char *moved = realloc(ptr, to);
        CHECK_TRUE(moved != NULL && moved != ptr);
        check_filled(moved, size, i + 1);
        CHECK(zkn_owns(moved), ==, cached && to == LARGE);
        memset(moved, 7, to);
        moved = realloc(moved, 10); /* into less than there was */
        check_filled(moved, 10, 7);
        free(moved);
        check_filled(ptr, size, i + 1);
        free(ptr);
    }
}

static void preloaded(void)
{
    use_early_blocks(true);
}

static void recorded(void)
{
    use_early_blocks(false);
}

static void start_without_next(void)
{
    CHECK(setenv("EARLY_FIRST", "nothing", 1), ==, 0);
    execl("/proc/self/exe", case_program, "preloaded malloc", NULL);
    _exit(99);
}

static void no_next(void)
{
    char text[256];
    int status = run_child(start_without_next, text, sizeof text);
    CHECK_TRUE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status), ==, 127);
    CHECK(strcmp(text, "libzknalloc: no next malloc in this process\n"), ==, 0);
}

/* Where nothing can be reserved the next one serves large requests, too. */
static void no_cache(void)
{
    char *ptr = malloc(LARGE);
    CHECK_TRUE(ptr != NULL && !zkn_owns(ptr));
    memset(ptr, 1, LARGE);
    ptr = realloc(ptr, 2 * LARGE);
    CHECK_TRUE(ptr != NULL && !zkn_owns(ptr));
    check_filled((unsigned char *)ptr, LARGE, 1);
    free(ptr);
    ptr = malloc(100000);
    memset(ptr, 1, 100000);
    free(ptr);
    ptr = calloc(1000, 100);
    CHECK_TRUE(ptr != NULL && !zkn_owns(ptr) && is_zero(ptr, 100000));
    free(ptr);
    ptr = aligned_alloc(65536, LARGE);
    CHECK_TRUE(ptr != NULL && !zkn_owns(ptr));
    CHECK((uintptr_t)ptr % 65536, ==, 0);
    free(ptr);
    errno = 0;
    CHECK_TRUE(malloc(LARGE << 12) == NULL);
    CHECK(errno, ==, ENOMEM);
}

#define PRELOADED "LD_PRELOAD=" ZKN_PRELOAD ":" ZKN_EARLY
#define RECORDED  "LD_PRELOAD=" ZKN_RECORD ":" ZKN_EARLY
#define FIRST(name)                                                            \
    {"preloaded " name, preloaded, {PRELOADED, "EARLY_FIRST=" name}},          \
    {                                                                          \
        "recorded " name, recorded,                                            \
        {                                                                      \
            RECORDED, "EARLY_FIRST=" name                                      \
        }                                                                      \
    }

static const struct test_case cases[] = {
    FIRST("malloc"),
    FIRST("calloc"),
    FIRST("memalign"),
    FIRST("realloc"),
    FIRST("usable_size"),
    FIRST("free"),
    {"preloaded, no next", no_next, {PRELOADED}},
    {"recorded, no next", no_next, {RECORDED}},
    {"no cache", no_cache, {"LD_PRELOAD=" ZKN_PRELOAD}, (size_t)300 << 20},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}
