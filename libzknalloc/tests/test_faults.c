/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Each call that the library makes of the kernel or of malloc fails, in turn.
 *
 *   test_faults [-a] [-p plan]
 *
 * faults.h is how.  A first run of the scenario
 * counts the calls of each function; then it runs again in a process of its
 * own for each plan: the n-th call fails, or it and all after it, with an
 * errno.  Whatever fails, the process must not crash, no memory may be lost,
 * shared or changed, and a request that fails must say ENOMEM.  Plans are many:
 * a sample is tried, -a tries all; -p function:n:errno:1 repeats one.
 */
#include "faults.h"
#include "model.h"

/* -------------------------------------------------------------- the scenario
 */

#define MIB ((size_t)1 << 20)

/* What an actor does, and what it does too seldom: more regions than the
 * metadata of a fresh heap has room for, and free runs that must be moved
 * together. */
static void scenario(void)
{
    static struct actor actor = {
        .pick = model_random, .seed = 11, .name = 1, .most = 64 * MIB};
    struct actor *const actors[] = {&actor};
    enum { MANY = 1200, BIG = 16 };
    static char *many[MANY], *big[BIG];
    faults_armed = false; /* the model's own calls */
    model_open();
    faults_armed = true;
    for (int i = 0; i < 1500; i++)
        actor_act(&actor);
    model_check(actors, 1);
    for (int i = 0; i < MANY; i++) {
        many[i] = model_requested(zkn_alloc(ZKN_THRESHOLD));
        if (many[i] != NULL)
            *many[i] = (char)i;
    }
    for (int i = 0; i < BIG; i++) {
        big[i] = model_requested(zkn_alloc(8 * MIB));
        if (big[i] != NULL)
            big[i][4 * MIB] = (char)i;
    }
    for (int i = 0; i < MANY; i++) {
        CHECK_TRUE(many[i] == NULL || *many[i] == (char)i);
        zkn_free(many[i]);
    }
    for (int i = 0; i < BIG; i += 2)
        zkn_free(big[i]);
    for (size_t size = 20 * MIB; size <= 60 * MIB; size += 20 * MIB) {
        char *zero = model_requested(zkn_calloc(1, size));
        for (size_t at = 0; zero != NULL && at < size; at += 4096)
            CHECK(zero[at], ==, 0);
        zkn_free(zero);
        zkn_release_cache();
    }
    /* Used each time: the first ones are cleared, then it is left to the
     * kernel. */
    for (int i = 0; i < 5; i++) {
        char *zero = model_requested(zkn_calloc(1, 24 * MIB));
        CHECK_TRUE(zero == NULL || is_zero(zero, 24 * MIB));
        if (zero != NULL)
            memset(zero, 1, 24 * MIB);
        zkn_free(zero);
    }
    zkn_soften_cache();
    for (int i = 1; i < BIG; i += 2) {
        CHECK_TRUE(big[i] == NULL || big[i][4 * MIB] == (char)i);
        zkn_free(big[i]);
    }
    for (int i = 0; i < 500; i++)
        actor_act(&actor);
    zkn_stage_boundary();
    model_check(actors, 1);

    /* From here on nothing fails: nothing may have been lost. */
    faults_armed = false;
    actor_leave(&actor);
    model_clear_shelf();
    model_check_empty();
}

/* ------------------------------------------------------------------ the plans
 */

static struct fault_plan next;

static void start(void)
{
    char text[96];
    snprintf(text, sizeof text, "%zu:%zu:%zu:%zu", next.function, next.number,
             next.error, next.lasting);
    setenv(FAULT_PLAN_VARIABLE, text, 1);
    setenv("ZK_NALLOC_SPREAD", "1000000", 1);
    char *const arguments[] = {"test_faults", NULL};
    start_again(arguments);
    _exit(99);
}

/* Run the scenario with the plan NEXT; returns whether all was well. */
static bool run_plan(char *text, size_t size)
{
    int status = run_child(start, text, size);
    if (status == 0)
        return true;
    fprintf(stderr, "status %d; again: test_faults -p %s:%zu:%zu:%zu\n%s\n",
            status, fault_names[next.function], next.number, next.error,
            next.lasting, text);
    return false;
}

static bool parse_plan(const char *text)
{
    char name[32] = "";
    if (sscanf(text, "%31[^:]:%zu:%zu:%zu", name, &next.number, &next.error,
               &next.lasting) != 4)
        return false;
    for (next.function = 0; next.function < FAULT_FUNCTION_COUNT;
         next.function++) {
        if (strcmp(name, fault_names[next.function]) == 0)
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    static char text[8192];
    size_t sample = 3, runs = 0, failed = 0;
    if (getenv(FAULT_PLAN_VARIABLE) != NULL) {
        model_refusals = fault_plan.function < FAULT_FUNCTION_COUNT;
        scenario();
        if (!model_refusals) {
            for (size_t i = 0; i < FAULT_FUNCTION_COUNT; i++)
                fprintf(stderr, "%u ", fault_counts[i]);
        }
        return 0;
    }
    for (int option; (option = getopt(argc, argv, "ap:")) != -1;) {
        if (option == 'a') {
            sample = SIZE_MAX;
        } else if (option == 'p' && parse_plan(optarg)) {
            return run_plan(text, sizeof text) ? 0 : 1;
        } else {
            return 2;
        }
    }

    next.function = FAULT_FUNCTION_COUNT;
    CHECK(run_child(start, text, sizeof text), ==, 0);
    size_t seen[FAULT_FUNCTION_COUNT];
    char *at = text;
    for (size_t i = 0; i < FAULT_FUNCTION_COUNT; i++)
        seen[i] = strtoul(at, &at, 10);
    for (size_t i = 0; i < FAULT_FUNCTION_COUNT; i++) {
        size_t calls = seen[i];
        printf("%s: %zu calls\n", fault_names[i], calls);
        CHECK(calls, >, 0);
        size_t step = calls > sample ? (calls + sample - 1) / sample : 1;
        for (size_t n = 1; n <= calls; n += step) {
            for (size_t kind = 0; kind < 2 * FAULT_ERRORS; kind++) {
                /* Errors are alike to the library: each call meets one. */
                if (sample != SIZE_MAX && kind / 2 != n / step % FAULT_ERRORS)
                    continue;
                next = (struct fault_plan){i, n, (size_t)fault_errors[kind / 2],
                                           kind % 2};
                failed += !run_plan(text, sizeof text);
                runs++;
            }
        }
    }
    printf("%zu plans, %zu failed\n", runs, failed);
    return failed != 0;
}
