/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * replay.c - the recorded allocations of a real prover, again.
 *
 * A trace is every request of 64 KiB and more that a prover made, in order.
 * One round replays all of it; every page of a block is written once, when the
 * block comes or grows, and blocks that the prover never freed are freed at the
 * end of the round.  The first round is the cold one: the allocator has no
 * memory yet.
 *
 * benches/traces.py writes the file that is mapped here, little more than an
 * array of the calls: block names are already slots of a table, and each call
 * knows the place that a perfect plan, drawn up with the future known, gives
 * its block.  The limit uses those places.  Replaying thus costs an array walk.
 *
 * With several threads each makes the calls that its original made, in the
 * recorded order: `turn` is the next call that may be made.  Only the calls
 * take turns; pages are visited outside, so that threads do overlap.
 *
 * A block's first and last byte hold the slot's tag from the moment it was
 * visited; they are checked when the block is freed or has been reallocated.
 */
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRACE_MAGIC UINT64_C(0x31454341525a4b5a) /* "ZKZRACE1" */

/* The calls, spelled as in the recordings. */
enum {
    MALLOC = 'm',
    CALLOC = 'c',
    ALIGNED = 'a',
    REALLOC = 'r',
    GROWN = 'g', /* realloc of a block that was too small to be recorded */
    FREE = 'f',
};

/* The file: a header and its calls, in the machine's byte order. */
struct call {
    uint8_t kind;
    uint8_t thread;
    uint16_t unused;
    uint32_t slot;
    uint64_t size;
    uint64_t extra; /* ALIGNED: the alignment; GROWN, REALLOC: the old size */
    uint64_t place; /* offset on the limit */
};

struct header {
    uint64_t magic;
    uint64_t calls;
    uint64_t slots;
    uint64_t threads;
    uint64_t live_peak; /* bytes */
    uint64_t plan_size; /* bytes that the places span */
    uint64_t requests;  /* calls that are not FREE */
    uint64_t unused;
};

struct block {
    unsigned char *p;
    size_t size;
    size_t alignment;
    atomic_bool visited; /* no thread writes its pages any more */
};

struct replay {
    const struct header *header;
    const struct call *calls;
    struct block *blocks;
    bool one_thread;
    _Alignas(128) atomic_ulong turn;
};

