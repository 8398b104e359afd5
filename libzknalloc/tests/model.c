/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * model.c - see model.h.
 */
#include "model.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "assemble.h"
#include "heap.h"
#include "options.h"
#include "tiling.h"

#define SHELF 64

bool model_refusals;

static pthread_mutex_t shelf_lock = PTHREAD_MUTEX_INITIALIZER;
static struct block shelf[SHELF];

/* The owner of each page of the heap, 0 for none. */
static _Atomic uint32_t *owners;

/* Blocks that the heap has given out, a block that moved being a new one. */
static _Atomic uint64_t requests;

void *model_requested(void *ptr)
{
    if (ptr != NULL && zkn_owns(ptr))
        atomic_fetch_add_explicit(&requests, 1, memory_order_relaxed);
    return ptr;
}

void model_open(void)
{
    zkn_free(zkn_alloc(ZKN_THRESHOLD)); /* the heap is there, if it ever is */
    zkn_stats_t now = stats_now();
    requests = now.hits + now.misses;
    size_t bytes = (heap.span >> heap.page_shift) * sizeof *owners;
    if (bytes == 0)
        return;
    void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK_TRUE(table != MAP_FAILED);
    owners = table;
}

size_t model_random(struct actor *actor, size_t n)
{
    /* High bits: the low ones of this generator are weaker. */
    return (random_next(&actor->seed) >> 11) % n;
}

/* ---------------------------------------------------------------- ownership */

/* The pages of BLOCK pass from owner FROM to owner TO. */
static void own(const struct block *block, uint32_t from, uint32_t to)
{
    if (!zkn_owns(block->ptr))
        return;
    size_t first = (size_t)((char *)block->ptr - heap.base) >> heap.page_shift;
    size_t last = (size_t)((char *)block->ptr + block->size - 1 - heap.base) >>
                  heap.page_shift;
    for (size_t page = first; page <= last; page++) {
        uint32_t was = atomic_exchange(&owners[page], to);
        if (was != from) {
            fprintf(stderr, "page %zu of block %p + %zu: owner %u, not %u\n",
                    page, (void *)block->ptr, block->size, was, from);
            abort();
        }
    }
}

/* ----------------------------------------------------------------- contents */

#define PAINT_STEP                                                             \
    4093 /* a prime below the page: every page, other offsets                  \
          */

static void paint(struct block *block, unsigned char fill, bool dense)
{
    block->fill = fill;
    block->dense = dense;
    block->ptr[0] = block->ptr[block->size - 1] = fill;
    for (size_t at = 0; dense && at < block->size; at += PAINT_STEP)
        block->ptr[at] = fill;
}

/* The first SIZE bytes are as they were painted when there were more. */
static void check_paint(const struct block *block, size_t size)
{
    CHECK(block->ptr[0], ==, block->fill);
    if (size == block->size)
        CHECK(block->ptr[size - 1], ==, block->fill);
    for (size_t at = 0; block->dense && at < size; at += PAINT_STEP)
        CHECK(block->ptr[at], ==, block->fill);
}

static void check_zero(const struct block *block, bool whole)
{
    if (whole) {
        CHECK_TRUE(is_zero(block->ptr, block->size));
        return;
    }
    for (size_t at = 0; at < block->size; at += 509)
        CHECK(block->ptr[at], ==, 0);
    CHECK(block->ptr[block->size - 1], ==, 0);
}

/* --------------------------------------------------------------- operations */

/* Half of them one of a few sizes that come again and again, as a prover's do;
 * the others from 1 byte to 8 MiB, now and then a page beside a power of two.
 */
static size_t pick_size(struct actor *actor)
{
    size_t size;
    switch (actor->pick(actor, 8)) {
    case 0: /* the system's */
        return 1 + actor->pick(actor, ZKN_THRESHOLD + 64);
    case 1:
        size = ZKN_THRESHOLD << actor->pick(actor, 7);
        return size + actor->pick(actor, size);
    case 2:
        size = (size_t)1 << (17 + actor->pick(actor, 5));
        return size + 4096 * actor->pick(actor, 3) - 4096;
    case 3:
        return ((size_t)1 << 20) + actor->pick(actor, 4) * 4096;
    default:
        return ZKN_THRESHOLD * (1 + actor->pick(actor, 4));
    }
}

