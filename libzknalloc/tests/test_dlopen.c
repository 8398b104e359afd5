/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The library opened and closed at run time by a program that does not link it:
 * what it handed out stays, and so does the library.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

#include "testing.h"

#define MIB ((size_t)1 << 20)

/* ISO C has no conversion from an object pointer to a function pointer. */
#define LOOK_UP(handle, name)                                                  \
    do {                                                                       \
        void *symbol_ = dlsym(handle, "zkn_" #name);                           \
        CHECK_TRUE(symbol_ != NULL);                                           \
        memcpy(&library.name, &symbol_, sizeof symbol_);                       \
    } while (0)

static struct {
    void *(*alloc)(size_t size);
    void (*free)(void *ptr);
    bool (*owns)(const void *ptr);
    size_t (*release_cache)(void);
    int (*stats_get)(zkn_stats_t *stats);
} library;

static void *symbol_of(void *(*function)(size_t))
{
    void *symbol;
    memcpy(&symbol, &function, sizeof symbol);
    return symbol;
}

static void *open_library(void)
{
    void *handle = dlopen(ZKN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        fprintf(stderr, "%s\n", dlerror());
    CHECK_TRUE(handle != NULL);
    return handle;
}

static uint64_t live_now(void)
{
    zkn_stats_t stats = ZKN_STATS_INIT;
    CHECK(library.stats_get(&stats), ==, 0);
    return stats.live_now;
}

static atomic_bool stop;

static void *churn(void *unused)
{
    (void)unused;
    for (size_t i = 0; !stop; i++) {
        char *ptr = library.alloc(MIB / 2 + i % 8 * MIB);
        CHECK_TRUE(ptr != NULL); /* the system's, while main() forks */
        *ptr = 1;
        library.free(ptr);
    }
    return NULL;
}

int main(void)
{
    CHECK_TRUE(dlsym(RTLD_DEFAULT, "zkn_alloc") == NULL);
    void *handle = open_library();
    LOOK_UP(handle, alloc);
    LOOK_UP(handle, free);
    LOOK_UP(handle, owns);
    LOOK_UP(handle, release_cache);
    LOOK_UP(handle, stats_get);
    CHECK(live_now(), ==, 0);
    char *kept = library.alloc(32 * MIB);
    CHECK_TRUE(kept != NULL && library.owns(kept));
    memset(kept, 7, 32 * MIB);
    uint64_t live = live_now();
    CHECK(dlclose(handle), ==, 0);
    CHECK_TRUE(kept[0] == 7 && memcmp(kept, kept + 1, 32 * MIB - 1) == 0);

    /* Opened and closed while threads use it, it stays one and the same. */
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, churn, NULL), ==, 0);
    size_t mapped = 0;
    for (int i = 0; i < 200; i++) {
        handle = open_library();
        CHECK_TRUE(dlsym(handle, "zkn_alloc") == symbol_of(library.alloc));
        CHECK(dlclose(handle), ==, 0);
        CHECK(live_now(), >=, live);
        if (i == 20)
            mapped = proc_status("VmSize");
        if (i % 50 == 0 && !SANITIZED) {
            pid_t child = fork();
            if (child == 0) {
                library.free(library.alloc(8 * MIB));
                _exit(0);
            }
            int status;
            CHECK(waitpid(child, &status, 0), ==, child);
            CHECK(status, ==, 0);
        }
    }
    stop = true;
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL), ==, 0);
    CHECK(proc_status("VmSize"), <, mapped + 512 * MIB);
    library.free(kept);
    library.release_cache();
    CHECK(live_now(), ==, 0);
    return 0;
}
