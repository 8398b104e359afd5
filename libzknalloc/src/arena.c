/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * arena.c - allocations that are cut from one region and freed together.
 *
 * An arena is one region of the cache: a page with the struct below, then the
 * memory that it hands out.  Where the next allocation starts is one 64-bit
 * word, the position, and all that changes when something is allocated:
 *
 *     63          46 45                                     0
 *     |    steps    |         bytes used, padding included  |
 *
 * A step shifts everything that follows by a page and a cache line.  Columns
 * of 2^k bytes cut one after the other would otherwise all start at the same
 * cache set, and reading them row by row would use that set alone; so each
 * allocation of a MiB or more is followed by a step.  The region is larger
 * than the capacity by as many steps as there can be, hence the capacity holds
 * to the byte.
 *
 * Invariants: the memory above the position belongs to nobody; the position
 * of each mark that is held is at most the arena's, and marks are ordered.
 *
 * Threads: allocating is a compare-and-swap of the position.  It cannot be
 * fooled by a reset and a new allocation in between (ABA): the word is the
 * whole state, so an equal word is an equal arena.  Marks, rewinds and resets
 * are rare and take one lock for all arenas, a leaf; a thread that allocates
 * meanwhile gets memory that is freed by the rewind, or that is not, never
 * memory that two own.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "init.h"
#include "log.h"
#include "options.h"
#include "os.h"
#include "zknalloc.h"

#define USED_BITS 46
#define USED_MOST (((uint64_t)1 << USED_BITS) - 1)
#define ONE_STEP  ((uint64_t)1 << USED_BITS)
#define STEP_MOST ((size_t)UINT64_MAX >> USED_BITS)

/* As regions of their own, smaller allocations are not coloured. */
#define COLOUR_LEAST MIB
#define COLOUR_BYTES ((size_t)4096 + 64)

/* "zknarena", to tell a destroyed arena while its memory is not reused. */
#define MAGIC UINT64_C(0x616e6572616e6b7a)

struct mark {
    uint64_t position;
    int id;
};

struct zkn_arena {
    uint64_t magic;
    uint64_t capacity;
    size_t steps_most;
    char *memory;
    _Atomic uint64_t peak; /* bytes, brought up to date when some are freed */

    /* Under the lock. */
    int depth; /* marks held */
    int serial;
    struct mark marks[ZKN_ARENA_MARKS];

    /* On a line of its own: all threads write it. */
    _Alignas(64) _Atomic uint64_t position;
};

/* A mark is its place in marks[] and a serial number, which tells it from the
 * ended marks that held the place before. */
#define MARK_SERIALS (INT_MAX / ZKN_ARENA_MARKS)

_Static_assert(sizeof(struct zkn_arena) <= 4096, "must fit into a page");

static size_t used(uint64_t position)
{
    return position & USED_MOST;
}

static size_t steps(uint64_t position)
{
    return position >> USED_BITS;
}

static void check(const struct zkn_arena *arena)
{
    if (unlikely(arena->magic != MAGIC))
        log_misuse("not an arena (destroyed before?)", arena);
}

/* ------------------------------------------------------------------- lock */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int fork_error; /* of pthread_atfork() */

static void fork_prepare(void)
{
    pthread_mutex_lock(&lock);
}

static void fork_done(void)
{
    pthread_mutex_unlock(&lock);
}

static void register_fork_handlers(void)
{
    fork_error = pthread_atfork(fork_prepare, fork_done, fork_done);
}

/* ------------------------------------------------------------ life, bumps */

zkn_arena_t *zkn_arena_create(size_t capacity, unsigned flags)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if ((flags & ~ZKN_ARENA_POPULATE) != 0) {
        errno = EINVAL;
        return NULL;
    }
    pthread_once(&once, register_fork_handlers);
    if (capacity > USED_MOST || fork_error != 0) {
        errno = ENOMEM;
        return NULL;
    }
    (void)init_cache(); /* reads the options */
    size_t page = os_page_size(), steps_most = 0;
    if (options.colour)
        steps_most = min_size(capacity / COLOUR_LEAST, STEP_MOST);
    size_t memory = round_up(capacity + steps_most * COLOUR_BYTES, page);

    /* A small arena comes from the cache, too. */
    size_t size = max_size(page + memory, ZKN_THRESHOLD);
    struct zkn_arena *arena = zkn_aligned_alloc(page, size);
    if (arena == NULL)
        return NULL;
    memset(arena, 0, sizeof *arena);
    arena->magic = MAGIC;
    arena->capacity = capacity;
    arena->steps_most = steps_most;
    arena->memory = (char *)arena + page;
    if ((flags & ZKN_ARENA_POPULATE) != 0 && memory > 0)
        os_populate(arena->memory, memory);
    return arena;
}

