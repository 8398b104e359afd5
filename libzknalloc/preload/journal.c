/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * journal.c - write records into a file that is mapped, a window at a time.
 *
 * Records are stores into shared file pages, so they survive whatever ends the
 * process, and writing one costs no system call.  The file is opened by the
 * first record and again for each further window, never kept open: programs
 * close descriptors that they do not know.  Its space is allocated before it
 * is mapped, so a full disk is an error here and not a SIGBUS later.
 *
 * Live blocks are kept in a hash table, address -> number and size, with
 * linear probing.  Table and windows come from mmap(); nothing here calls
 * malloc.
 *
 * Invariants: "used" entries of the table are the blocks that a record says
 * live, less those between journal_take() and what follows it; the table is
 * at most half full.  All state is guarded by one lock, which is held for a
 * record and, rarely, the system calls of the next window.  The lock is taken
 * around fork(); the child forgets everything and starts a file of its own.
 *
 * What goes wrong (no directory, a full disk, no address space) ends the
 * recording with one line on stderr, never the program.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "journal.h"
#include "next.h"
#include "zknalloc.h"

#define WINDOW       ((size_t)1 << 20)
#define FIRST_BLOCKS ((size_t)1 << 12) /* entries of the first table */

/* Where the files go: set by `zk-nalloc record`, absolute. */
#define DIRECTORY "ZK_NALLOC_RECORD_DIR"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    bool stopped;
    char path[512];
    uint64_t start_ns;
    char *window;    /* NULL before the first record */
    size_t at;       /* of the next record in the window */
    off_t window_at; /* of the window in the file */

    journal_block_t *table;
    size_t capacity; /* a power of two, or 0 */
    size_t used;
    uint32_t last_number;
} journal;

static __thread uint32_t tid __attribute__((tls_model("initial-exec")));

/* ------------------------------------------------------------------ the file
 */

