/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * cuda.h - the few functions of the CUDA driver API that the benchmark calls.
 *
 * libcuda is opened when the program runs, so that building it takes neither
 * CUDA nor a GPU, and so that a test can put a library of its own there.  The
 * prototypes are those of cuda.h as the versioned symbols have had them since
 * CUDA 4, the primary context's since CUDA 7.
 */
#ifndef PINNED_CUDA_H
#define PINNED_CUDA_H

#include <stddef.h>

/* How the program ends.  Any other status is a crash. */
enum { STATUS_OK, STATUS_FAILED, STATUS_NO_GPU, STATUS_WRONG };

typedef unsigned long long cuda_address;
typedef void *cuda_context, *cuda_stream;

#define CUDA_SUCCESS                  0
#define CUDA_MEMHOSTREGISTER_PORTABLE 1u
#define CUDA_MEMHOSTALLOC_PORTABLE    1u

/* X(member, symbol, parameters) */
#define CUDA_FUNCTIONS(X)                                                      \
    X(init, cuInit, (unsigned flags))                                          \
    X(driver_version, cuDriverGetVersion, (int *version))                      \
    X(error_name, cuGetErrorName, (int error, const char **name))              \
    X(device_get, cuDeviceGet, (int *device, int ordinal))                     \
    X(device_name, cuDeviceGetName, (char *name, int length, int device))      \
    X(context_retain, cuDevicePrimaryCtxRetain,                                \
      (cuda_context * context, int device))                                    \
    X(context_set, cuCtxSetCurrent, (cuda_context context))                    \
    X(context_push, cuCtxPushCurrent_v2, (cuda_context context))               \
    X(context_pop, cuCtxPopCurrent_v2, (cuda_context * context))               \
    X(stream_create, cuStreamCreate, (cuda_stream * stream, unsigned flags))   \
    X(stream_wait, cuStreamSynchronize, (cuda_stream stream))                  \
    X(device_alloc, cuMemAlloc_v2, (cuda_address * address, size_t size))      \
    X(device_free, cuMemFree_v2, (cuda_address address))                       \
    X(to_device, cuMemcpyHtoDAsync_v2,                                         \
      (cuda_address to, const void *from, size_t size, cuda_stream stream))    \
    X(to_host, cuMemcpyDtoH_v2, (void *to, cuda_address from, size_t size))    \
    X(host_register, cuMemHostRegister_v2,                                     \
      (void *start, size_t size, unsigned flags))                              \
    X(host_unregister, cuMemHostUnregister, (void *start))                     \
    X(host_alloc, cuMemHostAlloc, (void **start, size_t size, unsigned flags)) \
    X(host_free, cuMemFreeHost, (void *start))

struct cuda {
#define X(member, symbol, parameters) int(*member) parameters;
    CUDA_FUNCTIONS(X)
#undef X
    cuda_context context;
    cuda_stream stream;
    int version;
    char device[128];
};

extern struct cuda cuda;

/* Open the library PATH and its first device; its context is this thread's
 * from then on.  Ends the program with STATUS_NO_GPU where there is none. */
void cuda_open(const char *path);

/* The name of ERROR, as "CUDA_ERROR_INVALID_VALUE". */
const char *cuda_error(int error);

/* End the program with STATUS_FAILED where ERROR, that of the call WHAT, is
 * one. */
void cuda_must(int error, const char *what);

/* Copy SIZE bytes to the device and wait until they are there. */
int cuda_copy(cuda_address to, const void *from, size_t size);

#endif /* PINNED_CUDA_H */
