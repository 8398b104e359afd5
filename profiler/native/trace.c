/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * trace.c - what a process asks of the kernel, call by call.
 *
 * One tracepoint, raw_syscalls:sys_enter, filtered in the kernel to the five
 * calls that change an address space: its arguments say how many bytes.  Two
 * more, around taking mmap_lock, say how long threads waited for it; they
 * fire once for each time that the lock is taken, which since Linux 6.4 is
 * for most page faults never.
 */
#include "trace.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Not waiting: just what it takes to lock. */
#define NO_WAIT_NS 1000

#define STR(x) #x
#define ID(nr) "id==" STR(nr)

const char *trace_filter(void)
{
    return ID(SYS_mmap) "||" ID(SYS_munmap) "||" ID(SYS_madvise) "||" ID(
        SYS_brk) "||" ID(SYS_mremap);
}

static void add_break(struct trace *t, int32_t pid, uint64_t to)
{
    if (!to)
        return; /* brk(0) asks where it is */
    uint64_t *last = pair_map_at(&t->breaks, (uint64_t)pid, 0);
    if (!last)
        return;
    if (*last && to > *last)
        t->total.mapped += to - *last;
    else if (*last)
        t->total.unmapped += *last - to;
    *last = to;
}

static void add_call(struct trace *t, int32_t pid, int64_t nr,
                     const uint64_t arg[6])
{
    switch (nr) {
    case SYS_mmap:
        t->total.calls[0]++;
        /* Address space that is only reserved costs nothing yet. */
        if ((arg[3] & MAP_ANONYMOUS) && arg[2] != PROT_NONE)
            t->total.mapped += arg[1];
        break;
    case SYS_munmap:
        t->total.calls[1]++;
        t->total.unmapped += arg[1];
        break;
    case SYS_madvise:
        t->total.calls[2]++;
        if (arg[2] == MADV_DONTNEED || arg[2] == MADV_FREE)
            t->total.advised += arg[1];
        break;
    case SYS_brk:
        t->total.calls[3]++;
        add_break(t, pid, arg[0]);
        break;
    case SYS_mremap:
        t->total.calls[4]++;
        if (arg[2] > arg[1])
            t->total.mapped += arg[2] - arg[1];
        else
            t->total.unmapped += arg[1] - arg[2];
        break;
    default:
        break;
    }
}

static void add_lock(struct trace *t, int32_t tid, uint64_t ns, bool taken)
{
    uint64_t *since = pair_map_at(&t->locking, (uint64_t)tid, 0);
    if (!since)
        return;
    if (!taken) {
        *since = ns ? ns : 1;
        return;
    }
    if (*since > 1 && ns > *since + NO_WAIT_NS) {
        t->total.waited_ns += ns - *since;
        t->total.waits++;
    }
    *since = 1; /* known, not locking */
}

void trace_add(struct trace *t, const zkp_sampler_config_t *config, int32_t pid,
               int32_t tid, uint64_t ns, const uint8_t *raw, size_t len)
{
    /* Every tracepoint's record begins with its id; the fields of its own
     * begin after 8 bytes: for sys_enter, the number and six arguments. */
    uint16_t type;
    uint64_t call[7];
    if (len < 8)
        return;
    memcpy(&type, raw, sizeof type);
    if (type == config->trace_syscalls && len >= 8 + sizeof call) {
        memcpy(call, raw + 8, sizeof call);
        add_call(t, pid, (int64_t)call[0], call + 1);
    } else if (type == config->trace_lock || type == config->trace_locked) {
        add_lock(t, tid, ns, type == config->trace_locked);
    }
}

void trace_free(struct trace *t)
{
    pair_map_free(&t->breaks);
    pair_map_free(&t->locking);
}

/* Of <linux/mount.h>, which older systems lack; the numbers are the same on
 * every processor that we run on. */
#define FSCONFIG_CREATE 6
#define NR_FSOPEN       430
#define NR_FSCONFIG     431
#define NR_FSMOUNT      432
#define CLOEXEC         1

int zkp_tracefs_open(void)
{
    long context = syscall(NR_FSOPEN, "tracefs", CLOEXEC);
    if (context < 0)
        return -errno;
    long root = syscall(NR_FSCONFIG, context, FSCONFIG_CREATE, NULL, NULL, 0);
    if (root == 0)
        root = syscall(NR_FSMOUNT, context, CLOEXEC, 0);
    int error = errno;
    close((int)context);
    return root < 0 ? -error : (int)root;
}
