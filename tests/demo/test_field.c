/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * test_field.c - the field against plain integer arithmetic.
 */
#include "testing.h"

/* The number that an element stands for, by a route of its own. */
static uint64_t number_of(fe a)
{
    /* a = n * 2^32 mod p; 943718400 is 2^-32 mod p. */
    CHECK_EQUAL((943718400ull << 32) % FIELD_P, 1);
    return (uint64_t)a * 943718400u % FIELD_P;
}

static void test_base(void)
{
    CHECK_EQUAL(number_of(FE_ONE), 1);
    const fe edges[] = {0, FE_ONE, FIELD_P - 1, FIELD_P - FE_ONE, 2};
    for (int i = 0; i < 2000; i++) {
        fe a = i < 25 ? edges[i / 5] : next_fe();
        fe b = i < 25 ? edges[i % 5] : next_fe();
        uint64_t x = number_of(a), y = number_of(b);
        CHECK_EQUAL(number_of(fe_add(a, b)), (x + y) % FIELD_P);
        CHECK_EQUAL(number_of(fe_sub(a, b)), (x + FIELD_P - y) % FIELD_P);
        CHECK_EQUAL(number_of(fe_mul(a, b)), x * y % FIELD_P);
        CHECK_EQUAL(number_of(fe_neg(a)), (FIELD_P - x) % FIELD_P);
        CHECK_EQUAL(fe_of((uint32_t)x), a);
        CHECK(fe_add(a, b) < FIELD_P && fe_sub(a, b) < FIELD_P);
        CHECK(fe_mul(a, b) < FIELD_P && fe_neg(a) < FIELD_P);
        if (a != 0)
            CHECK_EQUAL(fe_mul(a, fe_inv(a)), FE_ONE);
    }
}

static void test_group(void)
{
    /* p - 1 = 2^27 * 3 * 5: the generator misses no factor. */
    const uint32_t factors[] = {2, 3, 5};
    for (int i = 0; i < 3; i++)
        CHECK(fe_pow(fe_of(FIELD_GENERATOR), (FIELD_P - 1) / factors[i]) !=
              FE_ONE);
    /* X^4 - 11 is irreducible: 11 is no square, and 4 divides p - 1. */
    CHECK_EQUAL(fe_pow(fe_of(EXT_POWER), (FIELD_P - 1) / 2), fe_neg(FE_ONE));
    CHECK_EQUAL((FIELD_P - 1) % 4, 0);

    for (unsigned k = 1; k <= 27; k++) {
        CHECK_EQUAL(fe_pow(fe_root(k), 1ull << (k - 1)), fe_neg(FE_ONE));
        CHECK_EQUAL(fe_mul(fe_root(k), fe_root(k)), fe_root(k - 1));
    }
}

static void test_extension(void)
{
    ext x = {{0, FE_ONE, 0, 0}};
    CHECK(ext_equal(ext_pow(x, 4), ext_of(fe_of(EXT_POWER))));
    for (int i = 0; i < 500; i++) {
        ext a = next_ext(), b = next_ext(), c = next_ext(), adjoint;
        CHECK(ext_equal(ext_mul(a, b), ext_mul(b, a)));
        CHECK(ext_equal(ext_mul(ext_mul(a, b), c), ext_mul(a, ext_mul(b, c))));
        CHECK(ext_equal(ext_mul(ext_add(a, b), c),
                        ext_add(ext_mul(a, c), ext_mul(b, c))));
        CHECK(ext_equal(ext_sub(ext_add(a, b), b), a));
        CHECK(ext_equal(ext_scale(a, c.c[0]), ext_mul(a, ext_of(c.c[0]))));
        CHECK(ext_equal(ext_mul(a, ext_inv(a)), ext_of(FE_ONE)));
        fe norm = ext_norm(a, &adjoint);
        CHECK(ext_equal(ext_mul(a, adjoint), ext_of(norm)));
    }
}

static void test_batch(void)
{
    enum { N = 37 };
    fe a[N], inverse[N], scratch[N];
    for (int i = 0; i < N; i++)
        inverse[i] = a[i] = 1 + next_fe() % (FIELD_P - 1);
    fe_batch_inv(inverse, scratch, N);
    for (int i = 0; i < N; i++)
        CHECK_EQUAL(fe_mul(a[i], inverse[i]), FE_ONE);
}

static void test_load(void)
{
    const uint32_t good = FIELD_P - 1, bad = FIELD_P, worst = UINT32_MAX;
    fe out;
    CHECK(fe_load(&out, (const uint8_t *)&good, 1) && out == FIELD_P - 1);
    CHECK(!fe_load(&out, (const uint8_t *)&bad, 1));
    CHECK(!fe_load(&out, (const uint8_t *)&worst, 1));
}

int main(void)
{
    test_base();
    test_group();
    test_extension();
    test_batch();
    test_load();
    for (size_t i = 0; i < 32; i++)
        CHECK_EQUAL(bit_reverse(bit_reverse(i, 5), 5), i);
    CHECK_EQUAL(bit_reverse(1, 5), 16);
    return 0;
}
