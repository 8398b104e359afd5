/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What the CFFI extension is compiled against; see _native.cdef.txt. */
#include "zknalloc_block.h"
#include "zkprof_native.h"
