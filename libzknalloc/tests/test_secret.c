/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Secrets: each property proved from outside (traps, /proc, ptrace, children),
 * on each kind of memory: what the kernel gives, and what is left where it
 * refuses memfd_secret(), madvise(), mlock() or mprotect().
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "cases.h"
#include "secrets.h"

/* ----------------------------------------------------------------- traps */

static volatile char *touched;

static void touch_read(void)
{
    signal(SIGSEGV, SIG_DFL); /* the sanitizers' handler would explain it */
    (void)*touched;
}

static void touch_write(void)
{
    signal(SIGSEGV, SIG_DFL);
    *touched = 1;
}

/* Whether BODY traps at ADDR.  A child of vfork() tries: it dies alone, but has
 * this process's memory, where one of fork() would have lost the secret. */
static bool traps(void (*body)(void), volatile char *addr)
{
    touched = addr;
    pid_t child = vfork();
    CHECK(child, >=, 0);
    if (child == 0) {
        body();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK_TRUE(status == 0 ||
               (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
    return status != 0;
}

static void guards(void)
{
    for (size_t pages = 1; pages <= 3; pages++) {
        zkn_secret_t *secret = create(pages * page);
        char *data = zkn_secret_data(secret);
        CHECK(traps(touch_read, data - 1), ==, 1);
        CHECK(traps(touch_write, data - 1), ==, 1);
        CHECK(traps(touch_read, data + pages * page), ==, 1);
        CHECK(traps(touch_write, data + pages * page), ==, 1);
        CHECK(traps(touch_read, data + (pages + 1) * page - 1), ==, 1);
        zkn_secret_destroy(secret);
    }
}

static void sizes(void)
{
    for (size_t size = 0; size < 3 * page; size += size < 70 ? 1 : 61) {
        zkn_secret_t *secret = create(size);
        char *data = zkn_secret_data(secret);
        CHECK((uintptr_t)data % 16, ==, 0);
        CHECK_TRUE(is_zero(data, size));
        size_t padded = size == 0 ? 16 : (size + 15) / 16 * 16;
        CHECK(((uintptr_t)data + padded) % page, ==, 0);
        memset(data, 0xff, size);
        zkn_secret_destroy(secret);
    }
    volatile size_t most = SIZE_MAX;
    CHECK_TRUE(zkn_secret_create(most, 0) == NULL);
    CHECK(errno, ==, ENOMEM);
    errno = 0;
    CHECK_TRUE(zkn_secret_create((size_t)1 << 60, 0) == NULL);
    CHECK(errno, ==, under_valgrind() ? EINVAL : ENOMEM); /* as mmap() says */
    CHECK_TRUE(zkn_secret_create(1, 2) == NULL);
    CHECK(errno, ==, EINVAL);
    errno = 77;
    zkn_secret_destroy(NULL);
    zkn_secret_destroy(create(1));
    CHECK(errno, ==, 77);
}

/* ---------------------------------------------------------------- misuse */

static ptrdiff_t stray;

static void write_astray(void)
{
    zkn_secret_t *secret = create(100);
    ((volatile char *)zkn_secret_data(secret))[stray] ^= 1;
    zkn_secret_destroy(secret);
}

static void destroy_twice(void)
{
    zkn_secret_t *other = create(1), *secret = create(1);
    zkn_secret_destroy(secret);
    zkn_secret_destroy(secret);
    zkn_secret_destroy(other);
}

static void aborts(void (*body)(void), const char *words)
{
    char text[512];
    int status = run_child(body, text, sizeof text);
    CHECK_TRUE(WIFSIGNALED(status));
    CHECK(WTERMSIG(status), ==, SIGABRT);
    CHECK_TRUE(strncmp(text, "libzknalloc: ", 13) == 0);
    CHECK_TRUE(strstr(text, words) != NULL);
    CHECK_TRUE(strchr(text, '\n') == text + strlen(text) - 1);
}

static void misuse(void)
{
    const ptrdiff_t places[] = {-1, -16, 112 - (ptrdiff_t)page, 100, 111};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        stray = places[i];
        aborts(write_astray, "memory around a secret was written to");
    }
    aborts(destroy_twice, "not a secret (destroyed before?)");
}

/* ------------------------------------------------------------ protection */

static void protection(void)
{
    zkn_secret_t *secret = create(100);
    volatile char *data = zkn_secret_data(secret);
    fill(secret);
    CHECK(zkn_secret_protect(secret, ZKN_SECRET_READ_ONLY), ==, 0);
    CHECK_TRUE(is_filled((char *)data, 100));
    CHECK(traps(touch_write, data), ==, 1);
    CHECK(zkn_secret_protect(secret, ZKN_SECRET_NO_ACCESS), ==, 0);
    CHECK(traps(touch_read, data), ==, 1);
    CHECK(zkn_secret_protect(secret, 3), ==, -EINVAL);
    CHECK(zkn_secret_protect(secret, -1), ==, -EINVAL);
    CHECK(traps(touch_read, data), ==, 1);
    CHECK(zkn_secret_protect(secret, ZKN_SECRET_READ_WRITE), ==, 0);
    CHECK_TRUE(is_filled((char *)data, 100));
    data[0] = 1;
    zkn_secret_destroy(secret);
}

static void wiping(void)
{
    for (int access = 0; access <= 2; access++) {
        zkn_secret_t *secret = create(5000);
        char *data = zkn_secret_data(secret);
        fill(secret);
        CHECK(zkn_secret_protect(secret, access), ==, 0);
        CHECK(zkn_secret_wipe(secret), ==, 0);
        CHECK(zkn_secret_protect(secret, ZKN_SECRET_READ_ONLY), ==, 0);
        CHECK_TRUE(is_zero(data, 5000));
        CHECK(zkn_secret_protect(secret, access), ==, 0);
        CHECK(zkn_secret_wipe(secret), ==, 0);
        CHECK(traps(touch_write, data), ==, access != ZKN_SECRET_READ_WRITE);
        zkn_secret_destroy(secret); /* whatever the protection */
    }
}

/* --------------------------------------------------- what the kernel says */

/* The VmFlags of the mapping at ADDR, in /proc/self/smaps. */
static void smaps_flags(const void *addr, char *flags, size_t size)
{
    FILE *file = fopen("/proc/self/smaps", "r");
    CHECK_TRUE(file != NULL);
    char line[512];
    bool here = false;
    *flags = '\0';
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            here = start <= (uintptr_t)addr && (uintptr_t)addr < end;
        else if (here && strncmp(line, "VmFlags:", 8) == 0)
            snprintf(flags, size, "%s", line + 8);
    }
    fclose(file);
}

/* `info` claims what /proc shows, no more and no less. */
static void check_flags(const zkn_secret_t *secret)
{
    unsigned info = zkn_secret_info(secret);
    char flags[512];
    smaps_flags(zkn_secret_data(secret), flags, sizeof flags);
    printf("info %u, VmFlags%s", info, flags);
    CHECK(strstr(flags, " lo") != NULL, ==, (info & ZKN_SECRET_LOCKED) != 0);
    CHECK(strstr(flags, " dd") != NULL, ==, (info & ZKN_SECRET_DONTDUMP) != 0);
    CHECK(strstr(flags, " wf") != NULL || strstr(flags, " dc") != NULL, ==,
          (info & ZKN_SECRET_WIPE_ON_FORK) != 0);
    CHECK(strstr(flags, " sh") != NULL, ==, (info & ZKN_SECRET_MEMFD) != 0);
}

static void mapping_flags(void)
{
    zkn_secret_t *secret = create(100);
    check_flags(secret);
    zkn_secret_destroy(secret);
}

/* The kernel of the machine that the tests run on has memfd_secret(), or says
 * why not; then all must have been achieved. */
static void everything(void)
{
    int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
    if (fd < 0 && errno == ENOSYS)
        skip("the kernel has no memfd_secret()");
    CHECK(fd, >=, 0);
    close(fd);
    zkn_secret_t *secret = zkn_secret_create(100, ZKN_SECRET_REQUIRE_LOCK);
    CHECK_TRUE(secret != NULL);
    CHECK(zkn_secret_info(secret), ==, ALL);
    /* Not even the process itself reads it other than by its own loads. */
    int memory = open("/proc/self/mem", O_RDONLY);
    char byte;
    CHECK(memory, >=, 0);
    fill(secret);
    CHECK(pread(memory, &byte, 1, (off_t)(uintptr_t)zkn_secret_data(secret)),
          ==, -1);
    close(memory);
    zkn_secret_destroy(secret);
}

/* -------------------------------------------------------------- children */

static void fork_wipes(void)
{
    zkn_secret_t *secrets[3];
    for (int access = 0; access <= 2; access++) {
        secrets[access] = create(5000);
        fill(secrets[access]);
        CHECK(zkn_secret_protect(secrets[access], access), ==, 0);
    }
    unsigned info = zkn_secret_info(secrets[0]);
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        for (int access = 0; access <= 2; access++) {
            char *data = zkn_secret_data(secrets[access]);
            if (access != ZKN_SECRET_READ_WRITE)
                CHECK(traps(touch_write, data), ==, 1);
            if (access == ZKN_SECRET_NO_ACCESS)
                CHECK(traps(touch_read, data), ==, 1);
            CHECK(zkn_secret_protect(secrets[access], 1), ==, 0);
            CHECK_TRUE(is_zero(data, 5000));
            CHECK(traps(touch_read, data + 5008 - 2 * page - 1), ==, 1);
            CHECK(traps(touch_read, data + 5008), ==, 1);
            /* The child's own from here on, as good as the parent's. */
            CHECK(zkn_secret_info(secrets[access]), ==, info);
            check_flags(secrets[access]);
            CHECK(zkn_secret_protect(secrets[access], 2), ==, 0);
            fill(secrets[access]);
            zkn_secret_destroy(secrets[access]);
        }
        mapping_flags();
        zkn_secret_destroy(create(100));
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(status, ==, 0);
    for (int access = 0; access <= 2; access++) {
        CHECK(zkn_secret_protect(secrets[access], 1), ==, 0);
        CHECK_TRUE(is_filled(zkn_secret_data(secrets[access]), 5000));
        zkn_secret_destroy(secrets[access]);
    }
}

/* A child that raw clone() made, without fork handlers: nothing to read. */
static void clone_wipes(void)
{
    zkn_secret_t *secret = create(5000);
    fill(secret);
    char *data = zkn_secret_data(secret);
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    CHECK(child, >=, 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        _exit(is_zero(data, 5000) ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0), ==, child);
    if ((zkn_secret_info(secret) & ZKN_SECRET_MEMFD) != 0)
        CHECK_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    else
        CHECK(status, ==, 0);
    CHECK_TRUE(is_filled(data, 5000));
    zkn_secret_destroy(secret);
}

static atomic_bool done;

static void *create_and_destroy(void *unused)
{
    (void)unused;
    while (!atomic_load(&done)) {
        zkn_secret_t *secret = zkn_secret_create(100, 0);
        fill(secret);
        zkn_secret_destroy(secret);
    }
    return NULL;
}

static void threads_and_forks(void)
{
    pthread_t threads[3];
    zkn_secret_t *kept = create(100);
    fill(kept);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, create_and_destroy, NULL);
    for (int i = 0; i < (SANITIZED ? 10 : 50); i++) {
        pid_t child = fork();
        CHECK(child, >=, 0);
        if (child == 0) {
            alarm(20);
            CHECK_TRUE(is_zero(zkn_secret_data(kept), 100));
            zkn_secret_destroy(zkn_secret_create(100, 0));
            zkn_secret_destroy(kept);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0), ==, child);
        CHECK(status, ==, 0);
    }
    atomic_store(&done, true);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    CHECK_TRUE(is_filled(zkn_secret_data(kept), 100));
    zkn_secret_destroy(kept);
}

