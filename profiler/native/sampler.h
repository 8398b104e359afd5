/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * sampler.h - a sampler's parts: its events (attach.c) and what their records
 * become (sampler.c).
 */
#ifndef ZKPROF_SAMPLER_H
#define ZKPROF_SAMPLER_H

#include "ring.h"
#include "tally.h"

#include <stdbool.h>

struct event {
    int fd;
    int32_t tid;        /* -1: every thread on its CPU */
    uint32_t cpu;       /* index into rings */
    uint32_t unrearmed; /* samples since its period was last changed */
};

struct zkp_sampler {
    zkp_sampler_config_t config;
    uint64_t random; /* xorshift state; never 0 */

    struct event *events;
    size_t n_events, cap_events;
    struct pair_map event_of_id; /* (event id, 0) -> 1 + index of event */
    struct pair_map late_tids;   /* (tid, 0): see attach.c */

    int *cpus; /* numbers of the online CPUs */
    struct ring *rings;
    int *ring_fds; /* the event whose ring it is, -1: none */
    struct pollfd *polls;
    size_t n_cpus;

    struct tally tally;
    zkp_sampler_counts_t counts;
};

/* Open events on every thread (or CPU), map their rings, start them. */
int sampler_attach(zkp_sampler_t *s);
void sampler_detach(zkp_sampler_t *s);

/* The next sampling period: with jitter, different at each call. */
uint64_t sampler_period(zkp_sampler_t *s);

#endif /* ZKPROF_SAMPLER_H */
