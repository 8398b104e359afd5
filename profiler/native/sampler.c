/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * sampler.c - samples of a running process, classified as they arrive.
 *
 * A cpu-clock event fires each time that its thread has used a period of CPU
 * time, so samples are proportional to CPU time, and the share of samples in a
 * class is that class's share of the time.  The kernel writes each sample's
 * call chain to a ring; zkp_sampler_drain() reads them, classifies the kernel
 * part, walks the user part (unwind.c) and counts the sample (tally.c).  Raw
 * samples are never kept.  Other records tell of new threads, processes and
 * mappings: what short-lived threads are called, nobody can ask later.
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
#include "unwind.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define REARM_AFTER 20
#define MAX_MOMENTS ((size_t)1 << 20)

/* A record, read from front to back.  Its parts are multiples of 8 bytes but
 * for the fields of tracepoints.  Reading past its end gives zeros. */
struct record {
    const uint8_t *p, *end;
};

static uint64_t next_u64(struct record *r)
{
    uint64_t value = 0;
    if ((size_t)(r->end - r->p) < sizeof value) {
        r->p = r->end;
        return 0;
    }
    memcpy(&value, r->p, sizeof value);
    r->p += sizeof value;
    return value;
}

static const uint8_t *next_bytes(struct record *r, uint64_t n)
{
    const uint8_t *start = r->p;
    if ((uint64_t)(r->end - r->p) < n) {
        r->p = r->end;
        return NULL;
    }
    r->p += n;
    return start;
}

/* A PERF_RECORD_SAMPLE under the sample_type that attach.c asks for. */
struct sample {
    int32_t pid, tid;
    uint64_t time, addr, id;
    const uint64_t *ips;
    uint64_t n_ips;
    const uint8_t *raw;
    uint64_t raw_len;
    struct user_state user;
};

/* perf numbers registers in its own way, and writes them in that order:
 * ax bx cx dx si di bp sp ip r8 ... r15, here by their DWARF numbers. */
static const uint8_t dwarf_of_perf[USER_REGS] = {
    0, 3, 2, 1, 4, 5, 6, 7, 16, 8, 9, 10, 11, 12, 13, 14, 15};

static bool parse_sample(const zkp_sampler_t *s, struct record r,
                         struct sample *out)
{
    uint64_t ids = next_u64(&r);
    *out = (struct sample){.pid = (int32_t)ids, .tid = (int32_t)(ids >> 32)};
    out->time = next_u64(&r);
    if (s->config.event == ZKP_EVENT_PAGE_FAULTS)
        out->addr = next_u64(&r);
    out->id = next_u64(&r);
    if (s->config.event == ZKP_EVENT_TRACE) {
        const uint8_t *size = next_bytes(&r, 4);
        uint32_t len = 0;
        if (size)
            memcpy(&len, size, sizeof len);
        out->raw_len = len;
        out->raw = next_bytes(&r, len);
        return out->raw != NULL;
    }
    out->n_ips = next_u64(&r);
    if (out->n_ips > (uint64_t)(r.end - r.p) / 8)
        return false;
    out->ips = (const uint64_t *)(const void *)next_bytes(&r, 8 * out->n_ips);
    if (!s->config.stack_bytes)
        return true;
    uint64_t abi = next_u64(&r);
    for (size_t i = 0; abi && i < USER_REGS; i++)
        out->user.regs[dwarf_of_perf[i]] = next_u64(&r);
    uint64_t size = next_u64(&r);
    const uint8_t *stack = next_bytes(&r, size);
    uint64_t valid = size ? next_u64(&r) : 0;
    out->user.has_regs = abi == PERF_SAMPLE_REGS_ABI_64;
    if (stack && valid <= size)
        out->user.stack =
            (struct stack_copy){stack, valid, out->user.regs[CFI_RSP]};
    return true;
}

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
    /* Whoever inherited our events is a descendant; its FORK record may still
     * be in another CPU's ring. */
    bool ours = sample->pid == s->config.pid ||
                (s->config.follow &&
                 (s->config.scope == ZKP_SCOPE_TASKS ||
                  pair_map_find(&s->pid_known, (uint64_t)sample->pid, 0)));
    if (!ours) {
        s->counts.foreign++;
        return false;
    }
    bool own = event && event->tid == sample->tid;
    return own || !pair_map_find(&s->late_tids, (uint64_t)sample->tid, 0);
}