void zkn_arena_destroy(zkn_arena_t *arena)
{
    if (arena == NULL)
        return;
    check(arena);
    arena->magic = 0;
    arena->capacity = 0; /* whoever allocates now comes to exhausted() */
    store_relaxed(&arena->position, 0);
    zkn_free(arena);
}

static COLD void *exhausted(const struct zkn_arena *arena)
{
    check(arena);
    errno = ENOMEM;
    return NULL;
}

void *zkn_arena_alloc(zkn_arena_t *arena, size_t size, size_t align)
{
    if (unlikely(!is_power_of_two(align))) {
        errno = EINVAL;
        return NULL;
    }
    size = max_size(size, 1);
    bool coloured = size >= COLOUR_LEAST && align <= 64;
    uint64_t position = load_acquire(&arena->position), next;
    uintptr_t start;
    do {
        start = (uintptr_t)arena->memory + used(position) +
                steps(position) * COLOUR_BYTES;
        size_t padding = -start & (align - 1);
        size_t room = arena->capacity - used(position);
        if (unlikely(padding > room || size > room - padding))
            return exhausted(arena);
        start += padding;
        next = position + padding + size;
        if (coloured && steps(position) < arena->steps_most)
            next += ONE_STEP;
    } while (!atomic_compare_exchange_weak_explicit(&arena->position, &position,
                                                    next, memory_order_acq_rel,
                                                    memory_order_acquire));
    return (void *)start;
}

/* ----------------------------------------------------------- freeing again */

static void note_peak(struct zkn_arena *arena, uint64_t bytes)
{
    uint64_t peak = load_relaxed(&arena->peak);
    while (bytes > peak &&
           !atomic_compare_exchange_weak(&arena->peak, &peak, bytes))
        continue;
}

/* The caller holds the lock. */
static void go_back(struct zkn_arena *arena, uint64_t position)
{
    note_peak(arena, used(atomic_exchange(&arena->position, position)));
}

void zkn_arena_reset(zkn_arena_t *arena)
{
    check(arena);
    pthread_mutex_lock(&lock);
    arena->depth = 0;
    go_back(arena, 0);
    pthread_mutex_unlock(&lock);
}

int zkn_arena_mark(zkn_arena_t *arena)
{
    int id = -ENOMEM;
    check(arena);
    pthread_mutex_lock(&lock);
    if (arena->depth < ZKN_ARENA_MARKS) {
        int place = arena->depth++;
        arena->serial = (arena->serial + 1) % MARK_SERIALS;
        id = arena->serial * ZKN_ARENA_MARKS + place;
        arena->marks[place].id = id;
        arena->marks[place].position = load_acquire(&arena->position);
    }
    pthread_mutex_unlock(&lock);
    return id;
}

int zkn_arena_rewind(zkn_arena_t *arena, int mark)
{
    int error = -EINVAL;
    check(arena);
    pthread_mutex_lock(&lock);
    int place = mark % ZKN_ARENA_MARKS;
    if (mark >= 0 && place < arena->depth && arena->marks[place].id == mark) {
        arena->depth = place;
        go_back(arena, arena->marks[place].position);
        error = 0;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* ---------------------------------------------------------------- queries */

size_t zkn_arena_used(const zkn_arena_t *arena)
{
    return used(load_acquire(&arena->position));
}

size_t zkn_arena_peak(const zkn_arena_t *arena)
{
    return max_size(load_relaxed(&arena->peak), zkn_arena_used(arena));
}

size_t zkn_arena_capacity(const zkn_arena_t *arena)
{
    return arena->capacity;
}
