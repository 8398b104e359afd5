/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * classifier.c - which class a kernel call chain belongs to.
 *
 * Functions play roles ("enters by a page fault", "fills an anonymous page",
 * "clears a page"); a chain plays the roles of all its functions; rules map
 * sets of roles to kinds.  Which functions and rules, the caller says.  Sets
 * of functions rather than single names because compilers delete names: tail
 * calls drop the caller's frame, inlining the callee's.
 *
 * Finding a function's end needs its successor in address order, which may be
 * any of the kernel's 100 000 symbols; so all addresses are read and sorted
 * once, and only the few ranges that play a role are kept.
 *
 * Invariant: ranges are sorted by start and do not overlap.
 */
#include "zkprof_native.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct range {
    uint64_t start, end;
    uint64_t roles;
};

struct zkp_classifier {
    struct range *ranges;
    size_t n_ranges;
    zkp_rule_t *rules;
    size_t n_rules;
    uint32_t default_kind;
};

/* A growing array of addresses, and one of ranges, during loading. */
struct loading {
    uint64_t *addresses;
    size_t n_addresses, cap_addresses;
    struct range *ranges;
    size_t n_ranges, cap_ranges;
};

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int compare_range(const void *a, const void *b)
{
    return compare_u64(&((const struct range *)a)->start,
                       &((const struct range *)b)->start);
}

static int compare_symbol(const void *a, const void *b)
{
    return strcmp(((const zkp_symbol_t *)a)->name,
                  ((const zkp_symbol_t *)b)->name);
}

/* Make room for one more element; returns the array or NULL, kept, on ENOMEM.
 */
static void *grown(void *array, size_t used, size_t *cap, size_t element)
{
    if (used < *cap)
        return array;
    size_t cap_new = *cap ? 2 * *cap : 1024;
    void *array_new = reallocarray(array, cap_new, element);
    if (array_new)
        *cap = cap_new;
    return array_new;
}

static uint64_t roles_of_name(const zkp_symbol_t *sorted, size_t n,
                              const char *name)
{
    zkp_symbol_t key = {name, 0};
    const zkp_symbol_t *hit =
        bsearch(&key, sorted, n, sizeof key, compare_symbol);
    if (hit)
        return hit->roles;
    /* Names that end in '*' are few; try each. */
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(sorted[i].name);
        if (len > 1 && sorted[i].name[len - 1] == '*' &&
            strncmp(sorted[i].name, name, len - 1) == 0)
            return sorted[i].roles;
    }
    return 0;
}

/* "ffffffff81000000 T name.isra.0\t[module]": note the address, and the range
 * where the name without its compiler-made suffix plays a role. */
static int load_line(struct loading *l, char *line, const zkp_symbol_t *sorted,
                     size_t n_sorted)
{
    char *end;
    errno = 0;
    uint64_t address = strtoull(line, &end, 16);
    if (errno || end == line || end[0] != ' ' || !end[1] || end[2] != ' ')
        return 0; /* not a symbol */
    if (address == 0)
        return 0; /* hidden, or per-CPU data */
    void *array = grown(l->addresses, l->n_addresses, &l->cap_addresses,
                        sizeof *l->addresses);
    if (!array)
        return -ENOMEM;
    l->addresses = array;
    l->addresses[l->n_addresses++] = address;

    if (!strchr("tTwW", end[1]))
        return 0; /* data */
    char *name = end + 3;
    name[strcspn(name, ".\t\n ")] = '\0';
    uint64_t roles = roles_of_name(sorted, n_sorted, name);
    if (!roles)
        return 0;
    array = grown(l->ranges, l->n_ranges, &l->cap_ranges, sizeof *l->ranges);
    if (!array)
        return -ENOMEM;
    l->ranges = array;
    l->ranges[l->n_ranges++] = (struct range){address, 0, roles};
    return 0;
}

/* Sort, join aliases (one address, several names), and find each end. */
static void finish_ranges(struct loading *l)
{
    if (!l->addresses || !l->ranges)
        return; /* qsort() must not see NULL, not even of no elements */
    qsort(l->addresses, l->n_addresses, sizeof *l->addresses, compare_u64);
    qsort(l->ranges, l->n_ranges, sizeof *l->ranges, compare_range);
    size_t kept = 0, next = 0;
    for (size_t i = 0; i < l->n_ranges; i++) {
        struct range r = l->ranges[i];
        if (kept && l->ranges[kept - 1].start == r.start) {
            l->ranges[kept - 1].roles |= r.roles;
            continue;
        }
        while (next < l->n_addresses && l->addresses[next] <= r.start)
            next++;
        /* The last function of all has no successor to end it. */
        r.end = next < l->n_addresses ? l->addresses[next] : r.start + 65536;
        l->ranges[kept++] = r;
    }
    l->n_ranges = kept;
}

