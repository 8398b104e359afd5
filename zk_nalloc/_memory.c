/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * _memory.c - a Python object that owns a block of C memory and lends it out.
 *
 * cffi calls the library; what it cannot do is tell how many views of a block
 * are alive, and a block that is freed under a view leaves safe Python code
 * with a dangling pointer.  A class written in Python could count them from
 * 3.12 on (`__buffer__`), so this is the one type written in C: on every
 * CPython that the stable ABI of 3.11 covers, closing is refused as long as a
 * view lives, and the rules below need no exception.
 *
 *   owner      a Memory owns its block from construction until it is closed
 *              or deallocated, whichever is first, and frees it once;
 *   views      each view holds a reference to its Memory, so deallocation
 *              cannot happen under a view either;
 *   threads    `exports` is the whole state and changes by atomic operations
 *              alone: any number of threads may view and close one Memory,
 *              with the GIL or without it.
 *
 * The module is private: its constructor takes raw addresses.
 */
#include <Python.h>

#include <stdatomic.h>

/* The value of exports once the block is gone; otherwise the views alive. */
#define CLOSED ((Py_ssize_t)-1)

typedef void (*release_function)(void *);

typedef struct {
    PyObject_HEAD void *address;
    Py_ssize_t nbytes;
    release_function release;
    _Atomic(Py_ssize_t) exports;
} Memory;

static PyObject *memory_new(PyTypeObject *type, PyObject *args, PyObject *kwds)
{
    PyObject *address, *release;
    Py_ssize_t nbytes;
    if (kwds != NULL && PyDict_Size(kwds) != 0) {
        PyErr_SetString(PyExc_TypeError, "Memory takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OnO:Memory", &address, &nbytes, &release))
        return NULL;
    void *block = PyLong_AsVoidPtr(address);
    if (block == NULL && PyErr_Occurred())
        return NULL;
    void *function = PyLong_AsVoidPtr(release);
    if (function == NULL && PyErr_Occurred())
        return NULL;
    if (block == NULL || function == NULL || nbytes < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "Memory needs a block, its size and how to free it");
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Memory *self = (Memory *)alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->address = block;
    self->nbytes = nbytes;
    self->release = (release_function)function;
    atomic_init(&self->exports, 0);
    return (PyObject *)self;
}

static void memory_dealloc(PyObject *object)
{
    Memory *self = (Memory *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (atomic_load(&self->exports) != CLOSED && self->release != NULL)
        self->release(self->address);
    freefunc release_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release_object(object);
    Py_DECREF(type);
}

static int closed_error(void)
{
    PyErr_SetString(PyExc_ValueError, "operation on a closed buffer");
    return -1;
}

static int memory_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    Memory *self = (Memory *)object;
    Py_ssize_t exports = atomic_load(&self->exports);
    do {
        if (exports == CLOSED) {
            view->obj = NULL;
            return closed_error();
        }
    } while (
        !atomic_compare_exchange_weak(&self->exports, &exports, exports + 1));
    int error =
        PyBuffer_FillInfo(view, object, self->address, self->nbytes, 0, flags);
    if (error != 0)
        atomic_fetch_sub(&self->exports, 1);
    return error;
}

static void memory_releasebuffer(PyObject *object, Py_buffer *view)
{
    (void)view;
    atomic_fetch_sub(&((Memory *)object)->exports, 1);
}

PyDoc_STRVAR(close_doc,
             "close()\n"
             "--\n"
             "\n"
             "Give the memory back to the cache.\n"
             "\n"
             "Closing a closed buffer does nothing.\n"
             "\n"
             "Raises\n"
             "------\n"
             "BufferError\n"
             "    Views of the memory are alive (a `memoryview`, a NumPy\n"
             "    array, ...); the message says how many.  The buffer stays\n"
             "    open and usable.");

static PyObject *memory_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    Memory *self = (Memory *)object;
    Py_ssize_t exports = 0;
    if (atomic_compare_exchange_strong(&self->exports, &exports, CLOSED)) {
        PyThreadState *state = PyEval_SaveThread();
        self->release(self->address);
        PyEval_RestoreThread(state);
    } else if (exports != CLOSED) {
        return PyErr_Format(PyExc_BufferError,
                            "cannot close: %zd view%s of this buffer %s "
                            "alive; release or delete them first",
                            exports, exports == 1 ? "" : "s",
                            exports == 1 ? "is" : "are");
    }
    Py_RETURN_NONE;
}

static PyObject *get_address(PyObject *object, void *unused)
{
    (void)unused;
    Memory *self = (Memory *)object;
    if (atomic_load(&self->exports) == CLOSED) {
        closed_error();
        return NULL;
    }
    return PyLong_FromVoidPtr(self->address);
}

static PyObject *get_nbytes(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(((Memory *)object)->nbytes);
}

static PyObject *get_closed(PyObject *object, void *unused)
{
    (void)unused;
    Memory *self = (Memory *)object;
    return PyBool_FromLong(atomic_load(&self->exports) == CLOSED);
}

static PyObject *get_views(PyObject *object, void *unused)
{
    (void)unused;
    Py_ssize_t exports = atomic_load(&((Memory *)object)->exports);
    return PyLong_FromSsize_t(exports == CLOSED ? 0 : exports);
}

static PyMethodDef memory_methods[] = {
    {"close", memory_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef memory_getset[] = {
    {"address", get_address, NULL,
     "The address of the first byte, for C functions that want a pointer; "
     "valid until the buffer is closed.",
     NULL},
    {"nbytes", get_nbytes, NULL, "The size in bytes, as asked for.", NULL},
    {"closed", get_closed, NULL, "Whether the memory has been given back.",
     NULL},
    {"views", get_views, NULL, "How many views of the memory are alive.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot memory_slots[] = {
    {Py_tp_doc, "Memory(address, nbytes, release)\n--\n\n"
                "NBYTES of C memory at ADDRESS, to be freed by RELEASE."},
    {Py_tp_new, (void *)memory_new},
    {Py_tp_dealloc, (void *)memory_dealloc},
    {Py_tp_methods, memory_methods},
    {Py_tp_getset, memory_getset},
    {Py_bf_getbuffer, (void *)memory_getbuffer},
    {Py_bf_releasebuffer, (void *)memory_releasebuffer},
    {0, NULL},
};

static PyType_Spec memory_spec = {
    .name = "zk_nalloc._memory.Memory",
    .basicsize = sizeof(Memory),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = memory_slots,
};

static int module_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &memory_spec, NULL);
    if (type == NULL)
        return -1;
    int error = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return error;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "zk_nalloc._memory",
    .m_doc = "Owned C memory with counted views.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__memory(void)
{
    return PyModuleDef_Init(&module_def);
}