/* Whether a request was refused, as it may be. */
static bool refused(const void *ptr)
{
    if (ptr != NULL)
        return false;
    CHECK_TRUE(model_refusals);
    CHECK(errno, ==, ENOMEM);
    return true;
}

static void check_new(struct actor *actor, struct block *block, size_t align)
{
    bool large = block->size >= ZKN_THRESHOLD;
    if (!large)
        CHECK(zkn_owns(block->ptr), ==, 0);
    if (align == 0)
        align = large ? 64 : 16;
    CHECK((uintptr_t)block->ptr % align, ==, 0);
    CHECK(zkn_usable_size(block->ptr), >=, block->size);
    own(block, 0, actor->name);
}

bool model_alloc(struct actor *actor, struct block *block, size_t size,
                 size_t align, bool zeroed)
{
    errno = 0;
    block->size = size;
    if (zeroed)
        block->ptr = zkn_calloc(1, size);
    else if (align > 0)
        block->ptr = zkn_aligned_alloc(align, size);
    else
        block->ptr = zkn_alloc(size);
    if (refused(model_requested(block->ptr)))
        return false;
    actor->held += size;
    check_new(actor, block, align);
    if (zeroed)
        check_zero(block, actor->pick(actor, 4) == 0);
    unsigned char fill = (unsigned char)(1 + actor->pick(actor, 255));
    paint(block, fill, (actor->fills && !zeroed) || actor->pick(actor, 4) == 0);
    return true;
}

static void allocate(struct actor *actor, struct block *block)
{
    size_t size = pick_size(actor);
    if (actor->held + size > actor->most)
        return;
    size_t kind = actor->pick(actor, 4);
    size_t align = kind == 1 ? (size_t)1 << actor->pick(actor, 23) : 0;
    (void)model_alloc(actor, block, size, align, kind == 0);
}

void model_free(struct actor *actor, struct block *block)
{
    check_paint(block, block->size);
    own(block, actor->name, 0);
    actor->held -= block->size;
    if (actor->pick(actor, 2) == 0)
        zkn_free(block->ptr);
    else
        zkn_free_sized(block->ptr, block->size);
    block->ptr = NULL;
}

bool model_resize(struct actor *actor, struct block *block, size_t size)
{
    size_t had = block->size;
    own(block, actor->name, 0);
    errno = 0;
    void *moved = zkn_realloc(block->ptr, size);
    if (refused(moved)) {
        own(block, 0, actor->name); /* it stays as it was */
        check_paint(block, had);
        return false;
    }
    if (moved != block->ptr)
        block->ptr = model_requested(moved);
    check_paint(block, size < had ? size : had);
    block->size = size;
    actor->held += size - had;
    check_new(actor, block, zkn_owns(moved) ? 64 : 16);
    paint(block, block->fill, block->dense);
    return true;
}

static void resize(struct actor *actor, struct block *block)
{
    size_t size = pick_size(actor), had = block->size;
    if (actor->pick(actor, 4) == 0)
        size = had + actor->pick(actor, had); /* grow, as vectors do */
    if (actor->held + size <= actor->most)
        (void)model_resize(actor, block, size);
}

/* Leave the block for another actor, and free what another has left. */
static void hand_over(struct actor *actor, struct block *block)
{
    struct block *place = &shelf[actor->pick(actor, SHELF)];
    own(block, actor->name, UINT32_MAX);
    actor->held -= block->size;
    pthread_mutex_lock(&shelf_lock);
    struct block other = *place;
    *place = *block;
    pthread_mutex_unlock(&shelf_lock);
    *block = other;
    if (other.ptr != NULL) {
        own(block, UINT32_MAX, actor->name);
        actor->held += block->size;
        model_free(actor, block);
    }
}

