/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * faults.c - preloaded: calls that zkprof's extension makes fail by plan.
 *
 * Only calls from between two addresses count, which are those of the
 * extension; the interpreter's own never fail.  What is allocated there and not
 * freed is counted.  For one thread; faults.py drives it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);

static uintptr_t low, high; /* the callers that count */

static struct {
    const char *function;
    unsigned number;
    int error, lasting;
    unsigned calls, injected;
} plan = {.function = ""};

void fault_watch(uintptr_t from, uintptr_t to);
void fault_watch(uintptr_t from, uintptr_t to)
{
    low = from;
    high = to;
}

/* Call NUMBER of FUNCTION fails with ERROR, and if LASTING all after it. */
void fault_plan(const char *function, unsigned number, int error, int lasting);
void fault_plan(const char *function, unsigned number, int error, int lasting)
{
    static char name[32];
    plan.function = strncpy(name, function, sizeof name - 1);
    plan.number = number;
    plan.error = error;
    plan.lasting = lasting;
    plan.calls = plan.injected = 0;
}

unsigned fault_injected(void);
unsigned fault_injected(void)
{
    return plan.injected;
}

static int watched(const void *caller)
{
    return (uintptr_t)caller >= low && (uintptr_t)caller < high;
}

static int fails(const char *function, const void *caller)
{
    if (!watched(caller) || strcmp(function, plan.function) != 0)
        return 0;
    plan.calls++;
    if (plan.calls < plan.number || (plan.calls > plan.number && !plan.lasting))
        return 0;
    plan.injected++;
    errno = plan.error;
    return 1;
}

#define FAILS(function) fails(function, __builtin_return_address(0))

/* ------------------------------------------------------------------ memory */

#define MOST 65536

static void *blocks[MOST];
static size_t n_blocks;

size_t fault_live(void);
size_t fault_live(void)
{
    return n_blocks;
}

static void *noted(void *p, const void *caller)
{
    if (p != NULL && watched(caller)) {
        if (n_blocks == MOST)
            abort();
        blocks[n_blocks++] = p;
    }
    return p;
}

static void forget(const void *p)
{
    for (size_t i = n_blocks; p != NULL && i > 0; i--) {
        if (blocks[i - 1] == p) {
            blocks[i - 1] = blocks[--n_blocks];
            return;
        }
    }
}

void *malloc(size_t size)
{
    return FAILS("malloc")
               ? NULL
               : noted(__libc_malloc(size), __builtin_return_address(0));
}

void *calloc(size_t count, size_t size)
{
    return FAILS("calloc")
               ? NULL
               : noted(__libc_calloc(count, size), __builtin_return_address(0));
}

void *reallocarray(void *p, size_t count, size_t size)
{
    size_t bytes;
    if (FAILS("reallocarray"))
        return NULL;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    if (watched(__builtin_return_address(0)))
        forget(p);
    return noted(__libc_realloc(p, bytes), __builtin_return_address(0));
}

void free(void *p)
{
    if (watched(__builtin_return_address(0)))
        forget(p);
    __libc_free(p);
}

/* -------------------------------------------------------------- the system */

#define REAL(name)                                                             \
    static __typeof__(name) *real;                                             \
    if (real == NULL) {                                                        \
        void *found_ = dlsym(RTLD_NEXT, #name);                                \
        memcpy(&real, &found_, sizeof real);                                   \
    }

FILE *fopen(const char *path, const char *mode)
{
    REAL(fopen)
    return FAILS("fopen") ? NULL : real(path, mode);
}

DIR *opendir(const char *path)
{
    REAL(opendir)
    return FAILS("opendir") ? NULL : real(path);
}

int poll(struct pollfd *fds, nfds_t n, int timeout)
{
    REAL(poll)
    return FAILS("poll") ? -1 : real(fds, n, timeout);
}

void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    REAL(mmap)
    return FAILS("mmap") ? MAP_FAILED : real(at, len, prot, flags, fd, offset);
}

int ioctl(int fd, unsigned long request, ...)
{
    REAL(ioctl)
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return FAILS("ioctl") ? -1 : real(fd, request, argument);
}

long syscall(long number, ...)
{
    REAL(syscall)
    va_list rest;
    long a[6];
    va_start(rest, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    return FAILS("syscall") ? -1
                            : real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