/* ------------------------------------------------------------- refusals */

static void drop_privileges(size_t limit)
{
    struct rlimit limits = {limit, limit};
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limits), ==, 0);
    if (geteuid() == 0)
        CHECK(setresuid(65534, 65534, 65534), ==, 0);
}

static void no_lock_at_all(void)
{
    drop_privileges(0);
    zkn_secret_t *secret = create(100);
    CHECK(zkn_secret_info(secret), ==,
          ZKN_SECRET_DONTDUMP | ZKN_SECRET_WIPE_ON_FORK);
    mapping_flags();
    CHECK_TRUE(zkn_secret_create(100, ZKN_SECRET_REQUIRE_LOCK) == NULL);
    CHECK(errno, ==, EPERM);
    fork_wipes();
    zkn_secret_destroy(secret);
}

static void low_limit(void)
{
    drop_privileges(4 * page);
    zkn_secret_t *most = zkn_secret_create(3 * page, ZKN_SECRET_REQUIRE_LOCK);
    CHECK_TRUE(most != NULL);
    CHECK_TRUE(zkn_secret_create(2 * page, ZKN_SECRET_REQUIRE_LOCK) == NULL);
    CHECK(errno, ==, ENOMEM);
    zkn_secret_t *unlocked = create(2 * page);
    CHECK(zkn_secret_info(unlocked) & ZKN_SECRET_LOCKED, ==, 0);
    zkn_secret_t *rest = zkn_secret_create(page, ZKN_SECRET_REQUIRE_LOCK);
    CHECK_TRUE(rest != NULL);
    zkn_secret_destroy(most); /* gives its share of the limit back */
    zkn_secret_destroy(rest);
    rest = zkn_secret_create(4 * page, ZKN_SECRET_REQUIRE_LOCK);
    CHECK_TRUE(rest != NULL);
    zkn_secret_destroy(rest);
    zkn_secret_destroy(unlocked);
}

