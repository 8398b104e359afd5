/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Settings of the whole machine, really changed for a moment and restored; not
 * one of the tests that ctest runs.  As root, on a machine that can bear it:
 *
 *   machine overcommit    vm.overcommit_memory=2, with 4 GiB to spare
 *   machine thp           huge pages never, then always
 */
#include <fcntl.h>
#include <signal.h>

#include "heap.h"
#include "testing.h"

#define ENABLED "/sys/kernel/mm/transparent_hugepage/enabled"

/* -------------------------------------------------------------- the settings
 */

#define OVERCOMMIT "/proc/sys/vm/overcommit_"

enum { SETTINGS = 3 };
static struct setting {
    const char *path;
    char before[64];
} settings[SETTINGS] = {
    {.path = OVERCOMMIT "memory"},
    {.path = OVERCOMMIT "ratio"}, /* setting it resets what is in kbytes */
    {.path = ENABLED},
};

static bool put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    bool done = fd >= 0 && write(fd, text, strlen(text)) >= 0;
    close(fd);
    return done;
}

static void restore(void)
{
    for (size_t i = 0; i < SETTINGS; i++)
        if (!put(settings[i].path, settings[i].before))
            fprintf(stderr, "not restored: %s\n", settings[i].path);
}

static void on_signal(int signal)
{
    restore();
    _exit(128 + signal);
}

static void remember(void)
{
    for (size_t i = 0; i < SETTINGS; i++) {
        struct setting *s = &settings[i];
        char text[64] = "";
        int fd = open(s->path, O_RDONLY);
        CHECK(read(fd, text, sizeof text - 1), >, 0);
        close(fd);
        /* "always [madvise] never": what is in brackets is in force. */
        const char *from = strchr(text, '[');
        from = from != NULL ? from + 1 : text;
        snprintf(s->before, sizeof s->before, "%.*s", (int)strcspn(from, "]\n"),
                 from);
        printf("%s is %s\n", s->path, s->before);
    }
    CHECK(atexit(restore), ==, 0);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
}

/* ----------------------------------------------------------------- the checks
 */

static size_t memory_info(const char *field)
{
    FILE *file = fopen("/proc/meminfo", "r");
    CHECK_TRUE(file != NULL);
    char line[256];
    size_t kib = 0, length = strlen(field);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, length) == 0 && line[length] == ':')
            kib = strtoul(line + length + 1, NULL, 10);
    fclose(file);
    return kib;
}

static void use(size_t size)
{
    char *ptr = zkn_alloc(size);
    CHECK_TRUE(ptr != NULL && zkn_owns(ptr));
    memset(ptr, 1, size);
    zkn_free(ptr);
}

/* Started afresh under the setting. */
static void strict(void)
{
    CHECK(stats_now().fallback_reserve, ==, 0); /* it costs no charge */
    use(64 * MIB);
    for (int i = 0; i < 3; i++) {
        errno = 0;
        CHECK_TRUE(zkn_alloc(8 * GIB) == NULL);
        CHECK(errno, ==, ENOMEM);
        errno = 0;
        CHECK_TRUE(zkn_calloc(1, 8 * GIB) == NULL);
        CHECK(errno, ==, ENOMEM);
    }
    use(64 * MIB);
    CHECK(stats_now().hits, ==, 1);
    use(256 * MIB);
    zkn_release_cache();
    use(256 * MIB);
}

static void never(void)
{
    CHECK(heap.huge, ==, 0);
    use(64 * MIB);
    long before = minor_faults();
    use(64 * MIB);
    CHECK(minor_faults(), ==, before);
}

static void always(void)
{
    CHECK(heap.huge, ==, 1);
    long before = minor_faults();
    use(64 * MIB);
    CHECK(minor_faults() - before, <=, 256); /* 32 huge pages, and others */
    before = minor_faults();
    use(64 * MIB);
    CHECK(minor_faults(), ==, before);
}

static const char *what;

static void start(void)
{
    char *const arguments[] = {"machine", "inside", (char *)(uintptr_t)what,
                               NULL};
    start_again(arguments);
    _exit(99);
}

static void run(const char *name)
{
    char text[512];
    what = name;
    int status = run_child(start, text, sizeof text);
    printf("%s: status %d, stderr: %s\n", name, status, text);
    CHECK(status, ==, 0);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "inside") == 0) {
        if (strcmp(argv[2], "overcommit") == 0)
            strict();
        else
            (*argv[2] == 'n' ? never : always)();
        return 0;
    }
    if (argc != 2) {
        fprintf(stderr, "usage: machine overcommit|thp\n");
        return 2;
    }
    remember();
    if (strcmp(argv[1], "overcommit") == 0) {
        char kib[32];
        snprintf(kib, sizeof kib, "%zu",
                 memory_info("Committed_AS") + (4 << 20));
        CHECK_TRUE(put(OVERCOMMIT "kbytes", kib));
        CHECK_TRUE(put(OVERCOMMIT "memory", "2"));
        run("overcommit");
    } else {
        CHECK_TRUE(put(ENABLED, "never"));
        run("never");
        CHECK_TRUE(put(ENABLED, "always"));
        run("always");
    }
    return 0;
}
