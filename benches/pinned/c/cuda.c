/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * cuda.c - see cuda.h.
 */
#include "cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cuda cuda;

static void absent(const char *why)
{
    fprintf(stderr, "pinned: no GPU: %s\n", why);
    exit(STATUS_NO_GPU);
}

static void *find(void *library, const char *symbol)
{
    void *found = dlsym(library, symbol);
    if (found == NULL)
        absent(dlerror());
    return found;
}

const char *cuda_error(int error)
{
    const char *name = NULL;
    if (cuda.error_name(error, &name) != CUDA_SUCCESS || name == NULL)
        return "an unknown error";
    return name;
}

void cuda_must(int error, const char *what)
{
    if (error == CUDA_SUCCESS)
        return;
    fprintf(stderr, "pinned: %s: %s (%d)\n", what, cuda_error(error), error);
    exit(STATUS_FAILED);
}

int cuda_copy(cuda_address to, const void *from, size_t size)
{
    int error = cuda.to_device(to, from, size, cuda.stream);
    return error != CUDA_SUCCESS ? error : cuda.stream_wait(cuda.stream);
}

void cuda_open(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL)
        absent(dlerror());
        /* POSIX lets dlsym()'s result be called; ISO C lets it be copied. */
#define X(member, symbol, parameters)                                          \
    {                                                                          \
        void *found = find(library, #symbol);                                  \
        memcpy(&cuda.member, &found, sizeof found);                            \
    }
    CUDA_FUNCTIONS(X)
#undef X
    int device, error = cuda.init(0);
    if (error == CUDA_SUCCESS)
        error = cuda.device_get(&device, 0);
    if (error != CUDA_SUCCESS)
        absent(cuda_error(error));
    cuda_must(cuda.driver_version(&cuda.version), "cuDriverGetVersion");
    cuda_must(
        cuda.device_name(cuda.device, (int)sizeof cuda.device - 1, device),
        "cuDeviceGetName");
    cuda_must(cuda.context_retain(&cuda.context, device),
              "cuDevicePrimaryCtxRetain");
    cuda_must(cuda.context_set(cuda.context), "cuCtxSetCurrent");
    cuda_must(cuda.stream_create(&cuda.stream, 0), "cuStreamCreate");
}
