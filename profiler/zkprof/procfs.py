# SPDX-License-Identifier: MIT OR Apache-2.0
"""/proc/PID, read safely.

A `Process` holds its directory in /proc open, so that what it reads is about
that process and never about a later one that got the same number.  Texts that
the target chooses (names, paths) come out without control characters: they
are going to be printed on a terminal.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

from .errors import NotPermittedError, TargetGoneError
from .model import MemoryPoint

if TYPE_CHECKING:
    from types import TracebackType

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PF_KTHREAD = 0x0020_0000
_READ_BYTES = 1 << 16


class NoSuchProcessError(TargetGoneError):
    """No process has this number, or it ended before measuring began."""


class ZombieError(NoSuchProcessError):
    """The process has ended and waits for its parent to collect it."""


class KernelThreadError(TargetGoneError):
    """The number belongs to a kernel thread, which has no memory of its own."""


class Children(NamedTuple):
    """What those of its children used that it has waited for, and theirs."""

    minor_faults: int
    major_faults: int
    utime_s: float
    stime_s: float


@dataclass(frozen=True, slots=True)
class Stat:
    """What zkprof uses of a ``stat`` file, of a process or of one thread."""

    comm: str
    state: str
    flags: int
    minor_faults: int
    major_faults: int
    utime_s: float
    stime_s: float
    children: Children
    threads: int
    stack: int
    """Address where the stack starts; random for each exec, 0 where hidden."""

    @property
    def cpu_s(self) -> float:
        """User and system time."""
        return self.utime_s + self.stime_s

    @property
    def ended(self) -> bool:
        """Nothing runs any more.  A leader may end before its threads do."""
        return self.state in "ZXx" and self.threads <= 1


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of ``maps``."""

    start: int
    end: int
    perms: str
    inode: int
    path: str
    """Empty for anonymous memory, ``[heap]`` and the like for special ones."""
    offset: int = 0
    """Where in the file it starts."""

    @property
    def file_backed(self) -> bool:
        """Whether a file is mapped here, even a deleted one."""
        return self.inode != 0


def printable(text: str) -> str:
    """Return `text` with everything that could control a terminal replaced."""
    return "".join(c if c.isprintable() else "?" for c in text)


def parse_stat(text: str) -> Stat:
    """Read the text of ``/proc/PID/stat`` or ``/proc/PID/task/TID/stat``."""
    # The name is in parentheses and may hold spaces and parentheses itself.
    left, right = text.index("("), text.rindex(")")
    rest = text[right + 2 :].split()
    return Stat(
        comm=printable(text[left + 1 : right]),
        state=rest[0],
        flags=int(rest[6]),
        minor_faults=int(rest[7]),
        major_faults=int(rest[9]),
        utime_s=int(rest[11]) / _TICKS_PER_S,
        stime_s=int(rest[12]) / _TICKS_PER_S,
        children=Children(
            minor_faults=int(rest[8]),
            major_faults=int(rest[10]),
            utime_s=int(rest[13]) / _TICKS_PER_S,
            stime_s=int(rest[14]) / _TICKS_PER_S,
        ),
        threads=int(rest[17]),
        stack=int(rest[25]),
    )


def parse_status(text: str) -> dict[str, str]:
    """Read the text of ``/proc/PID/status``."""
    # Not splitlines(): a name may hold what else that takes for an end of line.
    pairs = (line.split(":", 1) for line in text.split("\n") if ":" in line)
    return {name: value.strip() for name, value in pairs}


_MAPS_LINE = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<perms>\S{4}) (?P<offset>[0-9a-f]+) \S+"
    r" (?P<inode>\d+)\s*(?P<path>.*)"
)


def parse_maps(text: str) -> list[Mapping]:
    """Read the text of ``/proc/PID/maps``."""
    return [
        Mapping(
            start=int(m["start"], 16),
            end=int(m["end"], 16),
            perms=m["perms"],
            inode=int(m["inode"]),
            path=m["path"],
            offset=int(m["offset"], 16),
        )
        for m in map(_MAPS_LINE.match, text.split("\n"))  # see parse_status()
        if m
    ]


