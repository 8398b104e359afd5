/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * look.c - see look.h.
 */
#include "look.h"

#include <string.h>

#include "density.h"
#include "heap.h"
#include "os.h"
#include "stats.h"
#include "zero.h"

bool look_is_zero(const char *addr, size_t size)
{
    const uint64_t *word = (const uint64_t *)(const void *)addr;
    for (size_t i = 0; i < size / sizeof *word; i += 4) {
        if ((word[i] | word[i + 1] | word[i + 2] | word[i + 3]) != 0)
            return false;
    }
    return true;
}

/* How many of the COUNT pages at ADDR hold something, by what PAGES says of
 * them.  The kernel's page of zeros, which reading brings, is nothing. */
static uint32_t count_touched(const char *addr, unsigned char *pages,
                              size_t count)
{
    uint32_t found = 0;
    size_t size = pages_to_bytes(1);
    for (size_t i = 0; i < count; i++) {
        if (pages[i] == OS_PAGE_SHARED && look_is_zero(addr + i * size, size))
            pages[i] = OS_PAGE_NONE;
        found += pages[i] != OS_PAGE_NONE;
    }
    return found;
}

static void clear_touched(char *addr, const unsigned char *pages, size_t count)
{
    size_t size = pages_to_bytes(1), cleared = 0;
    for (size_t i = 0; i < count; i++) {
        if (pages[i] != OS_PAGE_NONE) {
            memset(addr + i * size, 0, size);
            cleared += size;
        }
    }
    stats_add(STAT_bytes_cleared, cleared);
}

int look_clear(uint32_t first, uint32_t length, size_t limit, uint32_t *touched)
{
    unsigned char pages[OS_LOOK_MOST];
    uint32_t found = 0;
    uint64_t spent = 0;
    int fd = os_look_open(), error = fd < 0 ? fd : 0;
    for (uint32_t at = 0; at < length && error == 0; at += OS_LOOK_MOST) {
        char *addr = page_address(first + at);
        size_t count = min_size(length - at, OS_LOOK_MOST);
        error = os_look(fd, addr, count, pages);
        if (error != 0)
            break;
        found += count_touched(addr, pages, count);
        if (found > 0 && found <= limit) {
            uint64_t before = os_now_ns();
            clear_touched(addr, pages, count);
            spent += os_now_ns() - before;
        }
    }
    if (fd >= 0)
        os_look_close(fd);
    if (error == 0 && found >= 8 && found <= limit)
        density_cost(CLEAR_SMALL, spent, found);
    *touched = found;
    return error;
}

void look_wipe(uint32_t page, uint32_t count)
{
    uint32_t touched;
    if (look_clear(page, count, count, &touched) != 0 &&
        os_discard(page_address(page), pages_to_bytes(count)) != 0)
        memset(page_address(page), 0, pages_to_bytes(count));
}

uint32_t look_resident(uint32_t page, uint32_t count)
{
    unsigned char pages[OS_LOOK_MOST];
    uint32_t found = 0;
    int fd = os_look_open();
    for (uint32_t at = 0; at < count && fd >= 0; at += OS_LOOK_MOST) {
        size_t step = min_size(count - at, OS_LOOK_MOST);
        if (os_look(fd, page_address(page + at), step, pages) != 0)
            break;
        for (size_t i = 0; i < step; i++)
            found += pages[i] == OS_PAGE_OWN;
    }
    if (fd >= 0)
        os_look_close(fd);
    return found;
}
