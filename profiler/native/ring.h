/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * ring.h - the perf ring buffer of one CPU, read one record at a time.
 */
#ifndef ZKPROF_RING_H
#define ZKPROF_RING_H

#include <linux/perf_event.h>
#include <stddef.h>
#include <stdint.h>

struct ring {
    struct perf_event_mmap_page *page; /* NULL: no ring */
    size_t data_bytes;                 /* a power of two */
    uint64_t tail;                     /* the next byte to read */
    void *scratch;                     /* a record that wraps around, whole */
};

/* Map the ring of event FD: DATA_PAGES, a power of two, or fewer where that
 * is more locked memory than permitted.  Returns 0 or -errno. */
int ring_open(struct ring *r, int fd, size_t data_pages);
void ring_close(struct ring *r);

/* Where the kernel stands now: read no further than this in one go, so that
 * a busy target cannot hold the reader forever. */
uint64_t ring_head(const struct ring *r);

/* The next record before HEAD, or NULL; valid until the next call. */
const struct perf_event_header *ring_next(struct ring *r, uint64_t head);

/* Give the kernel back the space of all records read. */
void ring_release(struct ring *r);

#endif /* ZKPROF_RING_H */
