/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * harness.c - the program: read the command line, run one pattern, print one
 * line of JSON.  The rules it keeps are in harness.h.
 */
#include "harness.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_ROUNDS     100000
#define MIN_ROUNDS     5 /* by default */
#define DEFAULT_RANDOM UINT64_C(0x9E3779B97F4A7C15)

static const struct pattern *const groups[] = {
    fill_patterns, zero_patterns,   size_patterns,   row_patterns,
    pair_patterns, thread_patterns, replay_patterns,
};

#define GROUPS (sizeof(groups) / sizeof(groups[0]))

/* What is measured of one round. */
struct sample {
    uint64_t wall_ns;
    uint64_t cpu_ns; /* of all threads: below wall_ns when others ran */
    uint64_t faults;
};

static const char usage[] =
    "usage: bench PATTERN [--limit] [--rounds N] [--min-rounds N]\n"
    "                     [--budget-ms N] [--threads N] [--trace FILE]\n"
    "       bench --list\n"
    "\n"
    "Runs one allocation pattern and prints its measurements as JSON.\n"
    "  --limit        on resident memory, without an allocator\n"
    "  --rounds N     at most N rounds (default: the pattern's own)\n"
    "  --budget-ms N  stop once N ms were measured after the first round,\n"
    "  --min-rounds N but not before N rounds (default: 5)\n"
    "  --threads N    for patterns that take any number of threads, and for\n"
    "                 replay: 1, or as many as recorded (the default)\n"
    "  --trace FILE   for replay: the trace, as benches/traces.py writes it\n"
    "  --list         print every pattern, one JSON object per line\n";

_Noreturn void harness_die(const char *what, int error)
{
    char line[512];
    int n = snprintf(line, sizeof(line), "bench: %s%s%s\n", what,
                     error != 0 ? ": " : "", error != 0 ? strerror(error) : "");

    if (n > 0) {
        size_t length = (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1;

        if (write(STDERR_FILENO, line, length) < 0) {
            _exit(1);
        }
    }
    _exit(1);
}

static char *map(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        harness_die("mmap", errno);
    }
    return p;
}

void *harness_memory(size_t size)
{
    char *p = map(size);

    memset(p, 0, size); /* a write, so that every page is there */
    return launder(p);
}

void *resident_memory(size_t size)
{
    char *p = map(size + HUGE_PAGE);
    size_t skip = -(uintptr_t)p & (HUGE_PAGE - 1);

    /* Where huge pages are switched off this fails, and small ones do. */
    (void)madvise(p + skip, size, MADV_HUGEPAGE);
    memset(p + skip, 1, size);
    return launder(p + skip);
}

