/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * sampler.c - samples of a running process, classified as they arrive.
 *
 * A cpu-clock event fires each time that its thread has used a period of CPU
 * time, so samples are proportional to CPU time, and the share of samples in a
 * class is that class's share of the time.  The kernel writes each sample's
 * call chain to a ring; zkp_sampler_drain() reads them, classifies the kernel
 * part and counts the sample (tally.c).  Raw samples are never kept.
 *
 * Jitter: a fixed period may keep step with a loop in the target and see the
 * same phase of it for ever.  Each event therefore gets a new period after
 * every REARM_AFTER of its samples.  Counted in samples and not in time,
 * because the ioctl restarts the period: the half period that this throws away
 * on average is then the same small share (1 / 2 REARM_AFTER) of every
 * thread's time, be it busy or nearly idle.  The kernel applies the ioctl to
 * the event that we opened and not to its inherited copies; threads started
 * later keep the period that their parent had at that moment.
 */
#include "sampler.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define REARM_AFTER 20

/* A PERF_RECORD_SAMPLE under the sample_type that attach.c asks for. */
struct sample {
    struct perf_event_header header;
    uint32_t pid, tid;
    uint64_t time;
    uint64_t id;
    uint64_t n_ips;
    uint64_t ips[];
};

struct lost_record {
    struct perf_event_header header;
    uint64_t id;
    uint64_t lost;
};

/* A call chain is in parts, each led by a marker that says whose frames
 * follow.  Finds the kernel's and the user's. */
struct chain {
    const uint64_t *kernel, *user;
    size_t n_kernel, n_user;
};

static struct chain split_chain(const struct sample *sample)
{
    struct chain c = {0};
    uint64_t context = 0;
    for (size_t i = 0; i < sample->n_ips; i++) {
        uint64_t ip = sample->ips[i];
        if (ip >= (uint64_t)PERF_CONTEXT_MAX) {
            context = ip;
        } else if (context == (uint64_t)PERF_CONTEXT_KERNEL) {
            if (!c.n_kernel++)
                c.kernel = &sample->ips[i];
        } else if (context == (uint64_t)PERF_CONTEXT_USER) {
            if (!c.n_user++)
                c.user = &sample->ips[i];
        }
    }
    return c;
}

/* Whether SAMPLE is one of the target's and counts; EVENT is what took it. */
static bool counts(zkp_sampler_t *s, const struct sample *sample,
                   const struct event *event)
{
    if ((int32_t)sample->pid != s->config.pid) {
        s->counts.foreign++;
        return false;
    }
    bool own = event && event->tid == (int32_t)sample->tid;
    return own || !pair_map_find(&s->late_tids, sample->tid, 0);
}

static void count_sample(zkp_sampler_t *s, const struct sample *sample)
{
    uint64_t *index = pair_map_find(&s->event_of_id, sample->id, 0);
    struct event *event = index ? &s->events[*index - 1] : NULL;
    if (event)
        event->unrearmed++;
    if (!counts(s, sample, event))
        return;

    struct chain chain = split_chain(sample);
    uint32_t kind = s->config.user_kind;
    uint64_t roles = 0;
    if (chain.n_kernel && s->config.classifier) {
        roles = zkp_classifier_roles(s->config.classifier, chain.kernel,
                                     chain.n_kernel);
        kind = zkp_classifier_kind(s->config.classifier, roles);
        s->counts.kernel++;
        s->counts.no_entry += !(roles & s->config.entry_roles);
    }
    uint64_t since = sample->time > s->config.start_ns
                         ? sample->time - s->config.start_ns
                         : 0;
    if (tally_add(&s->tally, (int32_t)sample->tid,
                  (uint32_t)(since / s->config.bin_ns), kind,
                  (uint32_t)(roles & s->config.overlay_roles), chain.user,
                  chain.n_user))
        s->counts.samples++;
    else
        s->counts.lost++;
}

