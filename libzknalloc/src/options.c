/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * options.c - reads the table of options.h from the environment.
 *
 * A program that runs with raised privileges (AT_SECURE) must not take orders
 * from its caller's environment, hence secure_getenv().
 */
#include "options.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "log.h"

struct options options = {
#define X(type, field, variable, initial, min, max, help) .field = initial,
    OPTIONS_LIST(X)
#undef X
};

enum option_type { SIZE, BOOL, MODE, PATH };

/* In the order of enum debug_mode. */
static const char *const debug_words[] = {"off", "poison", "unmap", "guard"};

static const struct option_row {
    enum option_type type;
    void *value;
    const char *name;
    size_t initial, min, max;
    const char *help;
} rows[] = {
#define X(type, field, variable, initial, min, max, help)                      \
    {type, &options.field, variable, initial, min, max, help},
    OPTIONS_LIST(X)
#undef X
};

#define ROWS (sizeof rows / sizeof rows[0])

/* "64", "64K", "1.5G"-like fractions excepted: digits and one suffix. */
static bool parse_size(const char *text, size_t *out)
{
    size_t value = 0;
    const char *c = text;
    for (; *c >= '0' && *c <= '9'; c++) {
        if (__builtin_mul_overflow(value, (size_t)10, &value) ||
            __builtin_add_overflow(value, (size_t)(*c - '0'), &value))
            return false;
    }
    if (c == text)
        return false;
    static const char suffixes[] = "KMGT";
    const char *suffix =
        *c != '\0' ? strchr(suffixes, *c >= 'a' ? *c - 'a' + 'A' : *c) : NULL;
    if (suffix != NULL) {
        unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);
        if (value > SIZE_MAX >> shift)
            return false;
        value <<= shift;
        c++;
        /* KiB and KB say the same as K. */
        if (c[0] == 'i' && c[1] == 'B')
            c += 2;
        else if (c[0] == 'B')
            c += 1;
    }
    *out = value;
    return *c == '\0';
}

static bool parse_bool(const char *text, size_t *out)
{
    static const char *const words[] = {"0", "no",  "off", "false",
                                        "1", "yes", "on",  "true"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *out = i >= 4;
            return true;
        }
    }
    return false;
}

static bool parse_mode(const char *text, size_t *out)
{
    for (size_t i = 0; i < sizeof debug_words / sizeof debug_words[0]; i++) {
        if (strcasecmp(text, debug_words[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

static bool parse_typed(const struct option_row *row, const char *text,
                        size_t *out)
{
    switch (row->type) {
    case SIZE:
        return parse_size(text, out);
    case BOOL:
        return parse_bool(text, out);
    case MODE:
        return parse_mode(text, out);
    default:
        return false;
    }
}

/* What a value should have been, by type. */
static const char *const expected[] = {
    [SIZE] = "a number in range, such as 512M",
    [BOOL] = "yes or no",
    [MODE] = "poison, unmap, guard or off",
    [PATH] = "a path, it is too long",
};

static bool parse_number(const struct option_row *row, const char *text)
{
    size_t value;
    if (row->type == SIZE && row->initial == OPTION_AUTO &&
        strcasecmp(text, "auto") == 0)
        value = OPTION_AUTO;
    else if (!parse_typed(row, text, &value) || value < row->min ||
             value > row->max)
        return false;
    *(size_t *)row->value = value;
    return true;
}

static char stats_path[PATH_MAX]; /* there is one option of that type */

void options_load(void)
{
    for (size_t i = 0; i < ROWS; i++) {
        const struct option_row *row = &rows[i];
        const char *text = secure_getenv(row->name);
        if (text == NULL || *text == '\0')
            continue;
        if (row->type == PATH && strlen(text) < sizeof stats_path) {
            /* Servers write their title over the environment. */
            *(const char **)row->value = strcpy(stats_path, text);
        } else if (!parse_number(row, text)) {
            struct line line = {0};
            line_text(&line, "libzknalloc: ");
            line_text(&line, row->name);
            line_text(&line, "=");
            line_text(&line, text);
            line_text(&line, " is not ");
            line_text(&line, expected[row->type]);
            line_text(&line, "; keeping the default");
            (void)line_write(&line, 2);
        }
    }
}

static void line_value(struct line *line, const struct option_row *row,
                       size_t value)
{
    if (row->type == SIZE && value == OPTION_AUTO)
        line_text(line, "auto");
    else if (row->type == MODE)
        line_text(line, debug_words[value]);
    else
        line_number(line, value);
}

int options_print(int fd)
{
    int error = 0;
    for (size_t i = 0; i < ROWS && error == 0; i++) {
        const struct option_row *row = &rows[i];
        struct line line = {0};
        line_text(&line, row->name);
        line_text(&line, "=");
        if (row->type == PATH) {
            const char *path = *(const char *const *)row->value;
            line_text(&line, path != NULL ? path : "");
            line_text(&line, " (default none): ");
        } else {
            line_value(&line, row, *(const size_t *)row->value);
            line_text(&line, " (default ");
            line_value(&line, row, row->initial);
            line_text(&line, "): ");
        }
        line_text(&line, row->help);
        error = line_write(&line, fd);
    }
    return error;
}
