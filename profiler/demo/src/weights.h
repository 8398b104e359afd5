/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * weights.h - consecutive powers of a challenge, as weights of columns.
 *
 * A random linear combination of columns is checked instead of each column.
 * The weights are extension elements, kept coefficient by coefficient, so
 * that the weighted sum of a row is four dot products over the base field.
 */
#ifndef DEMO_WEIGHTS_H
#define DEMO_WEIGHTS_H

#include "field.h"

#define WEIGHTS_MAX 64

struct weights {
    size_t count;
    fe c[EXT_DEGREE][WEIGHTS_MAX];
};

/* COUNT powers of BASE from *NEXT on, which is left at the power after. */
struct weights weights_new(ext base, ext *next, size_t count);

/* The sum of weight * value over COUNT columns of the base field. */
ext weights_dot(const struct weights *w, const fe *row);
/* The same over the extension. */
ext weights_dot_ext(const struct weights *w, const ext *row);

#endif