static void drain_ring(zkp_sampler_t *s, struct ring *r)
{
    uint64_t head = ring_head(r);
    const struct perf_event_header *h;
    while ((h = ring_next(r, head))) {
        switch (h->type) {
        case PERF_RECORD_SAMPLE: {
            const struct sample *sample = (const void *)h;
            if (h->size >= sizeof *sample &&
                sample->n_ips <=
                    (h->size - sizeof *sample) / sizeof sample->ips[0])
                count_sample(s, sample);
            break;
        }
        case PERF_RECORD_LOST:
            s->counts.lost +=
                ((const struct lost_record *)(const void *)h)->lost;
            break;
        case PERF_RECORD_THROTTLE:
            s->counts.throttled++;
            break;
        default: /* UNTHROTTLE; others were not asked for */
            break;
        }
    }
    ring_release(r);
}

static void rearm(zkp_sampler_t *s)
{
    for (size_t i = 0; i < s->n_events; i++) {
        struct event *e = &s->events[i];
        if (e->unrearmed < REARM_AFTER)
            continue;
        e->unrearmed = 0;
        uint64_t period = sampler_period(s);
        /* Fails where the thread has ended, which does not matter. */
        (void)ioctl(e->fd, PERF_EVENT_IOC_PERIOD, &period);
    }
}

int zkp_sampler_open(const zkp_sampler_config_t *config, zkp_sampler_t **out)
{
    if (config->pid <= 0 || config->bin_ns == 0 ||
        !(config->rate_hz >= 1 && config->rate_hz <= 50000) ||
        (config->kernel && !config->classifier))
        return -EINVAL;
    zkp_sampler_t *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->config = *config;
    s->random = (config->start_ns ^ (uint64_t)config->pid << 32) | 1;
    int rc = sampler_attach(s);
    if (rc) {
        zkp_sampler_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void zkp_sampler_close(zkp_sampler_t *s)
{
    if (!s)
        return;
    sampler_detach(s);
    tally_free(&s->tally);
    free(s);
}

int zkp_sampler_drain(zkp_sampler_t *s, int timeout_ms)
{
    if (poll(s->polls, s->n_cpus, timeout_ms) < 0 && errno != EINTR)
        return -errno;
    for (size_t i = 0; i < s->n_cpus; i++) {
        /* The event that stands for the ring ended with its thread; others
         * may write to the ring still, but poll() would return at once. */
        if (s->polls[i].revents & (POLLHUP | POLLERR))
            s->polls[i].fd = -1;
        if (s->ring_fds[i] >= 0)
            drain_ring(s, &s->rings[i]);
    }
    if (s->config.jitter)
        rearm(s);
    return 0;
}

size_t zkp_sampler_cells(const zkp_sampler_t *s)
{
    return s->tally.cells.used;
}

size_t zkp_sampler_take(zkp_sampler_t *s, zkp_cell_t *out)
{
    size_t n = 0;
    for (size_t i = 0; i < s->tally.cells.n_slots; i++) {
        struct pair_slot c = s->tally.cells.slots[i];
        if (c.value)
            out[n++] =
                (zkp_cell_t){(int32_t)(c.a >> 32), (uint32_t)c.a, (uint32_t)c.b,
                             (uint32_t)(c.b >> 32), c.value};
    }
    pair_map_clear(&s->tally.cells);
    return n;
}

size_t zkp_sampler_stacks(const zkp_sampler_t *s)
{
    return s->tally.stacks.used;
}

size_t zkp_sampler_copy_stacks(const zkp_sampler_t *s, zkp_stack_t *out)
{
    size_t n = 0;
    for (size_t i = 0; i < s->tally.stacks.n_slots; i++) {
        struct pair_slot c = s->tally.stacks.slots[i];
        if (c.value)
            out[n++] = (zkp_stack_t){(int32_t)(c.a >> 32), (uint32_t)c.a,
                                     (uint32_t)c.b, 0, c.value};
    }
    return n;
}

size_t zkp_sampler_nodes(const zkp_sampler_t *s, const zkp_node_t **nodes)
{
    *nodes = s->tally.nodes;
    return s->tally.n_nodes;
}

void zkp_sampler_counts(const zkp_sampler_t *s, zkp_sampler_counts_t *out)
{
    *out = s->counts;
}
