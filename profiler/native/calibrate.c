/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * calibrate.c - what things cost on this machine, in CPU time of one thread.
 *
 * Costs differ by an order of magnitude between hosts (a first touch takes
 * 0.25 us on bare metal, over 2 us in a nested virtual machine), so they are
 * measured where they are used.
 */
#include "zkprof_native.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int zkp_calibrate_pages(size_t pages, zkp_page_cost_t *out)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), len;
    if (!pages || __builtin_mul_overflow(pages, page, &len))
        return -EINVAL;
    volatile char *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return -errno;
    /* Small pages, as minor faults are counted.  EINVAL: has no huge ones. */
    (void)madvise((void *)p, len, MADV_NOHUGEPAGE);
    uint64_t t0 = thread_ns();
    for (size_t at = 0; at < len; at += page)
        p[at] = 1;
    uint64_t t1 = thread_ns();
    munmap((void *)p, len);
    uint64_t t2 = thread_ns();
    out->touch_ns = (double)(t1 - t0) / (double)pages;
    out->unmap_ns = (double)(t2 - t1) / (double)pages;
    return 0;
}

uint64_t zkp_calibrate_spin(uint64_t rounds)
{
    uint64_t t0 = thread_ns();
    volatile uint64_t x = 88172645463325252u;
    for (uint64_t i = 0; i < rounds; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    return thread_ns() - t0;
}
