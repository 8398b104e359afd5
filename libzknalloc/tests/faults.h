/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * faults.h - calls that the library makes of the kernel or of malloc fail.
 *
 * The linker routes those calls through faults.c (--wrap), so that the library
 * itself is as it is shipped.  Calls of the test program are routed there,
 * too: it disarms the shim before it makes any.  While the shim is armed, each
 * function's calls are counted, and fail by plan or by chance.
 */
#ifndef ZKN_TESTS_FAULTS_H
#define ZKN_TESTS_FAULTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* CMakeLists.txt has the same list. */
/* clang-format off */
#define FAULT_FUNCTIONS(X)                                                     \
    X(mmap) X(munmap) X(mprotect) X(madvise) X(mremap) X(open) X(read)         \
    X(sysinfo) X(getrlimit) X(pthread_create) X(pthread_atfork)                \
    X(malloc) X(calloc) X(memalign) X(realloc)
/* clang-format on */

enum fault_function {
#define X(name) FAULT_##name,
    FAULT_FUNCTIONS(X)
#undef X
        FAULT_FUNCTION_COUNT
};

#define FAULT_ERRORS 4

extern const char *const fault_names[];
extern const int fault_errors[FAULT_ERRORS];

/* Call NUMBER of FUNCTION fails with ERROR, and if LASTING all after it.  No
 * plan: FAULT_FUNCTION_COUNT.  Read from the environment, as
 * FUNCTION:NUMBER:ERROR:LASTING, before the library's constructor needs it. */
struct fault_plan {
    size_t function, number, error, lasting;
};

#define FAULT_PLAN_VARIABLE "ZKN_TEST_PLAN"

extern struct fault_plan fault_plan;

/* Calls while armed, and those of them that failed. */
extern _Atomic unsigned fault_counts[FAULT_FUNCTION_COUNT];
extern _Atomic unsigned fault_injected[FAULT_FUNCTION_COUNT];

extern _Atomic bool faults_armed; /* at first: true */

/* One call in so many fails, with one errno or another; 0: by the plan. */
extern _Atomic size_t fault_chance[FAULT_FUNCTION_COUNT];

#endif /* ZKN_TESTS_FAULTS_H */
