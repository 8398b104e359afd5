/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * os.c - see os.h for the contract.
 */
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "options.h"
#include "stats.h"

/* Make the call, count it, and turn its failure into -errno. */
#define COUNTED(counter, call)                                                 \
    __extension__({                                                            \
        int saved_ = errno;                                                    \
        int result_ = (call) == 0 ? 0 : -errno;                                \
        errno = saved_;                                                        \
        stats_add(counter, 1);                                                 \
        result_;                                                               \
    })

size_t os_page_size(void)
{
    static _Atomic size_t known;
    size_t size = load_relaxed(&known);
    if (unlikely(size == 0)) {
        size = (size_t)sysconf(_SC_PAGESIZE);
        store_relaxed(&known, size);
    }
    return size;
}

int os_reserve(size_t length, char **out)
{
    int saved = errno;
    size_t padded = length + HUGE_PAGE;
    char *addr =
        mmap(NULL, padded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stats_add(STAT_syscalls_map, 1);
    if (addr == MAP_FAILED) {
        int error = -errno;
        errno = saved;
        return error;
    }
    char *aligned = (char *)round_up((uintptr_t)addr, HUGE_PAGE);
    if (aligned > addr)
        (void)munmap(addr, (size_t)(aligned - addr));
    size_t tail = (size_t)(addr + padded - (aligned + length));
    if (tail > 0)
        (void)munmap(aligned + length, tail);
    errno = saved;
    *out = aligned;
    return 0;
}

void os_unreserve(char *addr, size_t length)
{
    (void)COUNTED(STAT_syscalls_map, munmap(addr, length));
}

bool os_has_room(size_t length)
{
    int saved = errno;
    void *addr =
        mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stats_add(STAT_syscalls_map, 1);
    if (addr != MAP_FAILED)
        (void)munmap(addr, length);
    errno = saved;
    return addr != MAP_FAILED;
}

int os_commit(char *addr, size_t length)
{
    return COUNTED(STAT_syscalls_map,
                   mprotect(addr, length, PROT_READ | PROT_WRITE));
}

int os_forbid(char *addr, size_t length)
{
    return COUNTED(STAT_syscalls_map, mprotect(addr, length, PROT_NONE));
}

/* In headers since glibc 2.35. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

void os_populate(char *addr, size_t length)
{
    (void)COUNTED(STAT_syscalls_advise,
                  madvise(addr, length, MADV_POPULATE_WRITE));
}

int os_discard(char *addr, size_t length)
{
    return COUNTED(STAT_syscalls_advise, madvise(addr, length, MADV_DONTNEED));
}

int os_renew(char *addr, size_t length)
{
    int error =
        COUNTED(STAT_syscalls_map,
                mmap(addr, length, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == addr
                    ? 0
                    : -1);
    /* msync() of private memory does nothing, but to look for gaps. */
    if (error != 0 && COUNTED(STAT_syscalls_map,
                              syscall(SYS_msync, addr, length, MS_ASYNC)) != 0)
        log_misuse("cannot map memory afresh", addr);
    if (error == 0)
        os_advise_huge(addr, length);
    return error;
}

/* Present in headers since glibc 2.32. */
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

int os_move(char *from, char *to, size_t length)
{
    return COUNTED(STAT_syscalls_move,
                   mremap(from, length, length,
                          MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
                          to) == to
                       ? 0
                       : -1);
}

int os_soften(char *addr, size_t length)
{
    return COUNTED(STAT_syscalls_advise, madvise(addr, length, MADV_FREE));
}

void os_advise_huge(char *addr, size_t length)
{
    int advice = options.thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
    if (COUNTED(STAT_syscalls_advise, madvise(addr, length, advice)) != 0)
        stats_add(STAT_fallback_thp, 1);
}

void os_advise_small(char *addr, size_t length)
{
    (void)COUNTED(STAT_syscalls_advise, madvise(addr, length, MADV_NOHUGEPAGE));
}

int os_discard_small(char *addr, size_t length)
{
    int error = os_discard(addr, length);
    if (error == 0)
        os_advise_huge(addr, length);
    return error;
}

/* open(), pread() and close() are cancellation points, where a thread might
 * end with a region in its hands; the bare system calls are not. */
int os_look_open(void)
{
    int saved = errno;
    long fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap",
                      O_RDONLY | O_CLOEXEC);
    int result = fd >= 0 ? (int)fd : -errno;
    errno = saved;
    return result;
}

void os_look_close(int fd)
{
    int saved = errno;
    (void)syscall(SYS_close, fd);
    errno = saved;
}

/* Documentation/admin-guide/mm/pagemap.rst of the kernel. */
#define PAGEMAP_EXCLUSIVE ((uint64_t)1 << 56)
#define PAGEMAP_SWAPPED   ((uint64_t)1 << 62)
#define PAGEMAP_PRESENT   ((uint64_t)1 << 63)

int os_look(int fd, const char *addr, size_t count, unsigned char *pages)
{
    uint64_t entries[OS_LOOK_MOST];
    size_t want = count * sizeof entries[0], got = 0;
    off_t from = (off_t)((uintptr_t)addr / os_page_size() * sizeof entries[0]);
    int saved = errno;
    stats_add(STAT_syscalls_scan, 1);
    while (got < want) {
        long n = syscall(SYS_pread64, fd, (char *)entries + got, want - got,
                         from + (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int error = n < 0 ? -errno : -EIO;
            errno = saved;
            return error;
        }
        got += (size_t)n;
    }
    errno = saved;
    for (size_t i = 0; i < count; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.*): pread64() filled them */
        bool own = (entries[i] & PAGEMAP_SWAPPED) ||
                   ((entries[i] & PAGEMAP_PRESENT) &&
                    (entries[i] & PAGEMAP_EXCLUSIVE));
        pages[i] = own                            ? OS_PAGE_OWN
                   : entries[i] & PAGEMAP_PRESENT ? OS_PAGE_SHARED
                                                  : OS_PAGE_NONE;
    }
    return 0;
}

static unsigned least(unsigned a, uint64_t b)
{
    return b < a ? (unsigned)b : a;
}

bool os_measure_page(unsigned *fault, unsigned *discard)
{
    enum { PAGES = 16, TIMES = 4 };
    int saved = errno;
    size_t page = os_page_size(), length = PAGES * page;
    char *addr = mmap(NULL, length, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stats_add(STAT_syscalls_map, 1);
    if (addr == MAP_FAILED) {
        errno = saved;
        return false;
    }
    os_advise_small(addr, length);
    bool done = true;
    *fault = *discard = UINT_MAX;
    /* The best of a few: other threads and processes may run meanwhile. */
    for (int time = 0; time < TIMES && done; time++) {
        uint64_t start = os_now_ns();
        for (size_t i = 0; i < PAGES; i++)
            ((volatile char *)addr)[i * page] = 1;
        uint64_t touched = os_now_ns();
        done = os_discard(addr, length) == 0;
        uint64_t end = os_now_ns();
        *fault = least(*fault, (touched - start) / PAGES + 1);
        *discard = least(*discard, (end - touched) / PAGES + 1);
    }
    (void)munmap(addr, length);
    errno = saved;
    return done;
}

uint64_t os_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}
