/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * workload.c - programs whose use of CPU time is known.
 *
 *   workload MODE [ARGUMENT]
 *
 * runs MODE over and over until SIGTERM, then prints where its CPU time went,
 * in nanoseconds by its own clock: "touch N unmap N compute N".
 *
 *   faults        map, touch, unmap small pages
 *   mixed         the same with as much arithmetic in between
 *   huge          the same with huge pages, 64 MiB of them
 *   compute       arithmetic only
 *   file PATH     map PATH, read each of its pages, unmap
 *   populate      map with all pages filled in by the kernel, unmap
 *   madvise       touch, give back by MADV_DONTNEED
 *   cow           touch again what a forked child shares
 *   forked        share touched pages with a child; both wait
 *   zero          map, read each page, write it, unmap
 *   grow          touch new pages and keep them
 *   read          let read() fill fresh pages from /dev/zero
 *   threads N     start N threads of "faults" after a moment; the first waits
 *   churn         threads of some ten milliseconds, one after another
 *   brief         the same with threads of a few milliseconds at most
 *   children N    N child processes of "faults" after a moment; the first waits
 *   workers       child processes of 64 MiB, one after another
 *   snaps         the same with children of a few milliseconds, 4 MiB each
 *   lock          two threads that map and unmap, and so wait for each other
 *   requests      exactly 100 times: map 1 MiB, advise half, unmap; then wait
 *   short         "faults" for a second and a half, then end
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LEN  ((size_t)16 << 20)
#define PAGE 4096

static volatile sig_atomic_t stopping;
static uint64_t touch_ns, unmap_ns, compute_ns;

static void stop(int sig)
{
    (void)sig;
    stopping = 1;
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static char *map(int flags, int fd)
{
    char *p =
        mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | flags, fd, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    madvise(p, LEN, MADV_NOHUGEPAGE);
    return p;
}

static void touch(volatile char *p)
{
    uint64_t t = now();
    for (size_t i = 0; i < LEN; i += PAGE)
        p[i] = 1;
    touch_ns += now() - t;
}

static void unmap(char *p)
{
    uint64_t t = now();
    munmap(p, LEN);
    unmap_ns += now() - t;
}

static void compute(uint64_t ns)
{
    uint64_t t = now();
    volatile uint64_t x = 1;
    do {
        for (int i = 0; i < 10000; i++)
            x = x * 6364136223846793005u + 1;
    } while (now() - t < ns);
    compute_ns += now() - t;
}

static void faults(void)
{
    char *p = map(MAP_ANONYMOUS, -1);
    touch(p);
    unmap(p);
}

static void mixed(void)
{
    uint64_t before = touch_ns + unmap_ns;
    faults();
    compute(touch_ns + unmap_ns - before);
}

static void huge(void)
{
    size_t one = (size_t)2 << 20, len = 33 * one;
    char *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    madvise(p, len, MADV_HUGEPAGE);
    volatile char *first = p + (-(uintptr_t)p & (one - 1));
    uint64_t before = now();
    for (size_t i = 0; i < 32 * one; i += PAGE)
        first[i] = 1;
    uint64_t touched = now();
    munmap(p, len);
    uint64_t unmapped = now();
    touch_ns += touched - before;
    unmap_ns += unmapped - touched;
    compute(unmapped - before);
}

static void file(const char *path)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        perror(path);
        exit(1);
    }
    size_t len = (size_t)st.st_size;
    volatile char *p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    /* One fault a page: no mapping of the pages around. */
    madvise((void *)p, len, MADV_RANDOM);
    for (size_t i = 0; i < len; i += PAGE)
        (void)p[i];
    munmap((void *)p, len);
    close(fd);
}

static void dontneed(void)
{
    static char *p;
    if (!p)
        p = map(MAP_ANONYMOUS, -1);
    touch(p);
    madvise(p, LEN, MADV_DONTNEED);
}

static void cow(void)
{
    static char *p;
    if (!p)
        touch(p = map(MAP_ANONYMOUS, -1));
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* none is left behind */
        pause();
        _exit(0);
    }
    touch(p);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void forked(void)
{
    pid_t own = getpid();
    touch(map(MAP_ANONYMOUS, -1));
    if (fork() == 0) {
        while (getppid() == own)
            usleep(10000);
        _exit(0);
    }
    while (!stopping)
        pause();
}

/* A first touch in two halves: the read maps the kernel's zero page. */
static void zero(void)
{
    char *p = map(MAP_ANONYMOUS, -1);
    uint64_t t = now();
    for (size_t i = 0; i < LEN; i += PAGE)
        (void)*(volatile char *)(p + i);
    touch_ns += now() - t;
    touch(p);
    unmap(p);
}

static void grow(void)
{
    static size_t mapped;
    if (mapped < (size_t)1 << 30) {
        touch(map(MAP_ANONYMOUS, -1));
        mapped += LEN;
    }
    compute(20000000);
}

