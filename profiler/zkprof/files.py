# SPDX-License-Identifier: MIT OR Apache-2.0
"""Files that are either complete or not there.

What zkprof writes goes into a new file beside its destination and takes its
place when everything has been written.  So a failure leaves an old file as it
was, a reader never sees half a report, and a path that cannot be written is
known before anything is measured.

Reports tell how a program works inside, so they are for their owner alone
(mode 0600).  Under sudo the owner is the user who called it.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ZkprofError

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDARD_OUTPUT = "-"


class FileError(ZkprofError):
    """A file cannot be written."""


@contextmanager
def replacing(path: str) -> Iterator[StringIO]:
    """Yield a buffer whose text becomes the content of `path` at the end.

    Nothing happens to `path` when the block fails or writes nothing.

    Parameters
    ----------
    path
        A file; ``-`` is standard output.  What is there and no plain file (a
        pipe, a device) is written to as it is.

    Raises
    ------
    FileError
        It cannot be written.
    """
    buffer = StringIO()
    if path == STANDARD_OUTPUT:
        yield buffer
        sys.stdout.write(buffer.getvalue())
        sys.stdout.flush()
        return
    if _is_special(Path(path)):
        yield buffer
        with _reporting(path):
            Path(path).write_text(buffer.getvalue(), "utf-8")
        return
    # A link stays, and what it points to is replaced.
    target = Path(path).resolve()
    with _reporting(path):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    try:
        with open(number, "w", encoding="utf-8") as stream:  # noqa: PTH123  (a descriptor)
            yield buffer
            if text := buffer.getvalue():
                with _reporting(path):
                    _give_to_caller(number)
                    stream.write(text)
                    stream.flush()
                    Path(name).replace(target)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()


@contextmanager
def _reporting(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error


def _is_special(path: Path) -> bool:
    """Say whether this is a pipe, a device, or an open file by its name in /dev/fd."""
    if any(path.is_relative_to(folder) for folder in ("/dev/fd", "/dev/stdout", "/proc")):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def _give_to_caller(number: int) -> None:
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and user.isdigit() and group.isdigit():
        with suppress(OSError):
            os.fchown(number, int(user), int(group))
