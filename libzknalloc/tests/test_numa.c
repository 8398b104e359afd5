/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * NUMA, on a machine of this test's making: the linker puts the functions
 * below in the place of the library's own (--wrap), so that a thread says on
 * which node it runs.
 */
#include <sched.h>

#include "heap.h"
#include "model.h"
#include "testing.h"

#define MIB ((size_t)1 << 20)

static _Thread_local unsigned here;

unsigned __wrap_os_node(unsigned *cpu);
unsigned __wrap_os_node_count(void);

unsigned __wrap_os_node(unsigned *cpu)
{
    if (cpu != NULL)
        *cpu = (unsigned)sched_getcpu();
    return here;
}

unsigned __wrap_os_node_count(void)
{
    return 3;
}

static char *use(size_t size)
{
    char *ptr = zkn_alloc(size);
    CHECK_TRUE(ptr != NULL);
    memset(ptr, 1, size);
    return ptr;
}

static unsigned node_of(const char *ptr)
{
    return region_of(ptr)->node;
}

/* What a node touched first is its own from then on, wherever it is freed. */
static void own_node_first(void)
{
    char *ptr[2];
    for (here = 0; here < 2; here++) {
        ptr[here] = use(24 * MIB);
        CHECK(node_of(ptr[here]), ==, here);
    }
    here = 1;
    zkn_free(ptr[0]);
    here = 0;
    zkn_free(ptr[1]);
    for (int round = 0; round < 20; round++) {
        for (here = 0; here < 2; here++) {
            ptr[here] = use((16 + (size_t)round % 8) * MIB);
            CHECK(node_of(ptr[here]), ==, here);
        }
        zkn_free(ptr[0]);
        zkn_free(ptr[1]);
    }
}

/* A CPU's magazine holds its own node's memory only. */
static void magazines(void)
{
    here = 0;
    for (int i = 0; i < 8; i++)
        zkn_free(use(MIB)); /* the magazine of this CPU is node 0's */
    char *other[4];
    here = 1;
    for (int i = 0; i < 4; i++)
        other[i] = zkn_alloc(512 << 10);
    here = 0;
    for (int i = 0; i < 4; i++) {
        CHECK(node_of(other[i]), ==, 1);
        zkn_free(other[i]);
        char *ptr = zkn_alloc(512 << 10);
        CHECK(node_of(ptr), ==, 0);
        zkn_free(ptr);
    }
}

/* Another node's resident memory comes before a page fault. */
static void other_node_next(void)
{
    zkn_release_cache();
    here = 0;
    zkn_free(use(64 * MIB));
    here = 2;
    long faults = minor_faults();
    char *ptr = use(48 * MIB);
    CHECK(node_of(ptr), ==, 0);
    CHECK(minor_faults() - faults, <, 8);
    zkn_free(ptr);
}

/* Neighbours of different nodes do not join, and give back whole all the same.
 */
static void apart(void)
{
    zkn_stage_boundary();
    char *row[8];
    for (unsigned i = 0; i < 8; i++) {
        here = i % 2;
        row[i] = use(4 * MIB);
    }
    for (unsigned i = 0; i < 8; i++)
        zkn_free(row[i]);
    CHECK(stats_now().cached_now, >=, 31 * MIB);
    /* All of it together serves one request, without a fault. */
    long faults = minor_faults();
    char *all = use(30 * MIB);
    CHECK(minor_faults() - faults, <, 8);
    zkn_free(all);
    zkn_release_cache();
    CHECK(stats_now().committed_now, ==, 0);
}

/* The model, on threads that wander between nodes. */
static void storm(void)
{
    static struct actor actor = {
        .pick = model_random, .seed = 77, .name = 1, .most = 256 * MIB};
    struct actor *const all[] = {&actor};
    model_open();
    for (int i = 0; i < 20000; i++) {
        if (i % 16 == 0)
            here = (unsigned)i / 16 % 3;
        actor_act(&actor);
        if (i % 500 == 0)
            model_check(all, 1);
    }
    actor_leave(&actor);
    model_clear_shelf();
    model_check_empty();
}

int main(void)
{
    own_node_first();
    magazines();
    other_node_next();
    apart();
    storm();
    return 0;
}
