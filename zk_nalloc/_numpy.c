/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * _numpy.c - NumPy's array data on the cache, by NumPy's own protocol.
 *
 * NumPy asks a handler (NEP 49) for the data of every array, and each array
 * keeps the handler that made it for as long as it lives.  A handler here is a
 * layer over the one that was there before:
 *
 *   large      requests of ZKN_THRESHOLD bytes and more go to the cache, the
 *              others, and those that the cache cannot serve, to the layer
 *              below, with its own context;
 *   origin     what is freed or resized goes back to where it came from,
 *              which its address tells, never its size: NumPy calls the size
 *              that it passes a best guess.  So no handler can be the wrong
 *              one, and a layer may be switched off under live arrays;
 *   life       a layer lives in a capsule that arrays hold references to, and
 *              holds a reference to the capsule below.
 *
 * Handlers are chosen in two places.  A context variable of NumPy's names the
 * handler of a thread or task (swap() below).  Where none is set, as in every
 * new thread, the variable's default counts: one capsule, fixed when NumPy was
 * loaded, which NumPy asks for its pointer at each call.  install() points it
 * at a layer over what it pointed at, once and for good; from then on a flag
 * says whether that layer takes new requests.
 *
 * A third kind of handler sends everything to the library, at an alignment of
 * its own; zk_nalloc.empty() and its kin use it for one array at a time.
 *
 * NumPy calls handlers with the GIL held, or from an attached thread where
 * there is none.  The GIL is not released here: NumPy is in the middle of
 * making or ending an array.
 *
 * The module is private: swap() takes any handler.
 */
#include <Python.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION    NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include <zknalloc.h>

/* What NumPy names the capsules of handlers. */
#define CAPSULE_NAME "mem_handler"

/* The name of our handlers, which numpy.core.multiarray.get_handler_name()
 * tells; also how one of them is recognised. */
static const char layer_name[] = "zknalloc";

/* A block that grows across the threshold is copied as a whole, since how much
 * of it was in use before is not known; larger ones stay with the layer below
 * rather than have pages copied that were never touched. */
#define LARGEST_COPY ((size_t)1 << 20)

typedef struct {
    PyDataMem_Handler handler; /* first: what the capsule points to */
    const PyDataMem_Handler *below;
    PyObject *below_capsule; /* keeps BELOW alive; NULL: NumPy's, for good */
    size_t alignment;        /* of aligned handlers, which have no BELOW */
    atomic_bool on;          /* takes new requests */
} layer_t;

/* The layer under NumPy's default, and the flag's owner. */
static layer_t process_layer;
/* A layer over NumPy's own handler, for contexts; the usual case. */
static PyObject *usual_capsule;

/* Regions start at multiples of 64.  Below the threshold, or where the library
 * is preloaded, a debugging allocator of Python's may hand out addresses
 * inside of a region; these are none. */
static inline bool is_region(const void *ptr)
{
    return ((uintptr_t)ptr & 63) == 0 && zkn_owns(ptr);
}

/* PTR as the cache gave it, or NULL where the system served instead: that
 * memory must not get mixed up with that of the layer below. */
static void *only_region(void *ptr)
{
    if (is_region(ptr))
        return ptr;
    zkn_free(ptr);
    return NULL;
}

static void *below_malloc(const layer_t *layer, size_t size)
{
    const PyDataMemAllocator *below = &layer->below->allocator;
    return below->malloc(below->ctx, size);
}

static void below_free(const layer_t *layer, void *ptr, size_t size)
{
    const PyDataMemAllocator *below = &layer->below->allocator;
    below->free(below->ctx, ptr, size);
}

/* ------------------------------------------------------- layered handlers */

static inline bool takes(layer_t *layer, size_t size)
{
    return size >= ZKN_THRESHOLD &&
           atomic_load_explicit(&layer->on, memory_order_relaxed);
}

static void *layer_malloc(void *context, size_t size)
{
    layer_t *layer = context;
    void *ptr = NULL;
    if (takes(layer, size))
        ptr = only_region(zkn_alloc(size));
    return ptr != NULL ? ptr : below_malloc(layer, size);
}

static void *layer_calloc(void *context, size_t count, size_t size)
{
    layer_t *layer = context;
    void *ptr = NULL;
    size_t bytes;
    if (!__builtin_mul_overflow(count, size, &bytes) && takes(layer, bytes))
        ptr = only_region(zkn_calloc(count, size));
    if (ptr != NULL)
        return ptr;
    const PyDataMemAllocator *below = &layer->below->allocator;
    return below->calloc(below->ctx, count, size);
}

/* A block of the layer below is resized there.  Sequences that grow step by
 * step, as in numpy.fromiter(), come over when they pass the threshold. */
