/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * ring.c - the perf ring buffer of one CPU.
 *
 * The kernel appends records and advances data_head; the reader advances
 * data_tail when it is done with them.  Both count bytes for ever and are
 * taken modulo the size.  The kernel writes data_head after the records
 * (hence the acquire) and reads data_tail before it reuses space (hence the
 * release).  Where a record crosses the end, it is put together in scratch.
 */
#include "ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* perf_event_header.size has 16 bits. */
#define MAX_RECORD 65536

int ring_open(struct ring *r, int fd, size_t data_pages)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *r = (struct ring){0};
    r->scratch = malloc(MAX_RECORD);
    if (!r->scratch)
        return -ENOMEM;
    /* The user's share of locked memory (perf_event_mlock_kb) may be in use
     * by others: EPERM then, and a smaller ring will do. */
    int error = EINVAL;
    for (size_t n = data_pages; n >= 4; n /= 2) {
        void *base = mmap(NULL, (n + 1) * page, PROT_READ | PROT_WRITE,
                          MAP_SHARED, fd, 0);
        if (base != MAP_FAILED) {
            r->page = base;
            r->data_bytes = n * page;
            return 0;
        }
        error = errno;
        if (error != EPERM && error != ENOMEM)
            break;
    }
    ring_close(r);
    return -error;
}

void ring_close(struct ring *r)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (r->page)
        munmap(r->page, r->data_bytes + page);
    free(r->scratch);
    *r = (struct ring){0};
}

uint64_t ring_head(const struct ring *r)
{
    return __atomic_load_n(&r->page->data_head, __ATOMIC_ACQUIRE);
}

const struct perf_event_header *ring_next(struct ring *r, uint64_t head)
{
    if (head - r->tail < sizeof(struct perf_event_header))
        return NULL;
    char *data = (char *)r->page + sysconf(_SC_PAGESIZE);
    size_t offset = (size_t)r->tail & (r->data_bytes - 1);
    /* Records are multiples of 8 bytes, so a header never wraps. */
    const struct perf_event_header *h = (const void *)(data + offset);
    size_t size = h->size;
    if (size < sizeof *h || size > head - r->tail) {
        r->tail = head; /* cannot happen; do not loop on it */
        return NULL;
    }
    r->tail += size;
    if (offset + size > r->data_bytes) {
        size_t first = r->data_bytes - offset;
        memcpy(r->scratch, data + offset, first);
        memcpy((char *)r->scratch + first, data, size - first);
        h = r->scratch;
    }
    return h;
}

void ring_release(struct ring *r)
{
    __atomic_store_n(&r->page->data_tail, r->tail, __ATOMIC_RELEASE);
}
