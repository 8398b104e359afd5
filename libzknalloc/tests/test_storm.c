/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Many threads against the model, under combinations of the options.
 *
 *   test_storm [-t threads] [-n operations] [-c combinations] [-f first]
 *              [-s seed] [-o combination]
 *
 * Each combination of options runs in a process of its own; -c takes so many
 * of them (0: all), from the one with number -f on, -o a single one.
 * Operations are those of all threads in one combination, rounded up to whole
 * epochs.  Threads pause after each epoch and the books are compared.  A
 * failure prints the command line that repeats it: the choices of each thread
 * repeat exactly, how threads interleave does not.
 *
 * The long run, 10^8 operations and more:  test_storm -c 0 -n 26000
 * In slices of some seconds:  test_storm -c 20 -f 40 -n 26000, and so on.
 */
#include <errno.h>
#include <pthread.h>

#include "model.h"

#define THREADS_MOST 64
#define EPOCH        2000 /* operations of one thread between two checks */

static const struct {
    const char *name;
    const char *values[4]; /* NULL: not set, so the default */
    size_t count;
} options_tried[] = {
    {"ZK_NALLOC_CACHE_BYTES", {NULL, "0", "16M"}, 3},
    {"ZK_NALLOC_MAGAZINE_BYTES", {NULL, "0", "32M"}, 3},
    {"ZK_NALLOC_RESERVE_BYTES", {NULL, "512M", "0"}, 3},
    {"ZK_NALLOC_IDLE_SECONDS", {NULL, "0", "1"}, 3},
    {"ZK_NALLOC_COLOUR", {NULL, "0"}, 2},
    {"ZK_NALLOC_THP", {NULL, "0"}, 2},
    {"ZK_NALLOC_SPARSE", {NULL, "0"}, 2},
    {"ZK_NALLOC_WIPE", {NULL, "1"}, 2},
    /* Not "unmap": what it keeps is no longer anybody's, and counts. */
    {"ZK_NALLOC_DEBUG", {NULL, "poison", "guard"}, 3},
};

#define OPTIONS (sizeof options_tried / sizeof options_tried[0])

static size_t threads = 4, operations = 12000, combinations = 8, first,
              seed = 1;
static struct actor actors[THREADS_MOST];
static pthread_barrier_t barrier;

static size_t all_combinations(void)
{
    size_t n = 1;
    for (size_t i = 0; i < OPTIONS; i++)
        n *= options_tried[i].count;
    return n;
}

static size_t epochs(void)
{
    return 1 + (operations - 1) / (threads * EPOCH);
}

static void *live(void *argument)
{
    struct actor *actor = argument;
    for (size_t i = 0; i < epochs(); i++) {
        for (size_t j = 0; j < EPOCH; j++)
            actor_act(actor);
        pthread_barrier_wait(&barrier); /* all have stopped */
        pthread_barrier_wait(&barrier); /* the books were compared */
    }
    return NULL;
}

static void run_combination(void)
{
    struct actor *all[THREADS_MOST];
    pthread_t ids[THREADS_MOST];
    model_open();
    CHECK(pthread_barrier_init(&barrier, NULL, (unsigned)threads + 1), ==, 0);
    for (size_t i = 0; i < threads; i++) {
        all[i] = &actors[i];
        actors[i] = (struct actor){.pick = model_random,
                                   .seed = (seed + 1) * 0x9e3779b97f4a7c15U + i,
                                   .name = (uint32_t)i + 1,
                                   .most = (size_t)256 << 20};
        actors[i].most /= threads;
        CHECK(pthread_create(&ids[i], NULL, live, all[i]), ==, 0);
    }
    for (size_t i = 0; i < epochs(); i++) {
        pthread_barrier_wait(&barrier);
        model_check(all, threads);
        pthread_barrier_wait(&barrier);
    }
    for (size_t i = 0; i < threads; i++) {
        CHECK(pthread_join(ids[i], NULL), ==, 0);
        actor_leave(&actors[i]);
    }
    model_clear_shelf();
    model_check_empty();
}

/* Start afresh with the options of COMBINATION; returns the wait status. */
static int start(const char *self, size_t combination)
{
    char number[4][24];
    snprintf(number[0], sizeof number[0], "%zu", combination);
    snprintf(number[1], sizeof number[1], "%zu", threads);
    snprintf(number[2], sizeof number[2], "%zu", operations);
    snprintf(number[3], sizeof number[3], "%zu", seed);
    char *const arguments[] = {"test_storm", "-O", number[0], "-t",
                               number[1],    "-n", number[2], "-s",
                               number[3],    NULL};
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        size_t rest = combination;
        for (size_t i = 0; i < OPTIONS; i++) {
            const char *value =
                options_tried[i].values[rest % options_tried[i].count];
            rest /= options_tried[i].count;
            unsetenv(options_tried[i].name);
            if (value != NULL)
                setenv(options_tried[i].name, value, 1);
        }
        start_again(arguments);
        _exit(99);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    if (status != 0)
        fprintf(stderr, "status %d; again: %s -o %zu -t %zu -n %zu -s %zu\n",
                status, self, combination, threads, operations, seed);
    return status;
}

int main(int argc, char **argv)
{
    size_t inner = SIZE_MAX, only = SIZE_MAX;
    for (int option; (option = getopt(argc, argv, "t:n:c:f:s:o:O:")) != -1;) {
        size_t *value = option == 't'   ? &threads
                        : option == 'n' ? &operations
                        : option == 'c' ? &combinations
                        : option == 'f' ? &first
                        : option == 's' ? &seed
                        : option == 'o' ? &only
                                        : &inner;
        if (option == '?')
            return 2;
        *value = strtoul(optarg, NULL, 10);
    }
    if (threads == 0 || threads > THREADS_MOST || operations == 0)
        return 2;
    if (inner != SIZE_MAX) {
        run_combination();
        return 0;
    }
    size_t all = all_combinations(), failed = 0;
    if (only < all)
        return start(argv[0], only) != 0;
    if (first >= all)
        return 2;
    if (combinations == 0 || combinations > all - first)
        combinations = all - first;
    size_t each = epochs() * EPOCH * threads;
    printf("%zu threads, %zu operations, combinations %zu to %zu of %zu, seed "
           "%zu\n",
           threads, each, first, first + combinations - 1, all, seed);
    /* The first is that of the defaults; 7919 is a prime, so that all come. */
    for (size_t i = first; i < first + combinations; i++)
        failed += start(argv[0], i * 7919 % all) != 0;
    printf("%zu combinations, %zu operations in all, %zu failed\n",
           combinations, combinations * each, failed);
    return failed != 0;
}