static void read_zero(void)
{
    int fd = open("/dev/zero", O_RDONLY);
    char *p = map(MAP_ANONYMOUS, -1);
    if (read(fd, p, LEN) != (ssize_t)LEN)
        exit(1);
    unmap(p);
    close(fd);
}

static void *thread(void *unused)
{
    (void)unused;
    pthread_setname_np(pthread_self(), "worker");
    while (!stopping)
        faults();
    return NULL;
}

static void threads(int n)
{
    pthread_t ids[256];
    usleep(500000);
    for (int i = 0; i < n && i < 256; i++)
        pthread_create(&ids[i], NULL, thread, NULL);
    for (int i = 0; i < n && i < 256; i++)
        pthread_join(ids[i], NULL);
}

static void *brief(void *unused)
{
    (void)unused;
    pthread_setname_np(pthread_self(), "brief");
    faults();
    return NULL;
}

static __attribute__((noinline)) void touch_little(volatile char *p)
{
    for (size_t i = 0; i < (size_t)4 << 20; i += PAGE)
        p[i] = 1;
}

static void *little(void *unused)
{
    (void)unused;
    pthread_setname_np(pthread_self(), "brief");
    char *p = map(MAP_ANONYMOUS, -1);
    touch_little(p);
    munmap(p, LEN);
    return NULL;
}

static void brief_threads(void)
{
    pthread_t id;
    if (pthread_create(&id, NULL, little, NULL) == 0)
        pthread_join(id, NULL);
}

static void churn(void)
{
    pthread_t id;
    if (pthread_create(&id, NULL, brief, NULL) == 0)
        pthread_join(id, NULL);
}

/* The children end when we do: they have another parent then. */
static void children(int n)
{
    pid_t own = getpid();
    usleep(500000);
    for (int i = 0; i < n; i++)
        if (fork() == 0) {
            while (getppid() == own)
                faults();
            _exit(0);
        }
    while (!stopping)
        pause();
}

static void workers(void)
{
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 4; i++)
            touch(map(MAP_ANONYMOUS, -1));
        usleep(100000); /* long enough to be seen, however fast the machine */
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void snaps(void)
{
    pid_t child = fork();
    if (child == 0) {
        touch_little(map(MAP_ANONYMOUS, -1));
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void *mapper(void *unused)
{
    (void)unused;
    while (!stopping) {
        char *p = map(MAP_ANONYMOUS | MAP_POPULATE, -1);
        munmap(p, LEN);
    }
    return NULL;
}

static void lock(void)
{
    pthread_t id;
    if (pthread_create(&id, NULL, mapper, NULL))
        exit(1);
    mapper(NULL);
    pthread_join(id, NULL);
}

static void requests(void)
{
    size_t len = (size_t)1 << 20;
    usleep(500000);
    for (int i = 0; i < 100; i++) {
        char *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        madvise(p, len / 2, MADV_DONTNEED);
        munmap(p, len);
    }
    while (!stopping)
        pause();
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    const char *argument = argc > 2 ? argv[2] : "";
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    puts("ready");
    fflush(stdout);
    if (strcmp(mode, "short") == 0)
        while (touch_ns + unmap_ns < 3000000000)
            faults();
    while (strcmp(mode, "short") && !stopping) {
        if (strcmp(mode, "faults") == 0)
            faults();
        else if (strcmp(mode, "mixed") == 0)
            mixed();
        else if (strcmp(mode, "huge") == 0)
            huge();
        else if (strcmp(mode, "compute") == 0)
            compute(10000000);
        else if (strcmp(mode, "file") == 0)
            file(argument);
        else if (strcmp(mode, "populate") == 0)
            unmap(map(MAP_ANONYMOUS | MAP_POPULATE, -1));
        else if (strcmp(mode, "madvise") == 0)
            dontneed();
        else if (strcmp(mode, "cow") == 0)
            cow();
        else if (strcmp(mode, "forked") == 0)
            forked();
        else if (strcmp(mode, "zero") == 0)
            zero();
        else if (strcmp(mode, "grow") == 0)
            grow();
        else if (strcmp(mode, "read") == 0)
            read_zero();
        else if (strcmp(mode, "threads") == 0)
            threads(atoi(argument));
        else if (strcmp(mode, "churn") == 0)
            churn();
        else if (strcmp(mode, "brief") == 0)
            brief_threads();
        else if (strcmp(mode, "children") == 0)
            children(atoi(argument));
        else if (strcmp(mode, "workers") == 0)
            workers();
        else if (strcmp(mode, "snaps") == 0)
            snaps();
        else if (strcmp(mode, "lock") == 0)
            lock();
        else if (strcmp(mode, "requests") == 0)
            requests();
        else
            return 2;
    }
    printf("touch %llu unmap %llu compute %llu\n", (unsigned long long)touch_ns,
           (unsigned long long)unmap_ns, (unsigned long long)compute_ns);
    return 0;
}
