/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * parallel.c - see parallel.h.  Threads are made anew for every call: a
 * proof has a few dozen, which cost less than a millisecond together.
 */
#include "parallel.h"

#include <pthread.h>
#include <stdbool.h>

struct range {
    parallel_body *body;
    void *context;
    size_t begin, end;
};

static void *run(void *arg)
{
    struct range *r = arg;
    r->body(r->context, r->begin, r->end);
    return NULL;
}

void parallel_for(unsigned threads, size_t n, parallel_body *body,
                  void *context)
{
    if (threads > PARALLEL_MAX)
        threads = PARALLEL_MAX;
    if (threads > n)
        threads = n == 0 ? 1 : (unsigned)n;

    struct range ranges[PARALLEL_MAX];
    pthread_t ids[PARALLEL_MAX];
    bool started[PARALLEL_MAX] = {false};
    for (unsigned t = 0; t < threads; t++)
        ranges[t] = (struct range){body, context, n * t / threads,
                                   n * (t + 1) / threads};
    for (unsigned t = 1; t < threads; t++)
        started[t] = pthread_create(&ids[t], NULL, run, &ranges[t]) == 0;
    for (unsigned t = 0; t < threads; t++)
        if (!started[t])
            run(&ranges[t]);
    for (unsigned t = 1; t < threads; t++)
        if (started[t])
            pthread_join(ids[t], NULL);
}
