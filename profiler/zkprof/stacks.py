# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where the time goes: from addresses on stacks to functions with names.

`Spaces` keeps a sampler supplied with what it needs to walk stacks: what is
mapped where in each process, and the call frame information of those files.
`Stacks` turns what the sampler has counted into the frames and stack times of
a `Measurement`.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from ._native import lib
from .errors import ZkprofError
from .model import Frame, Kind, StackTime
from .perf_map import PerfMap
from .procfs import Mapping, Process, printable
from .sampler import Map
from .symbols import VDSO, Module, own_vdso, target_vdso

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .sampler import Node, Sampler

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 8.0
_MAX_MODULES = 512
_C_LIBRARY = re.compile(r"libc[.-]|libpthread[.-]|ld-(?:linux|musl)")
_MAX_CALL_FRAMES = 1 << 30


class Spaces:
    """What is mapped in the processes that a sampler samples.

    Parameters
    ----------
    process
        The target; other processes are opened while they are read.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        # By device-independent identity: an inode number and a name.
        self._modules: dict[tuple[int, str], Module] = {}
        self._room = _MAX_CALL_FRAMES
        self._numbers: dict[tuple[int, str], int] = {}
        self._of_number: dict[int, Module] = {}
        # pid -> when to read its maps again at the earliest, and how long
        # to wait after that.
        self._next: dict[int, tuple[float, float]] = {}
        self._vdso = own_vdso()

    def close(self) -> None:
        """Let go of all files."""
        for module in self._modules.values():
            module.close()

    def restart(self) -> None:
        """Supply another sampler from now on."""
        self._numbers.clear()
        self._of_number.clear()
        self._next.clear()

    def prepare(self) -> None:
        """Read the target's files, before anything is sampled: that takes a while."""
        program = self.process.link("exe")
        for m in self.process.maps():
            if "x" in m.perms:
                module = self._module(self.process, m)
                if module and m.path == program:
                    module.functions()

    def supply(self, sampler: Sampler) -> None:
        """Read the mappings of processes about which the sampler's are old."""
        now = time.monotonic()
        for pid in sampler.pids(stale=True):
            due, wait = self._next.get(pid, (0.0, _FIRST_WAIT_S))
            if now < due:
                continue
            # Reading holds up the target's own mapping calls: ever more rarely.
            self._next[pid] = (now + wait, min(2 * wait, _LONGEST_WAIT_S))
            try:
                if pid == self.process.pid:
                    self._hand_over(sampler, self.process)
                else:
                    with Process(pid) as process:
                        self._hand_over(sampler, process)
            except (ZkprofError, OSError):
                continue  # it has ended

    def _hand_over(self, sampler: Sampler, process: Process) -> None:
        maps: list[Map] = []
        for m in process.maps():
            if maps and m.start < maps[-1].end:
                continue  # changed while it was being read
            flags = lib.ZKP_MAP_FILE if m.file_backed else 0
            number, bias = 0, 0
            if "x" in m.perms:
                flags |= lib.ZKP_MAP_EXEC
                if _C_LIBRARY.match(m.path.rsplit("/", 1)[-1]):
                    flags |= lib.ZKP_MAP_LIBC
                number, bias = self._number(sampler, process, m)
            maps.append(Map(m.start, m.end, bias, number, flags))
        sampler.set_maps(process.pid, maps)

    def _number(self, sampler: Sampler, process: Process, m: Mapping) -> tuple[int, int]:
        """Return a file's number in a sampler, 0 for none, and where it is mapped."""
        module = self._module(process, m)
        bias = module.bias(m.start, m.offset) if module else None
        if module is None or bias is None:
            return 0, 0
        key = _key(process, m)
        if key not in self._numbers:
            self._numbers[key] = sampler.add_module(module.call_frames)
            self._of_number[self._numbers[key]] = module
        return self._numbers[key], bias % (1 << 64)

    def _module(self, process: Process, m: Mapping) -> Module | None:
        key = _key(process, m)
        if key not in self._modules and len(self._modules) < _MAX_MODULES:
            module = self._read(process, m)
            if module:
                self._modules[key] = module
                # A file may be made to claim any size: there is an end to it.
                self._room -= module.call_frames.size if module.call_frames else 0
                if self._room < 0:
                    module.call_frames = None
        return self._modules.get(key)

    def _read(self, process: Process, m: Mapping) -> Module | None:
        if m.path == VDSO:
            # A 32-bit program has one of its own, which this process cannot look at here.
            return target_vdso(process.pid, m) if process.is_32_bit() else self._vdso
        if not m.file_backed:
            return None
        name = printable(m.path.removesuffix(" (deleted)").rsplit("/", 1)[-1])
        file = process.open_mapped(m)
        if file is None:
            return None
        return Module(name, file)

    def module(self, number: int) -> Module | None:
        """Return the file that the sampler knows by this number."""
        return self._of_number.get(number)


