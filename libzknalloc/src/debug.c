/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * debug.c - see debug.h.
 */
#include "debug.h"

#include <string.h>

#include "log.h"
#include "options.h"
#include "os.h"

#define POISON 0xdddddddddddddddd

/* Regions that "unmap" keeps; each may be a mapping of its own. */
#define QUARANTINE_MOST 4096

static struct {
    pthread_mutex_t lock;
    struct region *first, *last; /* linked by left, oldest first */
    size_t count, pages;
} quarantine = {.lock = PTHREAD_MUTEX_INITIALIZER};

void debug_open(void)
{
    if (options.debug == DEBUG_OFF)
        return;
    options.magazine_bytes = 0;
    options.colour = 0;
    options.sparse = 0;
}

uint32_t debug_extra_pages(void)
{
    return options.debug == DEBUG_GUARD ? 1 : 0;
}

/* ------------------------------------------------------------------- poison */

/* Free memory is poison where it was freed, and zero where it was given back
 * since, or never used. */
static void check_poison(const struct region *region)
{
    const uint64_t *word = (const uint64_t *)(void *)page_address(region->page);
    size_t words = pages_to_bytes(region->pages) / sizeof *word;
    for (size_t i = 0; i < words; i++) {
        if (unlikely(word[i] != POISON && word[i] != 0))
            log_misuse("memory was written after it was freed", &word[i]);
    }
}

static void poison(struct region *region)
{
    memset(page_address(region->page), (int)(POISON & 0xff),
           pages_to_bytes(region->pages));
}

/* -------------------------------------------------------------------- guard
 */

static char *guard_page(const struct region *region)
{
    return page_address(region->page + region->pages - 1);
}

static void put_guard(struct region *region, size_t size, size_t alignment)
{
    char *guard = guard_page(region);
    uintptr_t last = (uintptr_t)guard - size;
    last = round_down(last, max_size(alignment, 64));
    /* Where the kernel refuses, the region is as good as any other. */
    if (os_forbid(guard, pages_to_bytes(1)) == 0)
        region->guarded = true;
    store_relaxed(&region->addr, (char *)last);
}

/* Whether the guard is a page like any other again. */
static bool remove_guard(struct region *region)
{
    if (region->guarded && os_commit(guard_page(region), pages_to_bytes(1)))
        return false;
    region->guarded = false;
    return true;
}

/* -------------------------------------------------------------------- unmap
 */

/* The oldest region in quarantine, where there are too many. */
static struct region *leave_quarantine(void)
{
    struct region *region = NULL;
    pthread_mutex_lock(&quarantine.lock);
    if (quarantine.count > QUARANTINE_MOST ||
        pages_to_bytes(quarantine.pages) > heap_span() / 4) {
        region = quarantine.first;
        quarantine.first = region->left;
        quarantine.count--;
        quarantine.pages -= region->pages;
    }
    pthread_mutex_unlock(&quarantine.lock);
    return region;
}

static void enter_quarantine(struct region *region)
{
    pthread_mutex_lock(&quarantine.lock);
    region->left = NULL;
    if (quarantine.first == NULL)
        quarantine.first = region;
    else
        quarantine.last->left = region;
    quarantine.last = region;
    quarantine.count++;
    quarantine.pages += region->pages;
    pthread_mutex_unlock(&quarantine.lock);
}

static struct region *unmap(struct region *region)
{
    char *addr = page_address(region->page);
    size_t length = pages_to_bytes(region->pages);
    (void)os_discard(addr, length);
    if (os_forbid(addr, length) != 0)
        return region;
    enter_quarantine(region);
    region = leave_quarantine();
    /* What cannot be made accessible again stays out of use. */
    if (region != NULL && os_commit(page_address(region->page),
                                    pages_to_bytes(region->pages)) != 0)
        return NULL;
    return region;
}

/* ---------------------------------------------------------- taking, giving */

void debug_take(struct region *region, size_t size, size_t alignment)
{
    if (options.debug == DEBUG_POISON)
        check_poison(region);
    if (options.debug == DEBUG_GUARD)
        put_guard(region, size, alignment);
}

struct region *debug_give(struct region *region)
{
    if (options.debug == DEBUG_POISON)
        poison(region);
    if (options.debug == DEBUG_GUARD && !remove_guard(region))
        return NULL;
    return options.debug == DEBUG_UNMAP ? unmap(region) : region;
}