static void *resize_below(layer_t *layer, void *ptr, size_t size)
{
    const PyDataMemAllocator *below = &layer->below->allocator;
    void *grown = below->realloc(below->ctx, ptr, size);
    if (grown == NULL || !takes(layer, size) || size > LARGEST_COPY)
        return grown;
    void *moved = only_region(zkn_alloc(size));
    if (moved == NULL)
        return grown;
    memcpy(moved, grown, size);
    below_free(layer, grown, size);
    return moved;
}

static void *layer_realloc(void *context, void *ptr, size_t size)
{
    layer_t *layer = context;
    if (!is_region(ptr))
        return resize_below(layer, ptr, size);
    if (size >= ZKN_THRESHOLD) {
        void *resized = zkn_realloc(ptr, size);
        if (resized == NULL || is_region(resized))
            return resized;
        ptr = resized; /* the system's */
    }
    void *moved = below_malloc(layer, size);
    if (moved == NULL)
        return NULL;
    size_t had = zkn_usable_size(ptr);
    memcpy(moved, ptr, had < size ? had : size);
    zkn_free(ptr);
    return moved;
}

static void layer_free(void *context, void *ptr, size_t size)
{
    if (is_region(ptr))
        zkn_free(ptr);
    else
        below_free(context, ptr, size);
}

/* ------------------------------------------------------- aligned handlers */

static void *aligned_malloc(void *context, size_t size)
{
    const layer_t *layer = context;
    return zkn_aligned_alloc(layer->alignment, size);
}

static void *aligned_calloc(void *context, size_t count, size_t size)
{
    const layer_t *layer = context;
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    /* Only zkn_calloc() knows which pages are zero already. */
    if (bytes >= ZKN_THRESHOLD && layer->alignment <= 64)
        return zkn_calloc(count, size);
    void *ptr = zkn_aligned_alloc(layer->alignment, bytes);
    if (ptr != NULL)
        memset(ptr, 0, bytes);
    return ptr;
}

static void *aligned_realloc(void *context, void *ptr, size_t size)
{
    const layer_t *layer = context;
    if (layer->alignment <= 64 && is_region(ptr) && size >= ZKN_THRESHOLD)
        return zkn_realloc(ptr, size);
    void *moved = zkn_aligned_alloc(layer->alignment, size);
    if (moved == NULL)
        return NULL;
    size_t had = zkn_usable_size(ptr);
    memcpy(moved, ptr, had < size ? had : size);
    zkn_free(ptr);
    return moved;
}

static void aligned_free(void *context, void *ptr, size_t size)
{
    (void)context;
    (void)size;
    zkn_free(ptr);
}

/* --------------------------------------------------------------- capsules */

static const PyDataMemAllocator layer_functions = {
    .malloc = layer_malloc,
    .calloc = layer_calloc,
    .realloc = layer_realloc,
    .free = layer_free,
};

static const PyDataMemAllocator aligned_functions = {
    .malloc = aligned_malloc,
    .calloc = aligned_calloc,
    .realloc = aligned_realloc,
    .free = aligned_free,
};

static void fill_layer(layer_t *layer, const char *name,
                       const PyDataMemAllocator *functions)
{
    strncpy(layer->handler.name, name, sizeof(layer->handler.name) - 1);
    layer->handler.version = 1;
    layer->handler.allocator = *functions;
    layer->handler.allocator.ctx = layer;
    atomic_init(&layer->on, true);
}

static void end_layer(PyObject *capsule)
{
    layer_t *layer = PyCapsule_GetPointer(capsule, CAPSULE_NAME);
    Py_XDECREF(layer->below_capsule);
    free(layer);
}

