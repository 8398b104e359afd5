/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Size classes, exhaustively: a region that was rounded up goes back to the
 * class that asked for it, classes are in order, and rounding adds 1/32.
 */
#include "magazine.h"
#include "testing.h"

int main(void)
{
    for (uint32_t pages = 1; pages <= 4096; pages++) {
        uint32_t rounded = class_round(pages);
        CHECK(rounded, >=, pages);
        CHECK((rounded - pages) * 32, <=, pages);
        CHECK(class_round(rounded), ==, rounded);
        CHECK(class_floor(rounded), >=, class_floor(pages));
        CHECK(class_floor(pages + 1), >=, class_floor(pages));
        /* Whatever is in a class of a rounded request is large enough. */
        CHECK(class_floor(rounded - 1), <, class_floor(rounded));
    }
    return 0;
}
