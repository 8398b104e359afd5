/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * init.h - bringing the cache up, on the first large request or when the
 * library is loaded, whichever comes first.
 */
#ifndef ZKN_INIT_H
#define ZKN_INIT_H

#include "base.h"

/* Bring the cache up once.  Returns whether it serves: not where address space
 * is refused or switched off, nor before the C library has its environment. */
HIDDEN COLD bool init_cache(void);

#endif /* ZKN_INIT_H */