static int load(struct loading *l, const char *path, const zkp_symbol_t *sorted,
                size_t n_sorted)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return -errno;
    char *line = NULL;
    size_t cap = 0, lines = 0;
    int rc = 0;
    while (rc == 0 && getline(&line, &cap, f) > 0) {
        lines++;
        rc = load_line(l, line, sorted, n_sorted);
    }
    free(line);
    fclose(f);
    if (rc)
        return rc;
    if (lines && !l->n_addresses)
        return -EPERM; /* kptr_restrict writes every address as zero */
    return l->n_ranges ? 0 : -ENODATA;
}

int zkp_classifier_new(const char *kallsyms, const zkp_symbol_t *symbols,
                       size_t n_symbols, const zkp_rule_t *rules,
                       size_t n_rules, uint32_t default_kind,
                       zkp_classifier_t **out)
{
    struct loading l = {0};
    zkp_classifier_t *c = calloc(1, sizeof *c);
    zkp_symbol_t *sorted = calloc(n_symbols + 1, sizeof *sorted);
    zkp_rule_t *own_rules = calloc(n_rules + 1, sizeof *own_rules);
    int rc = -ENOMEM;
    if (!c || !sorted || !own_rules)
        goto fail;
    memcpy(sorted, symbols, n_symbols * sizeof *sorted);
    memcpy(own_rules, rules, n_rules * sizeof *own_rules);
    qsort(sorted, n_symbols, sizeof *sorted, compare_symbol);

    rc = load(&l, kallsyms, sorted, n_symbols);
    if (rc)
        goto fail;
    finish_ranges(&l);
    *c = (zkp_classifier_t){l.ranges, l.n_ranges, own_rules, n_rules,
                            default_kind};
    free(l.addresses);
    free(sorted);
    *out = c;
    return 0;
fail:
    free(l.addresses);
    free(l.ranges);
    free(own_rules);
    free(sorted);
    free(c);
    return rc;
}

int zkp_classifier_from_calls(const uint64_t *addresses, const uint64_t *roles,
                              size_t n, const zkp_rule_t *rules, size_t n_rules,
                              uint32_t default_kind, zkp_classifier_t **out)
{
    zkp_classifier_t *c = calloc(1, sizeof *c);
    struct range *ranges = calloc(n + 1, sizeof *ranges);
    zkp_rule_t *own_rules = calloc(n_rules + 1, sizeof *own_rules);
    if (!c || !ranges || !own_rules) {
        free(ranges);
        free(own_rules);
        free(c);
        return -ENOMEM;
    }
    /* Return addresses are looked up one lower; see zkp_classifier_roles(). */
    for (size_t i = 0; i < n; i++)
        ranges[i] = (struct range){addresses[i] - 1, addresses[i], roles[i]};
    qsort(ranges, n, sizeof *ranges, compare_range);
    memcpy(own_rules, rules, n_rules * sizeof *own_rules);
    *c = (zkp_classifier_t){ranges, n, own_rules, n_rules, default_kind};
    *out = c;
    return 0;
}

void zkp_classifier_free(zkp_classifier_t *c)
{
    if (!c)
        return;
    free(c->ranges);
    free(c->rules);
    free(c);
}

static uint64_t roles_at(const zkp_classifier_t *c, uint64_t ip)
{
    size_t low = 0, high = c->n_ranges;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c->ranges[mid].start <= ip)
            low = mid + 1;
        else
            high = mid;
    }
    return low && ip < c->ranges[low - 1].end ? c->ranges[low - 1].roles : 0;
}

uint64_t zkp_classifier_roles(const zkp_classifier_t *c, const uint64_t *ips,
                              size_t n)
{
    /* The innermost address is where the CPU was; the others are return
     * addresses, which lie after their call and so, where the call is a
     * function's last instruction, outside of that function. */
    uint64_t roles = n ? roles_at(c, ips[0]) : 0;
    for (size_t i = 1; i < n; i++)
        roles |= roles_at(c, ips[i] - 1);
    return roles;
}

uint32_t zkp_classifier_kind(const zkp_classifier_t *c, uint64_t roles)
{
    for (size_t i = 0; i < c->n_rules; i++)
        if ((c->rules[i].roles & ~roles) == 0)
            return c->rules[i].kind;
    return c->default_kind;
}

size_t zkp_classifier_size(const zkp_classifier_t *c)
{
    return c->n_ranges;
}
