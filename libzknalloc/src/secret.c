/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * secret.c - memory that is kept from swap, dumps, children and neighbours.
 *
 *     | guard page | canary ...      | the secret | canary | guard page |
 *                  ^ pages           ^ data                ^ pages + length
 *
 * The secret ends at the second guard, up to a multiple of 16, so that an
 * overrun traps at once; what is left of its pages, before and after, holds a
 * random pattern that must still be there at the end.
 *
 * The pages are of memfd_secret() where the kernel has it, else private and
 * locked.  They differ in what fork() does to them:
 *
 *   private    MADV_WIPEONFORK: the child reads zeros.  The child's pages are
 *              not locked any more.
 *   memfd      shared, so that advice does not apply, and a child would read
 *              the secret (Linux 6.18 does).  MADV_DONTFORK: the child has a
 *              hole there.
 *
 * The child's fork handler therefore fills each hole with new secret memory
 * at the same address, locks what is private again, and corrects `info`.  A
 * child that raw clone() made has no such handler: it reads zeros or traps.
 *
 * All secrets are in one list, for the fork handlers and for the end of the
 * process.  Its lock is a leaf and covers the list; a secret's other fields
 * belong to whoever uses it, who must not change it from two threads at once.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "log.h"
#include "os.h"
#include "os_secret.h"
#include "zknalloc.h"

#define ALIGNMENT 16

struct zkn_secret {
    struct zkn_secret *next; /* under the lock */
    char *pages;
    size_t length;
    char *data;
    size_t size;
    unsigned info;
    int access; /* ZKN_SECRET_NO_ACCESS, ... */
    unsigned char canary[ALIGNMENT];
};

static struct zkn_secret *secrets;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int fork_error; /* of pthread_atfork() */

/* ------------------------------------------------------------ the content */

/* Allow ACCESS for now; secret->access stays what the program asked for. */
static int allow(const struct zkn_secret *secret, int access)
{
    static const int prots[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    return os_secret_protect(secret->pages, secret->length, prots[access]);
}

/* Lets the program's pages be written; undone by restore(). */
static int open_up(const struct zkn_secret *secret)
{
    return secret->access == ZKN_SECRET_READ_WRITE
               ? 0
               : allow(secret, ZKN_SECRET_READ_WRITE);
}

static int restore(const struct zkn_secret *secret)
{
    return secret->access == ZKN_SECRET_READ_WRITE
               ? 0
               : allow(secret, secret->access);
}

static unsigned char canary_at(const struct zkn_secret *secret, const char *at)
{
    return secret->canary[(uintptr_t)at % ALIGNMENT];
}

/* The pattern on all pages, and zeros where the secret will be.  This is also
 * their first touch: memory that is short is noticed now. */
static void canary_write(struct zkn_secret *secret)
{
    for (char *at = secret->pages; at < secret->pages + secret->length; at++)
        *at = (char)canary_at(secret, at);
    memset(secret->data, 0, secret->size);
}

static bool canary_intact(const struct zkn_secret *secret)
{
    const char *at = secret->pages, *end = secret->pages + secret->length;
    bool intact = true;
    for (; at < secret->data; at++)
        intact &= *at == (char)canary_at(secret, at);
    for (at += secret->size; at < end; at++)
        intact &= *at == (char)canary_at(secret, at);
    return intact;
}

/* --------------------------------------------------------------- the pages */

/* Give the secret's pages, mapped or VACANT, zeroed memory.  Returns an error
 * where there is none; *UNLOCKED is why it could not be locked, or 0. */
static int map_pages(struct zkn_secret *secret, bool vacant, int *unlocked)
{
    char *pages = secret->pages;
    size_t length = secret->length;
    *unlocked = 0;
    if (os_secret_map_memfd(pages, length, vacant) == 0) {
        secret->info = ZKN_SECRET_LOCKED | ZKN_SECRET_MEMFD |
                       ZKN_SECRET_DONTDUMP | ZKN_SECRET_WIPE_ON_FORK;
        return 0;
    }
    int error = os_secret_map_private(pages, length, vacant);
    if (error != 0)
        return error;
    secret->info = 0;
    *unlocked = os_secret_lock(pages, length);
    if (*unlocked == 0)
        secret->info |= ZKN_SECRET_LOCKED;
    if (os_secret_dont_dump(pages, length) == 0)
        secret->info |= ZKN_SECRET_DONTDUMP;
    if (os_secret_wipe_on_fork(pages, length) == 0)
        secret->info |= ZKN_SECRET_WIPE_ON_FORK;
    return 0;
}

/* ---------------------------------------------------- fork and process end */

static void fork_prepare(void)
{
    pthread_mutex_lock(&lock);
}

static void fork_done(void)
{
    pthread_mutex_unlock(&lock);
}

static void renew_in_child(struct zkn_secret *secret)
{
    int unlocked;
    if ((secret->info & ZKN_SECRET_MEMFD) != 0) {
        if (map_pages(secret, true, &unlocked) != 0)
            log_misuse("cannot map a forked secret afresh", secret->pages);
    } else {
        if (allow(secret, ZKN_SECRET_READ_WRITE) != 0)
            log_misuse("cannot wipe a forked secret", secret->pages);
        if ((secret->info & ZKN_SECRET_WIPE_ON_FORK) == 0)
            explicit_bzero(secret->pages, secret->length);
        if (os_secret_lock(secret->pages, secret->length) != 0)
            secret->info &= ~ZKN_SECRET_LOCKED;
    }
    /* The canary is part of the pages, and zero like the rest. */
    memset(secret->canary, 0, sizeof secret->canary);
    (void)restore(secret);
}

static void fork_child(void)
{
    for (struct zkn_secret *secret = secrets; secret != NULL;
         secret = secret->next)
        renew_in_child(secret);
    pthread_mutex_unlock(&lock);
}

static void register_fork_handlers(void)
{
    fork_error = pthread_atfork(fork_prepare, fork_done, fork_child);
}

__attribute__((destructor)) static void wipe_all(void)
{
    pthread_mutex_lock(&lock);
    for (struct zkn_secret *secret = secrets; secret != NULL;
         secret = secret->next)
        (void)zkn_secret_wipe(secret);
    pthread_mutex_unlock(&lock);
}

/* --------------------------------------------------------------- functions */

/* The layout, the pages and the canary; the handle is not in the list yet. */
static int secret_open(struct zkn_secret *secret, size_t size, unsigned flags)
{
    size_t page = os_page_size(),
           padded = round_up(max_size(size, 1), ALIGNMENT);
    char *base;
    int unlocked;
    secret->size = size;
    secret->length = round_up(padded, page);
    int error = os_secret_reserve(secret->length + 2 * page, &base);
    if (error != 0)
        return error;
    secret->pages = base + page;
    secret->data = secret->pages + secret->length - padded;
    secret->access = ZKN_SECRET_READ_WRITE;
    error = map_pages(secret, false, &unlocked);
    if (error == 0 && (flags & ZKN_SECRET_REQUIRE_LOCK) != 0)
        error = unlocked;
    if (error != 0) {
        os_secret_unmap(base, secret->length + 2 * page);
        return error;
    }
    os_random(secret->canary, sizeof secret->canary);
    canary_write(secret);
    return 0;
}

zkn_secret_t *zkn_secret_create(size_t size, unsigned flags)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if ((flags & ~ZKN_SECRET_REQUIRE_LOCK) != 0) {
        errno = EINVAL;
        return NULL;
    }
    pthread_once(&once, register_fork_handlers);
    if (size > PTRDIFF_MAX / 2 || fork_error != 0) {
        errno = ENOMEM;
        return NULL;
    }
    struct zkn_secret *secret = malloc(sizeof *secret);
    if (secret == NULL)
        return NULL;
    int error = secret_open(secret, size, flags);
    if (error != 0) {
        free(secret);
        errno = -error;
        return NULL;
    }
    pthread_mutex_lock(&lock);
    secret->next = secrets;
    secrets = secret;
    pthread_mutex_unlock(&lock);
    return secret;
}

