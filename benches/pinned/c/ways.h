/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * ways.h - the ways to come by host memory that is to be copied to a device.
 *
 * One process uses one way.  A buffer is known by its number, since the pool's
 * are made before the rounds begin.
 */
#ifndef PINNED_WAYS_H
#define PINNED_WAYS_H

#include <stddef.h>
#include <stdint.h>

#define BUFFERS_MOST 256

struct way {
    const char *name;
    void (*start)(void); /* before the clock runs */
    void *(*take)(unsigned buffer);
    void (*give)(unsigned buffer, void *ptr);
    void (*finish)(void); /* after the last round */
};

/* What was asked for. */
extern unsigned buffer_count;
extern size_t buffer_size[BUFFERS_MOST];

/* Ranges that were registered with the device, by whichever way. */
struct registered {
    uint64_t calls, undone; /* registrations, and those taken back */
    uint64_t bytes, most;   /* registered now, and at most */
    uint64_t refused;       /* by the driver */
};
extern struct registered registered;

/* The way called NAME, or NULL. */
const struct way *way_find(const char *name);

/* Print the names, one a line. */
void way_list(void);

#endif /* PINNED_WAYS_H */
