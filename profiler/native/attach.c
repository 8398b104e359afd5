/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * attach.c - which perf events a sampler opens.
 *
 * ZKP_SCOPE_TASKS opens one cpu-clock event per thread and online CPU.  An
 * event that follows a thread over all CPUs would do, but the kernel refuses
 * to map a ring for one that threads also inherit; tied to a CPU it may.
 * Events of one CPU share one ring.  Threads started later inherit all of
 * their parent's events.  ZKP_SCOPE_CPUS opens one event per CPU for all
 * processes and needs more privilege, but only as many descriptors as CPUs.
 *
 * The target keeps running while we attach, so the list of threads is read
 * again until it holds nothing new.  A thread that is new in such a later
 * reading may or may not have inherited events from a parent that we had
 * opened by then; nothing says which.  So it is opened as well, its id noted
 * in late_tids, and of its samples only those of its own events count (every
 * sample carries the id of the event that we opened, inherited or not).
 *
 * Child processes inherit events as threads do.  Those that are there already
 * are found through their parents in the same rounds.
 */
#include "sampler.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* 512 KiB a CPU: a second and more of deep stacks at the highest rates, and
 * with the control page just the 516 KiB that an unprivileged user may lock
 * (perf_event_mlock_kb). */
#define RING_BYTES ((size_t)512 * 1024)

/* sizeof attr up to and including sample_max_stack (PERF_ATTR_SIZE_VER5):
 * enough for us, and known to every kernel since 4.8. */
#define ATTR_BYTES 112

static uint64_t next_random(zkp_sampler_t *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return s->random;
}

uint64_t sampler_period(zkp_sampler_t *s)
{
    double nominal = s->config.event == ZKP_EVENT_PAGE_FAULTS
                         ? s->config.faults
                         : 1e9 / s->config.rate_hz;
    if (!s->config.jitter)
        return (uint64_t)nominal;
    /* Within 10 % of nominal and odd: no two events keep step with each
     * other or with a loop in the target. */
    double unit = (double)(next_random(s) >> 11) * 0x1p-53;
    return (uint64_t)(nominal * (0.9 + 0.2 * unit)) | 1;
}

/* The fields of records that every event has; each kind adds its own. */
static struct perf_event_attr attr_of(zkp_sampler_t *s, int32_t tid)
{
    const zkp_sampler_config_t *config = &s->config;
    struct perf_event_attr attr = {
        .size = ATTR_BYTES,
        .sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ID,
        .disabled = 1,
        .inherit = tid >= 0,
        .exclude_kernel = !config->kernel,
        .exclude_hv = 1,
        .exclude_idle = tid < 0,
        .watermark = 1,
        .wakeup_watermark = (uint32_t)RING_BYTES / 4,
        .use_clockid = 1,
        .clockid = CLOCK_MONOTONIC,
    };
    if (config->event == ZKP_EVENT_TRACE) {
        attr.type = PERF_TYPE_TRACEPOINT;
        attr.sample_period = 1;
        attr.sample_type |= PERF_SAMPLE_RAW;
        attr.exclude_kernel = 0; /* tracepoints are in the kernel */
        return attr;
    }
    attr.type = PERF_TYPE_SOFTWARE;
    attr.sample_type |= PERF_SAMPLE_CALLCHAIN;
    attr.comm = attr.comm_exec = attr.task = attr.mmap = 1;
    attr.mmap_data = config->all_maps ? 1 : 0;
    if (config->event == ZKP_EVENT_PAGE_FAULTS) {
        attr.config = PERF_COUNT_SW_PAGE_FAULTS;
        attr.sample_type |= PERF_SAMPLE_ADDR;
    } else {
        attr.config = PERF_COUNT_SW_CPU_CLOCK;
    }
    attr.sample_period = sampler_period(s);
    if (config->stack_bytes) {
        attr.sample_type |= PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;
        attr.sample_regs_user = USER_REGS_MASK;
        attr.sample_stack_user = config->stack_bytes;
    }
    return attr;
}

static int open_event(struct perf_event_attr *attr, int32_t tid, int cpu)
{
    long fd = syscall(SYS_perf_event_open, attr, (pid_t)tid, cpu, -1,
                      PERF_FLAG_FD_CLOEXEC);
    return fd < 0 ? -errno : (int)fd;
}

/* Add FD to the events, sending its records to the ring of CPU number I; the
 * first event on a CPU brings that ring. */
