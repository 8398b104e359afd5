/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * sampler.h - a sampler's parts: its events (attach.c) and what their records
 * become (sampler.c).
 */
#ifndef ZKPROF_SAMPLER_H
#define ZKPROF_SAMPLER_H

#include "ring.h"
#include "space.h"
#include "tally.h"
#include "trace.h"

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

    int32_t *pids; /* the processes seen, config.pid first */
    size_t n_pids, cap_pids;
    struct pair_map pid_known; /* (pid, 0) -> 1 + index */
    struct pair_map name_of;   /* (tid, 0) -> 1 + index */
    char (*names)[16];
    size_t n_names, cap_names;

    struct spaces own_spaces;
    struct spaces *spaces; /* those, or another sampler's */
    struct trace trace;
    struct tally tally;
    zkp_moment_t *moments;
    size_t n_moments, cap_moments;
    zkp_sampler_counts_t counts;
};

/* Open events on every thread (or CPU), map their rings, start them. */
int sampler_attach(zkp_sampler_t *s);
void sampler_detach(zkp_sampler_t *s);

/* Note a process that is one of the target's; false without memory. */
bool sampler_note_pid(zkp_sampler_t *s, int32_t pid);
void sampler_note_name(zkp_sampler_t *s, int32_t tid, const char *name);

/* What every event is opened with, but for what is counted: perf must write
 * the same record for all of them, see sampler.c. */
#define USER_REGS_MASK UINT64_C(0xff01ff) /* the 16 general ones and rip */
#define USER_REGS      17

/* The next sampling period: with jitter, different at each call. */
uint64_t sampler_period(zkp_sampler_t *s);

#endif /* ZKPROF_SAMPLER_H */
