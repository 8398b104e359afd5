/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * os_info.c - what the machine and the process's control group say of
 * themselves: memory, limits, pressure, huge pages, nodes.  os.h has the
 * contract.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "os.h"

size_t os_physical_memory(void)
{
    struct sysinfo info;
    if (sysinfo(&info) != 0)
        return GIB; /* cannot happen; a modest machine is a safe answer */
    return (size_t)info.totalram * info.mem_unit;
}

size_t os_address_space(void)
{
    struct rlimit limit;
    int saved = errno;
    bool known = getrlimit(RLIMIT_AS, &limit) == 0;
    errno = saved;
    return known && limit.rlim_cur != RLIM_INFINITY ? (size_t)limit.rlim_cur
                                                    : SIZE_MAX;
}

/* Read the start of a small file into TEXT, NUL-terminated. */
static bool read_file(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t length = 0;
    ssize_t n;
    while (length < size - 1 &&
           ((n = read(fd, text + length, size - 1 - length)) > 0 ||
            (n < 0 && errno == EINTR))) {
        if (n > 0)
            length += (size_t)n;
    }
    close(fd);
    text[length] = '\0';
    return length > 0;
}

/* A control group's directory: DIR, and GROUP below it. */
struct cgroup {
    const char *dir;
    char group[512];
    bool v2;
};

/* Read NAME in the first LENGTH bytes of the group's path. */
static bool cgroup_read(const struct cgroup *cgroup, size_t length,
                        const char *name, char *text, size_t size)
{
    char path[768];
    size_t base = strlen(cgroup->dir);
    if (base + length + strlen(name) + 2 > sizeof path)
        return false;
    memcpy(path, cgroup->dir, base);
    memcpy(path + base, cgroup->group, length);
    path[base + length] = '/';
    strcpy(path + base + length + 1, name);
    return read_file(path, text, size);
}

/* The smallest number in the files NAME of the group and its ancestors.  A
 * container often sees its own group as the root, so that the path does not
 * exist there: the root itself is looked at too. */
static size_t cgroup_least(const struct cgroup *cgroup, const char *name)
{
    size_t least = SIZE_MAX, length = strlen(cgroup->group);
    char text[32];
    for (;;) {
        if (cgroup_read(cgroup, length, name, text, sizeof text) &&
            *text >= '0' && *text <= '9')
            least = min_size(least, strtoull(text, NULL, 10));
        if (length == 0)
            return least;
        while (length > 0 && cgroup->group[--length] != '/')
            continue;
    }
}

/* This process's memory control group.  /proc/self/cgroup has one line per
 * hierarchy, "id:controllers:path"; the line with no controllers is version
 * 2, which manages memory where no line of version 1 does. */
static bool cgroup_find(struct cgroup *cgroup)
{
    char text[4096];
    bool found = false;
    if (!read_file("/proc/self/cgroup", text, sizeof text))
        return false;
    char *save;
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL || strlen(group + 1) >= sizeof cgroup->group)
            continue;
        *controllers++ = *group++ = '\0';
        bool v1 = strcmp(controllers, "memory") == 0;
        if (!v1 && (*controllers != '\0' || found))
            continue;
        found = true;
        cgroup->v2 = !v1;
        cgroup->dir = v1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup";
        strcpy(cgroup->group, strcmp(group, "/") == 0 ? "" : group);
    }
    return found;
}

static size_t cgroup_limit(const struct cgroup *cgroup)
{
    return cgroup_least(cgroup,
                        cgroup->v2 ? "memory.max" : "memory.limit_in_bytes");
}

/* "some avg10=12.34 avg60=..." */
static unsigned parse_pressure(const char *text)
{
    const char *value = strstr(text, "avg10=");
    return value != NULL ? (unsigned)strtoul(value + 6, NULL, 10) : 0;
}

unsigned os_memory_pressure(void)
{
    int saved = errno;
    struct cgroup cgroup;
    char text[256];
    unsigned pressure = 0;
    bool known = false;
    if (cgroup_find(&cgroup)) {
        size_t length = strlen(cgroup.group), limit = cgroup_limit(&cgroup);
        const char *usage =
            cgroup.v2 ? "memory.current" : "memory.usage_in_bytes";
        if (limit < os_physical_memory() &&
            (cgroup_read(&cgroup, length, usage, text, sizeof text) ||
             cgroup_read(&cgroup, 0, usage, text, sizeof text)) &&
            strtoull(text, NULL, 10) > limit - limit / 16)
            pressure = 100;
        known = cgroup.v2 && cgroup_read(&cgroup, length, "memory.pressure",
                                         text, sizeof text);
    }
    if (known || read_file("/proc/pressure/memory", text, sizeof text))
        pressure = (unsigned)max_size(pressure, parse_pressure(text));
    errno = saved;
    return pressure;
}

bool os_huge_pages(void)
{
    char text[64];
    int saved = errno;
    bool known = read_file("/sys/kernel/mm/transparent_hugepage/enabled", text,
                           sizeof text);
    errno = saved;
    return !known || strstr(text, "[never]") == NULL;
}

size_t os_cpus(void)
{
    cpu_set_t set;
    int saved = errno;
    int error = sched_getaffinity(0, sizeof set, &set);
    errno = saved;
    return error == 0 ? max_size((size_t)CPU_COUNT(&set), 1) : 1;
}

size_t os_thread_faults(void)
{
    struct rusage usage = {0};
    int saved = errno;
    (void)getrusage(RUSAGE_THREAD, &usage);
    errno = saved;
    return (size_t)usage.ru_minflt;
}

size_t os_memory_limit(void)
{
    int saved = errno;
    struct cgroup cgroup;
    size_t limit = os_physical_memory();
    if (cgroup_find(&cgroup))
        limit = min_size(limit, cgroup_limit(&cgroup));
    errno = saved;
    return limit;
}

/* The file reads "0" or "0-1" or "0,2-3": the last number is the greatest. */
unsigned os_node_count(void)
{
    char text[256];
    int saved = errno;
    bool known =
        read_file("/sys/devices/system/node/online", text, sizeof text);
    errno = saved;
    if (!known)
        return 1;
    const char *last = text;
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == ',' || *c == '-')
            last = c + 1;
    }
    return (unsigned)strtoul(last, NULL, 10) + 1;
}

unsigned os_node(unsigned *cpu)
{
    unsigned node;
    return syscall(SYS_getcpu, cpu, &node, NULL) == 0 ? node : 0;
}
