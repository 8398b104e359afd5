/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * test_merkle.c - every row opens, and nothing else does.
 */
#include "merkle.h"
#include "testing.h"

enum { LOG_ROWS = 4, ROWS = 1 << LOG_ROWS, ROW = 12 };

static uint8_t rows[ROWS][ROW];

static bool opens(digest root, size_t index, const void *row,
                  const uint8_t *path)
{
    return merkle_check(root.bytes, LOG_ROWS, index, row, ROW, path);
}

int main(void)
{
    for (size_t i = 0; i < sizeof rows; i++)
        (&rows[0][0])[i] = (uint8_t)next_number();
    struct merkle *tree = merkle_new(rows, ROWS, ROW, 1);
    struct merkle *threaded = merkle_new(rows, ROWS, ROW, 3);
    digest root = merkle_root(tree), same = merkle_root(threaded);
    CHECK(memcmp(&root, &same, sizeof root) == 0);

    for (size_t i = 0; i < ROWS; i++) {
        uint8_t path[LOG_ROWS * sizeof(digest)];
        merkle_open(tree, i, path);
        CHECK(opens(root, i, rows[i], path));
        CHECK(!opens(root, i ^ 1, rows[i], path));
        CHECK(!opens(root, i, rows[i ^ 1], path));
        for (size_t byte = 0; byte < sizeof path; byte++) {
            path[byte] ^= 1;
            CHECK(!opens(root, i, rows[i], path));
            path[byte] ^= 1;
        }
        for (size_t byte = 0; byte < ROW; byte++) {
            rows[i][byte] ^= 0x80;
            CHECK(!opens(root, i, rows[i], path));
            rows[i][byte] ^= 0x80;
        }
        digest wrong = root;
        wrong.bytes[31] ^= 1;
        CHECK(!opens(wrong, i, rows[i], path));
    }

    /* An inner node is no leaf: its children do not open as a row. */
    uint8_t path[LOG_ROWS * sizeof(digest)];
    merkle_open(tree, 0, path);
    CHECK(!merkle_check(root.bytes, LOG_ROWS - 1, 0, tree->nodes + ROWS,
                        2 * sizeof(digest), path + sizeof(digest)));
    free(threaded);
    free(tree);
    return 0;
}
