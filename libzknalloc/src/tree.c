/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * tree.c - a treap over free regions: a binary search tree by (pages, page)
 * that is a heap by a hash of the page, so that its expected depth is
 * logarithmic whatever the order of operations (Seidel and Aragon,
 * "Randomized search trees", Algorithmica 16, 1996).  Links lie in the
 * descriptors; nothing is allocated.  The heap's lock protects it.
 */
#include "region.h"

static uint32_t priority(const struct region *region)
{
    /* A bijection on 32 bits that mixes well; priorities thus are distinct. */
    uint32_t x = region->page;
    x = (x ^ (x >> 16)) * 0x7feb352dU;
    x = (x ^ (x >> 15)) * 0x846ca68bU;
    return x ^ (x >> 16);
}

static bool before(const struct region *a, const struct region *b)
{
    return a->pages != b->pages ? a->pages < b->pages : a->page < b->page;
}

void tree_insert(struct tree *tree, struct region *region)
{
    struct region **link = &tree->root;
    uint32_t rank = priority(region);
    while (*link != NULL && priority(*link) > rank)
        link = before(region, *link) ? &(*link)->left : &(*link)->right;

    /* Split what hangs there into what is before and after the new region. */
    struct region *rest = *link;
    struct region **left = &region->left, **right = &region->right;
    *link = region;
    while (rest != NULL) {
        if (before(rest, region)) {
            *left = rest;
            left = &rest->right;
            rest = rest->right;
        } else {
            *right = rest;
            right = &rest->left;
            rest = rest->left;
        }
    }
    *left = *right = NULL;
}

void tree_remove(struct tree *tree, struct region *region)
{
    struct region **link = &tree->root;
    while (*link != region)
        link = before(region, *link) ? &(*link)->left : &(*link)->right;

    /* Merge its two subtrees in its place. */
    struct region *left = region->left, *right = region->right;
    while (left != NULL && right != NULL) {
        if (priority(left) > priority(right)) {
            *link = left;
            link = &left->right;
            left = left->right;
        } else {
            *link = right;
            link = &right->left;
            right = right->left;
        }
    }
    *link = left != NULL ? left : right;
}

struct region *tree_fit(const struct tree *tree, uint32_t pages)
{
    struct region *best = NULL;
    for (struct region *r = tree->root; r != NULL;) {
        if (r->pages >= pages) {
            best = r;
            r = r->left;
        } else {
            r = r->right;
        }
    }
    return best;
}

struct region *tree_smaller(const struct tree *tree,
                            const struct region *region)
{
    struct region *best = NULL;
    for (struct region *r = tree->root; r != NULL;) {
        if (region == NULL || before(r, region)) {
            best = r;
            r = r->right;
        } else {
            r = r->left;
        }
    }
    return best;
}

struct region *tree_larger(const struct tree *tree, const struct region *region)
{
    struct region *best = NULL;
    for (struct region *r = tree->root; r != NULL;) {
        if (before(region, r)) {
            best = r;
            r = r->left;
        } else {
            r = r->right;
        }
    }
    return best;
}
