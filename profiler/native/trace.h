/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * trace.h - what a process asks of the kernel, call by call.
 */
#ifndef ZKPROF_TRACE_H
#define ZKPROF_TRACE_H

#include "tally.h"

struct trace {
    zkp_traffic_t total;
    struct pair_map breaks;  /* (pid, 0) -> its last brk() */
    struct pair_map locking; /* (tid, 0) -> when it began to lock */
};

/* What is traced is filtered in the kernel: this is the filter for
 * raw_syscalls:sys_enter. */
const char *trace_filter(void);

/* A record of tracepoint TYPE (an id) at time NS; RAW is what the kernel
 * wrote: the fields of its format file. */
void trace_add(struct trace *t, const zkp_sampler_config_t *config, int32_t pid,
               int32_t tid, uint64_t ns, const uint8_t *raw, size_t len);
void trace_free(struct trace *t);

#endif /* ZKPROF_TRACE_H */
