/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Each call that the library makes of the kernel or of malloc fails, in turn.
 *
 *   test_faults [-a] [-p plan] [-s seconds]
 *
 * The linker routes those calls of the library through this file (--wrap), so
 * that the library itself is as it is shipped.  A first run of the scenario
 * counts the calls of each function; then it runs again in a process of its
 * own for each plan: the n-th call fails, or it and all after it, with an
 * errno.  Whatever fails, the process must not crash, no memory may be lost,
 * shared or changed, and a request that fails must say ENOMEM.  Plans are many:
 * a sample is tried, -a tries all; -p function:n:errno:1 repeats one.
 *
 * -s soaks: threads work for so many seconds while one call in a few hundred
 * fails by chance; books are compared all the while, and at the end resident
 * memory and mappings must not have grown since the first quarter.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <time.h>

#include "heap.h"
#include "model.h"

/* ------------------------------------------------------------------ the shim
 */

/* clang-format off */
#define FUNCTIONS(X)                                                           \
    X(mmap) X(munmap) X(mprotect) X(madvise) X(mremap) X(open) X(read)         \
    X(sysinfo) X(getrlimit) X(pthread_create) X(pthread_atfork)                \
    X(malloc) X(calloc) X(memalign) X(realloc)
/* clang-format on */

enum function {
#define X(name) FAULT_##name,
    FUNCTIONS(X)
#undef X
        FUNCTION_COUNT
};

static const char *const names[] = {
#define X(name) #name,
    FUNCTIONS(X)
#undef X
};

static struct plan {
    size_t function, number, error, lasting;
} plan = {.function = FUNCTION_COUNT};

static _Atomic unsigned counts[FUNCTION_COUNT];
static atomic_bool armed = true;
static _Atomic size_t chance; /* one call in so many fails; 0: as planned */

/* The library's constructor runs before main(). */
static void read_plan(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    const char *text = getenv("ZKN_TEST_PLAN");
    if (text != NULL)
        CHECK(sscanf(text, "%zu:%zu:%zu:%zu", &plan.function, &plan.number,
                     &plan.error, &plan.lasting),
              ==, 4);
}

/* Whether this call of FUNCTION fails. */
static bool fails(enum function function)
{
    if (!armed)
        return false;
    read_plan();
    unsigned number = ++counts[function];
    if (chance > 0) {
        uint64_t state = number * 0x9e3779b97f4a7c15U + function + 1;
        if (function >= FAULT_malloc || random_next(&state) % chance != 0)
            return false;
        errno = ENOMEM;
        return true;
    }
    if (plan.function != function || number < plan.number ||
        (number > plan.number && plan.lasting == 0))
        return false;
    errno = (int)plan.error;
    return true;
}

#define WRAP(name, result, failure, parameters, arguments)                     \
    result __real_##name parameters;                                           \
    result __wrap_##name parameters;                                           \
    result __wrap_##name parameters                                            \
    {                                                                          \
        return fails(FAULT_##name) ? (failure) : __real_##name arguments;      \
    }

WRAP(mmap, void *, MAP_FAILED,
     (void *addr, size_t length, int prot, int flags, int fd, off_t offset),
     (addr, length, prot, flags, fd, offset))
WRAP(munmap, int, -1, (void *addr, size_t length), (addr, length))
WRAP(mprotect, int, -1, (void *addr, size_t length, int prot),
     (addr, length, prot))
WRAP(madvise, int, -1, (void *addr, size_t length, int advice),
     (addr, length, advice))
WRAP(read, ssize_t, -1, (int fd, void *to, size_t size), (fd, to, size))
WRAP(sysinfo, int, -1, (struct sysinfo * info), (info))
WRAP(getrlimit, int, -1, (__rlimit_resource_t what, struct rlimit *limit),
     (what, limit))
WRAP(pthread_create, int, (int)plan.error,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*body)(void *),
      void *argument),
     (thread, attr, body, argument))
WRAP(pthread_atfork, int, (int)plan.error,
     (void (*prepare)(void), void (*parent)(void), void (*child)(void)),
     (prepare, parent, child))
/* malloc() and its kin set ENOMEM, whatever was wrong. */
WRAP(malloc, void *, (errno = ENOMEM, NULL), (size_t size), (size))
WRAP(calloc, void *, (errno = ENOMEM, NULL), (size_t count, size_t size),
     (count, size))
WRAP(memalign, void *, (errno = ENOMEM, NULL), (size_t align, size_t size),
     (align, size))
WRAP(realloc, void *, (errno = ENOMEM, NULL), (void *ptr, size_t size),
     (ptr, size))

void *__real_mremap(void *from, size_t had, size_t size, int flags, ...);
void *__wrap_mremap(void *from, size_t had, size_t size, int flags, ...);
void *__wrap_mremap(void *from, size_t had, size_t size, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    void *to = va_arg(rest, void *);
    va_end(rest);
    return fails(FAULT_mremap) ? MAP_FAILED
                               : __real_mremap(from, had, size, flags, to);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return fails(FAULT_open) ? -1 : __real_open(path, flags, mode);
}

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
    armed = false; /* the model's own calls */
    model_open();
    armed = true;
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
    armed = false;
    actor_leave(&actor);
    model_clear_shelf();
    model_check_empty();
}

/* ------------------------------------------------------------------ the soak
 */

#define THREADS 4
#define EPOCH   4000 /* operations of one thread between two checks */

static struct actor crew[THREADS];
static pthread_barrier_t barrier;
static atomic_bool over;

