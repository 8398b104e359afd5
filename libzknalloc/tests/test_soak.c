/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Provers at work for as long as one likes, while the kernel refuses at random.
 *
 *   test_soak [-s seconds of CPU | -n epochs] [-c chance] TRACE.csv.gz...
 *
 * Each trace is a prover (prover.h): beside them, two actors of the model do
 * whatever they like.  Meanwhile one call of the kernel or of malloc in
 * `chance` fails (faults.h); moves of pages only in the second half, since the
 * library gives up moving at the second refusal.
 *
 * When each prover has done a proof all pause, and it is checked that
 *
 *   - the books agree: the model's, the library's, the tiling of the heap;
 *   - the budget holds: what is committed is at most the peak of live bytes
 *     + 1/24 + 8 MiB;
 *   - resident memory of the heap is not more than the counters say, but for
 *     what khugepaged brings.
 *
 * At the end, what was resident outside of the heap, mappings, address space
 * and descriptors must not have grown since the first quarter, and all memory
 * must have come back to the kernel.
 */
#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "faults.h"
#include "heap.h"
#include "model.h"
#include "prover.h"
#include "tiling.h"

#define MIB ((size_t)1 << 20)

enum { PROVERS_MOST = 8, ACTORS = 2, EPOCH = 256 };

static struct prover provers[PROVERS_MOST];
static struct actor actors[ACTORS];
static size_t prover_count;
static pthread_barrier_t barrier;
static atomic_size_t busy; /* provers that have no proof yet in this epoch */
static atomic_bool over;

/* ------------------------------------------------------------------- threads
 */

static void *live_proving(void *argument)
{
    struct prover *prover = argument;
    while (!over) {
        prover_prove(prover);
        busy--;
        while (busy > 0)
            prover_prove(prover);
        prover_settle(prover);
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
    }
    prover_stop(prover);
    return NULL;
}

