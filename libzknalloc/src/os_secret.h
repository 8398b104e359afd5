/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * os_secret.h - the part of os.h that only secrets need, under the same
 * contract.
 */
#ifndef ZKN_OS_SECRET_H
#define ZKN_OS_SECRET_H

#include "base.h"

/* Reserve LENGTH bytes of address space that nobody can access. */
HIDDEN int os_secret_reserve(size_t length, char **out);

/* Map zeroed memory of memfd_secret() at ADDR, which the kernel locks, dumps
 * nowhere and has no mapping of itself, and which is missing in children of
 * fork(): it cannot be wiped there, since it is shared.  Replaces what lies at
 * ADDR; with VACANT, fails where anything does.  Fails before Linux 5.14 and
 * above RLIMIT_MEMLOCK; what lay at ADDR may be gone then. */
HIDDEN int os_secret_map_memfd(char *addr, size_t length, bool vacant);

/* Map zeroed private memory at ADDR, in the same way. */
HIDDEN int os_secret_map_private(char *addr, size_t length, bool vacant);

/* Keep private memory, readable and writable, out of swap; out of core dumps;
 * from children of fork(), which read zeros instead. */
HIDDEN int os_secret_lock(char *addr, size_t length);
HIDDEN int os_secret_dont_dump(char *addr, size_t length);
HIDDEN int os_secret_wipe_on_fork(char *addr, size_t length);

/* Allow what PROT_* says. */
HIDDEN int os_secret_protect(char *addr, size_t length, int prot);

HIDDEN void os_secret_unmap(char *addr, size_t length);

/* Random bytes for canaries; weak ones before the kernel has better. */
HIDDEN void os_random(void *bytes, size_t length);

#endif /* ZKN_OS_SECRET_H */
