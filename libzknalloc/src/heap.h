/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * heap.h - the page heap: best fit with immediate coalescing over one
 * reservation of address space (region.h has the layout).
 *
 * The scarce thing is resident memory; address space is plentiful.  So a
 * request is served, in this order of preference, from
 *
 *   1. the smallest DIRTY run that is long enough: no fault, no system call;
 *   2. DIRTY and ZERO runs that lie side by side, as many dirty pages as can be
 * had;
 *   3. a ZERO run, and if there is none the heap grows at its top.
 *
 * Steps 2 and 3 need memory.  Budget: live plus dirty pages stay within the
 * high-water mark of live pages plus a stated slack, and dirty pages within
 * the ceiling.  Where new pages would pass it, pages of free runs elsewhere
 * are moved under them (assemble.h) or given back (trim.h) before the caller
 * touches anything, so that the resident size never passes the budget.
 *
 * NUMA: memory is the node's whose CPU touched it first; free runs of
 * different nodes do not join, and steps 1 and 2 look at the requester's node
 * first.  Another node's resident memory comes before a page fault: it is
 * slower by a third, a fault by far more than that.
 *
 * Huge pages: the kernel brings a whole one when any page of it is touched.
 * So a request that ends inside one that was ZERO makes the rest of it DIRTY:
 * it will be resident, and the next requests had better use it.
 *
 * Locks: heap.lock covers bookkeeping only.  A run that needs a system call
 * is taken out of trees and lists as BUSY, the lock is dropped, the call is
 * made, and the run is put back.
 */
#ifndef ZKN_HEAP_H
#define ZKN_HEAP_H

#include <pthread.h>

#include "os.h"
#include "region.h"

/* Nodes beyond this share: correct, only less local. */
#define NODES_MOST 16

/* The most address space that the heap manages. */
#define HEAP_SPAN_MOST ((size_t)8 << 40)

struct heap {
    /* Read on every path; written once, before anything is served, but for the
     * span: see heap_follow_limit(). */
    char *base;
    size_t span;         /* bytes from base on that belong to the heap */
    uint32_t *map;       /* page -> index into pool */
    struct region *pool; /* entry 0 is never used */
    unsigned page_shift;
    _Atomic bool ready;   /* set last, by init.c */
    bool huge;            /* touching a page brings its whole huge page */
    _Atomic uint32_t top; /* pages below are tiled by regions */

    pthread_mutex_t lock;     /* everything from here on; see heap_lock() */
    _Atomic(uintptr_t) owner; /* the thread that has it, or 0 */
    uint32_t map_pages;       /* pages whose map entries are accessible */
    uint32_t pool_size;       /* accessible descriptors */
    uint32_t pool_limit;
    uint32_t pool_next;   /* never used from here on */
    uint32_t spare_count; /* in the list below */
    struct region *spares;
    unsigned nodes;                              /* NUMA nodes with memory */
    struct tree free[NODES_MOST][REGION_STATES]; /* by node, see region.h */
    struct region *oldest, *newest; /* DIRTY and SPARSE, by last use */
    size_t live;                    /* pages, magazines included */
    size_t dirty;                   /* pages, SPARSE runs as they count */
    size_t soft;                    /* pages of dirty that are soft */
    size_t high;                    /* of live, since the last stage ended */
    size_t ceiling;                 /* pages that dirty may reach */
    unsigned clock;                 /* seconds, kept by watch.c */
    unsigned busy;                  /* runs in the state BUSY, and holds */
    unsigned growing;               /* calls that make metadata accessible */
    unsigned sparse;                /* regions that are sparse */
    size_t moves;                   /* see assemble.h */
};

extern HIDDEN struct heap heap;

/* The node of the CPU that runs this, which is where pages come from that it
 * touches first. */
static inline unsigned heap_node(void)
{
    return unlikely(heap.nodes > 1) ? os_node(NULL) % heap.nodes : 0;
}

/* A request: PAGES pages whose address is a multiple of ALIGN pages. */
struct heap_request {
    uint32_t pages;
    uint32_t align;
    uint8_t node;  /* set by heap_take() */
    bool roomy;    /* it will want to grow: leave room behind it */
    bool coloured; /* see heap_place(); the pages allow for it */
};

/* The most bytes that colouring puts in front of a region: less than a page,
 * so that the map entry of the first page still finds it. */
#define COLOUR_MOST (63 * 64)

/* Reserve BYTES of address space and become ready.  CEILING bounds the free
 * memory kept, in bytes.  Returns 0 or -errno. */
HIDDEN int heap_open(size_t bytes, size_t ceiling, bool huge);

/* Where RLIMIT_AS is finite and leaves the process less address space than the
 * heap holds unused, give some of that back.  A system call or two where there
 * is nothing to do. */
HIDDEN void heap_follow_limit(void);

/* Where the pages of a request may come from. */
enum heap_source {
    HEAP_RESIDENT, /* DIRTY runs alone */
    HEAP_ANY,      /* and the kernel */
    HEAP_UNTOUCHED /* the kernel alone */
};

