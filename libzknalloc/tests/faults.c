/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * faults.c - see faults.h.
 */
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "testing.h"

const int fault_errors[] = {ENOMEM, EINVAL, EPERM, EAGAIN};

const char *const fault_names[] = {
#define X(name) #name,
    FAULT_FUNCTIONS(X)
#undef X
};

struct fault_plan fault_plan = {.function = FAULT_FUNCTION_COUNT};
_Atomic unsigned fault_counts[FAULT_FUNCTION_COUNT];
_Atomic unsigned fault_injected[FAULT_FUNCTION_COUNT];
_Atomic bool faults_armed = true;
_Atomic size_t fault_chance[FAULT_FUNCTION_COUNT];

/* The library's constructor runs before main(). */
static void read_plan(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    const char *text = getenv(FAULT_PLAN_VARIABLE);
    if (text != NULL)
        CHECK(sscanf(text, "%zu:%zu:%zu:%zu", &fault_plan.function,
                     &fault_plan.number, &fault_plan.error,
                     &fault_plan.lasting),
              ==, 4);
}

/* Whether this call of FUNCTION fails; sets errno if so. */
static bool fails(enum fault_function function)
{
    if (!faults_armed)
        return false;
    read_plan();
    unsigned number = ++fault_counts[function];
    size_t chance = fault_chance[function];
    if (chance > 0) {
        uint64_t state = number * 0x9e3779b97f4a7c15U + function + 1;
        uint64_t choice = random_next(&state) >> 16;
        if (choice % chance != 0)
            return false;
        errno = fault_errors[choice / chance % FAULT_ERRORS];
    } else if (fault_plan.function != function || number < fault_plan.number ||
               (number > fault_plan.number && fault_plan.lasting == 0)) {
        return false;
    } else {
        errno = (int)fault_plan.error;
    }
    fault_injected[function]++;
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
WRAP(pthread_create, int, errno,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*body)(void *),
      void *argument),
     (thread, attr, body, argument))
WRAP(pthread_atfork, int, errno,
     (void (*prepare)(void), void (*parent)(void), void (*child)(void)),
     (prepare, parent, child))
/* These return the errno, and malloc() and its kin set ENOMEM, whatever was
 * wrong. */
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