def _key(process: Process, m: Mapping) -> tuple[int, str]:
    """Return what tells a mapped file from others."""
    return (m.inode, m.path) if m.path != VDSO else (-int(process.is_32_bit()), VDSO)


class Paths:
    """The frames of stacks, from the outermost to a node."""

    def __init__(self) -> None:
        self.parents: list[int] = []
        self.frames: list[int] = []
        self._known: dict[int, tuple[int, ...]] = {}

    def __getitem__(self, node: int) -> tuple[int, ...]:
        if node not in self._known:
            path, at = [], node
            while at:
                path.append(self.frames[at])
                at = self.parents[at]
            self._known[node] = tuple(reversed(path))
        return self._known[node]


class Names:
    """The frames of a measurement: functions, each with a number.

    Parameters
    ----------
    spaces
        Where addresses lead.
    """

    def __init__(self, spaces: Spaces) -> None:
        self._spaces = spaces
        self.frames: list[Frame] = []
        self._index: dict[Frame, int] = {}
        self._paths: dict[int, Paths] = {}
        self._perf_map = PerfMap(spaces.process)

    def number(self, frame: Frame) -> int:
        """Return a frame's index in `frames`."""
        if frame not in self._index:
            self._index[frame] = len(self.frames)
            self.frames.append(frame)
        return self._index[frame]

    def look_again(self) -> None:
        """Forget which frames addresses are of: more may be known by now."""
        self._paths.clear()

    def update(self, sampler: Sampler) -> Paths:
        """Return, for each of a sampler's nodes, the frames from outermost to it."""
        paths = self._paths.setdefault(id(sampler), Paths())
        new = sampler.nodes(len(paths.parents))
        if not all(node.module for node in new):
            self._perf_map.read()
        for node in new:
            paths.parents.append(node.parent)
            paths.frames.append(self.number(self._frame(node)))
        return paths

    def _frame(self, node: Node) -> Frame:
        if not node.module:
            return self._perf_map.frame(node.ip) or Frame(hex(node.ip), "")
        module = self._spaces.module(node.module)
        if module is None:
            return Frame(hex(node.ip), "")
        function = module.function(node.ip)
        if function:
            return Frame(function.name, module.name)
        return Frame(f"{module.name}+{module.start_of(node.ip):#x}", module.name)


Counted = tuple[int, Kind, tuple[int, ...], float, int]
"""Thread, kind, frames, seconds, samples."""


def stack_times(counted: Iterable[Counted]) -> tuple[StackTime, ...]:
    """Add up what is of one thread and kind with the same functions, longest first."""
    seconds: defaultdict[tuple[Kind, int, tuple[int, ...]], float] = defaultdict(float)
    samples: defaultdict[tuple[Kind, int, tuple[int, ...]], int] = defaultdict(int)
    for tid, kind, frames, s, n in counted:
        seconds[kind, tid, frames] += s
        samples[kind, tid, frames] += n
    times = [
        StackTime(kind, tid, frames, s, samples[kind, tid, frames])
        for (kind, tid, frames), s in seconds.items()
    ]
    return tuple(sorted(times, key=lambda time: -time.seconds))