static int add_event(zkp_sampler_t *s, int fd, int32_t tid, size_t i)
{
    if (s->ring_fds[i] < 0) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        int rc = ring_open(&s->rings[i], fd, RING_BYTES / page);
        if (rc)
            return rc;
        s->ring_fds[i] = fd;
        s->polls[i] = (struct pollfd){fd, POLLIN, 0};
        s->counts.ring_bytes = (uint32_t)s->rings[i].data_bytes;
    } else if (ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, s->ring_fds[i])) {
        return -errno;
    }
    uint64_t id;
    if (ioctl(fd, PERF_EVENT_IOC_ID, &id))
        return -errno;
    if (s->n_events == s->cap_events) {
        size_t cap = s->cap_events ? 2 * s->cap_events : 64;
        struct event *events = reallocarray(s->events, cap, sizeof *s->events);
        if (!events)
            return -ENOMEM;
        s->events = events;
        s->cap_events = cap;
    }
    uint64_t *index = pair_map_at(&s->event_of_id, id, 0);
    if (!index)
        return -ENOMEM;
    s->events[s->n_events++] = (struct event){fd, tid, (uint32_t)i, 0};
    *index = s->n_events;
    return 0;
}

/* Open what is configured on TID (-1: everything) and one CPU, number I.
 * Returns 1, or 0 where thread or CPU is not there, or -errno. */
static int attach_events(zkp_sampler_t *s, int32_t tid, size_t i)
{
    const zkp_sampler_config_t *config = &s->config;
    const uint32_t traced[] = {config->trace_syscalls, config->trace_lock,
                               config->trace_locked};
    bool trace = config->event == ZKP_EVENT_TRACE;
    int attached = 0;
    for (size_t e = 0; e < (trace ? sizeof traced / sizeof traced[0] : 1);
         e++) {
        struct perf_event_attr attr = attr_of(s, tid);
        if (trace && !traced[e])
            continue;
        if (trace)
            attr.config = traced[e];
        int fd = open_event(&attr, tid, s->cpus[i]);
        if (fd == -ENODEV || fd == -ESRCH)
            return 0; /* the CPU went offline, or the thread ended */
        if (fd < 0)
            return fd;
        int rc = add_event(s, fd, tid, i);
        if (!rc && trace && e == 0 &&
            ioctl(fd, PERF_EVENT_IOC_SET_FILTER, trace_filter()))
            rc = -errno;
        if (rc) {
            if (!s->n_events || s->events[s->n_events - 1].fd != fd)
                close(fd);
            return rc;
        }
        attached = 1;
    }
    return attached;
}

/* Open TID (-1: everything) on every CPU.  Returns 1, or 0 where the thread
 * has ended or no CPU is there, or -errno. */
static int attach_thread(zkp_sampler_t *s, int32_t tid)
{
    int attached = 0;
    for (size_t i = 0; i < s->n_cpus; i++) {
        int rc = attach_events(s, tid, i);
        if (rc < 0)
            return rc;
        attached |= rc;
    }
    s->counts.threads += (uint32_t)attached;
    return attached;
}

static int note_tid(struct pair_map *tids, int32_t tid)
{
    uint64_t *mark = pair_map_at(tids, (uint64_t)tid, 0);
    if (!mark)
        return -ENOMEM;
    *mark = 1;
    return 0;
}

/* The name of a thread and, where wanted, the children that it forked: a file
 * of numbers.  Kernels may come without the latter; they are then missed. */
static void note_thread(zkp_sampler_t *s, int32_t pid, int32_t tid)
{
    char path[64], name[16] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/comm", (int)pid, (int)tid);
    FILE *f = fopen(path, "re");
    if (f && fgets(name, sizeof name, f)) {
        name[strcspn(name, "\n")] = '\0';
        sampler_note_name(s, tid, name);
    }
    if (f)
        fclose(f);
    if (!s->config.follow)
        return;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid,
             (int)tid);
    f = fopen(path, "re");
    int child;
    while (f && fscanf(f, "%d", &child) == 1)
        (void)sampler_note_pid(s, child);
    if (f)
        fclose(f);
}

/* One reading of a process's list of threads: attach to those not in KNOWN.
 * Returns how many were new, or -errno. */
