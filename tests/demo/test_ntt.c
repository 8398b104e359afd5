/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * test_ntt.c - transforms against evaluation term by term.
 */
#include "ntt.h"
#include "testing.h"

enum { LOG_ROWS = 5, ROWS = 1 << LOG_ROWS, WIDTH = 7 };

/* Column C of coefficients in bit-reversed order, at X. */
static fe evaluate(const struct matrix *m, size_t c, fe x)
{
    fe sum = 0, power = FE_ONE;
    for (size_t i = 0; i < ROWS; i++, power = fe_mul(power, x)) {
        size_t row = bit_reverse(i, LOG_ROWS);
        sum = fe_add(sum, fe_mul(power, m->data[row * m->width + c]));
    }
    return sum;
}

int main(void)
{
    struct twiddles t = twiddles_new(LOG_ROWS);
    struct matrix *values = matrix_new(ROWS, WIDTH);
    for (size_t i = 0; i < ROWS * WIDTH; i++)
        values->data[i] = next_fe();

    struct matrix *coefficients = matrix_interpolate(&t, values, 1);
    fe x = FE_ONE;
    for (size_t i = 0; i < ROWS; i++, x = fe_mul(x, fe_root(LOG_ROWS)))
        for (size_t c = 0; c < WIDTH; c++)
            CHECK_EQUAL(evaluate(coefficients, c, x),
                        values->data[i * WIDTH + c]);

    /* Coset by coset, each in natural order. */
    struct matrix *extended = matrix_extend(&t, coefficients, 1);
    CHECK_EQUAL(extended->rows, BLOWUP * ROWS);
    for (unsigned b = 0; b < BLOWUP; b++) {
        x = coset_shift(LOG_ROWS, b);
        for (size_t i = 0; i < ROWS; i++, x = fe_mul(x, fe_root(LOG_ROWS)))
            for (size_t c = 0; c < WIDTH; c++)
                CHECK_EQUAL(extended->data[(b * ROWS + i) * WIDTH + c],
                            evaluate(coefficients, c, x));
    }

    /* Threads change nothing. */
    struct matrix *again = matrix_interpolate(&t, values, 3);
    CHECK(memcmp(again->data, coefficients->data, ROWS * WIDTH * sizeof(fe)) ==
          0);
    struct matrix *extended_again = matrix_extend(&t, coefficients, 5);
    CHECK(memcmp(extended_again->data, extended->data,
                 BLOWUP * ROWS * WIDTH * sizeof(fe)) == 0);

    free(extended_again);
    free(again);
    free(extended);
    free(coefficients);
    free(values);
    twiddles_free(&t);
    return 0;
}
