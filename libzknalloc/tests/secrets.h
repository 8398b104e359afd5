/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * secrets.h - secrets for tests: of which kind of memory they are to be, and
 * what they hold.
 */
#ifndef ZKN_SECRETS_H
#define ZKN_SECRETS_H

#include "testing.h"

#define ALL                                                                    \
    (ZKN_SECRET_LOCKED | ZKN_SECRET_MEMFD | ZKN_SECRET_DONTDUMP |              \
     ZKN_SECRET_WIPE_ON_FORK)

static size_t page;

/* What the pages of this case are made of. */
static enum { AS_IT_COMES, PRIVATE, PLAIN } kind;

static inline zkn_secret_t *create(size_t size)
{
    zkn_secret_t *secret = zkn_secret_create(size, 0);
    CHECK_TRUE(secret != NULL);
    CHECK(zkn_secret_size(secret), ==, size);
    unsigned info = zkn_secret_info(secret);
    if (kind == PRIVATE)
        CHECK(info, ==, ALL & ~ZKN_SECRET_MEMFD);
    if (kind == PLAIN)
        CHECK(info & ~ZKN_SECRET_LOCKED, ==, 0);
    return secret;
}

/* The content of secrets.  It is made byte by byte, and not by the compiler, so
 * that no other memory holds it. */
static volatile unsigned salt = 7;

static inline unsigned char byte_at(size_t i)
{
    return (unsigned char)(1 + (i * i + salt * i) % 251);
}

static inline void fill(zkn_secret_t *secret)
{
    unsigned char *data = zkn_secret_data(secret);
    for (size_t i = 0; i < zkn_secret_size(secret); i++)
        data[i] = byte_at(i);
}

static inline bool is_filled(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != byte_at(i))
            return false;
    }
    return true;
}

static inline void no_memfd(void)
{
    kind = PRIVATE;
    deny(SYS_memfd_secret, -1, 0);
}

#endif /* ZKN_SECRETS_H */
