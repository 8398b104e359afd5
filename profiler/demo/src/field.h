/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * field.h - the BabyBear field and its extension of degree 4.
 *
 * The base field has p = 2^31 - 2^27 + 1 elements: an element fills half a
 * machine word, so that vector units work on 8 or 16 at once, and p - 1 is
 * divisible by 2^27, so that there are roots of unity for every transform
 * used here.  Trace values live in the base field.  Challenges come from the
 * extension F[X]/(X^4 - 11), of about 2^124 elements; 11 is no square and 4
 * divides p - 1, so X^4 - 11 is irreducible.
 *
 * Elements are held in Montgomery form everywhere, in the proof as well: the
 * fe that stands for a is a * 2^32 mod p.
 *
 * Invariant: every fe is below p, so that each element has one form.
 * fe_load() is the only way in for bytes from outside, and checks that.
 */
#ifndef DEMO_FIELD_H
#define DEMO_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Field elements are hashed as they lie in memory. */
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the demonstration prover needs a little-endian machine"
#endif

#define FIELD_P         0x78000001u
#define FIELD_GENERATOR 31 /* of the whole multiplicative group */
#define EXT_DEGREE      4
#define EXT_POWER       11 /* X^4 */

typedef uint32_t fe;

typedef struct ext {
    fe c[EXT_DEGREE]; /* c[0] + c[1] X + c[2] X^2 + c[3] X^3 */
} ext;

#define FE_ONE ((fe)0x0ffffffe) /* 2^32 mod p */

static inline fe fe_sub(fe a, fe b)
{
    return a - b + (a < b ? FIELD_P : 0);
}

static inline fe fe_add(fe a, fe b)
{
    uint32_t sum = a + b; /* below 2^32 */
    return sum >= FIELD_P ? sum - FIELD_P : sum;
}

static inline fe fe_mul(fe a, fe b)
{
    /* Montgomery: subtract the multiple of p that clears the low half. */
    const uint32_t p_inverse = 0x88000001u; /* modulo 2^32 */
    uint64_t product = (uint64_t)a * b;
    uint64_t multiple = (uint64_t)((uint32_t)product * p_inverse) * FIELD_P;
    return fe_sub((uint32_t)(product >> 32), (uint32_t)(multiple >> 32));
}

static inline fe fe_neg(fe a)
{
    return fe_sub(0, a);
}

/* The element that stands for the number N < p. */
static inline fe fe_of(uint32_t n)
{
    return fe_mul(n, 0x45dddde3u); /* 2^64 mod p */
}

static inline ext ext_of(fe a)
{
    return (ext){{a, 0, 0, 0}};
}

static inline bool ext_equal(ext a, ext b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static inline ext ext_add(ext a, ext b)
{
    for (int i = 0; i < EXT_DEGREE; i++)
        a.c[i] = fe_add(a.c[i], b.c[i]);
    return a;
}

static inline ext ext_sub(ext a, ext b)
{
    for (int i = 0; i < EXT_DEGREE; i++)
        a.c[i] = fe_sub(a.c[i], b.c[i]);
    return a;
}

static inline ext ext_scale(ext a, fe b)
{
    for (int i = 0; i < EXT_DEGREE; i++)
        a.c[i] = fe_mul(a.c[i], b);
    return a;
}

static inline ext ext_mul(ext a, ext b)
{
    fe r[2 * EXT_DEGREE - 1] = {0};
    for (int i = 0; i < EXT_DEGREE; i++)
        for (int k = 0; k < EXT_DEGREE; k++)
            r[i + k] = fe_add(r[i + k], fe_mul(a.c[i], b.c[k]));
    const fe power = fe_of(EXT_POWER);
    for (int i = 0; i < EXT_DEGREE - 1; i++)
        r[i] = fe_add(r[i], fe_mul(power, r[i + EXT_DEGREE]));
    return (ext){{r[0], r[1], r[2], r[3]}};
}

/* Read COUNT elements; false where the bytes are not such. */
static inline bool fe_load(fe *out, const uint8_t *bytes, size_t count)
{
    memcpy(out, bytes, count * sizeof *out);
    bool canonical = true;
    for (size_t i = 0; i < count; i++)
        canonical &= out[i] < FIELD_P;
    return canonical;
}

static inline bool ext_load(ext *out, const uint8_t *bytes, size_t count)
{
    return fe_load(out->c, bytes, count * EXT_DEGREE);
}

/* The low BITS bits of I in reverse order. */
static inline size_t bit_reverse(size_t i, unsigned bits)
{
    size_t r = 0;
    for (unsigned k = 0; k < bits; k++)
        r |= ((i >> k) & 1) << (bits - 1 - k);
    return r;
}

fe fe_pow(fe base, uint64_t exponent);
fe fe_inv(fe a); /* a != 0 */
ext ext_pow(ext base, uint64_t exponent);
ext ext_inv(ext a); /* a != 0 */

/* Set *ADJOINT so that a * adjoint is in the base field, and return that
 * product, which is zero only for a = 0. */
fe ext_norm(ext a, ext *adjoint);

/* Replace each of the N non-zero elements of A by its inverse, with one
 * inversion and 3 N multiplications.  SCRATCH holds N elements. */
void fe_batch_inv(fe *a, fe *scratch, size_t n);

/* A generator of the subgroup of 2^LOG_N elements; each is the square of
 * the next: fe_root(k) = fe_root(k + 1)^2. */
fe fe_root(unsigned log_n);

#endif
