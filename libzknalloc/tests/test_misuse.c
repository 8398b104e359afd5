/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Each misuse ends the process with SIGABRT and exactly one line on stderr
 * that says what was wrong.
 */
#include <signal.h>

#include "testing.h"

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

static const struct {
    const char *name;
    void (*body)(void);
    const char *words;
} cases[] = {
    {"double free", double_free, "not the start of a live region"},
    {"double free, large", double_free_of_large, "freed twice"},
    {"double free after release", double_free_after_release, "freed twice"},
    {"interior pointer", interior_free, "address inside a region"},
    {"misaligned pointer", misaligned_free, "address inside a region"},
    {"address never handed out", untouched_space, "not the start"},
    {"realloc of freed", realloc_of_freed, "freed twice"},
    {"usable size of freed", size_of_freed, "freed twice"},
    {"wrong size", wrong_size, "size larger than the region"},
};

int main(void)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        int status = run_child(cases[i].body, text, sizeof text);
        printf("%s: %s", cases[i].name, text);
        CHECK_TRUE(WIFSIGNALED(status));
        CHECK(WTERMSIG(status), ==, SIGABRT);
        CHECK_TRUE(strncmp(text, "libzknalloc: ", 13) == 0);
        CHECK_TRUE(strstr(text, cases[i].words) != NULL);
        CHECK_TRUE(strchr(text, '\n') == text + strlen(text) - 1);
    }
    return 0;
}
