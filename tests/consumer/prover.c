/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A program of someone else's: it knows zknalloc.h and nothing of our build.
 * The same text is compiled as C99, C11, C++11 and newer.  It fails unless the
 * library that it was linked to is the one of its header, and serves a second
 * round of buffers from the memory of the first.
 */
#include <stdio.h>
#include <string.h>
#include <zknalloc.h>

int main(void)
{
    zkn_stats_t stats = ZKN_STATS_INIT;
    int round;
    if (strcmp(zkn_version(), ZKN_VERSION_STRING) != 0) {
        fprintf(stderr, "library %s, header %s\n", zkn_version(),
                ZKN_VERSION_STRING);
        return 1;
    }
    for (round = 0; round < 2; round++) {
        const size_t size = (size_t)32 << 20;
        unsigned char *trace = (unsigned char *)zkn_alloc(size);
        if (trace == NULL || !zkn_owns(trace)) {
            fprintf(stderr, "no region\n");
            return 1;
        }
        memset(trace, round, size);
        zkn_free(trace);
    }
    if (zkn_stats_get(&stats) != 0 || stats.hits != 1 || stats.misses != 1) {
        fprintf(stderr, "%lu hits, %lu misses\n", (unsigned long)stats.hits,
                (unsigned long)stats.misses);
        return 1;
    }
    puts("one hit, one miss");
    return 0;
}