static void *live(void *argument)
{
    while (!over) {
        for (size_t i = 0; i < EPOCH; i++)
            actor_act(argument);
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

/* Lines of /proc/self/maps. */
static size_t mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK_TRUE(file != NULL);
    size_t count = 0;
    for (int c; (c = getc(file)) != EOF;)
        count += c == '\n';
    fclose(file);
    return count;
}

static void soak(time_t seconds)
{
    struct actor *all[THREADS];
    pthread_t ids[THREADS];
    armed = false;
    model_open();
    model_refusals = true;
    CHECK(pthread_barrier_init(&barrier, NULL, THREADS + 1), ==, 0);
    for (size_t i = 0; i < THREADS; i++) {
        all[i] = &crew[i];
        crew[i] = (struct actor){.pick = model_random,
                                 .seed = 1000 + i,
                                 .name = (uint32_t)i + 1,
                                 .most = 96 * MIB};
        CHECK(pthread_create(&ids[i], NULL, live, all[i]), ==, 0);
    }
    time_t start = time(NULL), said = 0, now = 0;
    size_t early = 0, early_mappings = 0, most = 0, most_mappings = 0;
    chance = 300;
    for (size_t epoch = 1; !over; epoch++) {
        armed = true;
        pthread_barrier_wait(&barrier);
        armed = false;
        model_check(all, THREADS);
        now = time(NULL) - start;
        size_t rss = proc_status("VmRSS"), maps = mappings();
        most = rss > most ? rss : most;
        most_mappings = maps > most_mappings ? maps : most_mappings;
        if (now <= seconds / 4) {
            early = most;
            early_mappings = most_mappings;
        }
        if (now >= said + 60 || now >= seconds) {
            printf("%ld s: %zu operations, %zu MiB resident, %zu mappings, "
                   "at most %zu and %zu\n",
                   (long)now, epoch * EPOCH * THREADS, rss >> 20, maps,
                   most >> 20, most_mappings);
            fflush(stdout);
            said = now;
        }
        over = now >= seconds;
        pthread_barrier_wait(&barrier);
    }
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_join(ids[i], NULL), ==, 0);
        actor_leave(&crew[i]);
    }
    model_clear_shelf();
    model_check_empty();
    CHECK(most, <=, early + early / 8 + 16 * MIB);
    CHECK(most_mappings, <=, early_mappings + early_mappings / 4 + 64);
}

/* ------------------------------------------------------------------ the plans
 */

static const int errors[] = {ENOMEM, EINVAL, EPERM, EAGAIN};
#define ERRORS (sizeof errors / sizeof errors[0])

static struct plan next;

static void start(void)
{
    char text[96];
    snprintf(text, sizeof text, "%zu:%zu:%zu:%zu", next.function, next.number,
             next.error, next.lasting);
    setenv("ZKN_TEST_PLAN", text, 1);
    char *const arguments[] = {"test_faults", NULL};
    execv("/proc/self/exe", arguments);
    _exit(99);
}

/* Run the scenario with the plan NEXT; returns whether all was well. */
static bool run_plan(char *text, size_t size)
{
    int status = run_child(start, text, size);
    if (status == 0)
        return true;
    fprintf(stderr, "status %d; again: test_faults -p %s:%zu:%zu:%zu\n%s\n",
            status, names[next.function], next.number, next.error, next.lasting,
            text);
    return false;
}

static bool parse_plan(const char *text)
{
    char name[32] = "";
    if (sscanf(text, "%31[^:]:%zu:%zu:%zu", name, &next.number, &next.error,
               &next.lasting) != 4)
        return false;
    for (next.function = 0; next.function < FUNCTION_COUNT; next.function++) {
        if (strcmp(name, names[next.function]) == 0)
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    static char text[8192];
    size_t sample = 3, runs = 0, failed = 0;
    if (getenv("ZKN_TEST_PLAN") != NULL) {
        model_refusals = plan.function < FUNCTION_COUNT;
        scenario();
        if (!model_refusals) {
            for (size_t i = 0; i < FUNCTION_COUNT; i++)
                fprintf(stderr, "%u ", counts[i]);
        }
        return 0;
    }
    for (int option; (option = getopt(argc, argv, "ap:s:")) != -1;) {
        if (option == 'a') {
            sample = SIZE_MAX;
        } else if (option == 'p' && parse_plan(optarg)) {
            return run_plan(text, sizeof text) ? 0 : 1;
        } else if (option == 's') {
            soak(strtol(optarg, NULL, 10));
            return 0;
        } else {
            return 2;
        }
    }

    next.function = FUNCTION_COUNT;
    CHECK(run_child(start, text, sizeof text), ==, 0);
    size_t seen[FUNCTION_COUNT];
    char *at = text;
    for (size_t i = 0; i < FUNCTION_COUNT; i++)
        seen[i] = strtoul(at, &at, 10);
    for (size_t i = 0; i < FUNCTION_COUNT; i++) {
        size_t calls = seen[i];
        printf("%s: %zu calls\n", names[i], calls);
        CHECK(calls, >, 0);
        size_t step = calls > sample ? (calls + sample - 1) / sample : 1;
        for (size_t n = 1; n <= calls; n += step) {
            for (size_t kind = 0; kind < 2 * ERRORS; kind++) {
                /* Errors are alike to the library: each call meets one. */
                if (sample != SIZE_MAX && kind / 2 != n / step % ERRORS)
                    continue;
                next = (struct plan){i, n, (size_t)errors[kind / 2], kind % 2};
                failed += !run_plan(text, sizeof text);
                runs++;
            }
        }
    }
    printf("%zu plans, %zu failed\n", runs, failed);
    return failed != 0;
}