/* A new handler in a capsule that owns it. */
static PyObject *new_capsule(const PyDataMemAllocator *functions,
                             layer_t **layer_out)
{
    layer_t *layer = calloc(1, sizeof(*layer));
    if (layer == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    fill_layer(layer, layer_name, functions);
    PyObject *capsule = PyCapsule_New(layer, CAPSULE_NAME, end_layer);
    if (capsule == NULL)
        free(layer);
    *layer_out = layer;
    return capsule;
}

/* -------------------------------------------------- the module's functions */

PyDoc_STRVAR(layered_doc,
             "layered()\n--\n\n"
             "Return a handler over this context's, or that if it is one.");

static PyObject *layered(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *current = PyDataMem_GetHandler();
    if (current == NULL)
        return NULL;
    if (current == PyDataMem_DefaultHandler) {
        Py_DECREF(current);
        return Py_NewRef(usual_capsule);
    }
    const PyDataMem_Handler *handler =
        PyCapsule_GetPointer(current, CAPSULE_NAME);
    if (handler == NULL || strcmp(handler->name, layer_name) == 0)
        return current; /* NULL: cannot be, NumPy checks the name */
    layer_t *layer;
    PyObject *capsule = new_capsule(&layer_functions, &layer);
    if (capsule == NULL) {
        Py_DECREF(current);
        return NULL;
    }
    layer->below = handler;
    layer->below_capsule = current;
    return capsule;
}

PyDoc_STRVAR(aligned_doc,
             "aligned(alignment)\n--\n\n"
             "Return a new handler that aligns to a power of two.");

static PyObject *aligned(PyObject *module, PyObject *argument)
{
    (void)module;
    size_t alignment = PyLong_AsSize_t(argument);
    if (alignment == (size_t)-1 && PyErr_Occurred())
        return NULL;
    layer_t *layer;
    PyObject *capsule = new_capsule(&aligned_functions, &layer);
    if (capsule != NULL)
        layer->alignment = alignment;
    return capsule;
}

PyDoc_STRVAR(swap_doc, "swap(handler)\n--\n\n"
                       "Set this context's handler and return the one before.");

static PyObject *swap(PyObject *module, PyObject *capsule)
{
    (void)module;
    return PyDataMem_SetHandler(capsule);
}

PyDoc_STRVAR(call_doc,
             "call(handler, function, /, *args, **kwargs)\n--\n\n"
             "Return what FUNCTION returns under HANDLER; the context's own\n"
             "is back afterwards, whatever happens.");

static PyObject *call(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    PyObject *capsule = PyTuple_GetItem(args, 0);
    PyObject *function = capsule != NULL ? PyTuple_GetItem(args, 1) : NULL;
    if (function == NULL)
        return NULL;
    PyObject *rest = PyTuple_GetSlice(args, 2, PyTuple_Size(args));
    if (rest == NULL)
        return NULL;
    PyObject *before = PyDataMem_SetHandler(capsule);
    PyObject *result = NULL;
    if (before != NULL) {
        result = PyObject_Call(function, rest, kwargs);
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyObject *ours = PyDataMem_SetHandler(before);
        if (ours != NULL)
            PyErr_Restore(type, value, traceback);
        else
            Py_CLEAR(result);
        Py_XDECREF(ours);
        Py_DECREF(before);
    }
    Py_DECREF(rest);
    return result;
}

PyDoc_STRVAR(install_doc, "install()\n--\n\n"
                          "Take large requests of contexts without a handler.");

static PyObject *install(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    atomic_store(&process_layer.on, true);
    /* The same value each time. */
    if (PyCapsule_SetPointer(PyDataMem_DefaultHandler, &process_layer) != 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(uninstall_doc, "uninstall()\n--\n\n"
                            "Take no more of them.");

static PyObject *uninstall(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    atomic_store(&process_layer.on, false);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(installed_doc, "installed()\n--\n\n"
                            "Whether install() is in force.");

static PyObject *installed(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(atomic_load(&process_layer.on));
}

static PyMethodDef methods[] = {
    {"layered", layered, METH_NOARGS, layered_doc},
    {"aligned", aligned, METH_O, aligned_doc},
    {"swap", swap, METH_O, swap_doc},
    {"call", (PyCFunction)(void (*)(void))call, METH_VARARGS | METH_KEYWORDS,
     call_doc},
    {"install", install, METH_NOARGS, install_doc},
    {"uninstall", uninstall, METH_NOARGS, uninstall_doc},
    {"installed", installed, METH_NOARGS, installed_doc},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    (void)module;
    if (PyArray_ImportNumPyAPI() < 0)
        return -1;
    if (usual_capsule != NULL)
        return 0; /* imported again; arrays may hold what is there */
    const PyDataMem_Handler *numpys =
        PyCapsule_GetPointer(PyDataMem_DefaultHandler, CAPSULE_NAME);
    if (numpys == NULL)
        return -1;
    layer_t *layer;
    usual_capsule = new_capsule(&layer_functions, &layer);
    if (usual_capsule == NULL)
        return -1;
    layer->below = numpys;
    /* It stays NumPy's default, so it keeps the name that this has. */
    fill_layer(&process_layer, numpys->name, &layer_functions);
    process_layer.below = numpys;
    atomic_store(&process_layer.on, false);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
#ifdef Py_mod_multiple_interpreters
    /* As NumPy: the default handler is one for the process. */
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "zk_nalloc._numpy",
    .m_doc = "Handlers of NumPy's array data.",
    .m_methods = methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__numpy(void)
{
    return PyModuleDef_Init(&module_def);
}