static void control(struct actor *actor)
{
    char text[64];
    switch (actor->pick(actor, 8)) {
    case 0:
        zkn_release_cache();
        break;
    case 1:
        zkn_stage_boundary();
        break;
    case 2:
        CHECK(zkn_stats_json(text, sizeof text), >, (int)sizeof text);
        CHECK(strlen(text), ==, sizeof text - 1);
        break;
    default:
        zkn_soften_cache();
    }
}

void actor_act(struct actor *actor)
{
    struct block *block = &actor->slots[actor->pick(actor, MODEL_SLOTS)];
    size_t what = actor->pick(actor, 1024);
    if (what == 0 && actor->pick(actor, 8) == 0)
        control(actor);
    else if (block->ptr == NULL)
        allocate(actor, block);
    else if (what < 128)
        resize(actor, block);
    else if (what < 256)
        hand_over(actor, block);
    else
        model_free(actor, block);
}

void actor_leave(struct actor *actor)
{
    for (size_t i = 0; i < MODEL_SLOTS; i++) {
        if (actor->slots[i].ptr != NULL)
            model_free(actor, &actor->slots[i]);
    }
    CHECK(actor->held, ==, 0);
}

void model_clear_shelf(void)
{
    for (size_t i = 0; i < SHELF; i++) {
        struct block *block = &shelf[i];
        if (block->ptr != NULL) {
            check_paint(block, block->size);
            own(block, UINT32_MAX, 0);
            zkn_free(block->ptr);
            block->ptr = NULL;
        }
    }
}

void model_check_block(const struct block *block)
{
    check_paint(block, block->size);
}

/* ------------------------------------------------------------------- checks */

/* The invariants of tiling.c, on the whole heap. */
static void check_tiling(void)
{
    size_t in_state[REGION_STATES] = {0}, aged = 0, soft = 0;
    const struct region *last = NULL;
    for (uint32_t page = 0; page < heap.top;) {
        struct region *region = region_at(page);
        CHECK(region->page, ==, page);
        CHECK(region->pages, >, 0);
        CHECK_TRUE(region_at(page + region->pages - 1) == region);
        enum region_state state = state_of(region);
        CHECK(state, !=, REGION_SPARE);
        if (last != NULL && last->node == region->node &&
            (is_free(region) || state == REGION_BARE))
            CHECK(state_of(last), !=, state);
        if (state != REGION_LIVE && state != REGION_HELD)
            CHECK_TRUE(region->addr == NULL);
        in_state[state] += counted(region);
        last = region;
        page += region->pages;
    }
    CHECK(in_state[REGION_BUSY], ==, 0);
    CHECK(in_state[REGION_DIRTY] + in_state[REGION_SPARSE], ==, heap.dirty);
    CHECK(in_state[REGION_LIVE] + in_state[REGION_HELD], ==, heap.live);
    for (const struct region *r = heap.oldest; r != NULL; r = r->newer) {
        CHECK(state_of(r), ==, r->sparse ? REGION_SPARSE : REGION_DIRTY);
        CHECK_TRUE(r->newer == NULL ? heap.newest == r : r->newer->older == r);
        aged += counted(r);
        soft += r->soft ? counted(r) : 0;
    }
    CHECK(aged, ==, heap.dirty);
    CHECK(soft, ==, heap.soft);
    for (int state = 0; state < REGION_STATES; state++) {
        size_t pages = 0;
        const struct region *r = NULL;
        for (unsigned node = 0; node < heap.nodes; node++)
            while ((r = tree_smaller(&heap.free[node][state], r)) != NULL) {
                CHECK(state_of(r), ==, state);
                pages += counted(r);
            }
        if (state == REGION_DIRTY || state == REGION_ZERO ||
            state == REGION_SPARSE || state == REGION_BARE)
            CHECK(pages, ==, in_state[state]);
    }
}

size_t model_mappings(void)
{
    return mappings_within(heap.base, heap.span, HUGE_PAGE, NULL);
}

