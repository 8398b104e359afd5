/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * harness.h - what a benchmark pattern is made of.
 *
 * A pattern is one piece of a prover's memory behaviour, written once against
 * the five operations of memory.h and run in one of two ways:
 *
 *   on an allocator   the operations are malloc, calloc, realloc and free, of
 *                     whatever allocator the process was started with;
 *   on its limit      they hand out slices of memory that has been resident
 *                     since before the clock started, in a place that a plan
 *                     knows beforehand.  No allocator runs, no page faults,
 *                     nothing is cleared or copied: what remains is the work
 *                     itself, and no allocator can be faster.
 *
 * Invariants:
 *   - one process runs one pattern, so that nothing is inherited;
 *   - between the two readings of the clock only the pattern runs: results go
 *     to memory that was mapped and touched before the first round, and
 *     nothing of the harness calls the allocator;
 *   - a lane is used by one thread at a time.  Lane 0 belongs to the main
 *     thread, which works too.  Lanes share nothing but what a pattern shares
 *     on purpose, by atomics.
 */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KIB ((size_t)1024)
#define MIB ((size_t)1024 * KIB)

/* The touch step of patterns that visit every page: the smallest page size
 * there is, so that the work does not depend on the machine. */
#define PAGE ((size_t)4096)

#define HUGE_PAGE (2 * MIB)

#define MAX_LANES 256

struct run;

/* What one thread of a pattern works with. */
struct lane {
    struct run *run;
    unsigned index;
    uint64_t random;      /* state of draw() */
    uint64_t sink;        /* results that must not be optimised away */
    uint64_t corruptions; /* reads that gave what nobody wrote */
    /* The resident memory of a run on the limit; else all three are NULL. */
    char *resident;
    char *resident_next;
    char *resident_end;
} __attribute__((aligned(128)));

struct pattern {
    const char *name;
    const char *what; /* one line for the reader of the tables */
    /* Threads that work; 0 when --threads chooses. */
    unsigned threads;
    unsigned rounds; /* by default */
    /* Operations of one round, where the result is a time per operation. */
    uint64_t operations;
    uint64_t bytes;     /* bytes written or read in one round, all lanes */
    uint64_t live_peak; /* most bytes in use at once, all lanes */
    size_t resident;    /* bytes that a lane needs on the limit */
    bool keeps_blocks;  /* some blocks live on into the next round */
    size_t parameter;   /* for patterns that share code */
    size_t parameter2;
    /* All but round() may be NULL.  setup() runs once and prepare() before each
     * round, on the main thread with the clock stopped; round() runs in every
     * lane at once with the clock running; teardown() runs once at the end. */
    void (*setup)(struct run *run);
    void (*prepare)(struct run *run);
    void (*teardown)(struct run *run);
    void (*round)(struct lane *lane);
};

struct run {
    const struct pattern *pattern;
    bool limit;
    unsigned threads;    /* 0 until setup() where nobody chose */
    unsigned rounds;     /* at most this many, */
    uint64_t budget_ns;  /* or until this much time has been measured, */
    unsigned min_rounds; /* but not before so many rounds */
    const char *trace;   /* replay: the file */
    uint64_t operations; /* these start as the pattern's and may be */
    uint64_t bytes;      /* set by setup() */
    uint64_t live_peak;
    size_t resident;
    void *state; /* the pattern's own, from harness_memory() */
    struct lane lanes[MAX_LANES];
};

/* A list of patterns, ended by one without a name. */
extern const struct pattern fill_patterns[];
extern const struct pattern zero_patterns[];
extern const struct pattern size_patterns[];
extern const struct pattern row_patterns[];
extern const struct pattern pair_patterns[];
extern const struct pattern thread_patterns[];
extern const struct pattern replay_patterns[];

/* Run the program's command line; the result is its exit status:
 * 0 good, 1 the machine refused something, 2 bad usage, 3 the allocator handed
 * out memory that was not as it promised. */
int bench_main(int argc, char **argv);

/* Memory for the harness and the patterns themselves: zeroed, resident, from
 * mmap() so that no allocator is involved.  Never fails: ends the program. */
void *harness_memory(size_t size);

/* As harness_memory(), on huge pages where the machine has them, every page
 * present. */
void *resident_memory(size_t size);

/* Print "bench: ..." and end the program with status 1. */
_Noreturn void harness_die(const char *what, int error);

/* ---------------------------------------------------------------- crew.c */

/* Start the threads of RUN beyond the first, each pinned to one of the CPUs
 * that the process may use.  They wait without system calls. */
void crew_start(struct run *run);

/* Run the pattern's round() in every lane; returns when all are done. */
void crew_round(struct run *run);

void crew_stop(struct run *run);

/* Wait a moment inside a spin loop: SPINS counts the turns so far.  Gives the
 * CPU away once in a while, in case the awaited thread needs it. */
void crew_pause(unsigned spins);

/* ------------------------------------------------------------ small helpers */

/* Make the compiler forget what it knows about P and about memory, so that no
 * write before this is dead and no allocation is removed. */
static inline void *launder(void *p)
{
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

/* The next number of a fast generator (xorshift64*), good enough to choose
 * places and sizes; the same in every run. */
static inline uint64_t draw(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

#endif
