/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * prover.c - see prover.h.
 */
#include "prover.h"

#include <stdatomic.h>

#include "faults.h"

#define MIB ((size_t)1 << 20)

struct prover_counts prover_counts;

/* -------------------------------------------------------------------- traces
 */

static void *grow(void *array, size_t length, size_t size)
{
    if ((length & (length - 1)) != 0)
        return array; /* room for the next power of two */
    array = realloc(array, (length == 0 ? 1 : 2 * length) * size);
    CHECK_TRUE(array != NULL);
    return array;
}

void prover_read(struct prover *prover, const char *path)
{
    char line[1024];
    CHECK(snprintf(line, sizeof line, "gzip -dc -- '%s'", path), <,
          (int)sizeof line);
    FILE *file = popen(line, "r");
    CHECK_TRUE(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        struct event event;
        if (sscanf(line, "%*u,%*u,%c,%zu,%zu,%zu", &event.what, &event.size,
                   &event.aux, &event.block) != 4)
            continue; /* the headline */
        CHECK_TRUE(strchr("mcargf", event.what) != NULL);
        if (prover->block_count <= event.block)
            prover->block_count = event.block + 1;
        prover->events =
            grow(prover->events, prover->length, sizeof *prover->events);
        prover->events[prover->length++] = event;
    }
    CHECK(pclose(file), ==, 0);
    CHECK(prover->length, >, 0);
    prover->blocks = calloc(prover->block_count, sizeof *prover->blocks);
    CHECK_TRUE(prover->blocks != NULL);
}

/* ------------------------------------------------------------------- provers
 */

static void *help(void *argument)
{
    struct prover *prover = argument;
    pthread_mutex_lock(&prover->lock);
    for (;;) {
        while (prover->taken == prover->put)
            pthread_cond_wait(&prover->moved, &prover->lock);
        struct block block = prover->queue[prover->taken % PROVER_QUEUE];
        if (block.ptr == NULL)
            break;
        pthread_mutex_unlock(&prover->lock);
        model_free(&prover->helper, &block);
        pthread_mutex_lock(&prover->lock);
        prover->taken++;
        pthread_cond_broadcast(&prover->moved);
    }
    pthread_mutex_unlock(&prover->lock);
    return NULL;
}

/* Have the helper free BLOCK; one without a pointer ends the helper. */
static void pass(struct prover *prover, struct block *block)
{
    pthread_mutex_lock(&prover->lock);
    while (prover->put - prover->taken == PROVER_QUEUE)
        pthread_cond_wait(&prover->moved, &prover->lock);
    prover->queue[prover->put++ % PROVER_QUEUE] = *block;
    pthread_cond_broadcast(&prover->moved);
    pthread_mutex_unlock(&prover->lock);
    block->ptr = NULL;
}

static void drop(struct prover *prover, struct block *block)
{
    if (model_random(&prover->self, 4) == 0)
        pass(prover, block);
    else
        model_free(&prover->self, block);
}

/* The child has the one thread, and all that its parent had. */
static void be_child(struct prover *prover)
{
    faults_armed = false;
    model_refusals = false;
    for (size_t i = 0; i < prover->block_count; i++) {
        struct block *block = &prover->blocks[i];
        if (block->ptr == NULL)
            continue;
        model_check_block(block);
        if (i % 2 == 0)
            model_free(&prover->self, block);
    }
    for (size_t i = 1; i <= 4; i++) {
        struct block block = {0};
        CHECK_TRUE(model_alloc(&prover->self, &block, i * MIB, 0, i % 2 == 0));
        CHECK_TRUE(model_resize(&prover->self, &block, 3 * i * MIB));
        model_free(&prover->self, &block);
    }
    zkn_release_cache();
    _exit(0);
}

static void fork_child(struct prover *prover)
{
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0)
        be_child(prover);
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);
    prover_counts.forks++;
}

static bool refused(const void *ptr)
{
    prover_counts.refusals += ptr == NULL;
    return ptr == NULL;
}

