/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * target.c - reading another process's memory.
 *
 * process_vm_readv() neither stops the target nor needs its help.  Whatever
 * is read may be changing, corrupt or hostile: the caller checks it.
 */
#include "zkprof_native.h"

#include "zknalloc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

int zkp_target_read(int32_t pid, uint64_t addr, void *buf, size_t len)
{
    struct iovec local = {buf, len};
    struct iovec remote = {(void *)(uintptr_t)addr, len};
    ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (n < 0)
        return -errno;
    return (size_t)n == len ? 0 : -EFAULT;
}

/* Read at a time; a multiple of every page size. */
#define CHUNK ((size_t)256 * 1024)

int zkp_target_find(int32_t pid, uint64_t start, uint64_t end, size_t step,
                    const void *needle, size_t needle_len, uint64_t *out,
                    size_t cap)
{
    if (!step || !needle_len || needle_len > step || CHUNK % step)
        return -EINVAL; /* so that no needle crosses a chunk's end */
    char *chunk = malloc(CHUNK);
    if (!chunk)
        return -ENOMEM;
    size_t found = 0;
    int rc = 0;
    for (uint64_t at = start; at < end && found < cap; at += CHUNK) {
        size_t len = end - at < CHUNK ? (size_t)(end - at) : CHUNK;
        struct iovec local = {chunk, len};
        struct iovec remote = {(void *)(uintptr_t)at, len};
        ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
        if (n < 0 && errno != EFAULT) {
            rc = -errno;
            break;
        }
        size_t got = n < 0 ? 0 : (size_t)n;
        for (size_t i = 0; i + needle_len <= got && found < cap; i += step)
            if (memcmp(chunk + i, needle, needle_len) == 0)
                out[found++] = at + i;
    }
    free(chunk);
    return rc ? rc : (int)found;
}

enum { COUNTER = 'c', GAUGE = 'g', PEAK = 'p' };

const char *zkp_counter_name(size_t i, char *kind)
{
#define ROW(kind_, name_, meaning_) {#name_, (char)(kind_)},
    static const struct {
        const char *name;
        char kind;
    } rows[] = {ZKN_STATS_LIST(ROW)};
#undef ROW
    if (i >= sizeof rows / sizeof rows[0])
        return NULL;
    *kind = rows[i].kind;
    return rows[i].name;
}
