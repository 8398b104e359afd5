/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * os.h - the whole surface towards the kernel: no other file makes a system
 * call on memory or reads /proc and /sys.
 *
 * Contract of every function here: addresses and lengths are multiples of
 * os_page_size(); the result is 0 or a negative errno, never errno itself;
 * errno is preserved; each call made is counted in the statistics block;
 * nothing allocates.  Callers hold no lock.
 */
#ifndef ZKN_OS_H
#define ZKN_OS_H

#include "base.h"

/* Asks the kernel once, on the first call. */
HIDDEN size_t os_page_size(void);

/* Reserve LENGTH bytes of address space, inaccessible and uncharged, aligned
 * to HUGE_PAGE.  Accounting is left to os_commit(), so that each overcommit
 * mode refuses what it would refuse malloc(). */
HIDDEN int os_reserve(size_t length, char **out);

/* Give a part of it back for good.  The kernel may refuse, for one mapping too
 * many: then it stays reserved. */
HIDDEN void os_unreserve(char *addr, size_t length);

/* Whether LENGTH more bytes of address space could be mapped just now. */
HIDDEN bool os_has_room(size_t length);

/* Make a part of the reservation readable and writable.  Where it was never
 * used it reads as zero. */
HIDDEN int os_commit(char *addr, size_t length);

/* Make a part of it inaccessible until os_commit(). */
HIDDEN int os_forbid(char *addr, size_t length);

/* Fault the pages in now, in one call; where the kernel cannot (before 5.14)
 * they come when they are touched. */
HIDDEN void os_populate(char *addr, size_t length);

/* Give the pages back; the range stays usable and reads as zero. */
HIDDEN int os_discard(char *addr, size_t length);

/* As os_discard(), by a fresh mapping in place of whatever lies there.  Where
 * that fails, for one mapping too many say, the range is as it was; or, on some
 * kernels, it is unmapped by then, another thread may map something else there
 * at any moment, and the process ends. */
HIDDEN int os_renew(char *addr, size_t length);

/* Move the pages at FROM, a part of one mapping, to TO, which are both in the
 * reservation and do not overlap; FROM reads as zero afterwards.  Fails on
 * kernels before 5.7. */
HIDDEN int os_move(char *from, char *to, size_t length);

/* Let the kernel take the pages when memory is short; until then, and once
 * they are written again, they keep their content. */
HIDDEN int os_soften(char *addr, size_t length);

/* Ask for huge pages in the range, or for none, as ZK_NALLOC_THP says; a
 * refusal is counted, never an error. */
HIDDEN void os_advise_huge(char *addr, size_t length);

/* Ask for small pages in the range. */
HIDDEN void os_advise_small(char *addr, size_t length);

/* As os_discard(), for a range that was advised to use small pages: it is no
 * longer. */
HIDDEN int os_discard_small(char *addr, size_t length);

/* What a page of this process holds, as far as the page table tells. */
enum os_page {
    OS_PAGE_NONE,   /* nothing: it reads as zero, by a page fault */
    OS_PAGE_SHARED, /* resident, and perhaps the kernel's page of zeros */
    OS_PAGE_OWN     /* resident or swapped out */
};

/* Open the page table for looking; a descriptor or -errno.  It is this
 * process's at this moment: neither kept nor passed on. */
HIDDEN int os_look_open(void);
HIDDEN void os_look_close(int fd);

/* The most pages of one look. */
#define OS_LOOK_MOST 512

/* Look at COUNT pages from ADDR on, OS_LOOK_MOST at most. */
HIDDEN int os_look(int fd, const char *addr, size_t count,
                   unsigned char *pages);

/* What a page costs here, in ns, averaged over a few: its first touch, and
 * giving it back.  Returns whether that could be measured. */
HIDDEN bool os_measure_page(unsigned *fault, unsigned *discard);

/* Whether the kernel uses huge pages where it is asked to, or may: without /sys
 * it does not say. */
HIDDEN bool os_huge_pages(void);

/* Bytes of memory that this process may use: the smaller of physical memory
 * and the memory limit of its control group, version 1 or 2. */
HIDDEN size_t os_memory_limit(void);

/* How short memory is, in per cent: of the last ten seconds, the share in
 * which some task of this control group (or of the machine) waited for it; 100
 * where the control group has less than 1/16 of its limit left; 0 where the
 * kernel does not say. */
HIDDEN unsigned os_memory_pressure(void);

/* NUMA nodes of the machine, 1 where the kernel does not say; and the node of
 * the CPU that runs this, itself in *CPU unless that is NULL. */
HIDDEN unsigned os_node_count(void);
HIDDEN unsigned os_node(unsigned *cpu);

/* The CPUs that this thread may run on. */
HIDDEN size_t os_cpus(void);

/* Page faults of this thread that needed no disk, so far. */
HIDDEN size_t os_thread_faults(void);

/* The limit on this process's address space, SIZE_MAX for none. */
HIDDEN size_t os_address_space(void);

/* Physical memory alone, in bytes. */
HIDDEN size_t os_physical_memory(void);

/* CLOCK_MONOTONIC in nanoseconds. */
HIDDEN uint64_t os_now_ns(void);

#endif /* ZKN_OS_H */