/* A phase in an arena, another inside of it, and a key. */
static void finish(struct prover *prover)
{
    enum { COLUMNS = 8 };
    uint64_t *columns[COLUMNS];
    size_t size = MIB >> model_random(&prover->self, 6);
    uint64_t tag = prover->self.name * 0x0101010101010101U;
    zkn_arena_t *arena =
        model_requested(zkn_arena_create(2 * COLUMNS * MIB, 0));
    if (!refused(arena)) {
        int mark = 0;
        for (size_t i = 0; i < COLUMNS; i++) {
            if (i == COLUMNS / 2)
                mark = zkn_arena_mark(arena);
            columns[i] = zkn_arena_alloc(arena, size, 64);
            CHECK_TRUE(columns[i] != NULL);
            for (size_t at = 0; at < size / 8; at += 512)
                columns[i][at] = tag + i;
        }
        CHECK(zkn_arena_rewind(arena, mark), ==, 0);
        for (size_t i = 0; i < COLUMNS / 2; i++) {
            for (size_t at = 0; at < size / 8; at += 512)
                CHECK(columns[i][at], ==, tag + i);
        }
        zkn_arena_reset(arena);
        CHECK(zkn_arena_used(arena), ==, 0);
        zkn_arena_destroy(arena);
    }
    zkn_secret_t *secret = zkn_secret_create(size / 16, 0);
    if (!refused(secret)) {
        memset(zkn_secret_data(secret), (int)prover->self.name, size / 16);
        (void)zkn_secret_protect(secret, ZKN_SECRET_READ_ONLY); /* may fail */
        CHECK(*(char *)zkn_secret_data(secret), ==, prover->self.name);
        zkn_secret_destroy(secret);
    }
}

static void give_back(struct prover *prover)
{
    switch (model_random(&prover->self, 8)) {
    case 0:
        zkn_release_cache();
        break;
    case 1:
        zkn_stage_boundary();
        break;
    case 2:
        zkn_soften_cache();
        break;
    default: /* nothing: the next proof finds it all */
        break;
    }
}

static void step(struct prover *prover, const struct event *event)
{
    struct block *block = &prover->blocks[event->block];
    bool served = true;
    if (event->what == 'f') {
        if (block->ptr != NULL)
            drop(prover, block);
        return;
    }
    if (event->what == 'g' && block->ptr == NULL && event->aux > 0)
        served = model_alloc(&prover->self, block, event->aux, 0, false);
    if (served && block->ptr != NULL)
        served = model_resize(&prover->self, block, event->size);
    else if (served)
        served = model_alloc(&prover->self, block, event->size,
                             event->what == 'a' ? event->aux : 0,
                             event->what == 'c');
    prover_counts.refusals += !served;
}

void prover_prove(struct prover *prover)
{
    size_t moment = model_random(&prover->self, prover->length);
    for (size_t i = 0; i < prover->length; i++) {
        step(prover, &prover->events[i]);
        if (i == moment)
            fork_child(prover);
    }
    prover_counts.operations += prover->length;
    for (size_t i = 0; i < prover->block_count; i++) {
        if (prover->blocks[i].ptr != NULL) /* it lived to the end */
            drop(prover, &prover->blocks[i]);
    }
    finish(prover);
    give_back(prover);
    prover_counts.proofs++;
}

void prover_start(struct prover *prover, uint32_t name)
{
    prover->self = (struct actor){
        .pick = model_random, .seed = 1000 + name, .name = name, .fills = true};
    prover->helper = prover->self;
    prover->helper.seed += 1000;
    CHECK(pthread_mutex_init(&prover->lock, NULL), ==, 0);
    CHECK(pthread_cond_init(&prover->moved, NULL), ==, 0);
    CHECK(pthread_create(&prover->helping, NULL, help, prover), ==, 0);
}

void prover_settle(struct prover *prover)
{
    pthread_mutex_lock(&prover->lock);
    while (prover->taken != prover->put)
        pthread_cond_wait(&prover->moved, &prover->lock);
    CHECK(prover->self.held + prover->helper.held, ==, 0);
    pthread_mutex_unlock(&prover->lock);
}

void prover_stop(struct prover *prover)
{
    pass(prover, &(struct block){0});
    CHECK(pthread_join(prover->helping, NULL), ==, 0);
}
