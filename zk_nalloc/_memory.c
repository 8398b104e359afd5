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
 *   part       or it is a part of another Memory, whose lifetime it prolongs:
 *              a view of the part is a view of the whole too, and where the
 *              whole is closed there are no more views of the part.  A block
 *              of an arena is a part of its phase, that of the arena;
 *   views      each view holds a reference to its Memory, so deallocation
 *              cannot happen under a view either;
 *   threads    `state` is all that changes, and it does by atomic operations
 *              alone: any number of threads may view and close one Memory,
 *              with the GIL or without it.
 *
 * The module is private: its constructor takes raw addresses.
 */
#include <Python.h>

#include <stdatomic.h>

/* The state: the number of views alive, and flags above it. */
#define VIEWS     (((size_t)1 << 60) - 1)
#define CLOSED    ((size_t)1 << 60) /* no new views */
#define NO_ACCESS ((size_t)1 << 61) /* no new views until access is back */
#define READ_ONLY ((size_t)1 << 62) /* new views cannot be written to */

typedef void (*release_function)(void *);

typedef struct memory {
    PyObject_HEAD void *address;
    Py_ssize_t nbytes;
    release_function release; /* or NULL, and the memory is a part of: */
    struct memory *whole;
    _Atomic(size_t) state;
} Memory;

static PyObject *memory_new(PyTypeObject *type, PyObject *args, PyObject *kwds);

/* Whether OBJECT is a Memory, of whatever module instance: subclasses inherit
 * tp_new, or call it. */
static int is_memory(PyObject *object)
{
    for (PyTypeObject *type = Py_TYPE(object); type != NULL;
         type = (PyTypeObject *)PyType_GetSlot(type, Py_tp_base)) {
        if (PyType_GetSlot(type, Py_tp_new) == (void *)memory_new)
            return 1;
    }
    return 0;
}

static PyObject *memory_new(PyTypeObject *type, PyObject *args, PyObject *kwds)
{
    PyObject *address, *owner;
    Py_ssize_t nbytes;
    if (kwds != NULL && PyDict_Size(kwds) != 0) {
        PyErr_SetString(PyExc_TypeError, "Memory takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OnO:Memory", &address, &nbytes, &owner))
        return NULL;
    void *block = PyLong_AsVoidPtr(address);
    if (block == NULL && PyErr_Occurred())
        return NULL;
    void *function = NULL;
    Memory *whole = NULL;
    if (is_memory(owner)) {
        whole = (Memory *)owner;
    } else {
        function = PyLong_AsVoidPtr(owner);
        if (function == NULL && PyErr_Occurred())
            return NULL;
    }
    if (block == NULL || nbytes < 0 || (function == NULL && whole == NULL)) {
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
    self->whole = whole;
    Py_XINCREF(whole);
    atomic_init(&self->state, 0);
    return (PyObject *)self;
}

static void memory_dealloc(PyObject *object)
{
    Memory *self = (Memory *)object;
    PyTypeObject *type = Py_TYPE(object);
    if ((atomic_load(&self->state) & CLOSED) == 0 && self->release != NULL)
        self->release(self->address);
    Py_XDECREF(self->whole);
    freefunc release_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release_object(object);
    Py_DECREF(type);
}

/* ------------------------------------------------------------------ views */

static int closed_error(void)
{
    PyErr_SetString(PyExc_ValueError, "operation on a closed buffer");
    return -1;
}

/* Whether SELF, or what it is a part of, gives no more views. */
static int is_closed(const Memory *self)
{
    for (; self != NULL; self = self->whole) {
        if ((atomic_load(&self->state) & CLOSED) != 0)
            return 1;
    }
    return 0;
}

static void drop_view(Memory *self)
{
    for (; self != NULL; self = self->whole)
        atomic_fetch_sub(&self->state, 1);
}

/* Count a view of SELF and of all that it is a part of, or raise. */
static int add_view(Memory *self)
{
    if (self->whole != NULL && add_view(self->whole) != 0)
        return -1;
    size_t state = atomic_load(&self->state);
    do {
        if ((state & (CLOSED | NO_ACCESS)) != 0) {
            drop_view(self->whole);
            if ((state & CLOSED) != 0)
                return closed_error();
            PyErr_SetString(PyExc_BufferError, "access is switched off");
            return -1;
        }
    } while (!atomic_compare_exchange_weak(&self->state, &state, state + 1));
    return 0;
}

static int memory_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    Memory *self = (Memory *)object;
    if (add_view(self) != 0) {
        view->obj = NULL;
        return -1;
    }
    /* The flag cannot be set any more while this view is counted. */
    int read_only = (atomic_load(&self->state) & READ_ONLY) != 0;
    int error = PyBuffer_FillInfo(view, object, self->address, self->nbytes,
                                  read_only, flags);
    if (error != 0)
        drop_view(self);
    return error;
}