/* Without madvise() memfd_secret() memory would be shared with children: it
 * is not used.  The fork handler does the wiping. */
static void no_madvise(void)
{
    kind = PLAIN;
    deny(SYS_madvise, -1, 0);
    mapping_flags();
    fork_wipes();
}

static void no_mprotect(void)
{
    zkn_secret_t *secret = create(100), *other = create(100);
    CHECK(zkn_secret_protect(secret, ZKN_SECRET_NO_ACCESS), ==, 0);
    deny(SYS_mprotect, -1, 0);
    CHECK(zkn_secret_protect(other, ZKN_SECRET_READ_ONLY), ==, -ENOSYS);
    fill(other); /* it stayed as it was */
    CHECK(zkn_secret_wipe(other), ==, 0);
    CHECK(zkn_secret_wipe(secret), ==, -ENOSYS);
    zkn_secret_destroy(other);
    zkn_secret_destroy(secret); /* says so */
}

/* No descriptor free: the private kind, silently. */
static void no_descriptors(void)
{
    struct rlimit none;
    CHECK(getrlimit(RLIMIT_NOFILE, &none), ==, 0);
    none.rlim_cur = 3; /* alone: valgrind refuses to lower the hard limit */
    CHECK(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    kind = PRIVATE;
    zkn_secret_destroy(create(100));
}

static void no_address_space(void)
{
    size_t most = proc_status("VmSize") + (1 << 30);
    struct rlimit limit = {most, most};
    CHECK(setrlimit(RLIMIT_AS, &limit), ==, 0);
    CHECK_TRUE(zkn_secret_create((size_t)2 << 30, 0) == NULL);
    CHECK(errno, ==, ENOMEM);
    zkn_secret_destroy(create(100));
}

/* ------------------------------------------------------------------ cases */

static void on_each_kind(void)
{
    sizes();
    guards();
    misuse();
    protection();
    wiping();
    mapping_flags();
    fork_wipes();
    clone_wipes();
    threads_and_forks();
}

static void on_private(void)
{
    no_memfd();
    on_each_kind();
}

static const struct test_case cases[] = {
    {"everything", everything},
    {"as it comes", on_each_kind},
    {"private", on_private},
    {"no lock", no_lock_at_all},
    {"low limit", low_limit},
    {"no madvise", no_madvise},
    {"no mprotect", no_mprotect, .words = "a secret is released unwiped"},
    {"no descriptors", no_descriptors},
    {"no address space", no_address_space},
};

int main(int argc, char **argv)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    return RUN_CASES(argc, argv, cases);
}