static void check_budget(void)
{
    size_t slack = ((size_t)8 << 20) >> heap.page_shift;
    if (!model_refusals) {
        CHECK(heap.dirty, <=, heap.ceiling);
        CHECK(heap.live + heap.dirty, <=, heap.high + heap.high / 24 + slack);
    }
    CHECK(heap.high, >=, heap.live);
    /* What moves, is sparse or becomes accessible are whole huge pages, and the
     * rest is one mapping.  What is moved and sparse now gives no lower bound:
     * mappings do not always join again (assemble.h), and seldom do where
     * threads grow the heap at one time. */
    if (!model_refusals && options.debug == 0) {
        size_t ragged,
            count = mappings_within(heap.base, heap.span, HUGE_PAGE, &ragged);
        CHECK(ragged, ==, 0);
        CHECK(count, <=, heap.top / HUGE_PAGES + 1);
    }
}

static void count(const struct block *block, size_t *regions, size_t *bytes)
{
    if (block->ptr != NULL && zkn_owns(block->ptr)) {
        const struct region *region = region_of(block->ptr);
        ++*regions;
        *bytes +=
            region->sparse ? pages_to_bytes(counted(region)) : block->size;
    }
}

void model_check(struct actor *const *actors, size_t n)
{
    size_t regions = 0, bytes = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < MODEL_SLOTS; j++)
            count(&actors[i]->slots[j], &regions, &bytes);
    }
    for (size_t i = 0; i < SHELF; i++)
        count(&shelf[i], &regions, &bytes);

    zkn_stats_t now = stats_now();
    CHECK(now.regions_now, ==, regions);
    CHECK(now.live_now, >=, bytes);
    CHECK(now.hits + now.misses, ==, now.frees + regions);
    CHECK(now.hits + now.misses, ==, atomic_load(&requests));
    CHECK(now.magazine_hits, <=, now.hits);
    CHECK(now.live_peak, >=, now.live_now);
    CHECK(now.cached_peak, >=, heap.dirty << heap.page_shift);
    uint64_t hits = 0, misses = 0;
    for (size_t i = 0; i < ZKN_STATS_CLASSES; i++) {
        hits += now.classes[i].hits;
        misses += now.classes[i].misses;
    }
    CHECK(hits, ==, now.hits);
    CHECK(misses, ==, now.misses);
    if (owners == NULL) {
        CHECK(now.hits + now.misses, ==, 0);
        return;
    }
    /* A request that the magazines do not serve enforces the budget: what
     * zkn_soften_cache() held while another thread took memory counts again. */
    errno = 0;
    void *ptr =
        model_requested(zkn_aligned_alloc((size_t)4 << 20, (size_t)4 << 20));
    (void)refused(ptr);
    zkn_free(ptr);
    heap_quiet(); /* the lock, and no run BUSY: the watcher may be at it
                   */
    check_tiling();
    check_budget();
    now = stats_now();
    heap_unlock();
    CHECK(now.live_now + now.cached_now, ==, now.committed_now);
}

size_t model_resident(void)
{
    FILE *file = fopen("/proc/self/smaps", "r");
    CHECK_TRUE(file != NULL);
    char line[512];
    size_t bytes = 0, kib;
    uintptr_t start = 0, end;
    while (fgets(line, sizeof line, file) != NULL) {
        (void)sscanf(line, "%zx-%zx ", &start, &end);
        if (start - (uintptr_t)heap.base < heap.span &&
            sscanf(line, "Rss: %zu kB", &kib) == 1)
            bytes += kib << 10;
    }
    fclose(file);
    return bytes;
}

void model_check_empty(void)
{
    model_check(NULL, 0);
    zkn_release_cache();
    CHECK(stats_now().live_now, ==, 0);
    CHECK(stats_now().committed_now, ==, 0);
    CHECK(model_resident(), ==, 0);
    for (size_t page = 0; owners != NULL && page < heap.top; page++)
        CHECK(owners[page], ==, 0);
}