static void *live_acting(void *argument)
{
    while (!over) {
        do {
            for (size_t i = 0; i < EPOCH; i++)
                actor_act(argument);
            prover_counts.operations += EPOCH;
        } while (busy > 0);
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

/* -------------------------------------------------------------------- checks
 */

/* What must not grow: in_heap the heap's mappings, the rest outside of it. */
struct levels {
    size_t resident, mappings, space, descriptors, in_heap;
};

static size_t lines(const char *path)
{
    FILE *file = fopen(path, "r");
    CHECK_TRUE(file != NULL);
    size_t count = 0;
    for (int c; (c = getc(file)) != EOF;)
        count += c == '\n';
    fclose(file);
    return count;
}

static size_t descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    CHECK_TRUE(directory != NULL);
    size_t count = 0;
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

static struct levels highest(struct levels a, struct levels b)
{
    return (struct levels){most(a.resident, b.resident),
                           most(a.mappings, b.mappings), most(a.space, b.space),
                           most(a.descriptors, b.descriptors),
                           most(a.in_heap, b.in_heap)};
}

/* Pages of REGION in huge pages that are not its alone. */
static size_t cut(const struct region *region)
{
    size_t first = region->page, end = first + region->pages;
    size_t up = (first + HUGE_PAGES - 1) / HUGE_PAGES * HUGE_PAGES;
    size_t down = end / HUGE_PAGES * HUGE_PAGES;
    return up > down ? region->pages : up - first + end - down;
}

/* The most that may be resident in the heap: what is committed, what live
 * sparse regions may have touched since they were counted, and at the ends of
 * ZERO runs the rest of a huge page of which a neighbour has a part: khugepaged
 * makes whole huge pages behind the library's back. */
static size_t resident_most(void)
{
    size_t pages = 0;
    heap_quiet();
    for (uint32_t page = 0; page < heap.top;) {
        const struct region *region = region_at(page);
        if (region->sparse && state_of(region) == REGION_LIVE)
            pages += region->pages - counted(region);
        else if (state_of(region) == REGION_ZERO)
            pages += cut(region);
        page += region->pages;
    }
    heap_unlock();
    return stats_now().committed_now + pages_to_bytes(pages);
}

/* Bytes that the system's malloc has given out: large blocks, too, where the
 * heap had none, or a fork was under way. */
static size_t from_system(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* Where the program break was.  The system's malloc has one arena, so all that
 * it keeps is behind it, with the blocks that it freed and cannot give back:
 * small ones in use keep their neighbours' pages.  How many of these there are
 * is not the library's doing, and grows for long. */
static char *first_break;

static size_t system_size(void)
{
    return (size_t)((char *)sbrk(0) - first_break) + mallinfo2().hblkhd;
}

static size_t system_resident(void)
{
    static unsigned char pages[1 << 20]; /* of 4 GiB */
    size_t page = (size_t)sysconf(_SC_PAGESIZE), found = 0;
    char *first = first_break + (-(uintptr_t)first_break & (page - 1));
    size_t count = (size_t)((char *)sbrk(0) - first) / page;
    CHECK(count, <=, sizeof pages);
    CHECK(mincore(first, count * page, pages), ==, 0);
    for (size_t i = 0; i < count; i++)
        found += pages[i] & 1u;
    return found * page + mallinfo2().hblkhd;
}

/* What is resident outside, but for the system's malloc and the books, which
 * grow with the heap: the library's map and descriptors, and the model's table.
 */
static size_t resident_outside(size_t in_heap)
{
    size_t known = heap.map_pages * sizeof *heap.map +
                   heap.pool_size * sizeof *heap.pool +
                   heap.top * sizeof(uint32_t) + system_resident();
    size_t outside = proc_status("VmRSS") - in_heap;
    return outside > known ? outside - known : 0;
}

/* model_check() has made a request, which enforces the budget, and does not
 * expect it to hold where the kernel refuses; but nothing fails now.  How many
 * mappings there may be is another matter: where a moved page was given back,
 * they do not always join again. */
static void check_budget(void)
{
    heap_quiet();
    size_t held = heap.live + heap.dirty, slack = 8 * MIB >> heap.page_shift;
    CHECK(heap.dirty, <=, heap.ceiling);
    CHECK(held, <=, heap.high + heap.high / 24 + slack);
    heap_unlock();
}

/* All pause, and nothing fails: compare, and say what is used. */
static struct levels check(void)
{
    struct actor *all[ACTORS];
    for (size_t i = 0; i < ACTORS; i++)
        all[i] = &actors[i];
    faults_armed = false;
    model_check(all, ACTORS);
    check_budget();
    (void)malloc_trim(0); /* the system keeps what was freed */
    size_t in_heap = model_resident();
    CHECK(in_heap, <=, resident_most());
    return (struct levels){.resident = resident_outside(in_heap),
                           .mappings =
                               lines("/proc/self/maps") - model_mappings(),
                           .space = proc_status("VmSize") - system_size(),
                           .descriptors = descriptors(),
                           .in_heap = model_mappings()};
}

/* Seconds of CPU time: a machine that has others to serve tests as much. */
static time_t seconds_used(void)
{
    struct rusage used;
    CHECK(getrusage(RUSAGE_SELF, &used), ==, 0);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec;
}

static void say(time_t seconds, const struct levels *now)
{
    zkn_stats_t stats = stats_now();
    unsigned calls = 0, failed = 0;
    for (size_t i = 0; i < FAULT_FUNCTION_COUNT; i++) {
        calls += fault_counts[i];
        failed += fault_injected[i];
    }
    printf(
        "%ld s of CPU: %zu proofs, %zu operations, %zu forks; %u of %u calls "
        "failed, %zu requests refused; MiB: resident %zu, heap's %zu of "
        "%zu committed, %zu live, at most %zu; mappings: heap's %zu, "
        "others %zu; %zu moves, heap spans %zu MiB\n",
        (long)seconds, prover_counts.proofs, prover_counts.operations,
        prover_counts.forks, failed, calls, prover_counts.refusals,
        proc_status("VmRSS") >> 20, model_resident() >> 20,
        stats.committed_now >> 20, stats.live_now >> 20, stats.live_peak >> 20,
        model_mappings(), now->mappings, heap.moves,
        pages_to_bytes(heap.top) >> 20);
    fflush(stdout);
}

/* ---------------------------------------------------------------------- main
 */

static void start(pthread_t *thread, void *(*body)(void *), void *argument)
{
    CHECK(pthread_create(thread, NULL, body, argument), ==, 0);
}

static void soak(time_t seconds, size_t epochs, size_t chance)
{
    pthread_t ids[PROVERS_MOST + ACTORS], *id = ids;
    size_t system_before = from_system();
    model_open();
    model_refusals = true;
    CHECK(pthread_barrier_init(&barrier, NULL,
                               (unsigned)(prover_count + ACTORS + 1)),
          ==, 0);
    busy = prover_count;
    faults_armed = false;
    for (size_t i = 0; i < ACTORS; i++) {
        actors[i] = (struct actor){.pick = model_random,
                                   .seed = 1000 + i,
                                   .name = (uint32_t)i + 1,
                                   .most = 64 * MIB};
        start(id++, live_acting, &actors[i]);
    }
    for (size_t i = 0; i < prover_count; i++) {
        prover_start(&provers[i], (uint32_t)(ACTORS + i + 1));
        start(id++, live_proving, &provers[i]);
    }
    time_t said = 0;
    struct levels early = {0}, all = {0};
    for (size_t epoch = 1; !over; epoch++) {
        faults_armed = true;
        pthread_barrier_wait(&barrier);
        struct levels now = check();
        time_t elapsed = seconds_used();
        over = seconds > 0 ? elapsed >= seconds : epoch >= epochs;
        all = highest(all, now);
        if (seconds > 0 ? elapsed <= seconds / 4 : epoch <= epochs / 4)
            early = all;
        else if (seconds > 0 ? elapsed >= seconds / 2 : epoch >= epochs / 2)
            fault_chance[FAULT_mremap] = chance;
        if (elapsed >= said + 60 || over) {
            say(elapsed, &now);
            said = elapsed;
        }
        busy = prover_count;
        pthread_barrier_wait(&barrier);
    }
    while (id-- > ids)
        CHECK(pthread_join(*id, NULL), ==, 0);
    for (size_t i = 0; i < ACTORS; i++)
        actor_leave(&actors[i]);
    model_clear_shelf();
    model_check_empty();
    if (!SANITIZED)
        CHECK(from_system(), <=, system_before + MIB);
    printf("outside of the heap, first quarter and all: MiB resident %zu %zu, "
           "mappings %zu %zu, MiB of addresses %zu %zu, descriptors %zu %zu; "
           "the heap's mappings %zu %zu\n",
           early.resident >> 20, all.resident >> 20, early.mappings,
           all.mappings, early.space >> 20, all.space >> 20, early.descriptors,
           all.descriptors, early.in_heap, all.in_heap);
    if (!SANITIZED) { /* whose own memory grows */
        CHECK(all.resident, <=, early.resident + 8 * MIB);
        /* What the kernel refuses to unmap stays: a secret and its guards. */
        size_t refused = 3 * fault_injected[FAULT_munmap];
        CHECK(all.mappings, <=, early.mappings + 8 + refused);
        CHECK(all.space, <=, early.space + 8 * MIB);
        CHECK(all.descriptors, <=, early.descriptors);
    }
    CHECK(all.in_heap, <=, early.in_heap + early.in_heap / 4 + 64);
    size_t injected = 0;
    for (size_t i = 0; i < FAULT_FUNCTION_COUNT; i++) {
        injected += fault_injected[i];
        if (fault_counts[i] > 0)
            printf("%s: %u of %u failed\n", fault_names[i], fault_injected[i],
                   fault_counts[i]);
    }
    CHECK(injected, >, 0);
    CHECK(prover_counts.forks, >=, prover_counts.proofs);
}

int main(int argc, char **argv)
{
    time_t seconds = 0;
    size_t epochs = 8;
    faults_armed = false;
    size_t chance = 300;
    if (!SANITIZED) /* they bring a malloc of their own */
        CHECK(mallopt(M_ARENA_MAX, 1), ==, 1);
    first_break = sbrk(0);
    for (int option; (option = getopt(argc, argv, "s:n:c:")) != -1;) {
        if (option == 's')
            seconds = strtol(optarg, NULL, 10);
        else if (option == 'n')
            epochs = strtoul(optarg, NULL, 10);
        else if (option == 'c')
            chance = strtoul(optarg, NULL, 10);
        else
            return 2;
    }
    for (; optind < argc; optind++) {
        if (prover_count == PROVERS_MOST)
            return 2;
        prover_read(&provers[prover_count++], argv[optind]);
    }
    if (prover_count == 0 || epochs < 4 || chance == 0)
        return 2;
    for (size_t i = 0; i < FAULT_FUNCTION_COUNT; i++)
        fault_chance[i] = i == FAULT_mremap ? 0 : chance;
    soak(seconds, epochs, chance);
    return 0;
}
