/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Each misuse ends the process with SIGABRT and exactly one line on stderr
 * that says what was wrong.
 */
#include "cases.h"

static void double_free(void)
{
    void *ptr = zkn_alloc(1 << 20);
    zkn_free(ptr);
    zkn_free(ptr);
}

static void double_free_of_large(void)
{
    char *volatile keep = zkn_alloc(32 << 20);
    zkn_free(keep);
    zkn_free(keep);
}

static void double_free_after_release(void)
{
    char *volatile ptr = zkn_alloc(1 << 20);
    zkn_free(ptr);
    zkn_release_cache();
    zkn_free(ptr);
}

static void interior_free(void)
{
    char *ptr = zkn_alloc(1 << 20);
    zkn_free(ptr + 4096);
}

static void misaligned_free(void)
{
    char *ptr = zkn_alloc(1 << 20);
    zkn_free(ptr + 1);
}

static void untouched_space(void)
{
    char *ptr = zkn_alloc(1 << 20);
    zkn_free(ptr + ((size_t)4 << 30));
}

static void realloc_of_freed(void)
{
    char *volatile ptr = zkn_alloc(1 << 20);
    zkn_free(ptr);
    (void)!zkn_realloc(ptr, 2 << 20);
}

static void size_of_freed(void)
{
    char *volatile ptr = zkn_alloc(4 << 20);
    zkn_free(ptr);
    (void)zkn_usable_size(ptr);
}

static void wrong_size(void)
{
    zkn_free_sized(zkn_alloc(1 << 20), 3 << 20);
}

#define ABORTS(says) .signal = SIGABRT, .words = "libzknalloc: " says

static const struct test_case cases[] = {
    {"double free", double_free,
     ABORTS("not the start of a live region (freed twice, or an address "
            "inside a region) at 0x")},
    {"double free, large", double_free_of_large, ABORTS("not the start")},
    {"double free after release", double_free_after_release,
     ABORTS("not the start")},
    {"interior pointer", interior_free, ABORTS("not the start")},
    {"misaligned pointer", misaligned_free, ABORTS("not the start")},
    {"address never handed out", untouched_space, ABORTS("not the start")},
    {"realloc of freed", realloc_of_freed, ABORTS("not the start")},
    {"usable size of freed", size_of_freed, ABORTS("not the start")},
    {"wrong size", wrong_size,
     ABORTS("freed with a size larger than the region at 0x")},
};

int main(int argc, char **argv)
{
    return RUN_CASES(argc, argv, cases);
}