static void memory_releasebuffer(PyObject *object, Py_buffer *view)
{
    (void)view;
    drop_view((Memory *)object);
}

/* ---------------------------------------------------------------- closing */

/* Exchange the flags in CLEAR for those in SET, unless views are alive; they
 * may be where MAY_HAVE_VIEWS.  Returns the views that were alive. */
static size_t change_flags(Memory *self, size_t clear, size_t set,
                           int may_have_views)
{
    size_t state = atomic_load(&self->state);
    do {
        if ((state & VIEWS) != 0 && !may_have_views)
            return state & VIEWS;
    } while (!atomic_compare_exchange_weak(&self->state, &state,
                                           (state & ~clear) | set));
    return state & VIEWS;
}

/* Close unless views are alive; returns how many are.  Of several threads one
 * frees the block. */
static size_t close_unless_viewed(Memory *self)
{
    size_t state = atomic_load(&self->state);
    do {
        if ((state & CLOSED) != 0)
            return 0;
        if ((state & VIEWS) != 0)
            return state & VIEWS;
    } while (
        !atomic_compare_exchange_weak(&self->state, &state, state | CLOSED));
    if (self->release != NULL) {
        PyThreadState *thread = PyEval_SaveThread();
        self->release(self->address);
        PyEval_RestoreThread(thread);
    }
    return 0;
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
    size_t views = close_unless_viewed((Memory *)object);
    if (views != 0) {
        return PyErr_Format(PyExc_BufferError,
                            "cannot close: %zu view%s of this buffer %s "
                            "alive; release or delete them first",
                            views, views == 1 ? "" : "s",
                            views == 1 ? "is" : "are");
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(try_close_doc, "_try_close()\n"
                            "--\n"
                            "\n"
                            "Close unless views are alive; say how many are.");

static PyObject *memory_try_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromSize_t(close_unless_viewed((Memory *)object));
}

PyDoc_STRVAR(abandon_doc,
             "_abandon()\n"
             "--\n"
             "\n"
             "Allow no more views of a part, whatever is alive; say how many\n"
             "views are.  They keep the whole alive.");

static PyObject *memory_abandon(PyObject *object, PyObject *unused)
{
    (void)unused;
    Memory *self = (Memory *)object;
    if (self->whole == NULL) {
        PyErr_SetString(PyExc_ValueError, "only a part can be abandoned");
        return NULL;
    }
    return PyLong_FromSize_t(change_flags(self, 0, CLOSED, 1));
}

PyDoc_STRVAR(
    restrict_doc,
    "_restrict(access)\n"
    "--\n"
    "\n"
    "What views may do from now on: 0 nothing, 1 read, 2 write.  Less\n"
    "than before is refused while views are alive; says how many.");

static PyObject *memory_restrict(PyObject *object, PyObject *argument)
{
    Memory *self = (Memory *)object;
    static const size_t flags[] = {NO_ACCESS, READ_ONLY, 0};
    long access = PyLong_AsLong(argument);
    if (access == -1 && PyErr_Occurred())
        return NULL;
    if (access < 0 || access > 2) {
        PyErr_SetString(PyExc_ValueError, "access must be 0, 1 or 2");
        return NULL;
    }
    size_t state = atomic_load(&self->state);
    long before = (state & NO_ACCESS) != 0   ? 0
                  : (state & READ_ONLY) != 0 ? 1
                                             : 2;
    size_t views = change_flags(self, NO_ACCESS | READ_ONLY, flags[access],
                                access >= before);
    return PyLong_FromSize_t(access >= before ? 0 : views);
}

/* ------------------------------------------------------------- attributes */

static PyObject *get_address(PyObject *object, void *unused)
{
    (void)unused;
    Memory *self = (Memory *)object;
    if (is_closed(self)) {
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
    return PyBool_FromLong(is_closed((const Memory *)object));
}

static PyObject *get_views(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(atomic_load(&((Memory *)object)->state) & VIEWS);
}

static PyMethodDef memory_methods[] = {
    {"close", memory_close, METH_NOARGS, close_doc},
    {"_try_close", memory_try_close, METH_NOARGS, try_close_doc},
    {"_abandon", memory_abandon, METH_NOARGS, abandon_doc},
    {"_restrict", memory_restrict, METH_O, restrict_doc},
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
    {Py_tp_doc, "Memory(address, nbytes, owner)\n--\n\n"
                "NBYTES of C memory at ADDRESS, to be freed by OWNER, a C\n"
                "function, or a part of OWNER, a Memory."},
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
