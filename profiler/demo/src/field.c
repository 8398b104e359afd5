/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * field.c - powers, inverses and roots of unity; see field.h.
 */
#include "field.h"

fe fe_pow(fe base, uint64_t exponent)
{
    fe result = FE_ONE;
    for (; exponent != 0; exponent >>= 1) {
        if (exponent & 1)
            result = fe_mul(result, base);
        base = fe_mul(base, base);
    }
    return result;
}

fe fe_inv(fe a)
{
    return fe_pow(a, FIELD_P - 2);
}

ext ext_pow(ext base, uint64_t exponent)
{
    ext result = ext_of(FE_ONE);
    for (; exponent != 0; exponent >>= 1) {
        if (exponent & 1)
            result = ext_mul(result, base);
        base = ext_mul(base, base);
    }
    return result;
}

fe ext_norm(ext a, ext *adjoint)
{
    /* a = even + odd, by powers of X.  (even + odd)(even - odd) = u + v Y
     * with Y = X^2, and (u + v Y)(u - v Y) = u^2 - 11 v^2. */
    ext minus = {{a.c[0], fe_neg(a.c[1]), a.c[2], fe_neg(a.c[3])}};
    const fe power = fe_of(EXT_POWER);
    fe u =
        fe_add(fe_mul(a.c[0], a.c[0]),
               fe_mul(power, fe_sub(fe_mul(a.c[2], a.c[2]),
                                    fe_mul(fe_add(a.c[1], a.c[1]), a.c[3]))));
    fe v = fe_sub(
        fe_sub(fe_mul(fe_add(a.c[0], a.c[0]), a.c[2]), fe_mul(a.c[1], a.c[1])),
        fe_mul(power, fe_mul(a.c[3], a.c[3])));
    /* minus * (u - v Y) */
    fe vp = fe_mul(power, v);
    *adjoint = (ext){{
        fe_sub(fe_mul(minus.c[0], u), fe_mul(minus.c[2], vp)),
        fe_sub(fe_mul(minus.c[1], u), fe_mul(minus.c[3], vp)),
        fe_sub(fe_mul(minus.c[2], u), fe_mul(minus.c[0], v)),
        fe_sub(fe_mul(minus.c[3], u), fe_mul(minus.c[1], v)),
    }};
    return fe_sub(fe_mul(u, u), fe_mul(vp, v));
}

ext ext_inv(ext a)
{
    ext adjoint;
    fe norm = ext_norm(a, &adjoint);
    return ext_scale(adjoint, fe_inv(norm));
}

void fe_batch_inv(fe *a, fe *scratch, size_t n)
{
    fe product = FE_ONE;
    for (size_t i = 0; i < n; i++) {
        scratch[i] = product; /* of all before i */
        product = fe_mul(product, a[i]);
    }
    fe inverse = fe_inv(product);
    for (size_t i = n; i-- > 0;) {
        fe mine = fe_mul(inverse, scratch[i]);
        inverse = fe_mul(inverse, a[i]);
        a[i] = mine;
    }
}

fe fe_root(unsigned log_n)
{
    return fe_pow(fe_of(FIELD_GENERATOR), (FIELD_P - 1) >> log_n);
}
