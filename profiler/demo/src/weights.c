/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * weights.c - see weights.h.
 */
#include "weights.h"

#include "vectorised.h"

struct weights weights_new(ext base, ext *next, size_t count)
{
    struct weights w = {.count = count};
    for (size_t k = 0; k < count; k++, *next = ext_mul(*next, base))
        for (int i = 0; i < EXT_DEGREE; i++)
            w.c[i][k] = next->c[i];
    return w;
}

VECTORISED ext weights_dot(const struct weights *w, const fe *row)
{
    ext out;
    for (int i = 0; i < EXT_DEGREE; i++) {
        uint64_t sum = 0; /* of 64 values below 2^31 */
        for (size_t k = 0; k < w->count; k++)
            sum += fe_mul(w->c[i][k], row[k]);
        out.c[i] = (fe)(sum % FIELD_P);
    }
    return out;
}

ext weights_dot_ext(const struct weights *w, const ext *row)
{
    ext sum = ext_of(0);
    for (size_t k = 0; k < w->count; k++) {
        ext weight = {{w->c[0][k], w->c[1][k], w->c[2][k], w->c[3][k]}};
        sum = ext_add(sum, ext_mul(weight, row[k]));
    }
    return sum;
}
