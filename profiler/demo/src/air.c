/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * air.c - see air.h.
 */
#include "air.h"

#include "transcript.h"
#include "vectorised.h"

void air_init(struct air *air)
{
    /* Constants with nothing up the sleeve: the outputs of a hash. */
    transcript t = transcript_start("zkprof demo constants", 21);
    for (unsigned k = 0; k < AIR_WIDTH; k++)
        air->diagonal[k] = fe_of(k + 1);
    for (unsigned r = 0; r < AIR_PERIOD; r++)
        for (unsigned k = 0; k < AIR_WIDTH; k += EXT_DEGREE) {
            ext four = transcript_challenge(&t);
            memcpy(&air->constants[r][k], &four, sizeof four);
        }

    fe inverse_root = fe_inv(fe_root(AIR_LOG_PERIOD));
    fe scale = fe_inv(fe_of(AIR_PERIOD));
    for (unsigned power = 0; power < AIR_PERIOD; power++) {
        fe w = fe_pow(inverse_root, power);
        for (unsigned k = 0; k < AIR_WIDTH; k++) {
            fe sum = 0, x = scale;
            for (unsigned r = 0; r < AIR_PERIOD; r++, x = fe_mul(x, w))
                sum = fe_add(sum, fe_mul(x, air->constants[r][k]));
            air->periodic[k][power] = sum;
        }
    }
}

VECTORISED void air_round(const struct air *air, const fe *constants,
                          const fe *in, fe *out)
{
    uint64_t total = 0;
    for (unsigned k = 0; k < AIR_WIDTH; k++) {
        fe x = fe_add(in[k], constants[k]), x2 = fe_mul(x, x);
        fe x3 = fe_mul(x2, x), x7 = fe_mul(fe_mul(x3, x3), x);
        total += x7;
        out[k] = fe_mul(x7, air->diagonal[k]);
    }
    fe sum = (fe)(total % FIELD_P);
    for (unsigned k = 0; k < AIR_WIDTH; k++)
        out[k] = fe_add(out[k], sum);
}

void air_round_ext(const struct air *air, const ext *constants, const ext *in,
                   ext *out)
{
    ext sum = ext_of(0);
    for (unsigned k = 0; k < AIR_WIDTH; k++) {
        ext x7 = ext_pow(ext_add(in[k], constants[k]), AIR_DEGREE);
        sum = ext_add(sum, x7);
        out[k] = ext_scale(x7, air->diagonal[k]);
    }
    for (unsigned k = 0; k < AIR_WIDTH; k++)
        out[k] = ext_add(out[k], sum);
}

void air_constants_at(const struct air *air, ext y, ext *constants)
{
    for (unsigned k = 0; k < AIR_WIDTH; k++) {
        ext sum = ext_of(0);
        for (unsigned power = AIR_PERIOD; power-- > 0;)
            sum = ext_add(ext_mul(sum, y), ext_of(air->periodic[k][power]));
        constants[k] = sum;
    }
}

struct matrix *air_trace(const struct air *air, unsigned log_rows,
                         const fe secret[AIR_SECRET], struct statement *out)
{
    size_t rows = (size_t)1 << log_rows;
    struct matrix *trace = matrix_new(rows, AIR_WIDTH);
    fe *row = trace->data;
    memcpy(row, secret, AIR_SECRET * sizeof(fe));
    memset(row + AIR_SECRET, 0, AIR_ZEROS * sizeof(fe));
    for (size_t r = 0; r + 1 < rows; r++, row += AIR_WIDTH)
        air_round(air, air->constants[r % AIR_PERIOD], row, row + AIR_WIDTH);

    out->log_rows = log_rows;
    memcpy(out->output, row, sizeof out->output);
    return trace;
}
