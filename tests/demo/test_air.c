/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * test_air.c - the round, its constraints, and traces that break them.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "air.h"
#include "quotient.h"
#include "testing.h"

enum { LOG_ROWS = 7, ROWS = 1 << LOG_ROWS };

static struct air air;

static void test_round(void)
{
    /* ones + diag(d) is invertible where 1 + sum of 1 / d is not 0. */
    fe sum = FE_ONE;
    for (unsigned k = 0; k < AIR_WIDTH; k++)
        sum = fe_add(sum, fe_inv(air.diagonal[k]));
    CHECK(sum != 0);
    CHECK((FIELD_P - 1) % AIR_DEGREE != 0);

    /* The round, written out; and over the extension. */
    fe in[AIR_WIDTH], x7[AIR_WIDTH], out[AIR_WIDTH];
    ext in_ext[AIR_WIDTH], constants[AIR_WIDTH], out_ext[AIR_WIDTH];
    for (unsigned k = 0; k < AIR_WIDTH; k++) {
        in[k] = next_fe();
        x7[k] = fe_pow(fe_add(in[k], air.constants[3][k]), 7);
        in_ext[k] = ext_of(in[k]);
        constants[k] = ext_of(air.constants[3][k]);
    }
    air_round(&air, air.constants[3], in, out);
    air_round_ext(&air, constants, in_ext, out_ext);
    for (unsigned i = 0; i < AIR_WIDTH; i++) {
        fe expected = 0;
        for (uint32_t k = 0; k < AIR_WIDTH; k++)
            expected =
                fe_add(expected, fe_mul(x7[k], fe_of(i == k ? k + 2 : 1)));
        CHECK_EQUAL(out[i], expected);
        CHECK(ext_equal(out_ext[i], ext_of(expected)));
    }
}

static void test_constants(void)
{
    for (unsigned r = 0; r < AIR_PERIOD; r++) {
        ext at[AIR_WIDTH];
        air_constants_at(&air, ext_of(fe_pow(fe_root(AIR_LOG_PERIOD), r)), at);
        for (unsigned k = 0; k < AIR_WIDTH; k++)
            CHECK(ext_equal(at[k], ext_of(air.constants[r][k])));
    }
}

/* Whether a quotient exists when element (ROW, COLUMN) is off by one; the
 * prover ends the program where it does not. */
static bool has_quotient(size_t row, size_t column, bool change)
{
    fe secret[AIR_SECRET];
    for (unsigned k = 0; k < AIR_SECRET; k++)
        secret[k] = next_fe();
    struct statement statement;
    struct matrix *trace = air_trace(&air, LOG_ROWS, secret, &statement);
    if (change) {
        fe *cell = &trace->data[row * AIR_WIDTH + column];
        *cell = fe_add(*cell, FE_ONE);
    }

    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct twiddles t = twiddles_new(LOG_ROWS);
        struct matrix *coefficients = matrix_interpolate(&t, trace, 1);
        struct matrix *extended = matrix_extend(&t, coefficients, 1);
        free(coefficients);
        free(quotient_pieces(&air, &statement, &t, extended, next_ext(), 1));
        free(extended);
        free(trace);
        twiddles_free(&t);
        exit(0);
    }
    free(trace);
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
    return WEXITSTATUS(status) == 0;
}

int main(void)
{
    air_init(&air);
    test_round();
    test_constants();
    CHECK(has_quotient(0, 0, false));
    CHECK(!has_quotient(0, AIR_SECRET, true));           /* a zero */
    CHECK(!has_quotient(0, 0, true));                    /* the first round */
    CHECK(!has_quotient(ROWS / 2, 5, true));             /* two rounds */
    CHECK(!has_quotient(ROWS - 1, 0, true));             /* the output */
    CHECK(!has_quotient(ROWS - 1, AIR_WIDTH - 1, true)); /* the last round */
    return 0;
}
