/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * journal.h - the file that libzknalloc_record.so writes, and the blocks that
 * live.  Only record.c uses it; zk_nalloc/_record.py reads the file.
 *
 * A file begins with a journal_header_t; the records lie from
 * JOURNAL_FIRST on, in the machine's byte order and in the order in which the
 * calls took effect.  The first one whose op is 0 is the end.
 */
#ifndef JOURNAL_H
#define JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_MAGIC   "ZKNALLOC-RECORD" /* 16 bytes with the final NUL */
#define JOURNAL_VERSION 1
#define JOURNAL_FIRST   4096

/* What a call did to a block, spelled as in the CSV files. */
enum {
    OP_MALLOC = 'm',
    OP_CALLOC = 'c',
    OP_ALIGNED = 'a', /* aux: the alignment */
    OP_REALLOC = 'r', /* aux: the old size */
    OP_GROWN = 'g',   /* realloc of a small block; aux: its usable size */
    OP_FREE = 'f',    /* size: what was asked for; also a realloc to less than
                         the threshold, which leaves the record */
};

typedef struct journal_header {
    char magic[16];
    uint32_t version;
    uint32_t record_size;
    uint32_t pid;
    uint32_t threshold; /* smaller requests are not recorded */
    uint64_t start_ns;  /* CLOCK_MONOTONIC of the first record */
    char program[256];  /* NUL-terminated path of the executable */
} journal_header_t;

typedef struct journal_record {
    uint64_t ns; /* since the first record */
    uint64_t size;
    uint64_t aux;
    uint32_t block;  /* its number, from 1 */
    uint32_t tid_op; /* thread << 8 | op */
} journal_record_t;

/* A block between journal_take() and what becomes of it. */
typedef struct journal_block {
    uintptr_t ptr; /* 0: there is none */
    size_t size;
    uint32_t number;
} journal_block_t;

/* Record that call OP returned PTR, of SIZE bytes. */
void journal_new(int op, const void *ptr, size_t size, size_t aux);

/* Record that PTR is about to be freed.  Nothing for blocks that were never
 * recorded. */
void journal_free(const void *ptr);

/* A realloc is recorded in two steps, because the old address may be another
 * thread's before the call has returned: take the block out, then say what
 * became of it.  The result's ptr is 0 for blocks that were never recorded. */
journal_block_t journal_take(const void *ptr);
void journal_moved(journal_block_t block, const void *ptr, size_t size);
void journal_unmoved(journal_block_t block);
void journal_gone(journal_block_t block);

#endif /* JOURNAL_H */
