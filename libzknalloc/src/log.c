/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * log.c - see log.h.
 */
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void line_text(struct line *line, const char *text)
{
    /* One byte stays free for the newline. */
    size_t room = sizeof line->text - 1 - line->length;
    size_t length = min_size(strlen(text), room);
    memcpy(line->text + line->length, text, length);
    line->length += length;
}

static void line_digits(struct line *line, uint64_t value, unsigned base)
{
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = '\0';
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    line_text(line, digits + at);
}

void line_number(struct line *line, uint64_t value)
{
    line_digits(line, value, 10);
}

void line_address(struct line *line, const void *address)
{
    line_text(line, "0x");
    line_digits(line, (uintptr_t)address, 16);
}

int line_write(struct line *line, int fd)
{
    line->text[line->length++] = '\n';
    for (size_t done = 0; done < line->length;) {
        ssize_t n = write(fd, line->text + done, line->length - done);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            done += (size_t)n;
    }
    return 0;
}

void log_warning(const char *what, const char *detail)
{
    int saved = errno;
    struct line line = {0};
    line_text(&line, "libzknalloc: ");
    line_text(&line, what);
    line_text(&line, detail);
    (void)line_write(&line, STDERR_FILENO);
    errno = saved;
}

void log_misuse(const char *what, const void *address)
{
    struct line line = {0};
    line_text(&line, "libzknalloc: ");
    line_text(&line, what);
    line_text(&line, " at ");
    line_address(&line, address);
    (void)line_write(&line, STDERR_FILENO);
    abort();
}
