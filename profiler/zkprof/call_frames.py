# SPDX-License-Identifier: MIT OR Apache-2.0
"""Call frame information of an ELF file, and the index that finds it.

Linkers write the index (``.eh_frame_hdr``) into all dynamic programs, but GNU
ld leaves it out of static ones, whose ``.eh_frame`` is there all the same: then
it is made here, in the linker's form, so that there is one way to search.

The index lists where functions begin, which serves to tell the functions of a
stripped program apart.  What is in the file may be hostile: each number is
checked by what it indexes, and what makes no sense ends the list.
"""

from __future__ import annotations

import bisect
import struct
from array import array
from dataclasses import dataclass

# More would take seconds; programs of this size have an index.
_MAX_UNINDEXED = 4 << 20
# A hostile index may be of any length; the largest programs have a tenth.
_MAX_FUNCTIONS = 2_000_000

# Version; how three things are written; where .eh_frame is; how many pairs follow.
_HEAD = struct.Struct("<BBBBiI")
_UDATA4, _SDATA4 = 0x03, 0x0B
_PCREL, _DATAREL = 0x10, 0x30
_FORM = {0x00: "<Q", 0x03: "<I", 0x04: "<Q", 0x0B: "<i", 0x0C: "<q"}


@dataclass(frozen=True, slots=True)
class CallFrames:
    """The sections .eh_frame_hdr and .eh_frame of an ELF file, and their addresses."""

    hdr: bytes
    hdr_vaddr: int
    frames: bytes
    frames_vaddr: int

    @property
    def size(self) -> int:
        """Bytes of both."""
        return len(self.hdr) + len(self.frames)

    @classmethod
    def unindexed(cls, frames: bytes, vaddr: int) -> CallFrames | None:
        """Make the index of an .eh_frame section at address `vaddr`; None if it has none."""
        if not frames or len(frames) > _MAX_UNINDEXED:
            return None
        pairs = [
            (start - vaddr, at)
            for start, at in sorted(_starts(frames, vaddr))
            if -(1 << 31) <= start - vaddr < 1 << 31
        ]
        head = _HEAD.pack(1, _PCREL | _SDATA4, _UDATA4, _DATAREL | _SDATA4, 0, len(pairs))
        table = array("i", (number for pair in pairs for number in pair)).tobytes()
        return cls(head + table, vaddr, frames, vaddr)

    def starts(self) -> list[tuple[int, int]]:
        """Return where functions begin, each with the offset of its entry, sorted."""
        if len(self.hdr) < _HEAD.size:
            return []
        *encodings, _, n = _HEAD.unpack_from(self.hdr)
        if encodings != [1, _PCREL | _SDATA4, _UDATA4, _DATAREL | _SDATA4]:
            return []  # no linker writes another
        n = min(n, (len(self.hdr) - _HEAD.size) // 8, _MAX_FUNCTIONS)
        numbers = array("i")
        numbers.frombytes(self.hdr[_HEAD.size : _HEAD.size + 8 * n])
        shift = self.hdr_vaddr - self.frames_vaddr
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return sorted((self.hdr_vaddr + start, shift + entry) for start, entry in pairs)

    def length(self, entry: int) -> int:
        """Return how long the function is whose entry is at an offset of .eh_frame."""
        if not 0 <= entry <= len(self.frames) - 8:
            return 0
        (back,) = struct.unpack_from("<I", self.frames, entry + 4)
        encoding = _encoding(self.frames, entry + 4 - back)
        form = _FORM.get(encoding & 0x0F) if encoding is not None else None
        if form is None:
            return 0
        at = entry + 8 + struct.calcsize(form)
        if at + struct.calcsize(form) > len(self.frames):
            return 0
        return int(struct.unpack_from(form.upper(), self.frames, at)[0])


class Functions:
    """The functions of a file that call frame information tells of."""

    def __init__(self, frames: CallFrames | None) -> None:
        self._frames = frames
        self._starts = frames.starts() if frames else []

    def start_of(self, address: int) -> int:
        """Return where the function begins that an address is in; `address` if it is in none."""
        i = bisect.bisect_left(self._starts, (address + 1,)) - 1
        if i < 0 or self._frames is None:
            return address
        start, entry = self._starts[i]
        return start if address < start + self._frames.length(entry) else address


def _starts(frames: bytes, vaddr: int) -> list[tuple[int, int]]:
    """Return where functions begin, each with the offset of its entry."""
    found: list[tuple[int, int]] = []
    encodings: dict[int, int | None] = {}
    at = 0
    while at + 8 <= len(frames):
        length, back = struct.unpack_from("<II", frames, at)
        if length in (0, 0xFFFFFFFF):
            break  # the end; or 64-bit DWARF, which no linker writes
        if back:
            cie = at + 4 - back
            if cie not in encodings:
                encodings[cie] = _encoding(frames, cie)
            start = _pointer(frames, at + 8, vaddr, encodings[cie])
            if start is not None:
                found.append((start, at))
        at += 4 + length
    return found


def _encoding(frames: bytes, at: int) -> int | None:
    """Return how the entries of a CIE write addresses; None where that is not known."""
    if not 0 <= at <= len(frames) - 9 or frames[at + 4 : at + 8] != b"\0\0\0\0":
        return None
    end = frames.find(b"\0", at + 9)
    augmentation = frames[at + 9 : end]
    if end < 0 or (augmentation and augmentation not in (b"zR", b"zRS", b"zPLR", b"zPLRS")):
        return None
    if not augmentation:
        return 0
    at = end + 1
    for _ in range(4):  # alignments, the return address's register, the data's length
        while at < len(frames) and frames[at] & 0x80:
            at += 1
        at += 1
    if augmentation.startswith(b"zP"):
        # How the personality routine is written, its address, and how the LSDA is.
        size = struct.calcsize(_FORM.get(frames[at] & 0x0F, "<Q")) if at < len(frames) else 0
        at += 2 + size
    return frames[at] if at < len(frames) else None


def _pointer(frames: bytes, at: int, vaddr: int, encoding: int | None) -> int | None:
    form = _FORM.get(encoding & 0x0F) if encoding is not None else None
    if form is None or encoding is None or at + struct.calcsize(form) > len(frames):
        return None
    (value,) = struct.unpack_from(form, frames, at)
    if encoding & 0x70 not in (0, _PCREL):
        return None
    return (int(value) + (vaddr + at if encoding & 0x70 else 0)) % (1 << 64)