static void replay_setup(struct run *run)
{
    struct replay *replay = harness_memory(sizeof(*replay));
    const struct header *header;
    struct stat status;
    int fd;

    if (run->trace == NULL) {
        harness_die("replay needs --trace FILE", 0);
    }
    fd = open(run->trace, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) {
        harness_die(run->trace, errno);
    }
    if ((size_t)status.st_size < sizeof(*header)) {
        harness_die("the file is not a trace of benches/traces.py", 0);
    }
    header = mmap(NULL, (size_t)status.st_size, PROT_READ,
                  MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (header == MAP_FAILED) {
        harness_die("mmap of the trace", errno);
    }
    close(fd);
    if (header->magic != TRACE_MAGIC ||
        (size_t)status.st_size !=
            sizeof(*header) + header->calls * sizeof(struct call) ||
        header->threads > MAX_LANES) {
        harness_die("the file is not a trace of benches/traces.py", 0);
    }
    if (run->threads == 0) {
        run->threads = (unsigned)header->threads;
    } else if (run->threads != 1 && run->threads != header->threads) {
        harness_die("replay takes --threads 1, or as many as recorded", 0);
    }
    replay->one_thread = run->threads == 1;
    replay->header = header;
    replay->calls = (const struct call *)(header + 1);
    replay->blocks = harness_memory(header->slots * sizeof(struct block));
    run->state = replay;
    run->live_peak = header->live_peak;
    run->resident = header->plan_size;
    if (run->limit) {
        /* One plan for all lanes: they share its memory. */
        char *resident = resident_memory(run->resident);

        for (unsigned i = 0; i < run->threads; i++) {
            run->lanes[i].resident = resident;
            run->lanes[i].resident_end = resident + run->resident;
        }
    }
}

static void replay_prepare(struct run *run)
{
    struct replay *replay = run->state;

    atomic_store(&replay->turn, 0);
}

static unsigned char tag(const struct call *call)
{
    return (unsigned char)(call->slot % 255 + 1);
}

/* Check that byte AT of BLOCK has the tag. */
static void check(struct lane *lane, const struct block *block,
                  const struct call *call, size_t at)
{
    lane->corruptions += block->p[at] != tag(call);
}

/* Make CALL on the allocator.  The bytes from the result on are new and to be
 * visited; SIZE_MAX if none are. */
static size_t serve(struct lane *lane, struct block *block,
                    const struct call *call)
{
    size_t size = call->size, old;

    switch (call->kind) {
    case MALLOC:
        block->p = take(lane, size);
        break;
    case CALLOC:
        block->p = take_zeroed(lane, size);
        lane->corruptions += block->p[0] != 0 || block->p[size / 2] != 0 ||
                             block->p[size - 1] != 0;
        break;
    case ALIGNED:
        block->p = take_aligned(lane, size, call->extra);
        lane->corruptions += (uintptr_t)block->p % call->extra != 0;
        break;
    case GROWN:
        block->p = take(lane, call->extra);
        touch(block->p, call->extra, tag(call));
        block->size = call->extra;
        block->alignment = PLAIN;
        /* fall through */
    case REALLOC:
        old = block->size;
        block->p = resize(lane, block->p, old, size);
        block->size = size;
        check(lane, block, call, 0);
        if (size < old) {
            block->p[size - 1] = tag(call);
            return SIZE_MAX;
        }
        check(lane, block, call, old - 1);
        return old;
    default:
        check(lane, block, call, 0);
        check(lane, block, call, block->size - 1);
        give_aligned(lane, block->p, block->size, block->alignment);
        return SIZE_MAX;
    }
    block->size = size;
    block->alignment = call->kind == ALIGNED ? call->extra : PLAIN;
    return 0;
}

/* The same on the limit: the block is where the plan put it. */
static size_t place(struct lane *lane, struct block *block,
                    const struct call *call)
{
    size_t old = block->size;

    if (call->kind == FREE) {
        return SIZE_MAX;
    }
    block->p = launder((unsigned char *)lane->resident + call->place);
    block->size = call->size;
    if (call->kind != REALLOC && call->kind != GROWN) {
        return 0;
    }
    if (call->kind == GROWN) {
        touch(block->p, call->extra, tag(call));
        old = call->extra;
    }
    return old < block->size ? old : SIZE_MAX;
}

/* Write the pages of BLOCK that begin at FROM or later, and its last byte. */
static void visit(struct block *block, const struct call *call, size_t from)
{
    if (from == SIZE_MAX) {
        return;
    }
    from = (from + PAGE - 1) & ~(PAGE - 1);
    if (from < block->size) {
        touch(block->p + from, block->size - from, tag(call));
    } else {
        block->p[block->size - 1] = tag(call);
    }
}

static void make(struct lane *lane, struct replay *replay,
                 const struct call *call, bool take_turns)
{
    struct block *block = &replay->blocks[call->slot];
    size_t from = lane->resident != NULL ? place(lane, block, call)
                                         : serve(lane, block, call);

    if (!take_turns) {
        visit(block, call, from);
        return;
    }
    atomic_store_explicit(&block->visited, false, memory_order_relaxed);
    atomic_store(&replay->turn, (unsigned long)(call - replay->calls) + 1);
    visit(block, call, from);
    atomic_store_explicit(&block->visited, true, memory_order_release);
}

static void replay_round(struct lane *lane)
{
    struct replay *replay = lane->run->state;
    const struct call *end = replay->calls + replay->header->calls;

    if (replay->one_thread) {
        for (const struct call *call = replay->calls; call < end; call++) {
            make(lane, replay, call, false);
        }
        return;
    }
    for (const struct call *call = replay->calls; call < end; call++) {
        const struct block *block = &replay->blocks[call->slot];
        unsigned long mine = (unsigned long)(call - replay->calls);

        if (call->thread != lane->index) {
            continue;
        }
        for (unsigned spins = 0; atomic_load(&replay->turn) != mine; spins++) {
            crew_pause(spins);
        }
        if (call->kind == FREE || call->kind == REALLOC) {
            for (unsigned spins = 0; !atomic_load(&block->visited); spins++) {
                crew_pause(spins);
            }
        }
        make(lane, replay, call, true);
    }
}

const struct pattern replay_patterns[] = {
    {
        .name = "replay",
        .what = "the requests of a recorded prover, every page written",
        .rounds = 20,
        .setup = replay_setup,
        .prepare = replay_prepare,
        .round = replay_round,
    },
    {.name = NULL},
};