class Process:
    """A process, as /proc shows it.

    Parameters
    ----------
    pid
        Its number.

    Raises
    ------
    NoSuchProcessError, ZombieError, KernelThreadError
        There is nothing to measure under this number.
    NotPermittedError
        This user may not look at that process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._dir = -1
        try:
            self._dir = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._gone() from None
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _gone(self) -> NoSuchProcessError:
        return NoSuchProcessError(
            f"no process {self.pid}: it has ended or never was; `ps` lists the running ones"
        )

    def _check(self) -> None:
        stat = self.stat()
        if stat.flags & _PF_KTHREAD:
            msg = (
                f"process {self.pid} ({stat.comm}) is a kernel thread, "
                "which has no memory of its own; choose a program"
            )
            raise KernelThreadError(msg)
        if stat.ended:
            msg = (
                f"process {self.pid} ({stat.comm}) has ended and waits for its "
                "parent to collect it; choose a running one"
            )
            raise ZombieError(msg)
        leader = self.status().get("Tgid", str(self.pid))
        if leader != str(self.pid):
            msg = f"{self.pid} is a thread of process {leader}: use `zkprof {leader}`"
            raise NoSuchProcessError(msg)
        self.read("maps", 1)  # the kernel's test for looking at a process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the process; a second call does nothing."""
        if self._dir >= 0:
            os.close(self._dir)
            self._dir = -1

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Return the content of file `name` in the process's directory."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._dir)
            with os.fdopen(fd, "rb", buffering=0) as file:
                parts = []
                while part := file.read(limit or _READ_BYTES):
                    parts.append(part)
                    if limit:
                        break
                return b"".join(parts)
        except (FileNotFoundError, ProcessLookupError):
            raise self._gone() from None
        except PermissionError:
            msg = (
                f"process {self.pid} belongs to another user or protects itself: "
                f"run `sudo zkprof {self.pid}`, or zkprof as its user"
            )
            raise NotPermittedError(msg) from None

    def open_file(self, name: str, flags: int = 0) -> BinaryIO:
        """Open a file below the process's directory, such as ``exe``, for reading.

        What the target chose to have there cannot make this call wait.
        """
        flags |= os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        return os.fdopen(os.open(name, flags, dir_fd=self._dir), "rb")

    def is_32_bit(self) -> bool:
        """Whether its program is a 32-bit one; False where that cannot be told."""
        with suppress(OSError), self.open_file("exe") as file:
            return file.read(5)[4:5] == b"\x01"
        return False

    def open_folder(self, name: str) -> int:
        """Open a folder below the process's directory, to find files in; a descriptor."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=self._dir)

    def open_mapped(self, mapping: Mapping) -> BinaryIO | None:
        """Open the file that is mapped there; None where it cannot be had.

        By its place in memory (which needs privilege, and finds deleted files
        too), else by its path as the target sees it; then it must be the same
        file.  Nothing but a regular file is ever opened: opening a device has
        consequences.
        """
        names = [f"map_files/{mapping.start:x}-{mapping.end:x}"]
        if not mapping.path.endswith(" (deleted)"):
            names.append(f"root{mapping.path}")
        for name in names:
            with suppress(OSError):
                # O_PATH opens nothing yet.  The links in map_files lead to
                # the mapped file itself; a link at the end of a path is none
                # of the files that are mapped.
                follow = 0 if name.startswith("map_files") else os.O_NOFOLLOW
                fd = os.open(name, os.O_PATH | os.O_CLOEXEC | follow, dir_fd=self._dir)
                try:
                    facts = os.fstat(fd)
                    if S_ISREG(facts.st_mode) and facts.st_ino == mapping.inode:
                        return Path(f"/proc/self/fd/{fd}").open("rb")
                finally:
                    os.close(fd)
        return None

    def _text(self, name: str) -> str:
        return self.read(name).decode("utf-8", "replace")

    def stat(self) -> Stat:
        """Read ``stat``: works until the process has been collected."""
        return parse_stat(self._text("stat"))

    def status(self) -> dict[str, str]:
        """Read ``status``."""
        return parse_status(self._text("status"))

    def maps(self) -> list[Mapping]:
        """Read ``maps``; holds up the target's own mapping calls: not for polling."""
        return parse_maps(self._text("maps"))

    def link(self, name: str) -> str:
        """Return where a link such as ``exe`` points, or "" if that is hidden."""
        try:
            return printable(os.readlink(name, dir_fd=self._dir))
        except OSError:
            return ""

    def tids(self) -> list[int]:
        """List the threads that there are now."""
        try:
            fd = os.open("task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._dir)
        except (FileNotFoundError, ProcessLookupError):
            return []
        try:
            return [int(name) for name in os.listdir(fd)]  # noqa: PTH208  (a descriptor)
        except ProcessLookupError:
            return []
        finally:
            os.close(fd)

    def threads(self) -> dict[int, Stat]:
        """Read the ``stat`` of every thread that there is now."""
        found = {}
        for tid in self.tids():
            with suppress(NoSuchProcessError):  # ended since
                found[tid] = parse_stat(self._text(f"task/{tid}/stat"))
        return found

    def children(self) -> list[int]:
        """List the processes that it has forked and that are there now."""
        found: list[int] = []
        for tid in self.tids():
            with suppress(NoSuchProcessError, OSError, ValueError):
                found += map(int, self._text(f"task/{tid}/children").split())
        return found

    def sharers(self) -> set[int]:
        """Find its parent and children that a fork may have left pages in common with.

        Those start their stacks at one address; after an exec they do not.
        """
        own = self.stat().stack
        parent = self.status().get("PPid", "")
        found = set()
        for pid in [int(parent) if parent.isdigit() else 0, *self.children()]:
            with suppress(OSError, ValueError, IndexError):
                if parse_stat(Path(f"/proc/{pid}/stat").read_text()).stack == own:
                    found.add(pid)
        return found

    def shares_pages(self) -> bool:
        """Whether a fork may have left it pages in common with a parent or child.

        Where that cannot be told the answer is yes.
        """
        return self.stat().stack == 0 or bool(self.sharers())

    def memory_sizes(self) -> dict[str, int]:
        """Read ``smaps_rollup``, in bytes; holds up its own mapping calls for a moment."""
        lines = (line.split() for line in self._text("smaps_rollup").splitlines())
        return {
            words[0].rstrip(":"): 1024 * int(words[1])
            for words in lines
            if len(words) == 3 and words[2] == "kB"
        }

    def point(self) -> tuple[MemoryPoint, Stat]:
        """Read memory and CPU time together, as often as 20 times a second.

        Raises
        ------
        NoSuchProcessError
            The process has been collected by its parent.
        """
        stat, status = self.stat(), self.status()

        def kib(name: str) -> int:
            # A process that has ended keeps its times but not its memory.
            return 1024 * int(status.get(name, "0 kB").split()[0])

        point = MemoryPoint(
            t=time.monotonic(),
            rss=kib("VmRSS"),
            rss_anon=kib("RssAnon"),
            hwm=kib("VmHWM"),
            minor_faults=stat.minor_faults,
            major_faults=stat.major_faults,
            utime_s=stat.utime_s,
            stime_s=stat.stime_s,
            threads=stat.threads,
        )
        return point, stat