/* A HELD region for REQUEST, its addr at the first page; NULL where SOURCE has
 * none.  *FRESH is the number of its pages that came from the kernel. */
HIDDEN struct region *heap_take(struct heap_request request,
                                enum heap_source source, uint32_t *fresh);

/* Take back a chain (linked by left) of HELD regions.  Returns the pages that
 * are DIRTY now. */
HIDDEN size_t heap_give(struct region *chain);

/* A HELD sparse region of whole huge pages for at least PAGES pages, all of
 * which read as zero, that counts as COUNTED pages or as what it has resident.
 * *FRESH as above. */
HIDDEN struct region *heap_take_sparse(uint32_t pages, uint32_t counted,
                                       uint32_t *fresh);

/* Take back a HELD sparse region: as SPARSE with COUNTED pages resident, or
 * sparse no longer and ZERO or DIRTY.  Returns as heap_give() does. */
HIDDEN size_t heap_give_sparse(struct region *region, enum region_state state,
                               uint32_t counted);

/* REGION stops being sparse.  Needs the lock. */
static inline void heap_unsparse(struct region *region)
{
    heap.sparse -= region->sparse;
    region->sparse = false;
}

/* Make the caller's region PAGES pages long where the pages that follow it
 * are free and SOURCE allows them.  Returns whether it is; *FRESH as above. */
HIDDEN bool heap_extend(struct region *region, uint32_t pages,
                        enum heap_source source, uint32_t *fresh);

/* A HELD region of PAGES pages, more than OLD has, with the content of OLD,
 * which is the caller's and free then: whole huge pages change places, only the
 * ends are copied.  NULL where there is no room, and OLD is as it was; *FRESH
 * as above. */
HIDDEN struct region *heap_relocate(struct region *old, uint32_t pages,
                                    uint32_t *fresh);

/* Cut the caller's region to its first PAGES pages, where that is possible
 * without memory; the rest becomes free. */
HIDDEN void heap_shrink(struct region *region, uint32_t pages);

/* Take heap.lock, unless a thread forks; see lock.c.  A signal handler that
 * interrupted its own thread in here would wait for ever: it ends the process
 * with a message instead. */
HIDDEN bool heap_enter(void);
HIDDEN void heap_unlock(void);

/* The same, but wait for the fork, too. */
HIDDEN void heap_lock(void);

/* No fork until heap_let_go(), and heap_lock() will not wait for one; without
 * the lock, so for what takes it several times.  False while a thread forks. */
HIDDEN bool heap_hold(void);
HIDDEN void heap_let_go(void);

/* Take the lock at a moment when no run is BUSY; heap_unlock() ends that. */
HIDDEN void heap_quiet(void);

/* Keep a chain (linked by left) of HELD regions, or one sparse region, for
 * after the fork. */
HIDDEN void heap_defer(struct region *chain);

/* Around fork(), so that the child finds the heap in order. */
HIDDEN void heap_fork_prepare(void);
HIDDEN void heap_fork_parent(void);
HIDDEN void heap_fork_child(void);

/* ------------------------------------------------ addresses and regions */

/* The span as it is just now.  It is set after the base. */
static inline size_t heap_span(void)
{
    return __atomic_load_n(&heap.span, __ATOMIC_ACQUIRE);
}

/* Whether PTR lies in the heap's address space. */
static inline bool heap_owns(const void *ptr)
{
    return (size_t)((const char *)ptr - heap.base) < heap_span();
}

static inline size_t pages_to_bytes(size_t pages)
{
    return pages << heap.page_shift;
}

/* Pages in a huge page. */
#define HUGE_PAGES (HUGE_PAGE >> heap.page_shift)

static inline char *page_address(uint32_t page)
{
    return heap.base + pages_to_bytes(page);
}

/* Set where in its first page the caller's region starts.  Provers walk many
 * buffers of 2^k bytes at one index; if all of them started at the same offset
 * within a huge page, each row would compete for one set of every cache and of
 * the TLB.  A coloured region is a page longer than it need be, so that runs
 * of them start at successive pages, and starts at a line given by its page.
 */
static inline void heap_place(struct region *region, bool coloured)
{
    size_t line = coloured ? (size_t)(region->page % 64) * 64 : 0;
    store_relaxed(&region->addr, page_address(region->page) + line);
}

/* The region whose first or last page is PAGE, which lies below the top. */
static inline struct region *region_at(uint32_t page)
{
    return &heap.pool[__atomic_load_n(&heap.map[page], __ATOMIC_RELAXED)];
}

/* The region that the program holds at PTR, or NULL.  heap_owns(PTR). */
static inline struct region *region_of(const void *ptr)
{
    size_t page = (size_t)((const char *)ptr - heap.base) >> heap.page_shift;
    if (unlikely(page >= load_relaxed(&heap.top)))
        return NULL;
    struct region *region = region_at((uint32_t)page);
    return likely(load_relaxed(&region->addr) == ptr) ? region : NULL;
}

#endif /* ZKN_HEAP_H */
