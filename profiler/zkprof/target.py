# SPDX-License-Identifier: MIT OR Apache-2.0
"""Who is measured, which allocator serves it, whether a preloaded one could.

The answer is read off the files that the process has mapped.  A shared
allocator shows by its file name.  One that is linked into the program, or into
a Python extension module, shows by symbol names, or by the strings that it
cannot do without where symbols were stripped.  Preloading replaces ``malloc``
as the dynamic linker resolves it, so it reaches neither such an allocator, nor
a static program, nor a runtime that asks the kernel for memory itself.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .elf import PlainELFFile, content
from .errors import ZkprofError
from .model import Target
from .procfs import Mapping, Process, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

# Shared allocators, by file name; the first that is mapped wins, ours first.
_SHARED = (
    ("libzknalloc", "libzknalloc"),
    ("libjemalloc", "jemalloc"),
    ("libmimalloc", "mimalloc"),
    ("libtcmalloc", "tcmalloc"),
    ("libsnmalloc", "snmalloc"),
    ("libtbbmalloc_proxy", "tbbmalloc"),
    ("librpmalloc", "rpmalloc"),
    ("libhardened_malloc", "hardened_malloc"),
)
# Runtimes with a heap of their own, by file name.
_RUNTIMES = (("libjvm.so", "jvm"), ("libv8", "v8"), ("libnode.so", "v8"))
# ... and where they are linked into the program: in its exported names.
_V8 = re.compile(rb"\0_ZN2v87Isolate3NewERKNS0_12CreateParamsE\0")
_RUNTIME_NAMES = {"jvm": "the Java virtual machine", "v8": "V8 (JavaScript and WebAssembly)"}
# What the standard library's panics say of where they happened.
_RUST = re.compile(rb"/rustc/[0-9a-f]{40}/")

# Allocators linked in: names in a symbol or string table, strings in .rodata.
_SYMBOLS = {
    "jemalloc": re.compile(rb"\0(?:_rjem_malloc|_rjem_je_malloc|je_malloc|je_arena_malloc_hard)\0"),
    "mimalloc": re.compile(rb"\0(?:mi_malloc|_mi_malloc_generic|mi_heap_malloc)\0"),
    "tcmalloc": re.compile(rb"\0(?:tc_malloc|TCMallocInternalMalloc)\0"),
    "snmalloc": re.compile(rb"\0(?:sn_malloc|sn_rust_alloc)\0"),
}
_STRINGS = {
    "jemalloc": re.compile(rb"<jemalloc>: "),
    "mimalloc": re.compile(rb"mimalloc: (?:error|warning)"),
    "tcmalloc": re.compile(rb"TCMALLOC_[A-Z_]{8}"),
}
_MAX_FILES = 64
# Of one file: a hostile one may be sparse, and name the same bytes many times.
_MAX_SECTION = 256 << 20
_MAX_SECTIONS = 4096
_MAX_BYTES = 512 << 20
_MAX_INTERPRETER = 4096
_AT_SECURE = 23

# Files that come with the system hold no allocator but libc's.
_SYSTEM = re.compile(
    r"/(?:ld-linux|ld-musl|libc\.|libc-|libm\.|libm-|libpthread|libdl|librt|libgcc_s|libstdc\+\+"
    r"|libpython|libssl|libcrypto|libcuda|libnvidia|locale-archive)[^/]*$"
)


@dataclass(frozen=True, slots=True)
class Elf:
    """What matters of one ELF file."""

    interpreter: str
    """The dynamic linker it asks for; empty for a static program."""
    allocator: str
    """An allocator linked into it; empty for none."""
    go: bool
    v8: bool = False
    rust: bool = False


def inspect_elf(file: BinaryIO) -> Elf | None:
    """Read an ELF file; None where it is not one that can be read."""
    try:
        elf = PlainELFFile(file)
        interpreter = ""
        for segment in islice(elf.iter_segments("PT_INTERP"), 1):
            if segment["p_filesz"] <= _MAX_INTERPRETER:
                interpreter = segment.data().rstrip(b"\0").decode()
        names: list[bytes] = []
        strings: list[bytes] = []
        go = False
        left = _MAX_BYTES
        for section in islice(elf.iter_sections(), _MAX_SECTIONS):
            go = go or section.name in (".go.buildinfo", ".gopclntab")
            kept = {".strtab": names, ".dynstr": names, ".rodata": strings}.get(section.name)
            if kept is not None and (data := content(section, min(_MAX_SECTION, left))) is not None:
                left -= len(data)
                kept.append(data)
    except Exception:  # noqa: BLE001  (whatever a library makes of a hostile file)
        return None
    allocator = _first_match(_SYMBOLS, names) or _first_match(_STRINGS, strings)
    return Elf(
        interpreter=printable(interpreter),
        allocator=allocator,
        go=go,
        v8=any(_V8.search(text) for text in names),
        rust=any(_RUST.search(text) for text in strings),
    )


def _first_match(patterns: dict[str, re.Pattern[bytes]], texts: list[bytes]) -> str:
    for name, pattern in patterns.items():
        if any(pattern.search(text) for text in texts):
            return name
    return ""


def describe(process: Process, mappings: list[Mapping]) -> Target:
    """Collect the facts about a target that advice depends on."""
    exe = process.link("exe")
    with suppress(OSError):
        with process.open_file("exe") as file:
            facts = os.fstat(file.fileno())
            main = _inspect_once(facts.st_dev, facts.st_ino, facts.st_mtime_ns, file)
        allocator, reason = _judge(process, main, mappings)
        return _target(process, exe, allocator, reason)
    return _target(process, exe, "unknown", "the program's file cannot be read")


def _target(process: Process, exe: str, allocator: str, reason: str) -> Target:
    return Target(
        pid=process.pid,
        comm=process.stat().comm,
        exe=exe,
        allocator=allocator,
        preloadable=not reason,
        preload_reason=reason or "the program resolves malloc at run time",
        thp=selected_thp(),
        cpus=os.cpu_count() or 1,
        command=_command(process),
    )


def _command(process: Process) -> str:
    """Return the path that the program was called by, if that is where its file is.

    Programs may write what they like over their arguments, so what is found there is
    believed only as far as it leads to the file that runs.
    """
    with suppress(OSError, ZkprofError):
        called = os.fsdecode(process.read("cmdline").split(b"\0", 1)[0])
        folders = [""] if "/" in called else _search_path(process)
        cwd = process.link("cwd")
        with process.open_file("exe") as file:
            program = os.fstat(file.fileno())
        for folder in folders:
            path = str(Path(cwd, folder, called))
            # O_PATH: a path of the target's choice is looked at, and not opened.
            with suppress(OSError), process.open_file(f"root{path}", os.O_PATH) as file:
                if os.path.samestat(os.fstat(file.fileno()), program) and printable(path) == path:
                    return path
    return ""


def _search_path(process: Process) -> list[str]:
    """Return the folders that a command is looked for in, as the target was told."""
    for variable in process.read("environ").split(b"\0"):
        name, _, value = variable.partition(b"=")
        if name == b"PATH":
            return os.fsdecode(value).split(":")
    return []


def _judge(process: Process, main: Elf | None, mappings: list[Mapping]) -> tuple[str, str]:
    """Return the allocator and why preloading cannot help, "" where it can."""
    paths = list(dict.fromkeys(m.path for m in mappings if m.file_backed))
    shared = _by_file_name(_SHARED, paths)
    runtime = _by_file_name(_RUNTIMES, paths)
    if main is None:
        return shared or "unknown", "the program's file is not a readable ELF file"
    if main.go:
        return "go", "Go programs take memory from the kernel themselves, not from malloc"
    if process.is_32_bit():
        name = main.allocator or shared or ("glibc" if main.interpreter else "static")
        return name, "it is a 32-bit program, and libzknalloc a library for 64-bit ones"
    if not main.interpreter:
        remedy = (
            "build it for a -gnu target, or give it a #[global_allocator] that calls libzknalloc"
            if main.rust
            else "link libzknalloc in"
        )
        return main.allocator or "static", f"the program is linked statically: {remedy}"
    if "ld-musl" in main.interpreter:
        return main.allocator or shared or "musl", "musl programs need a libzknalloc built for musl"
    runtime = "v8" if main.v8 else runtime
    if runtime == "v8" and any(path.endswith(".node") for path in paths):
        return "v8", ""  # native modules call malloc
    if runtime:
        return runtime, (
            f"{_RUNTIME_NAMES[runtime]} takes its heap from the kernel itself, not from malloc"
        )
    if main.allocator:
        remedy = "build it without its #[global_allocator]" if main.rust else "build it without"
        return main.allocator, f"{main.allocator} is linked into the program: {remedy}"
    inodes = {m.path: m.inode for m in mappings}
    for path in _candidates(paths):
        found = _inspect_mapped(process, path, inodes[path])
        if found and found.allocator:
            name = printable(path.rsplit("/", 1)[-1])
            return found.allocator, (
                f"{found.allocator} is linked into {name}, which preloading does not reach"
            )
    if _is_secure(process):
        return shared or "glibc", "set-user-id programs ignore LD_PRELOAD"
    return shared or "glibc", ""


def _by_file_name(table: Iterable[tuple[str, str]], paths: list[str]) -> str:
    names = [path.rsplit("/", 1)[-1] for path in paths]
    for prefix, result in table:
        if any(name.startswith(prefix) for name in names):
            return result
    return ""


def _candidates(paths: list[str]) -> list[str]:
    """Return the shared objects that may have an allocator of their own inside."""
    known = tuple(prefix for prefix, _ in _SHARED)
    return [
        path
        for path in paths
        if (".so" in path.rsplit("/", 1)[-1])
        and not _SYSTEM.search(path)
        and not path.rsplit("/", 1)[-1].startswith(known)
        and not path.endswith(" (deleted)")
    ][:_MAX_FILES]


def _inspect_mapped(process: Process, path: str, inode: int) -> Elf | None:
    """Read a file that the process has mapped, and nothing else by that name."""
    with suppress(OSError), process.open_file(f"root{path}", os.O_NOFOLLOW) as file:
        facts = os.fstat(file.fileno())
        if stat.S_ISREG(facts.st_mode) and facts.st_ino == inode:
            return _inspect_once(facts.st_dev, inode, facts.st_mtime_ns, file)
    return None


_inspected: dict[tuple[int, int, int], Elf | None] = {}


def _inspect_once(device: int, inode: int, changed_ns: int, file: BinaryIO) -> Elf | None:
    """Read a file unless it was read before: processes are described repeatedly."""
    key = (device, inode, changed_ns)
    if key not in _inspected:
        _inspected[key] = inspect_elf(file)
    return _inspected[key]


def _is_secure(process: Process) -> bool:
    """Whether the dynamic linker distrusts the program's environment."""
    try:
        pairs = struct.iter_unpack("@NN", process.read("auxv"))
        return any(key == _AT_SECURE and value for key, value in pairs)
    except (ZkprofError, struct.error):  # hidden, or of a 32-bit process
        return False


def selected_thp() -> str:
    """Return the policy in force for transparent huge pages, "none" without them."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8")
    except OSError:
        return "none"
    match = re.search(r"\[(\w+)\]", text)
    return match[1] if match else "none"
