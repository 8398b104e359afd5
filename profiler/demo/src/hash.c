/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * hash.c - BLAKE2s-256 on LANES messages of one length at a time; names
 * follow RFC 7693, section 3.  Lane k of every vector belongs to message k.
 */
#include "hash.h"

#include <string.h>

#include "vectorised.h"

#define LANES 8

typedef uint32_t lanes __attribute__((vector_size(4 * LANES)));

static const uint32_t iv[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static const uint8_t sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

#define ROTATE(x, by) (((x) >> (by)) | ((x) << (32 - (by))))

/* The mixing function G. */
#define MIX(a, b, c, d, x, y)                                                  \
    do {                                                                       \
        v[a] += v[b] + m[x];                                                   \
        v[d] = ROTATE(v[d] ^ v[a], 16);                                        \
        v[c] += v[d];                                                          \
        v[b] = ROTATE(v[b] ^ v[c], 12);                                        \
        v[a] += v[b] + m[y];                                                   \
        v[d] = ROTATE(v[d] ^ v[a], 8);                                         \
        v[c] += v[d];                                                          \
        v[b] = ROTATE(v[b] ^ v[c], 7);                                         \
    } while (0)

/* The compression function F; COUNT is the number of bytes hashed so far,
 * this block included. */
static inline __attribute__((always_inline)) void compress(lanes h[8],
                                                           const lanes m[16],
                                                           uint64_t count,
                                                           int last)
{
    lanes v[16];
    for (int i = 0; i < 8; i++) {
        v[i] = h[i];
        v[i + 8] = (lanes){0} + iv[i];
    }
    v[12] ^= (uint32_t)count;
    v[13] ^= (uint32_t)(count >> 32);
    if (last)
        v[14] = ~v[14];
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        const uint8_t *s = sigma[round];
        MIX(0, 4, 8, 12, s[0], s[1]);
        MIX(1, 5, 9, 13, s[2], s[3]);
        MIX(2, 6, 10, 14, s[4], s[5]);
        MIX(3, 7, 11, 15, s[6], s[7]);
        MIX(0, 5, 10, 15, s[8], s[9]);
        MIX(1, 6, 11, 12, s[10], s[11]);
        MIX(2, 7, 8, 13, s[12], s[13]);
        MIX(3, 4, 9, 14, s[14], s[15]);
    }
    for (int i = 0; i < 8; i++)
        h[i] ^= v[i] ^ v[i + 8];
}

/* Load LEN <= 64 bytes of each message, LANES messages STRIDE bytes apart. */
static inline __attribute__((always_inline)) void load(lanes m[16],
                                                       const uint8_t *in,
                                                       size_t stride,
                                                       size_t len)
{
    uint32_t words[LANES][16];
    if (len < 64)
        memset(words, 0, sizeof words);
    for (int lane = 0; lane < LANES; lane++)
        memcpy(words[lane], in + (size_t)lane * stride, len);
    for (int w = 0; w < 16; w++)
        for (int lane = 0; lane < LANES; lane++)
            m[w][lane] = words[lane][w];
}

VECTORISED static void hash_lanes(const uint32_t start[8], const uint8_t *in,
                                  size_t stride, size_t len,
                                  uint32_t out[LANES][8])
{
    lanes h[8], m[16];
    for (int i = 0; i < 8; i++)
        h[i] = (lanes){0} + start[i];

    uint64_t count = 0;
    for (; len > 64; in += 64, len -= 64) {
        load(m, in, stride, 64);
        compress(h, m, count += 64, 0);
    }
    load(m, in, stride, len);
    compress(h, m, count + len, 1);

    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 8; i++)
            out[lane][i] = h[i][lane];
}

void hash_rows(const char *person, const void *rows, size_t row_bytes,
               size_t count, digest *out)
{
    /* Parameter block: 32 bytes of digest, no key, fan-out and depth 1. */
    uint32_t start[8], words[LANES][8];
    memcpy(start, iv, sizeof start);
    start[0] ^= 0x01010020;
    if (person != NULL) {
        uint32_t personal[2];
        memcpy(personal, person, sizeof personal);
        start[6] ^= personal[0];
        start[7] ^= personal[1];
    }

    const uint8_t *in = rows;
    for (; count >= LANES; count -= LANES, out += LANES) {
        hash_lanes(start, in, row_bytes, row_bytes, words);
        memcpy(out, words, sizeof words);
        in += LANES * row_bytes;
    }
    /* What is left goes one by one, the same message in every lane. */
    for (; count > 0; count--, out++, in += row_bytes) {
        hash_lanes(start, in, 0, row_bytes, words);
        memcpy(out, words[0], sizeof *out);
    }
}