static int attach_new_threads(zkp_sampler_t *s, int32_t pid,
                              struct pair_map *known, bool late)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? -ESRCH : -errno;
    bool tasks = s->config.scope == ZKP_SCOPE_TASKS;
    int found = 0, rc = 0;
    for (struct dirent *d; rc >= 0 && (d = readdir(dir));) {
        int32_t tid = (int32_t)strtol(d->d_name, NULL, 10);
        if (tid <= 0)
            continue; /* "." and ".." */
        bool is_new = !pair_map_find(known, (uint64_t)tid, 0);
        if (is_new || s->config.follow)
            note_thread(s, pid, tid);
        if (!is_new)
            continue;
        rc = note_tid(known, tid);
        if (!rc && late && tasks)
            rc = note_tid(&s->late_tids, tid);
        if (!rc && tasks)
            rc = attach_thread(s, tid);
        found++;
    }
    closedir(dir);
    return rc < 0 ? rc : found;
}

/* One reading of all processes, of which there may be more while it lasts. */
static int attach_new(zkp_sampler_t *s, struct pair_map *known, bool late)
{
    int found = 0;
    for (size_t i = 0; i < s->n_pids; i++) {
        int rc = attach_new_threads(s, s->pids[i], known, late);
        if (rc == -ESRCH && i > 0)
            continue; /* a child that has ended */
        if (rc < 0)
            return rc;
        found += rc;
    }
    return found;
}

static int attach_threads(zkp_sampler_t *s)
{
    struct pair_map known = {0};
    int rc = attach_new(s, &known, false);
    /* A target that starts threads faster than we list them is followed
     * through inheritance well enough after a few rounds. */
    for (int round = 0; rc > 0 && round < 16; round++)
        rc = attach_new(s, &known, true);
    pair_map_free(&known);
    if (rc >= 0 && !s->n_events && s->config.scope == ZKP_SCOPE_TASKS)
        rc = -ESRCH;
    return rc < 0 ? rc : 0;
}

/* "0-3,8,10-11": the online CPUs. */
static int list_cpus(zkp_sampler_t *s)
{
    FILE *f = fopen("/sys/devices/system/cpu/online", "re");
    long n_conf = sysconf(_SC_NPROCESSORS_CONF);
    size_t cap = n_conf > 0 ? (size_t)n_conf : 1;
    s->cpus = calloc(cap, sizeof *s->cpus);
    s->rings = calloc(cap, sizeof *s->rings);
    s->ring_fds = calloc(cap, sizeof *s->ring_fds);
    s->polls = calloc(cap, sizeof *s->polls);
    int rc = s->cpus && s->rings && s->ring_fds && s->polls ? 0 : -ENOMEM;
    int first, last;
    while (!rc && f && fscanf(f, "%d", &first) == 1) {
        last = first;
        int c = fgetc(f);
        if (c == '-' && fscanf(f, "%d", &last) == 1)
            c = fgetc(f);
        for (int cpu = first; cpu <= last && s->n_cpus < cap; cpu++)
            s->cpus[s->n_cpus++] = cpu;
        if (c != ',')
            break;
    }
    /* A sandbox without /sys: CPUs that are not there fail with ENODEV. */
    for (int cpu = 0; !rc && !s->n_cpus && cpu < (int)cap; cpu++)
        s->cpus[cpu] = cpu;
    if (!rc && !s->n_cpus)
        s->n_cpus = cap;
    if (f)
        fclose(f);
    for (size_t i = 0; !rc && i < s->n_cpus; i++) {
        s->ring_fds[i] = -1;
        s->polls[i].fd = -1;
    }
    return rc;
}

int sampler_attach(zkp_sampler_t *s)
{
    int rc = list_cpus(s);
    if (!rc && !sampler_note_pid(s, s->config.pid))
        rc = -ENOMEM;
    if (!rc)
        rc = attach_threads(s);
    if (!rc && s->config.scope == ZKP_SCOPE_CPUS)
        rc = attach_thread(s, -1);
    if (rc < 0)
        return rc;
    if (!s->n_events)
        return -ENODEV;
    s->counts.events = (uint32_t)s->n_events;
    return zkp_sampler_enable(s, 1);
}

void sampler_detach(zkp_sampler_t *s)
{
    for (size_t i = 0; s->rings && i < s->n_cpus; i++)
        ring_close(&s->rings[i]);
    for (size_t i = 0; i < s->n_events; i++)
        close(s->events[i].fd);
    pair_map_free(&s->event_of_id);
    pair_map_free(&s->late_tids);
    free(s->events);
    free(s->cpus);
    free(s->rings);
    free(s->ring_fds);
    free(s->polls);
}
