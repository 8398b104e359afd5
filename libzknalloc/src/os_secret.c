/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * os_secret.c - see os_secret.h and, for the contract, os.h.
 */
#include "os_secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os.h"
#include "stats.h"

/* In headers since glibc 2.35; the same on all our architectures. */
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

/* mmap(), counted, as 0 or -errno.  OUT is where the kernel put it. */
static int map(char *addr, size_t length, int prot, int flags, int fd,
               char **out)
{
    int saved = errno, error = 0;
    char *result = mmap(addr, length, prot, flags, fd, 0);
    stats_add(STAT_syscalls_map, 1);
    if (result == MAP_FAILED)
        error = -errno;
    errno = saved;
    *out = result;
    return error;
}

static int map_at(char *addr, size_t length, int flags, int fd, bool vacant)
{
    char *out;
    int error =
        map(addr, length, PROT_READ | PROT_WRITE,
            flags | (vacant ? MAP_FIXED_NOREPLACE : MAP_FIXED), fd, &out);
    if (error == 0 && out != addr) { /* Linux < 4.17 takes it for a hint */
        os_secret_unmap(out, length);
        error = -EEXIST;
    }
    return error;
}

static int advise(char *addr, size_t length, int advice)
{
    int saved = errno;
    int error = madvise(addr, length, advice) == 0 ? 0 : -errno;
    stats_add(STAT_syscalls_advise, 1);
    errno = saved;
    return error;
}

int os_secret_reserve(size_t length, char **out)
{
    return map(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, out);
}

int os_secret_map_memfd(char *addr, size_t length, bool vacant)
{
    int saved = errno, error;
    int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
    if (fd < 0) {
        error = -errno;
        errno = saved;
        return error;
    }
    error = ftruncate(fd, (off_t)length) == 0 ? 0 : -errno;
    if (error == 0)
        error = map_at(addr, length, MAP_SHARED, fd, vacant);
    if (error == 0) {
        /* Not MADV_WIPEONFORK: that is for private memory. */
        error = advise(addr, length, MADV_DONTFORK);
        if (error != 0 && vacant)
            os_secret_unmap(addr, length);
    }
    (void)syscall(SYS_close, fd);
    errno = saved;
    return error;
}

int os_secret_map_private(char *addr, size_t length, bool vacant)
{
    return map_at(addr, length, MAP_PRIVATE | MAP_ANONYMOUS, -1, vacant);
}

int os_secret_lock(char *addr, size_t length)
{
    int saved = errno;
    /* Not mlock(): the sanitizers replace that by nothing, successfully. */
    int error = syscall(SYS_mlock, addr, length) == 0 ? 0 : -errno;
    errno = saved;
    return error;
}

int os_secret_dont_dump(char *addr, size_t length)
{
    return advise(addr, length, MADV_DONTDUMP);
}

int os_secret_wipe_on_fork(char *addr, size_t length)
{
    return advise(addr, length, MADV_WIPEONFORK);
}

int os_secret_protect(char *addr, size_t length, int prot)
{
    int saved = errno;
    int error = mprotect(addr, length, prot) == 0 ? 0 : -errno;
    stats_add(STAT_syscalls_map, 1);
    errno = saved;
    return error;
}

void os_secret_unmap(char *addr, size_t length)
{
    int saved = errno;
    (void)munmap(addr, length);
    errno = saved;
}

void os_random(void *bytes, size_t length)
{
    int saved = errno;
    uint64_t now = os_now_ns();
    if (syscall(SYS_getrandom, bytes, length, GRND_NONBLOCK) != (long)length) {
        memset(bytes, 0x5a, length);
        memcpy(bytes, &now, min_size(length, sizeof now));
    }
    errno = saved;
}