static void stop(const char *what)
{
    char line[768];
    int length = snprintf(line, sizeof line,
                          "libzknalloc_record: %s %s failed (errno %d); "
                          "recording of process %ld ends here\n",
                          what, journal.path, errno, (long)getpid());
    if (length > 0)
        (void)!write(STDERR_FILENO, line, (size_t)length);
    journal.stopped = true;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Allocate WINDOW bytes of the file from OFFSET on; returns 0 or the errno.  A
 * limit of RLIMIT_FSIZE is an error here, and not the signal that would end the
 * program. */
static int allocate(int fd, off_t offset)
{
    static const struct timespec now = {0};
    sigset_t limit, old;
    (void)sigemptyset(&limit);
    (void)sigaddset(&limit, SIGXFSZ);
    (void)pthread_sigmask(SIG_BLOCK, &limit, &old);
    int error = posix_fallocate(fd, offset, WINDOW);
    if (error == EFBIG && sigismember(&old, SIGXFSZ) == 0)
        (void)sigtimedwait(&limit, NULL, &now);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return error;
}

/* Map WINDOW bytes of the file from OFFSET on.  False: recording has ended. */
static bool map_window(off_t offset)
{
    int flags = O_RDWR | O_CLOEXEC | (offset == 0 ? O_CREAT | O_EXCL : 0);
    int fd = open(journal.path, flags, 0600);
    if (fd < 0) {
        stop("opening");
        return false;
    }
    void *window = MAP_FAILED;
    errno = allocate(fd, offset);
    if (errno == 0)
        window =
            mmap(NULL, WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
    if (window == MAP_FAILED)
        stop("extending");
    int saved = errno;
    (void)close(fd);
    errno = saved;
    if (journal.stopped)
        return false;
    if (journal.window != NULL)
        (void)munmap(journal.window, WINDOW);
    journal.window = window;
    journal.window_at = offset;
    journal.at = 0;
    return true;
}

static bool open_file(void)
{
    const char *directory = getenv(DIRECTORY);
    if (directory == NULL || directory[0] != '/') {
        journal.stopped = true; /* preloaded by hand: nobody asked for a file */
        return false;
    }
    journal.start_ns = now_ns();
    /* After exec() the same process starts another file. */
    int length =
        snprintf(journal.path, sizeof journal.path, "%s/%ld-%llu", directory,
                 (long)getpid(), (unsigned long long)journal.start_ns);
    if (length < 0 || (size_t)length >= sizeof journal.path) {
        errno = ENAMETOOLONG;
        stop("naming");
        return false;
    }
    if (!map_window(0))
        return false;
    journal_header_t *header = (journal_header_t *)(void *)journal.window;
    *header = (journal_header_t){
        .magic = JOURNAL_MAGIC,
        .version = JOURNAL_VERSION,
        .record_size = sizeof(journal_record_t),
        .pid = (uint32_t)getpid(),
        .threshold = ZKN_THRESHOLD,
        .start_ns = journal.start_ns,
    };
    (void)!readlink("/proc/self/exe", header->program,
                    sizeof header->program - 1);
    journal.at = JOURNAL_FIRST;
    return true;
}

/* Append a record.  Needs the lock. */
static void append(int op, uint32_t number, size_t size, size_t aux)
{
    if (journal.window == NULL) {
        if (!open_file())
            return;
    } else if (journal.at == WINDOW &&
               !map_window(journal.window_at + (off_t)WINDOW)) {
        return;
    }
    if (tid == 0)
        tid = (uint32_t)gettid();
    journal_record_t *record =
        (journal_record_t *)(void *)(journal.window + journal.at);
    *record = (journal_record_t){
        .ns = now_ns() - journal.start_ns,
        .size = size,
        .aux = aux,
        .block = number,
        .tid_op = tid << 8 | (uint32_t)op,
    };
    journal.at += sizeof *record;
}

/* ----------------------------------------------------------- the live blocks
 */

static size_t home(uintptr_t ptr, size_t capacity)
{
    /* Fibonacci hashing; addresses of large blocks differ from bit 12 on. */
    uint64_t hash = (uint64_t)(ptr >> 4) * 0x9E3779B97F4A7C15u;
    return (size_t)(hash >> 32) & (capacity - 1);
}

static void put(journal_block_t *table, size_t capacity, journal_block_t block)
{
    size_t i = home(block.ptr, capacity);
    while (table[i].ptr != 0)
        i = (i + 1) & (capacity - 1);
    table[i] = block;
}

static bool grow(void)
{
    size_t capacity =
        journal.capacity > 0 ? 2 * journal.capacity : FIRST_BLOCKS;
    journal_block_t *table =
        mmap(NULL, capacity * sizeof *table, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED) {
        stop("memory for");
        return false;
    }
    for (size_t i = 0; i < journal.capacity; i++) {
        if (journal.table[i].ptr != 0)
            put(table, capacity, journal.table[i]);
    }
    if (journal.table != NULL)
        (void)munmap(journal.table, journal.capacity * sizeof *table);
    journal.table = table;
    journal.capacity = capacity;
    return true;
}

static void insert(journal_block_t block)
{
    if (2 * journal.used >= journal.capacity && !grow())
        return;
    put(journal.table, journal.capacity, block);
    journal.used++;
}

/* Take PTR out of the table; .ptr of the result is 0 where it is not there. */
static journal_block_t extract(uintptr_t ptr)
{
    journal_block_t none = {0};
    if (journal.capacity == 0)
        return none;
    size_t mask = journal.capacity - 1, i = home(ptr, journal.capacity);
    while (journal.table[i].ptr != ptr) {
        if (journal.table[i].ptr == 0)
            return none;
        i = (i + 1) & mask;
    }
    journal_block_t found = journal.table[i];
    /* Close the gap: an entry behind it moves in unless its own home lies
     * between the gap and itself. */
    for (size_t j = (i + 1) & mask; journal.table[j].ptr != 0;
         j = (j + 1) & mask) {
        size_t h = home(journal.table[j].ptr, journal.capacity);
        if (((j - h) & mask) >= ((j - i) & mask)) {
            journal.table[i] = journal.table[j];
            i = j;
        }
    }
    journal.table[i] = none;
    journal.used--;
    return found;
}

/* ----------------------------------------------------------------- interface
 */

/* False: nothing is recorded (any more). */
static bool enter(int *saved)
{
    *saved = errno;
    (void)pthread_mutex_lock(&lock);
    if (!journal.stopped)
        return true;
    (void)pthread_mutex_unlock(&lock);
    return false;
}

static void leave(int saved)
{
    (void)pthread_mutex_unlock(&lock);
    errno = saved;
}

void journal_new(int op, const void *ptr, size_t size, size_t aux)
{
    int saved;
    if (!enter(&saved))
        return;
    append(op, ++journal.last_number, size, aux);
    insert((journal_block_t){(uintptr_t)ptr, size, journal.last_number});
    leave(saved);
}

journal_block_t journal_take(const void *ptr)
{
    int saved;
    journal_block_t block = {0};
    if (enter(&saved)) {
        block = extract((uintptr_t)ptr);
        leave(saved);
    }
    return block;
}

void journal_moved(journal_block_t block, const void *ptr, size_t size)
{
    int saved;
    if (block.ptr == 0 || !enter(&saved))
        return;
    append(OP_REALLOC, block.number, size, block.size);
    insert((journal_block_t){(uintptr_t)ptr, size, block.number});
    leave(saved);
}

void journal_unmoved(journal_block_t block)
{
    int saved;
    if (block.ptr == 0 || !enter(&saved))
        return;
    insert(block);
    leave(saved);
}

void journal_gone(journal_block_t block)
{
    int saved;
    if (block.ptr == 0 || !enter(&saved))
        return;
    append(OP_FREE, block.number, block.size, 0);
    leave(saved);
}

void journal_free(const void *ptr)
{
    int saved;
    if (!enter(&saved))
        return;
    journal_block_t block = extract((uintptr_t)ptr);
    if (block.ptr != 0)
        append(OP_FREE, block.number, block.size, 0);
    leave(saved);
}

/* ---------------------------------------------------------------------- fork
 */

static void before_fork(void)
{
    (void)pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* The parent's window and blocks are the parent's. */
static void after_fork_in_child(void)
{
    if (journal.window != NULL)
        (void)munmap(journal.window, WINDOW);
    if (journal.table != NULL)
        (void)munmap(journal.table, journal.capacity * sizeof *journal.table);
    memset(&journal, 0, sizeof journal);
    tid = 0;
    (void)pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void watch_forks(void)
{
    (void)pthread_atfork(before_fork, after_fork, after_fork_in_child);
}
