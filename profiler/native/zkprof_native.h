/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * zkprof_native.h - what zkprof's Python side asks of C.
 *
 * Only work that Python cannot do (system calls without a wrapper) or cannot
 * do in time (reading ring buffers, walking kernel call chains) is here; what
 * to measure, and what it means, is decided in Python and passed in as data.
 *
 *   classifier.c  kernel addresses -> roles -> one class per sample
 *   attach.c      which events are open: threads, children, CPUs, rings
 *   sampler.c     what their records say
 *   trace.c       ... those of tracepoints: memory asked for, locks waited for
 *   ring.c        the perf ring buffer: one record after another, in order
 *   space.c       what is mapped where in each process
 *   unwind.c      the user-mode call stack of a sample
 *   cfi.c         ... by the call frame information of ELF files
 *   tally.c       samples -> counts by thread, time slice and class; stacks
 *   target.c      reads another process's memory; never writes to it
 *   calibrate.c   costs on this machine: a page touched, a page unmapped
 *   bootstrap.c   confidence intervals by resampling time blocks
 *
 * Rules for every function below: an int result is 0 or more for success and
 * -errno for failure; objects are opaque and are used by one thread at a time
 * (there are no locks); free functions accept NULL.  _native.cdef.txt repeats
 * these declarations for CFFI, and the compiler checks one against the other.
 */
#ifndef ZKPROF_NATIVE_H
#define ZKPROF_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/* ------------------------------------------------------------ classifier */

/* One kernel function and the set of roles (bits) that it plays.  A name that
 * ends in '*' stands for every function that starts so. */
typedef struct zkp_symbol {
    const char *name;
    uint64_t roles;
} zkp_symbol_t;

/* A call chain whose functions play all of these roles is of this kind; the
 * first rule that matches wins. */
typedef struct zkp_rule {
    uint64_t roles;
    uint32_t kind;
} zkp_rule_t;

typedef struct zkp_classifier zkp_classifier_t;

/* Find SYMBOLS in the kernel's symbol list at path KALLSYMS.
 * Errors: -EPERM where the list hides its addresses, -ENODATA where it has
 * none of SYMBOLS, -ENOMEM, and those of fopen(). */
int zkp_classifier_new(const char *kallsyms, const zkp_symbol_t *symbols,
                       size_t n_symbols, const zkp_rule_t *rules,
                       size_t n_rules, uint32_t default_kind,
                       zkp_classifier_t **out);

/* The same from ADDRESSES that calls return to, where they are known but
 * their functions are not. */
int zkp_classifier_from_calls(const uint64_t *addresses, const uint64_t *roles,
                              size_t n, const zkp_rule_t *rules, size_t n_rules,
                              uint32_t default_kind, zkp_classifier_t **out);
void zkp_classifier_free(zkp_classifier_t *c);

/* All roles played in a kernel call chain, the innermost address first. */
uint64_t zkp_classifier_roles(const zkp_classifier_t *c, const uint64_t *ips,
                              size_t n);
/* The kind of a chain with these roles. */
uint32_t zkp_classifier_kind(const zkp_classifier_t *c, uint64_t roles);
/* How many address ranges the symbols were found at. */
size_t zkp_classifier_size(const zkp_classifier_t *c);

/* --------------------------------------------------------------- sampler */

enum {
    ZKP_SCOPE_TASKS = 0, /* an event per thread and CPU, inherited */
    ZKP_SCOPE_CPUS = 1   /* an event per CPU; other processes are dropped */
};

enum {
    ZKP_EVENT_CPU_CLOCK = 0,   /* a sample per period of CPU time */
    ZKP_EVENT_PAGE_FAULTS = 1, /* a sample every so many faults in user mode */
    ZKP_EVENT_TRACE = 2        /* tracepoints: see zkp_traffic */
};

typedef struct zkp_sampler zkp_sampler_t;

