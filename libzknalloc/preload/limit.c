/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * limit.c - setrlimit() and its kin, so that a process that lowers RLIMIT_AS
 * finds its own address space below it, and not the cache's reservation.
 *
 * They do what the C library's do, and tell the cache afterwards.
 */
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "next.h"
#include "zknalloc_private.h"

#ifdef __GLIBC__
typedef __rlimit_resource_t resource_t;
#else
typedef int resource_t;
#endif

_Static_assert(sizeof(rlim_t) == 8, "rlimit is the kernel's rlimit64");

static int change(pid_t pid, int resource, const void *limit, void *old)
{
    int result = (int)syscall(SYS_prlimit64, pid, resource, limit, old);
    if (result == 0 && limit != NULL && resource == RLIMIT_AS)
        zkn_private_limited();
    return result;
}

EXPORT int setrlimit(resource_t resource, const struct rlimit *limit)
{
    return change(0, (int)resource, limit, NULL);
}

EXPORT int prlimit(pid_t pid, resource_t resource, const struct rlimit *limit,
                   struct rlimit *old)
{
    return change(pid, (int)resource, limit, old);
}

#ifdef __GLIBC__
EXPORT int setrlimit64(resource_t resource, const struct rlimit64 *limit)
{
    return change(0, (int)resource, limit, NULL);
}

EXPORT int prlimit64(pid_t pid, resource_t resource,
                     const struct rlimit64 *limit, struct rlimit64 *old)
{
    return change(pid, (int)resource, limit, old);
}
#endif
