/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * log.h - messages that may be written from inside malloc: formatted on the
 * stack, written with write(2), no stdio, no allocation, no lock.
 */
#ifndef ZKN_LOG_H
#define ZKN_LOG_H

#include "base.h"

/* A line being built.  What does not fit is dropped, the newline never is. */
struct line {
    size_t length;
    char text[512];
};

HIDDEN void line_text(struct line *line, const char *text);
HIDDEN void line_number(struct line *line, uint64_t value);
HIDDEN void line_address(struct line *line, const void *address);
/* Ends LINE with a newline and writes it to FD; returns 0 or -errno. */
HIDDEN int line_write(struct line *line, int fd);

/* One line on stderr, prefixed "libzknalloc: ". */
HIDDEN COLD void log_warning(const char *what, const char *detail);

/* One line on stderr naming the misuse and the address, then abort(). */
HIDDEN COLD _Noreturn void log_misuse(const char *what, const void *address);

#endif /* ZKN_LOG_H */