static uint64_t now(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t faults(void)
{
    struct rusage usage_now;

    getrusage(RUSAGE_SELF, &usage_now);
    return (uint64_t)usage_now.ru_minflt + (uint64_t)usage_now.ru_majflt;
}

/* The value of FIELD in /proc/self/status, in bytes; 0 where it has none. */
static uint64_t status_bytes(const char *field)
{
    static char text[8192];
    FILE *f = fopen("/proc/self/status", "re");
    size_t length;
    char *at;

    if (f == NULL) {
        return 0;
    }
    length = fread(text, 1, sizeof(text) - 1, f);
    (void)fclose(f);
    text[length] = '\0';
    at = strstr(text, field);
    return at == NULL ? 0 : strtoull(at + strlen(field), NULL, 10) * 1024;
}

/* An allocator that works in phases takes a round for one. */
#ifdef BENCH_SIZED
void bench_phase_begin(void);
void bench_phase_end(void);
#else
static void bench_phase_begin(void)
{
}

static void bench_phase_end(void)
{
}
#endif

static void one_round(struct run *run)
{
    bool phase = !run->limit && !run->pattern->keeps_blocks;

    if (phase) {
        bench_phase_begin();
    }
    crew_round(run);
    if (phase) {
        bench_phase_end();
    }
}

static unsigned run_rounds(struct run *run, struct sample *samples)
{
    uint64_t spent = 0;
    unsigned n = 0;

    while (n < run->rounds && (spent < run->budget_ns || n < run->min_rounds)) {
        struct sample *s = &samples[n];
        uint64_t faults_before, cpu_before, wall_before;

        if (run->pattern->prepare != NULL) {
            run->pattern->prepare(run);
        }
        for (unsigned i = 0; i < run->threads; i++) {
            run->lanes[i].resident_next = run->lanes[i].resident;
        }
        faults_before = faults();
        cpu_before = now(CLOCK_PROCESS_CPUTIME_ID);
        wall_before = now(CLOCK_MONOTONIC);
        one_round(run);
        s->wall_ns = now(CLOCK_MONOTONIC) - wall_before;
        s->cpu_ns = now(CLOCK_PROCESS_CPUTIME_ID) - cpu_before;
        s->faults = faults() - faults_before;
        spent += n == 0 ? 0 : s->wall_ns; /* the cold round is extra */
        n++;
    }
    return n;
}

static void print_samples(const char *name, const struct sample *samples,
                          unsigned n, size_t offset)
{
    printf(",\"%s\":[", name);
    for (unsigned i = 0; i < n; i++) {
        uint64_t value;

        memcpy(&value, (const char *)&samples[i] + offset, sizeof(value));
        printf("%s%" PRIu64, i == 0 ? "" : ",", value);
    }
    printf("]");
}

static int run_pattern(struct run *run)
{
    const struct pattern *pattern = run->pattern;
    struct sample *samples = harness_memory(run->rounds * sizeof(*samples));
    uint64_t corruptions = 0, base_rss, peak_rss;
    unsigned n;

    run->operations = pattern->operations;
    run->bytes = pattern->bytes;
    run->live_peak = pattern->live_peak;
    run->resident = pattern->resident;
    if (pattern->threads == 0 && run->threads > 1) {
        run->operations *= run->threads; /* the figures are for each lane */
        run->bytes *= run->threads;
        run->live_peak *= run->threads;
    }
    for (unsigned i = 0; i < MAX_LANES; i++) {
        run->lanes[i].run = run;
        run->lanes[i].index = i;
        run->lanes[i].random = DEFAULT_RANDOM + i;
    }
    base_rss = status_bytes("VmRSS:");
    if (pattern->setup != NULL) {
        pattern->setup(run);
    }
    if (run->threads == 0) {
        run->threads = 1;
    }
    for (unsigned i = 0; run->limit && i < run->threads; i++) {
        struct lane *lane = &run->lanes[i];

        if (lane->resident == NULL) {
            lane->resident = resident_memory(run->resident);
            lane->resident_end = lane->resident + run->resident;
        }
    }
    crew_start(run);
    n = run_rounds(run, samples);
    crew_stop(run);
    peak_rss = status_bytes("VmHWM:");
    if (pattern->teardown != NULL) {
        pattern->teardown(run);
    }
    for (unsigned i = 0; i < run->threads; i++) {
        corruptions += run->lanes[i].corruptions;
    }
    printf("{\"pattern\":\"%s\",\"limit\":%s,\"threads\":%u,\"rounds\":%u",
           pattern->name, run->limit ? "true" : "false", run->threads, n);
    printf(",\"operations\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"live_peak\":%" PRIu64,
           run->operations, run->bytes, run->live_peak);
    printf(",\"base_rss\":%" PRIu64 ",\"peak_rss\":%" PRIu64, base_rss,
           peak_rss);
    print_samples("wall_ns", samples, n, offsetof(struct sample, wall_ns));
    print_samples("cpu_ns", samples, n, offsetof(struct sample, cpu_ns));
    print_samples("faults", samples, n, offsetof(struct sample, faults));
    printf(",\"corruptions\":%" PRIu64 "}\n", corruptions);
    if (fflush(stdout) != 0) {
        harness_die("cannot write the result", errno);
    }
    if (corruptions != 0) {
        fprintf(stderr,
                "bench: %s: %" PRIu64 " reads of memory that was not as the "
                "allocator promised\n",
                pattern->name, corruptions);
        return 3;
    }
    return 0;
}

static void list_patterns(void)
{
    for (size_t g = 0; g < GROUPS; g++) {
        for (const struct pattern *p = groups[g]; p->name != NULL; p++) {
            printf("{\"name\":\"%s\",\"what\":\"%s\",\"threads\":%u,"
                   "\"operations\":%" PRIu64 ",\"bytes\":%" PRIu64 "}\n",
                   p->name, p->what, p->threads, p->operations, p->bytes);
        }
    }
}

static const struct pattern *find_pattern(const char *name)
{
    for (size_t g = 0; g < GROUPS; g++) {
        for (const struct pattern *p = groups[g]; p->name != NULL; p++) {
            if (strcmp(p->name, name) == 0) {
                return p;
            }
        }
    }
    return NULL;
}

static int bad_usage(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("; see bench --help\n", stderr);
    va_end(arguments);
    return 2;
}

/* Read TEXT as a number between 1 and MOST; 0 when it is none. */
static unsigned long number(const char *text, unsigned long most)
{
    char *end;
    unsigned long n;

    if (text == NULL || *text < '0' || *text > '9') {
        return 0;
    }
    errno = 0;
    n = strtoul(text, &end, 10);
    return errno != 0 || *end != '\0' || n > most ? 0 : n;
}

int bench_main(int argc, char **argv)
{
    static char output[1 << 16];
    static struct run run;
    unsigned long rounds = 0, threads = 0, budget_ms = 0;
    unsigned long min_rounds = MIN_ROUNDS;

    (void)setvbuf(stdout, output, _IOFBF, sizeof(output));
    if (argc < 2) {
        return bad_usage("which pattern?");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (strcmp(argv[1], "--list") == 0) {
        list_patterns();
        return 0;
    }
    run.pattern = find_pattern(argv[1]);
    if (run.pattern == NULL) {
        return bad_usage("no pattern is called '%s'", argv[1]);
    }
    for (int i = 2; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        unsigned long *into, most;

        if (strcmp(argv[i], "--limit") == 0) {
            run.limit = true;
            continue;
        }
        if (strcmp(argv[i], "--trace") == 0 && value != NULL) {
            run.trace = argv[++i];
            continue;
        }
        if (strcmp(argv[i], "--rounds") == 0) {
            into = &rounds;
            most = MAX_ROUNDS;
        } else if (strcmp(argv[i], "--min-rounds") == 0) {
            into = &min_rounds;
            most = MAX_ROUNDS;
        } else if (strcmp(argv[i], "--budget-ms") == 0) {
            into = &budget_ms;
            most = 3600 * 1000UL;
        } else if (strcmp(argv[i], "--threads") == 0) {
            into = &threads;
            most = MAX_LANES;
        } else {
            return bad_usage("cannot read '%s'", argv[i]);
        }
        *into = number(value, most);
        if (*into == 0) {
            return bad_usage("%s needs a number from 1 to %lu", argv[i], most);
        }
        i++;
    }
    run.rounds = rounds != 0 ? (unsigned)rounds : run.pattern->rounds;
    run.min_rounds = (unsigned)min_rounds;
    run.budget_ns = budget_ms != 0 ? budget_ms * 1000000 : UINT64_MAX;
    run.threads = run.pattern->threads;
    if (run.threads == 0) {
        run.threads = (unsigned)threads;
    }
    return run_pattern(&run);
}
