# SPDX-License-Identifier: MIT OR Apache-2.0
"""ELF files: which function an address is in, and how to find its caller.

A `Module` is one file that a target has mapped.  Its call frame information is
read when the file is first seen, because stacks are walked while samples
arrive; its symbols only when names are wanted.  Names come from ``.symtab``,
else from the separate debug file that this system has installed for it, else
from ``.dynsym``.

The file is the target's and may be hostile: sizes are limited, every number is
checked by what it indexes, and a file that makes no sense has no symbols.
"""

from __future__ import annotations

import bisect
import struct
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pydemumble

from ._native import ffi, lib
from .call_frames import CallFrames, Functions
from .elf import PlainELFFile, content
from .procfs import Mapping, parse_maps, printable

if TYPE_CHECKING:
    from elftools.elf.sections import Section

# What we are ready to read of one file; the largest programs have a tenth.
_MAX_SECTION = 256 << 20
_MAX_SECTIONS = 4096
_MAX_FUNCTIONS = 2_000_000
_MAX_NAME = 4096
_SYMBOL = {64: struct.Struct("<IBBHQQ"), 32: struct.Struct("<IIIBBH")}
_PF_X = 1
_FUNCTION_TYPES = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
VDSO = "[vdso]"
"""The kernel's name for the code that it maps into every process."""
_MAX_VDSO = 1 << 20
_DEBUG_ROOT = Path("/usr/lib/debug/.build-id")


class Function:
    """A function of a file: where it starts, and what it is called."""

    __slots__ = ("_mangled", "_name", "end", "start")

    def __init__(self, start: int, end: int, mangled: bytes) -> None:
        self.start, self.end = start, end
        self._mangled = mangled
        self._name = ""

    @property
    def name(self) -> str:
        """Its name as its author wrote it."""
        if not self._name:
            self._name = demangle(self._mangled.decode("utf-8", "replace"))
        return self._name


def demangle(name: str) -> str:
    """Return a C++ or Rust name as its author wrote it, other names unchanged."""
    # ".cold" and the like are the compiler's; versions ("@@GLIBC_2.2") the linker's.
    name = name[:_MAX_NAME].split("@", 1)[0]
    plain = name.split(".", 1)[0] if name.startswith(("_Z", "_R")) else name
    if plain.startswith(("_Z", "_R")):
        with suppress(Exception):  # whatever a library makes of a hostile name
            return printable(pydemumble.demangle(plain)) or printable(name)
    return printable(name)