static uint32_t kind_of_address(const zkp_sampler_t *s, int32_t pid,
                                uint64_t addr)
{
    const struct space *space = spaces_find(s->spaces, pid);
    const zkp_map_t *map = space ? space_map(space, addr) : NULL;
    if (!map)
        return s->config.lost_kind;
    return map->flags & ZKP_MAP_FILE ? s->config.file_kind
                                     : s->config.user_kind;
}

/* What the kernel part of a chain says: a sample's kind, and its roles. */
static uint32_t classify(zkp_sampler_t *s, const struct sample *sample,
                         const struct chain *chain, uint64_t *roles)
{
    *roles = 0;
    if (s->config.event == ZKP_EVENT_PAGE_FAULTS)
        return kind_of_address(s, sample->pid, sample->addr);
    if (!chain->n_kernel || !s->config.classifier)
        return s->config.user_kind;
    *roles = zkp_classifier_roles(s->config.classifier, chain->kernel,
                                  chain->n_kernel);
    s->counts.kernel++;
    s->counts.no_entry += !(*roles & s->config.entry_roles);
    return zkp_classifier_kind(s->config.classifier, *roles);
}

static void walk(zkp_sampler_t *s, struct sample *sample,
                 const struct chain *chain, struct unwound *out)
{
    out->n = 0;
    if (s->config.keep_kernel) {
        for (size_t i = 0; i < chain->n_kernel && i < UNWIND_MAX; i++)
            out->frames[out->n++] = (struct frame){chain->kernel[i], 0};
        return;
    }
    sample->user.chain = chain->user;
    sample->user.n_chain = chain->n_user;
    unwind(s->spaces, sample->pid, &sample->user, out);
    s->counts.complete += out->complete;
    s->counts.guessed += out->guessed;
    s->counts.unmapped += out->unknown;
    if (out->unknown) {
        struct space *space = spaces_at(s->spaces, sample->pid);
        if (space)
            space->stale = true;
    }
}

static void keep_moment(zkp_sampler_t *s, const struct sample *sample,
                        uint32_t kind)
{
    if (s->n_moments == s->cap_moments) {
        size_t cap = s->cap_moments ? 2 * s->cap_moments : 4096;
        zkp_moment_t *moments = NULL;
        if (cap <= MAX_MOMENTS)
            moments = reallocarray(s->moments, cap, sizeof *moments);
        if (!moments)
            return;
        s->moments = moments;
        s->cap_moments = cap;
    }
    s->moments[s->n_moments++] =
        (zkp_moment_t){sample->time, sample->tid, kind, s->tally.last_node, 0};
}

static void count_sample(zkp_sampler_t *s, struct record r)
{
    struct sample sample;
    if (!parse_sample(s, r, &sample))
        return;
    uint64_t *index = pair_map_find(&s->event_of_id, sample.id, 0);
    struct event *event = index ? &s->events[*index - 1] : NULL;
    if (event)
        event->unrearmed++;
    if (!counts(s, &sample, event))
        return;
    (void)sampler_note_pid(s, sample.pid);
    if (s->config.event == ZKP_EVENT_TRACE) {
        trace_add(&s->trace, &s->config, sample.pid, sample.tid, sample.time,
                  sample.raw, sample.raw_len);
        s->counts.samples++;
        return;
    }
    struct chain chain = split_chain(&sample);
    uint64_t roles, since = 0;
    uint32_t kind = classify(s, &sample, &chain, &roles);
    struct unwound stack;
    walk(s, &sample, &chain, &stack);
    if (sample.time > s->config.start_ns)
        since = sample.time - s->config.start_ns;
    if (tally_add(&s->tally, sample.tid, (uint32_t)(since / s->config.bin_ns),
                  kind, (uint32_t)(roles & s->config.overlay_roles), &stack)) {
        s->counts.samples++;
        if (s->config.keep_moments)
            keep_moment(s, &sample, kind);
    } else {
        s->counts.lost++;
    }
}