typedef struct zkp_sampler_config {
    int32_t pid;
    uint32_t scope;
    uint32_t event;
    uint32_t follow; /* child processes too, present and future */
    uint32_t kernel; /* sample kernel mode too, with its call chains */
    uint32_t jitter; /* vary the period, by event and while running */
    /* Keep the kernel's call chains as stacks, in place of the user's. */
    uint32_t keep_kernel;
    uint32_t keep_moments; /* see zkp_moment */
    uint32_t stack_bytes;  /* of the stack to copy; 0: frame pointers */
    double rate_hz;        /* ZKP_EVENT_CPU_CLOCK */
    uint32_t faults;       /* ZKP_EVENT_PAGE_FAULTS: the period */
    /* ... and a sampler of the same processes, which outlives this one and
     * says what is mapped where; see also zkp_sampler_config_t.all_maps. */
    zkp_sampler_t *maps_of;
    uint32_t all_maps;       /* note all new mappings, not only code */
    uint32_t trace_syscalls; /* ZKP_EVENT_TRACE: ids of raw_syscalls: */
    uint32_t trace_lock;     /* sys_enter, of mmap_lock: start_locking */
    uint32_t trace_locked;   /* and acquire_returned; 0 leaves one out */
    uint64_t start_ns;       /* CLOCK_MONOTONIC: start of bin 0 */
    uint64_t bin_ns;         /* width of a time slice */
    const zkp_classifier_t *classifier; /* outlives the sampler; see kernel */
    uint64_t overlay_roles;             /* roles kept beside the kind */
    uint64_t entry_roles; /* roles one of which every kernel chain plays */
    uint32_t user_kind;   /* the kind of a sample in user mode, */
    uint32_t file_kind;   /* of a fault in a mapped file, */
    uint32_t lost_kind;   /* and of one at an address of unknown kind */
} zkp_sampler_config_t;

/* COUNT samples of one thread, time slice, kind and set of overlays. */
typedef struct zkp_cell {
    int32_t tid;
    uint32_t bin;
    uint32_t kind;
    uint32_t overlays;
    uint64_t count;
} zkp_cell_t;

/* COUNT samples of one thread and kind at one user-mode call stack. */
typedef struct zkp_stack {
    int32_t tid;
    uint32_t kind;
    uint32_t node; /* innermost frame; 0: no user frames were recorded */
    uint32_t reserved;
    uint64_t count;
} zkp_stack_t;

/* A frame under its caller: stacks share their outer parts. */
typedef struct zkp_node {
    uint64_t ip;     /* within the instruction that runs or calls */
    uint32_t parent; /* 0: outermost */
    uint32_t module; /* the file that ip is an address of; 0: none */
} zkp_node_t;

/* Where a file is mapped, or (without ZKP_MAP_FILE) anonymous memory.  The C
 * library is marked: stacks begin in it. */
enum { ZKP_MAP_EXEC = 1, ZKP_MAP_FILE = 2, ZKP_MAP_LIBC = 4 };

typedef struct zkp_map {
    uint64_t start, end;
    uint64_t bias;   /* addresses of the process minus those of the file */
    uint32_t module; /* its number, 0: none */
    uint32_t flags;
} zkp_map_t;

/* Two sections of an ELF file, and the addresses that it gives them. */
typedef struct zkp_cfi {
    const uint8_t *hdr, *frames;
    size_t hdr_len, frames_len;
    uint64_t hdr_vaddr, frames_vaddr;
} zkp_cfi_t;

typedef struct zkp_sampler_counts {
    uint64_t samples;   /* samples of the target, all of them in cells */
    uint64_t lost;      /* samples that the kernel or we had no room for */
    uint64_t throttled; /* times that the kernel slowed sampling down */
    uint64_t foreign;   /* samples of other processes (ZKP_SCOPE_CPUS) */
    uint64_t no_entry;  /* kernel chains without any of entry_roles */
    uint64_t kernel;    /* samples with a kernel chain */
    uint64_t complete;  /* user stacks that reach the outermost frame */
    uint64_t guessed;   /* user stacks found by frame pointers in part */
    uint64_t unmapped;  /* user stacks with an address of no known file */
    uint32_t threads;   /* threads attached to at the start */
    uint32_t events;    /* file descriptors in use */
    uint32_t ring_bytes;
} zkp_sampler_counts_t;

/* Attach to every thread of config->pid and start sampling.  The target is
 * neither stopped nor changed.
 * Errors: -EACCES or -EPERM (not permitted), -EMFILE (out of descriptors),
 * -ESRCH (no such process), -ENOMEM, others of perf_event_open(). */
int zkp_sampler_open(const zkp_sampler_config_t *config, zkp_sampler_t **out);
void zkp_sampler_close(zkp_sampler_t *s);

/* Wait up to TIMEOUT_MS for samples, then count all that there are. */
int zkp_sampler_drain(zkp_sampler_t *s, int timeout_ms);

/* Move the cells counted since the last call to OUT, which has room for the
 * zkp_sampler_cells() of them; returns their number. */
size_t zkp_sampler_cells(const zkp_sampler_t *s);
size_t zkp_sampler_take(zkp_sampler_t *s, zkp_cell_t *out);

/* The stacks counted so far, and the frames that they refer to: node i is
 * nodes[i]; nodes[0] is unused. */
