/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The treap against a plain array: best fit, order, removal in any order.
 */
#include "region.h"
#include "testing.h"

#define N 512

static struct region regions[N];
static bool inside[N];

static bool smaller(const struct region *a, const struct region *b)
{
    return a->pages != b->pages ? a->pages < b->pages : a->page < b->page;
}

static struct region *expected_fit(uint32_t pages)
{
    struct region *best = NULL;
    for (size_t i = 0; i < N; i++) {
        if (inside[i] && regions[i].pages >= pages &&
            (best == NULL || smaller(&regions[i], best)))
            best = &regions[i];
    }
    return best;
}

int main(void)
{
    uint64_t seed = 1;
    struct tree tree = {NULL};
    for (uint32_t i = 0; i < N; i++) {
        regions[i].page = 100 * i;
        regions[i].pages = 1 + (uint32_t)(random_next(&seed) % 64);
    }
    CHECK_TRUE(tree_fit(&tree, 1) == NULL);
    CHECK_TRUE(tree_smaller(&tree, NULL) == NULL);
    for (int round = 0; round < 20000; round++) {
        size_t i = random_next(&seed) % N;
        if (inside[i])
            tree_remove(&tree, &regions[i]);
        else
            tree_insert(&tree, &regions[i]);
        inside[i] = !inside[i];
        uint32_t pages = 1 + (uint32_t)(random_next(&seed) % 66);
        CHECK_TRUE(tree_fit(&tree, pages) == expected_fit(pages));
    }
    /* Largest to smallest visits each once, in order. */
    size_t count = 0, members = 0;
    const struct region *last = NULL;
    for (struct region *r = NULL; (r = tree_smaller(&tree, r)) != NULL;) {
        CHECK_TRUE(last == NULL || smaller(r, last));
        last = r;
        count++;
    }
    for (size_t i = 0; i < N; i++)
        members += inside[i];
    CHECK(count, ==, members);
    return 0;
}
