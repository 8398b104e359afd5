/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * init.c - see init.h.
 *
 * The dynamic linker may call malloc before any constructor has run and
 * before the C library knows its environment.  Such a request goes to the
 * system allocator; the options are read when they can be.
 */
#include "init.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/* glibc 2.32 */
#if defined(__has_include)
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define ZKN_HAVE_SINGLE_THREADED 1
#endif
#endif
#ifndef ZKN_HAVE_SINGLE_THREADED
#define ZKN_HAVE_SINGLE_THREADED 0
#endif

#include "debug.h"
#include "heap.h"
#include "hooks.h"
#include "log.h"
#include "magazine.h"
#include "options.h"
#include "os.h"
#include "stats.h"
#include "watch.h"

/* Less address space than this is not worth having. */
#define RESERVE_LEAST (GIB / 4)

static bool reserve(size_t ceiling)
{
    bool huge = options.thp && os_huge_pages();
    size_t bytes = options.reserve_bytes;
    if (bytes == OPTION_AUTO) {
        /* Address space is free, and plenty of it keeps big runs big. */
        bytes = max_size(4 * os_physical_memory(), 64 * GIB);
    }
    bytes = min_size(bytes, HEAP_SPAN_MOST);
    size_t allowed = os_address_space() / 2;
    if (bytes > allowed) {
        bytes = allowed;
        stats_add(STAT_fallback_reserve, 1);
    }
    while (bytes >= RESERVE_LEAST) {
        if (heap_open(bytes, ceiling, huge) == 0)
            return true;
        bytes /= 2;
        stats_add(STAT_fallback_reserve, 1);
    }
    return false;
}

static void init(void)
{
    options_load();
    debug_open();
    size_t ceiling = options.cache_bytes, magazine = options.magazine_bytes;
    size_t heap_ceiling = SIZE_MAX;
    if (ceiling == OPTION_AUTO) {
        ceiling = min_size(os_memory_limit() / 8, GIB);
    } else {
        /* An explicit ceiling holds for magazines and heap together. */
        magazine = min_size(magazine, ceiling / 2 / os_cpus());
        heap_ceiling = ceiling - magazine * os_cpus();
    }
    if (!reserve(heap_ceiling)) {
        stats_start(ZKN_BLOCK_OFF, 0);
        return;
    }
    os_advise_huge(heap.base, heap.span);
    magazine_open(magazine);
    watch_open(ceiling);
    stats_start(ZKN_BLOCK_READY, ceiling);
    store_release(&heap.ready, true);
}

bool init_cache(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (environ == NULL)
        return false;
    pthread_once(&once, init);
    return load_acquire(&heap.ready);
}

/* --------------------------------------------------------- process life */

/* With one thread nobody else can be in the library, and fork() may come from a
 * signal handler that interrupted that one in it, or in fork(): no lock is
 * needed then, and none must be waited for.  As in glibc. */
static bool alone(void)
{
#if ZKN_HAVE_SINGLE_THREADED
    return __libc_single_threaded != 0;
#else
    return false;
#endif
}

static bool fork_locked; /* all locks, by the thread that forks */

static void fork_prepare(void)
{
    if (alone())
        return;
    magazine_fork_prepare();
    heap_fork_prepare();
    fork_locked = true;
}

static void fork_parent(void)
{
    if (!fork_locked)
        return;
    fork_locked = false;
    heap_fork_parent();
    magazine_fork_done();
}

static void fork_child(void)
{
    hooks_forked();
    if (fork_locked) {
        fork_locked = false;
        heap_fork_child();
        magazine_fork_done();
    }
    watch_forked();
}

__attribute__((constructor)) static void load(void)
{
    init_cache();
    if (pthread_atfork(fork_prepare, fork_parent, fork_child) != 0)
        log_warning("no memory for fork handlers; a child that forks while "
                    "other threads allocate may hang",
                    "");
}

__attribute__((destructor)) static void unload(void)
{
    if (options.stats_file != NULL)
        stats_append(options.stats_file);
}