size_t zkp_sampler_stacks(const zkp_sampler_t *s);
size_t zkp_sampler_copy_stacks(const zkp_sampler_t *s, zkp_stack_t *out);
size_t zkp_sampler_nodes(const zkp_sampler_t *s, const zkp_node_t **nodes);

/* One sample: kept only where wanted, and no more than a million of them. */
typedef struct zkp_moment {
    uint64_t time; /* CLOCK_MONOTONIC, nanoseconds */
    int32_t tid;
    uint32_t kind;
    uint32_t node;
    uint32_t reserved;
} zkp_moment_t;

size_t zkp_sampler_moments(const zkp_sampler_t *s, const zkp_moment_t **out);

void zkp_sampler_counts(const zkp_sampler_t *s, zkp_sampler_counts_t *out);

/* Let events count or not; they do from zkp_sampler_open() on. */
int zkp_sampler_enable(zkp_sampler_t *s, int on);

/* The name of a thread that has been seen to start or change its name: "" if
 * not known.  Valid until the next drain. */
const char *zkp_sampler_name(const zkp_sampler_t *s, int32_t tid);

/* The processes seen, the target first; returns their number, of which at
 * most CAP are put into PIDS.  With STALE, those only whose mappings have to
 * be handed over (again). */
size_t zkp_sampler_pids(const zkp_sampler_t *s, int stale, int32_t *pids,
                        size_t cap);

/* Hand over what walking stacks needs: a file's call frame information, if
 * it has any (returns the file's number), and a process's mappings, sorted. */
int zkp_sampler_add_module(zkp_sampler_t *s, const zkp_cfi_t *cfi);
int zkp_sampler_set_maps(zkp_sampler_t *s, int32_t pid, const zkp_map_t *maps,
                         size_t n);

/* What ZKP_EVENT_TRACE has counted. */
enum { ZKP_CALLS = 5 }; /* mmap, munmap, madvise, brk, mremap */

typedef struct zkp_traffic {
    uint64_t calls[5];
    uint64_t mapped;    /* bytes of memory (not of files) asked for */
    uint64_t unmapped;  /* bytes given back */
    uint64_t advised;   /* bytes given back by advice */
    uint64_t waited_ns; /* for mmap_lock, added up over threads */
    uint64_t waits;     /* of more than a microsecond */
} zkp_traffic_t;

/* A descriptor of the root of tracefs, mounted for us alone and nowhere to be
 * seen.  Errors: -EPERM where we are not root, -ENOSYS. */
int zkp_tracefs_open(void);

void zkp_sampler_traffic(const zkp_sampler_t *s, zkp_traffic_t *out);

/* ---------------------------------------------------------------- target */

/* Copy LEN bytes at ADDR of process PID to BUF: all of them or failure.
 * Errors: -EFAULT (not mapped there), -EPERM, -ESRCH. */
int zkp_target_read(int32_t pid, uint64_t addr, void *buf, size_t len);

/* The addresses from START to END at which NEEDLE_LEN bytes equal NEEDLE, at
 * multiples of STEP from START; at most CAP of them.  Returns their number.
 * Unreadable pages are passed over. */
int zkp_target_find(int32_t pid, uint64_t start, uint64_t end, size_t step,
                    const void *needle, size_t needle_len, uint64_t *out,
                    size_t cap);

/* The rows of ZKN_STATS_LIST, in order: NULL past the end.  KIND becomes 'c'
 * (counter), 'g' (gauge) or 'p' (peak). */
const char *zkp_counter_name(size_t i, char *kind);

/* ------------------------------------------------------------- calibrate */

typedef struct zkp_page_cost {
    double touch_ns; /* CPU time of the first touch of an anonymous page */
    double unmap_ns; /* CPU time of unmapping a page that was touched */
} zkp_page_cost_t;

/* Map, touch and unmap PAGES small pages and time it. */
int zkp_calibrate_pages(size_t pages, zkp_page_cost_t *out);
/* CPU nanoseconds of this thread over a fixed amount of arithmetic. */
uint64_t zkp_calibrate_spin(uint64_t rounds);

/* ------------------------------------------------------------- bootstrap */

/* The 2.5 and 97.5 percentiles of sum(part) / sum(whole), column by column,
 * over RESAMPLES draws of N_BLOCKS blocks with replacement.  PARTS has
 * N_BLOCKS rows of N_COLS.  The draws are the same in every run. */
int zkp_bootstrap(const double *parts, const double *whole, size_t n_blocks,
                  size_t n_cols, size_t resamples, double *low, double *high);

#endif /* ZKPROF_NATIVE_H */
