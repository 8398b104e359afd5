/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * parallel.h - fork and join over a range.
 */
#ifndef DEMO_PARALLEL_H
#define DEMO_PARALLEL_H

#include <stddef.h>

#define PARALLEL_MAX 64

typedef void parallel_body(void *context, size_t begin, size_t end);

/* Call BODY on disjoint ranges that cover [0, N), on THREADS threads of
 * which the caller is one, and wait for all.  A thread that cannot be
 * created leaves its range to the caller. */
void parallel_for(unsigned threads, size_t n, parallel_body *body,
                  void *context);

#endif
