# SPDX-License-Identifier: MIT OR Apache-2.0
"""ELF files of strangers: sections are bytes of limited number, and no more.

pyelftools understands sections as soon as it meets them: the hash tables of a
file, which nobody here asks for, become lists as long as the file says, and a
compressed section grows a thousandfold.  The file is the target's, and zkprof may
be root: a small file must not cost gigabytes.  So every section is a plain one
here, and a compressed one is as good as none: what zkprof reads is mapped by
programs, and that cannot be compressed; nor are symbol tables, by any linker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section

if TYPE_CHECKING:
    from elftools.construct.lib.container import Container

__all__ = ["PlainELFFile", "content"]

_COMPRESSED = 0x800  # SHF_COMPRESSED


class PlainELFFile(ELFFile):
    """An ELF file that reads of its sections what is asked for."""

    def _make_section(self, section_header: Container) -> Section:
        return Section(section_header, self._get_section_name(section_header), self)


def content(section: Section, most: int) -> bytes | None:
    """Return a section's bytes; None where there are none, or more than `most`."""
    if section["sh_type"] == "SHT_NOBITS" or section["sh_flags"] & _COMPRESSED:
        return None
    return bytes(section.data()) if section["sh_size"] <= most else None