/* A process or a thread has started: {pid, ppid, tid, ptid}. */
static void note_fork(zkp_sampler_t *s, struct record r)
{
    uint64_t pids = next_u64(&r), tids = next_u64(&r);
    int32_t pid = (int32_t)pids, parent = (int32_t)(pids >> 32);
    int32_t tid = (int32_t)tids, parent_tid = (int32_t)(tids >> 32);
    if (!pair_map_find(&s->pid_known, (uint64_t)parent, 0))
        return;
    const char *name = zkp_sampler_name(s, parent_tid);
    char copy[16];
    memcpy(copy, name, strnlen(name, 15) + 1);
    /* On another CPU it may have taken a name of its own already, and that
     * CPU's ring been read first. */
    if (copy[0] && !*zkp_sampler_name(s, tid))
        sampler_note_name(s, tid, copy);
    if (pid != parent && s->config.follow) {
        spaces_fork(s->spaces, pid, parent);
        (void)sampler_note_pid(s, pid);
    }
}

/* A thread has a new name, perhaps because of an exec: {pid, tid, name}. */
static void note_comm(zkp_sampler_t *s, struct record r, bool exec)
{
    uint64_t ids = next_u64(&r);
    int32_t pid = (int32_t)ids, tid = (int32_t)(ids >> 32);
    if (!pair_map_find(&s->pid_known, (uint64_t)pid, 0))
        return;
    sampler_note_name(s, tid, (const char *)r.p);
    struct space *space = exec ? spaces_find(s->spaces, pid) : NULL;
    if (space) {
        space->n_maps = 0;
        space->stale = true;
    }
}

/* Something was mapped: {pid, tid}, address, length, offset, name.  Code: its
 * file has to be looked at.  Data: all that matters is whether it is a file. */
static void note_mmap(zkp_sampler_t *s, struct record r, bool is_data)
{
    struct space *space = spaces_find(s->spaces, (int32_t)next_u64(&r));
    uint64_t start = next_u64(&r), len = next_u64(&r);
    (void)next_u64(&r);
    if (!space)
        return;
    if (!is_data) {
        space->stale = true;
        return;
    }
    const char *name = (const char *)r.p;
    size_t room = (size_t)(r.end - r.p);
    /* "//anon", "[heap]" and the like are not files. */
    bool is_file = room > 1 && name[0] == '/' && name[1] != '/';
    zkp_map_t map = {start, start + len, 0, 0, is_file ? ZKP_MAP_FILE : 0};
    space_replace(space, &map);
}

static void drain_ring(zkp_sampler_t *s, struct ring *ring)
{
    uint64_t head = ring_head(ring);
    const struct perf_event_header *h;
    while ((h = ring_next(ring, head))) {
        const uint8_t *start = (const uint8_t *)h;
        struct record r = {start + sizeof *h, start + h->size};
        switch (h->type) {
        case PERF_RECORD_SAMPLE:
            count_sample(s, r);
            break;
        case PERF_RECORD_LOST:
            (void)next_u64(&r);
            s->counts.lost += next_u64(&r);
            break;
        case PERF_RECORD_THROTTLE:
            s->counts.throttled++;
            break;
        case PERF_RECORD_FORK:
            note_fork(s, r);
            break;
        case PERF_RECORD_COMM:
            note_comm(s, r, h->misc & PERF_RECORD_MISC_COMM_EXEC);
            break;
        case PERF_RECORD_MMAP:
            note_mmap(s, r, h->misc & PERF_RECORD_MISC_MMAP_DATA);
            break;
        default: /* EXIT, UNTHROTTLE */
            break;
        }
    }
    ring_release(ring);
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
        config->event > ZKP_EVENT_TRACE || config->stack_bytes % 8 ||
        config->stack_bytes > 32768 ||
        (config->event == ZKP_EVENT_CPU_CLOCK &&
         !(config->rate_hz >= 1 && config->rate_hz <= 50000)) ||
        (config->event == ZKP_EVENT_PAGE_FAULTS && !config->faults))
        return -EINVAL;
    zkp_sampler_t *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->config = *config;
    s->spaces = config->maps_of ? config->maps_of->spaces : &s->own_spaces;
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
    trace_free(&s->trace);
    spaces_free(&s->own_spaces);
    pair_map_free(&s->pid_known);
    pair_map_free(&s->name_of);
    free(s->pids);
    free(s->names);
    free(s->moments);
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
    if (s->config.jitter && s->config.event != ZKP_EVENT_TRACE)
        rearm(s); /* tracepoints have no period: each passing counts */
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

