/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * target.c - a program that knows where its CPU time went.
 *
 *   target KIND [NAME=VALUE ...]
 *
 * Prints "ready", then makes one batch for each line of standard input and
 * answers each with one line of JSON: wall and CPU seconds, page faults, and
 * the CPU seconds spent in each part of the work by the threads' own clocks.
 * Between batches it sleeps, so that a profiler's window and the batches hold
 * the same CPU time.
 *
 * A batch is `rounds` times, in each of `threads` threads: take `count`
 * buffers of `size` KiB, touch `touch` per cent of each one's pages, compute
 * for `spin` thousand steps over each, give them back.  KIND says where the
 * memory comes from:
 *
 *   malloc   malloc and free
 *   calloc   calloc and free
 *   grow     malloc; every `keep`-th buffer is never given back
 *   resize   malloc, doubled by realloc from 1 MiB to `size`, free
 *   mmap     mmap and munmap, without an allocator
 *   dontneed one mapping for good, given back by MADV_DONTNEED
 *   file     a file is mapped, each of its pages read, and unmapped
 *   cow      pages shared with a forked child are written
 *   none     no memory at all
 *
 * With `alone=1` only the first thread takes memory, the others compute; all
 * threads meet at a barrier after each round.  With `serial=1` the first one
 * takes memory while the others wait, then all compute.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS  64
#define MAX_BUFFERS  256
#define FIRST_SIZE   ((size_t)1 << 20)
#define FAULT_AROUND ((size_t)64 << 10)

enum part { TAKE, TOUCH, GIVE, FILES, COPY, COMPUTE, PARTS };

static const char *const part_names[PARTS] = {"take",  "touch", "give",
                                              "files", "copy",  "compute"};

static const char *kind;
static size_t page, size, rounds = 1, count = 1, percent = 100, spin, keep,
                          threads = 1, alone, serial;

static pthread_barrier_t barrier;
static struct worker {
    pthread_t thread;
    size_t index;
    uint64_t ns[PARTS];
    char *mapping; /* of the kinds that keep one */
    uint64_t sum;
} workers[MAX_THREADS];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Charge the CPU time since *since to PART. */
static void charge(struct worker *w, enum part part, uint64_t *since)
{
    uint64_t t = now(CLOCK_THREAD_CPUTIME_ID);
    w->ns[part] += t - *since;
    *since = t;
}

static int is(const char *name)
{
    return strcmp(kind, name) == 0;
}

static char *map_anonymous(void)
{
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        die("mmap");
    return p;
}

/* A file in memory, so that no disk and no page cache's policy plays a part:
 * the one that TARGET_PAGES is the descriptor of, or one of our own. */
static int file_of_pages(void)
{
    static int fd = -1;
    if (fd >= 0)
        return fd;
    const char *given = getenv("TARGET_PAGES");
    struct stat facts;
    fd = given ? atoi(given) : memfd_create("pages", MFD_CLOEXEC);
    if (fd < 0 || fstat(fd, &facts))
        die("pages");
    if (facts.st_size == (off_t)size)
        return fd;
    if (ftruncate(fd, (off_t)size))
        die("ftruncate");
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        die("mmap");
    memset(p, 1, size);
    munmap(p, size);
    return fd;
}

static char *take(struct worker *w)
{
    char *p = NULL;
    if (is("malloc") || is("grow")) {
        p = malloc(size);
    } else if (is("calloc")) {
        p = calloc(1, size);
    } else if (is("resize")) {
        p = malloc(FIRST_SIZE);
    } else if (is("mmap")) {
        p = map_anonymous();
    } else if (is("dontneed") || is("cow")) {
        if (!w->mapping)
            w->mapping = map_anonymous();
        p = w->mapping;
    } else if (is("file")) {
        p = mmap(NULL, size, PROT_READ, MAP_SHARED, file_of_pages(), 0);
        if (p == MAP_FAILED)
            die("mmap");
    }
    if (!p)
        die("no memory");
    return p;
}

/* Write one word of PERCENT % of the pages from FROM to TO. */
static void touch(char *from, char *to)
{
    size_t done = 0;
    for (volatile char *p = from; p < to; p += page) {
        done += percent;
        if (done >= 100) {
            *p = 1;
            done -= 100;
        }
    }
}

/* Read one line a fault: the kernel maps the pages around, too, and what it
 * takes to fetch a line is the program's time, not the fault's. */
static void read_pages(struct worker *w, const char *p)
{
    for (size_t i = 0; i < size; i += FAULT_AROUND)
        w->sum += (unsigned char)*(const volatile char *)(p + i);
}

static void copy_pages(struct worker *w, char *p, uint64_t *t)
{
    touch(p, p + size);
    charge(w, TOUCH, t);
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* none is left behind */
        pause();
        _exit(0);
    }
    charge(w, TAKE, t);
    touch(p, p + size);
    charge(w, COPY, t);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    charge(w, TAKE, t);
}

static void give(char *p)
{
    if (is("mmap") || is("file"))
        munmap(p, size);
    else if (is("dontneed"))
        madvise(p, size, MADV_DONTNEED);
    else if (!is("cow"))
        free(p);
}

