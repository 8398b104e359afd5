/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * records.c - records of tracepoints, as the kernel would write them, and what
 * zkprof makes of each.  Ends with 1 and says why where that is not so.
 */
#include "trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define CHECK(left, right)                                                     \
    do {                                                                       \
        unsigned long long l_ = (left), r_ = (right);                          \
        if (l_ != r_) {                                                        \
            fprintf(stderr, "%d: %s is %llu, not %llu\n", __LINE__, #left, l_, \
                    r_);                                                       \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

enum { CALLS = 11, LOCK = 22, LOCKED = 33, PID = 7, TID = 8 };

static const zkp_sampler_config_t config = {
    .trace_syscalls = CALLS, .trace_lock = LOCK, .trace_locked = LOCKED};
static struct trace trace;

static void call(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t record[8] = {CALLS, (uint64_t)nr, a, b, c, d};
    trace_add(&trace, &config, PID, TID, 1, (const uint8_t *)record,
              sizeof record);
}

static void lock(uint64_t id, int32_t tid, uint64_t ns)
{
    trace_add(&trace, &config, PID, tid, ns, (const uint8_t *)&id, sizeof id);
}

int main(void)
{
    const zkp_traffic_t *t = &trace.total;

    call(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS);
    CHECK(t->mapped, 4096);
    call(SYS_mmap, 0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
    call(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE);
    CHECK(t->mapped, 4096); /* neither a reservation nor a file is memory */
    CHECK(t->calls[0], 3);
    call(SYS_munmap, 1 << 20, 8192, 0, 0);
    CHECK(t->unmapped, 8192);
    CHECK(t->calls[1], 1);
    call(SYS_madvise, 1 << 20, 100, MADV_DONTNEED, 0);
    call(SYS_madvise, 1 << 20, 10, MADV_FREE, 0);
    call(SYS_madvise, 1 << 20, 1, MADV_HUGEPAGE, 0);
    CHECK(t->advised, 110);
    CHECK(t->calls[2], 3);
    call(SYS_mremap, 1 << 20, 100, 300, 0);
    CHECK(t->mapped, 4096 + 200);
    call(SYS_mremap, 1 << 20, 300, 50, 0);
    CHECK(t->unmapped, 8192 + 250);
    CHECK(t->calls[4], 2);

    call(SYS_brk, 100000, 0, 0, 0); /* from where is not known */
    CHECK(t->mapped, 4296);
    call(SYS_brk, 100500, 0, 0, 0);
    CHECK(t->mapped, 4796);
    call(SYS_brk, 0, 0, 0, 0);
    call(SYS_brk, 100400, 0, 0, 0);
    CHECK(t->unmapped, 8542);
    CHECK(t->calls[3], 4);
    call(SYS_getpid, 1, 2, 3, 4);
    CHECK(t->mapped + t->unmapped + t->advised, 4796 + 8542 + 110);

    lock(LOCK, TID, 10000);
    lock(LOCKED, TID, 10500); /* no longer than locking takes */
    lock(LOCKED, TID, 90000); /* its beginning was not seen */
    CHECK(t->waits, 0);
    lock(LOCK, TID, 100000);
    lock(LOCK, TID + 1, 100000);
    lock(LOCKED, TID, 150000);
    lock(LOCKED, TID + 1, 102000);
    CHECK(t->waits, 2);
    CHECK(t->waited_ns, 52000);

    /* What is cut off says nothing, and costs nothing. */
    uint64_t record[8] = {CALLS, SYS_munmap, 1, 1000};
    zkp_traffic_t before = *t;
    for (size_t len = 0; len < sizeof record; len++)
        trace_add(&trace, &config, PID, TID, 1, (const uint8_t *)record, len);
    CHECK(memcmp(&before, t, sizeof before) != 0, 0);

    /* However often a process asks where its break is, that is one process. */
    trace_free(&trace);
    size_t slots = 0;
    for (int i = 0; i < 10000; i++) {
        call(SYS_brk, 0, 0, 0, 0);
        lock(LOCK, TID, 1);
        lock(LOCKED, TID, 1);
        slots = trace.breaks.n_slots + trace.locking.n_slots;
        CHECK(slots > 512, 0);
    }
    trace_free(&trace);
    return 0;
}
