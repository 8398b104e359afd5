/* SPDX-License-Identifier: MIT OR Apache-2.0
 * What the generated module compiles _native.cdef.txt against. */
#include <string.h>

#include <zknalloc.h>