class Module:
    """One ELF file.

    Parameters
    ----------
    name
        The file's name, without its folder.
    file
        The file, which stays open until its symbols have been read: by then
        the target may have ended.
    """

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name = name
        self.call_frames: CallFrames | None = None
        self._file = file
        self._segments: list[tuple[int, int, int]] = []
        self._functions: list[Function] | None = None
        self._starts: list[int] = []
        self._nameless: Functions | None = None
        with suppress(Exception):
            self._read_layout()

    def _read_layout(self) -> None:
        elf = PlainELFFile(self._file)
        if elf.num_sections() > _MAX_SECTIONS or elf.num_segments() > _MAX_SECTIONS:
            return
        self._segments = [
            (s["p_offset"], s["p_offset"] + s["p_filesz"], s["p_vaddr"])
            for s in elf.iter_segments("PT_LOAD")
            # Segments may share a page of the file: only code is asked about.
            if s["p_flags"] & _PF_X
        ]
        if elf["e_machine"] != "EM_X86_64" or elf.elfclass != 64:
            return
        index = elf.get_section_by_name(".eh_frame_hdr")
        frames = elf.get_section_by_name(".eh_frame")
        if index and frames:
            self.call_frames = CallFrames(
                hdr=_data(elf, ".eh_frame_hdr"),
                hdr_vaddr=index["sh_addr"],
                frames=_data(elf, ".eh_frame"),
                frames_vaddr=frames["sh_addr"],
            )
        elif frames:
            self.call_frames = CallFrames.unindexed(_data(elf, ".eh_frame"), frames["sh_addr"])

    def bias(self, start: int, offset: int) -> int | None:
        """Return addresses of memory minus those of the file, for code.

        Parameters
        ----------
        start
            Where in memory a mapping of the file begins.
        offset
            Where in the file it begins.
        """
        for first, end, vaddr in self._segments:
            if first & ~0xFFF <= offset < end:
                return start - offset + first - vaddr
        return None

    def close(self) -> None:
        """Let go of the file; symbols not read by now stay unknown."""
        self._file.close()

    def has_symbols(self) -> bool:
        """Whether more than its exported functions have names."""
        with suppress(Exception):
            elf = PlainELFFile(self._file)
            return bool(_symbols(elf, ".symtab", ".strtab") or _separate_symbols(elf))
        return False

    def functions(self) -> list[Function]:
        """Return its functions by address; a second for 400 000, the first time."""
        if self._functions is None:
            self._functions = self._read_functions()
            self._starts = [f.start for f in self._functions]
        return self._functions

    def function(self, address: int) -> Function | None:
        """Return the function that an address of the file is in."""
        functions = self.functions()
        i = bisect.bisect_right(self._starts, address) - 1
        if i >= 0 and address < functions[i].end:
            return functions[i]
        return None

    def start_of(self, address: int) -> int:
        """Return where the nameless function begins that an address of the file is in.

        Going by call frame information; `address` itself where there is none.
        """
        if self._nameless is None:
            self._nameless = Functions(self.call_frames)
        return self._nameless.start_of(address)

    def _read_functions(self) -> list[Function]:
        found: dict[int, Function] = {}
        with suppress(Exception), self._file as file:
            elf = PlainELFFile(file)
            if elf.num_sections() > _MAX_SECTIONS:
                return []
            tables = [_symbols(elf, ".dynsym", ".dynstr")]
            own = _symbols(elf, ".symtab", ".strtab")
            tables.append(own or _separate_symbols(elf))
            for table in tables:
                found |= table
        functions = sorted(found.values(), key=lambda f: f.start)
        for f, following in pairwise(functions):
            # Hand-written assembly often gives no sizes.
            f.end = following.start if f.end <= f.start else min(f.end, following.start)
        return functions


def own_vdso() -> Module | None:
    """Return the code that the kernel maps into every process, as this one has it."""
    with suppress(OSError, ValueError):
        for m in parse_maps(Path("/proc/self/maps").read_text(encoding="utf-8")):
            if m.path == VDSO:
                code = ffi.buffer(ffi.cast("char *", m.start), m.end - m.start)
                return Module(VDSO, BytesIO(bytes(code)))
    return None


def target_vdso(pid: int, m: Mapping) -> Module | None:
    """Return the code that the kernel maps into a process of another kind, if it can be read."""
    size = min(m.end - m.start, _MAX_VDSO)
    data = ffi.new("char[]", size)
    if lib.zkp_target_read(pid, m.start, data, size):
        return None
    return Module(VDSO, BytesIO(bytes(ffi.buffer(data))))


def _symbols(elf: PlainELFFile, table: str, strings: str) -> dict[int, Function]:
    """Return the functions that a symbol table lists, by address."""
    entries, names = _data(elf, table), _data(elf, strings)
    layout = _SYMBOL[elf.elfclass]
    found: dict[int, Function] = {}
    for entry in layout.iter_unpack(entries[: len(entries) // layout.size * layout.size]):
        if elf.elfclass == 64:
            name, info, _, section, value, size = entry
        else:
            name, value, size, info, _, section = entry
        if len(found) >= _MAX_FUNCTIONS:
            break
        if info & 0xF not in _FUNCTION_TYPES or not section or not value:
            continue
        end = names.find(b"\0", name)
        text = names[name : min(end, name + _MAX_NAME)] if 0 <= name < end else b""
        # Of several names for one address, the one that is not hidden away.
        if text and (value not in found or info >> 4):
            found[value] = Function(value, value + size, text)
    return found


def _data(elf: PlainELFFile, name: str) -> bytes:
    section: Section | None = elf.get_section_by_name(name)
    return (content(section, _MAX_SECTION) if section else None) or b""


def _separate_symbols(elf: PlainELFFile) -> dict[int, Function]:
    """Return the functions of the debug file installed here for this build, if any."""
    note = _data(elf, ".note.gnu.build-id")
    if len(note) < 17:
        return {}
    build = note[16:].hex()
    path = _DEBUG_ROOT / build[:2] / f"{build[2:]}.debug"
    with suppress(Exception), path.open("rb") as file:
        return _symbols(PlainELFFile(file), ".symtab", ".strtab")
    return {}
