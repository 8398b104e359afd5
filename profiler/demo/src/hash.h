/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * hash.h - BLAKE2s-256, as RFC 7693 defines it, without a key.
 *
 * Every use has its own 8-byte personalisation, a parameter of BLAKE2s, so
 * that no hash of one kind (a Merkle leaf) can pass for one of another (a
 * Merkle node, a transcript state).
 */
#ifndef DEMO_HASH_H
#define DEMO_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct digest {
    uint8_t bytes[32];
} digest;

/* Hash each of COUNT consecutive rows of ROW_BYTES bytes into OUT.  Rows are
 * hashed several at a time, in the lanes of vector registers.  PERSON is 8
 * bytes, or NULL for plain BLAKE2s. */
void hash_rows(const char *person, const void *rows, size_t row_bytes,
               size_t count, digest *out);

static inline digest hash(const char *person, const void *data, size_t len)
{
    digest out;
    hash_rows(person, data, len, 1, &out);
    return out;
}

#endif