/* What points to SECRET in the list.  There are few secrets: each costs three
 * mappings of the some 65 000 that a process may have. */
static struct zkn_secret **find(const struct zkn_secret *secret)
{
    struct zkn_secret **link = &secrets;
    while (*link != secret) {
        if (*link == NULL)
            log_misuse("not a secret (destroyed before?)", secret);
        link = &(*link)->next;
    }
    return link;
}

void zkn_secret_destroy(zkn_secret_t *secret)
{
    if (secret == NULL)
        return;
    int saved = errno;
    pthread_mutex_lock(&lock);
    (void)find(secret);
    pthread_mutex_unlock(&lock);
    if (open_up(secret) == 0) {
        if (!canary_intact(secret))
            log_misuse("memory around a secret was written to", secret->data);
        explicit_bzero(secret->data, secret->size);
    } else {
        log_warning("a secret is released unwiped: the kernel refuses to make "
                    "it writable",
                    "");
    }
    /* In the list until here: a child forked meanwhile must find it. */
    pthread_mutex_lock(&lock);
    *find(secret) = secret->next;
    pthread_mutex_unlock(&lock);
    size_t page = os_page_size();
    os_secret_unmap(secret->pages - page, secret->length + 2 * page);
    free(secret);
    errno = saved;
}

void *zkn_secret_data(const zkn_secret_t *secret)
{
    return secret->data;
}

size_t zkn_secret_size(const zkn_secret_t *secret)
{
    return secret->size;
}

unsigned zkn_secret_info(const zkn_secret_t *secret)
{
    return secret->info;
}

int zkn_secret_protect(zkn_secret_t *secret, int access)
{
    if (access < ZKN_SECRET_NO_ACCESS || access > ZKN_SECRET_READ_WRITE)
        return -EINVAL;
    int error = allow(secret, access);
    if (error == 0)
        secret->access = access;
    return error;
}

int zkn_secret_wipe(zkn_secret_t *secret)
{
    int error = open_up(secret);
    if (error != 0)
        return error;
    explicit_bzero(secret->data, secret->size);
    return restore(secret);
}

bool zkn_secret_equal(const void *a, const void *b, size_t size)
{
    /* Volatile: no branch, and no call of memcmp(), may be made of it. */
    const volatile unsigned char *left = a, *right = b;
    unsigned char difference = 0;
    for (size_t i = 0; i < size; i++)
        difference |= left[i] ^ right[i];
    return difference == 0;
}