int zkp_sampler_enable(zkp_sampler_t *s, int on)
{
    unsigned long request = on ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_DISABLE;
    for (size_t i = 0; i < s->n_events; i++)
        if (ioctl(s->events[i].fd, request, 0))
            return -errno;
    return 0;
}

bool sampler_note_pid(zkp_sampler_t *s, int32_t pid)
{
    if (pair_map_find(&s->pid_known, (uint64_t)pid, 0))
        return true;
    if (s->n_pids == s->cap_pids) {
        size_t cap = s->cap_pids ? 2 * s->cap_pids : 8;
        int32_t *pids = reallocarray(s->pids, cap, sizeof *pids);
        if (!pids)
            return false;
        s->pids = pids;
        s->cap_pids = cap;
    }
    uint64_t *index = pair_map_at(&s->pid_known, (uint64_t)pid, 0);
    if (!index || !spaces_at(s->spaces, pid))
        return false;
    s->pids[s->n_pids++] = pid;
    *index = s->n_pids;
    return true;
}

void sampler_note_name(zkp_sampler_t *s, int32_t tid, const char *name)
{
    uint64_t *index = pair_map_at(&s->name_of, (uint64_t)tid, 0);
    if (!index)
        return;
    if (!*index) {
        if (s->n_names == s->cap_names) {
            size_t cap = s->cap_names ? 2 * s->cap_names : 64;
            void *names = reallocarray(s->names, cap, sizeof *s->names);
            if (!names)
                return; /* the slot stays empty, as if it were absent */
            s->names = names;
            s->cap_names = cap;
        }
        *index = ++s->n_names;
    }
    char *to = s->names[*index - 1];
    size_t len = strnlen(name, 15);
    memcpy(to, name, len);
    to[len] = '\0';
}

const char *zkp_sampler_name(const zkp_sampler_t *s, int32_t tid)
{
    uint64_t *index = pair_map_find(&s->name_of, (uint64_t)tid, 0);
    return index ? s->names[*index - 1] : "";
}

size_t zkp_sampler_pids(const zkp_sampler_t *s, int stale, int32_t *pids,
                        size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_pids; i++) {
        const struct space *space = spaces_find(s->spaces, s->pids[i]);
        if (stale && space && !space->stale)
            continue;
        if (n < cap)
            pids[n] = s->pids[i];
        n++;
    }
    return n;
}

int zkp_sampler_add_module(zkp_sampler_t *s, const zkp_cfi_t *cfi)
{
    return spaces_add_module(s->spaces, cfi);
}

int zkp_sampler_set_maps(zkp_sampler_t *s, int32_t pid, const zkp_map_t *maps,
                         size_t n)
{
    return spaces_set(s->spaces, pid, maps, n);
}

size_t zkp_sampler_moments(const zkp_sampler_t *s, const zkp_moment_t **out)
{
    *out = s->moments;
    return s->n_moments;
}

void zkp_sampler_traffic(const zkp_sampler_t *s, zkp_traffic_t *out)
{
    *out = s->trace.total;
}