static void compute(struct worker *w)
{
    uint64_t x = w->sum | 1;
    for (size_t i = 0; i < spin * 1000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    w->sum = x;
}

static void use_memory(struct worker *w, size_t round)
{
    char *buffers[MAX_BUFFERS];
    uint64_t t = now(CLOCK_THREAD_CPUTIME_ID);
    for (size_t i = 0; i < count; i++) {
        char *p = take(w);
        charge(w, TAKE, &t);
        if (is("file")) {
            read_pages(w, p);
            charge(w, FILES, &t);
        } else if (is("cow")) {
            copy_pages(w, p, &t);
        } else if (is("resize")) {
            size_t had = 0;
            for (size_t n = FIRST_SIZE;; n *= 2) {
                touch(p + had, p + n);
                charge(w, TOUCH, &t);
                if (n >= size)
                    break;
                had = n;
                p = realloc(p, 2 * n);
                if (!p)
                    die("realloc");
                charge(w, TAKE, &t);
            }
        } else {
            touch(p, p + size);
            charge(w, TOUCH, &t);
        }
        if (!serial) {
            compute(w);
            charge(w, COMPUTE, &t);
        }
        buffers[i] = p;
    }
    for (size_t i = 0; i < count; i++) {
        if (!keep || (round * count + i) % keep != 0)
            give(buffers[i]);
    }
    charge(w, GIVE, &t);
}

static void *work(void *argument)
{
    struct worker *w = argument;
    uint64_t t = now(CLOCK_THREAD_CPUTIME_ID);
    for (size_t round = 0; round < rounds; round++) {
        if (!is("none") && (w->index == 0 || !(alone || serial))) {
            use_memory(w, round);
        } else if (!serial) {
            for (size_t i = 0; i < count; i++)
                compute(w);
        }
        if (serial) {
            pthread_barrier_wait(&barrier);
            t = now(CLOCK_THREAD_CPUTIME_ID);
            for (size_t i = 0; i < count; i++)
                compute(w);
            charge(w, COMPUTE, &t);
        } else if (is("none") || (alone && w->index != 0)) {
            charge(w, COMPUTE, &t);
        }
        if (threads > 1)
            pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void batch(void)
{
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    uint64_t began = now(CLOCK_MONOTONIC), parts[PARTS] = {0};
    for (size_t i = 0; i < threads; i++) {
        memset(workers[i].ns, 0, sizeof workers[i].ns);
        workers[i].index = i;
        if (i > 0 &&
            pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            die("pthread_create");
    }
    work(&workers[0]);
    for (size_t i = 1; i < threads; i++)
        pthread_join(workers[i].thread, NULL);
    uint64_t wall = now(CLOCK_MONOTONIC) - began;
    getrusage(RUSAGE_SELF, &after);
    for (size_t i = 0; i < threads; i++)
        for (size_t part = 0; part < PARTS; part++)
            parts[part] += workers[i].ns[part];
    printf("{\"wall_s\": %.6f, \"user_s\": %.6f, \"system_s\": %.6f, "
           "\"faults\": %ld, \"peak_kib\": %ld",
           (double)wall / 1e9,
           seconds(after.ru_utime) - seconds(before.ru_utime),
           seconds(after.ru_stime) - seconds(before.ru_stime),
           after.ru_minflt - before.ru_minflt, after.ru_maxrss);
    for (size_t part = 0; part < PARTS; part++)
        printf(", \"%s_s\": %.6f", part_names[part], (double)parts[part] / 1e9);
    puts("}");
    fflush(stdout);
}

static void option(const char *text)
{
    static const struct {
        const char *name;
        size_t *value;
    } known[] = {
        {"size", &size},       {"rounds", &rounds}, {"count", &count},
        {"touch", &percent},   {"spin", &spin},     {"keep", &keep},
        {"threads", &threads}, {"alone", &alone},   {"serial", &serial},
    };
    const char *value = strchr(text, '=');
    size_t n = value ? (size_t)(value - text) : 0;
    for (size_t i = 0; n && i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].name) == n &&
            strncmp(text, known[i].name, n) == 0) {
            *known[i].value = strtoul(value + 1, NULL, 10);
            return;
        }
    }
    fprintf(stderr, "target: no option %s\n", text);
    exit(2);
}

int main(int argc, char **argv)
{
    char line[16];
    if (argc < 2) {
        fputs("usage: target KIND [NAME=VALUE ...]\n", stderr);
        return 2;
    }
    kind = argv[1];
    for (int i = 2; i < argc; i++)
        option(argv[i]);
    size *= 1024;
    page = (size_t)sysconf(_SC_PAGESIZE);
    if (threads < 1 || threads > MAX_THREADS || count > MAX_BUFFERS) {
        fputs("target: too many threads or buffers\n", stderr);
        return 2;
    }
    if (pthread_barrier_init(&barrier, NULL, (unsigned)threads))
        die("pthread_barrier_init");
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        batch();
    return 0;
}
