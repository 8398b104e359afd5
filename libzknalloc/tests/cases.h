/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * cases.h - a test of many cases, each in a process of its own that is started
 * afresh, since options and limits are read once.
 *
 * The program runs itself once for each row of a table; `test_life traced` runs
 * one case, as it is, to look into it.  What a case writes to stderr counts:
 * nothing, or the one line that the row asks for.  A case that cannot run here
 * says so by skip(), and the run prints it; a program of which no case could
 * run ends as skipped.
 */
#ifndef ZKN_CASES_H
#define ZKN_CASES_H

#include <signal.h>

#include "testing.h"

/* Rows say only what is special about them. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

struct test_case {
    const char *name;
    void (*body)(void);
    const char *environment[2]; /* "NAME=VALUE" */
    size_t address_space;       /* RLIMIT_AS, or 0 */
    const char *words;          /* in the one line on stderr; NULL for none */
    int signal;                 /* that ends it, or 0 */
    bool may_end_well;          /* instead, and silently */
};

static inline _Noreturn void skip(const char *reason)
{
    fprintf(stderr, "skipped: %s\n", reason);
    exit(SKIPPED);
}

/* Take SIZE bytes, write them, give them back. */
static inline void use(size_t size)
{
    char *ptr = zkn_alloc(size);
    CHECK_TRUE(ptr != NULL);
    memset(ptr, 1, size);
    zkn_free(ptr);
}

/* Where a process that aborts leaves its core file: an argument of
 * enter_core_folder(). */
#define CORE_FOLDER "/tmp/zkn-core-XXXXXX"

/* Make FOLDER and go there; or skip. */
static inline void enter_core_folder(char *folder)
{
    char pattern[64] = "";
    if (SANITIZED)
        skip("the sanitizers' shadow memory would be in the core file");
    FILE *file = fopen("/proc/sys/kernel/core_pattern", "r");
    if (file == NULL || fgets(pattern, sizeof pattern, file) == NULL ||
        strcmp(pattern, "core\n") != 0)
        skip("core files go elsewhere");
    fclose(file);
    CHECK_TRUE(mkdtemp(folder) != NULL);
    CHECK(chdir(folder), ==, 0);
}

static inline void leave_core_folder(const char *folder)
{
    CHECK(chdir("/"), ==, 0);
    CHECK(rmdir(folder), ==, 0);
}

static const struct test_case *started_case;
static const char *case_program;

static inline void start_case(void)
{
    const struct test_case *test = started_case;
    for (size_t i = 0; i < 2 && test->environment[i] != NULL; i++)
        CHECK(putenv((char *)(uintptr_t)test->environment[i]), ==, 0);
    if (test->address_space > 0) {
        struct rlimit limit = {test->address_space, test->address_space};
        CHECK(setrlimit(RLIMIT_AS, &limit), ==, 0);
    }
    char *const arguments[] = {(char *)(uintptr_t)case_program,
                               (char *)(uintptr_t)test->name, NULL};
    start_again(arguments);
    _exit(99);
}

/* Returns whether the case ran. */
static inline bool run_case(const struct test_case *test)
{
    char text[2048];
    started_case = test;
    if (SANITIZED && test->address_space > 0) {
        printf("%s: skipped: the sanitizers need address space\n", test->name);
        return false;
    }
    int status = run_child(start_case, text, sizeof text);
    printf("%s: status %d, stderr: %s\n", test->name, status, text);
    fflush(stdout);
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
        return false;
    bool well = test->signal == 0 || (test->may_end_well && status == 0);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) : 0, ==,
          well ? 0 : test->signal);
    if (well)
        CHECK(status, ==, 0);
    if (test->words == NULL || (well && test->signal != 0)) {
        /* That a size is impossible is worth a warning to a sanitizer. */
        if (!SANITIZED || strstr(text, "failed to allocate 0x") == NULL)
            CHECK(strlen(text), ==, 0);
    } else {
        CHECK_TRUE(strstr(text, test->words) != NULL);
        CHECK_TRUE(strchr(text, '\n') == text + strlen(text) - 1);
    }
    return true;
}

/* What main() returns. */
static inline int run_cases(int argc, char **argv,
                            const struct test_case *cases, size_t count)
{
    size_t ran = 0;
    case_program = argv[0];
    for (size_t i = 0; i < count; i++) {
        if (argc == 1) {
            ran += run_case(&cases[i]);
        } else if (strcmp(argv[1], cases[i].name) == 0) {
            /* The sanitizers' handlers would turn a signal into an exit. */
            if (cases[i].signal != 0)
                signal(cases[i].signal, SIG_DFL);
            cases[i].body();
            exit(0);
        }
    }
    if (argc > 1) {
        fprintf(stderr, "no such case: %s\n", argv[1]);
        return 2;
    }
    return ran > 0 ? 0 : SKIPPED;
}

#define RUN_CASES(argc, argv, cases)                                           \
    run_cases(argc, argv, cases, sizeof(cases) / sizeof(cases)[0])

#endif /* ZKN_CASES_H */
