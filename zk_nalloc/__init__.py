# SPDX-License-Identifier: MIT OR Apache-2.0
"""Large, resident buffers for zero-knowledge provers written in Python.

`alloc` returns a `Buffer` of libzknalloc's memory: what was freed before is
served again without a system call, a page fault or a clear.

>>> import zk_nalloc
>>> with zk_nalloc.alloc(1 << 20) as buffer:
...     view = memoryview(buffer)
...     view[:4] = b"trace"[:4]
...     view.release()
>>> zk_nalloc.stats().frees > 0
True

Errors of the library come as built-in exceptions: `MemoryError` where memory
is short, `ValueError`, `TypeError` and `OverflowError` for bad arguments,
`BufferError` for closing under live views.  Every function and object may be
used from any thread.
"""

from pkgutil import extend_path

# In a checkout, `python -m benches` and the like import these sources; the
# compiled modules are those of the installed package.
__path__ = extend_path(__path__, __name__)

from zk_nalloc import numpy as numpy  # not in __all__: `import *` must not hide NumPy
from zk_nalloc._arena import Arena, ArenaBuffer, Phase
from zk_nalloc._arrays import empty, empty_like, full, zeros
from zk_nalloc._buffer import Buffer, alloc
from zk_nalloc._config import preload_path
from zk_nalloc._control import Option, options, release_cache, soften_cache, stage_boundary
from zk_nalloc._lib import version
from zk_nalloc._secret import SecretBuf
from zk_nalloc._stats import ClassStats, Stats, StatsDelta, stats, stats_delta

__version__ = version

__all__ = [
    "Arena",
    "ArenaBuffer",
    "Buffer",
    "ClassStats",
    "Option",
    "Phase",
    "SecretBuf",
    "Stats",
    "StatsDelta",
    "__version__",
    "alloc",
    "empty",
    "empty_like",
    "full",
    "options",
    "preload_path",
    "release_cache",
    "soften_cache",
    "stage_boundary",
    "stats",
    "stats_delta",
    "version",
    "zeros",
]
