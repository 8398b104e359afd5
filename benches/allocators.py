# SPDX-License-Identifier: MIT OR Apache-2.0
"""The allocators that benchmarks compare, and how to find each on this machine.

An allocator is a name, an environment and either a library to preload or a program of its
own (the Rust crates: a crate is a process's allocator only if the process was built with it).
Each comes with its defaults and, where it has any that help a prover, with its best settings.

Nothing here is ever skipped in silence: :func:`find` answers for every name it is asked for,
and an allocator that is not there says what is missing and how to get it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

__all__ = [
    "OWN",
    "REGISTRY",
    "Allocator",
    "Found",
    "UnknownAllocatorError",
    "find",
    "names",
    "without_settings",
]

#: The name and family of this project's library.
OWN = "zknalloc"

#: Names the library to measure as ``zknalloc``; ``--preload`` overrides it.
PRELOAD_VARIABLE = "ZKN_BENCH_PRELOAD"

Finder = Callable[[], Path | None]

_TERA = str(1 << 40)


class UnknownAllocatorError(ValueError):
    """A name that no allocator has."""


@dataclass(frozen=True)
class Allocator:
    """One allocator with one choice of settings.

    Attributes
    ----------
    name
        What the user types and the tables print.
    title
        A few words for a reader of the tables.
    family
        Allocators of one family are one library with different settings.
    env
        Environment variables that choose the settings.
    finder
        Returns the library to preload, or None where it is not installed; None instead of a
        function means the C library, which needs no preloading.
    crate
        The cargo package below ``benches/rust`` whose program has this allocator built in.
    package
        The name under which that allocator is published.
    behind
        Returns a second library, which serves what the first one leaves to the next
        allocator: blocks below 64 KiB.
    get
        What to type to get it.
    """

    name: str
    title: str
    family: str
    env: Mapping[str, str] = field(default_factory=dict)
    finder: Finder | None = None
    crate: str | None = None
    package: str = ""
    behind: Finder | None = None
    get: str = ""


@dataclass(frozen=True)
class Found:
    """An allocator as it is, or is not, on this machine.

    Attributes
    ----------
    allocator
        What was looked for.
    library
        The file to preload; None for the C library and for crates.
    behind
        The file to preload after it, if any.
    missing
        Why it cannot be measured, with the fix; None where it can.
    """

    allocator: Allocator
    library: Path | None = None
    behind: Path | None = None
    missing: str | None = None

    def variables(self) -> dict[str, str]:
        """Return the environment variables that put a program on this allocator."""
        libraries = [str(library) for library in (self.library, self.behind) if library]
        preload = {"LD_PRELOAD": ":".join(libraries)} if libraries else {}
        return {**self.allocator.env, **preload}

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment in which a program runs on this allocator.

        Parameters
        ----------
        base
            The environment to start from, as :func:`without_settings` leaves it; the
            process's own by default.
        """
        return {**without_settings(os.environ if base is None else base), **self.variables()}


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without the settings of any allocator that is known here.

    What the caller's shell exports cannot leak into a measurement so.
    """
    prefixes = ("MALLOC_", "MIMALLOC_", "TCMALLOC_", "ZK_NALLOC_", "_RJEM_", "ZK_ALLOC_")
    names = ("LD_PRELOAD", "GLIBC_TUNABLES")
    return {k: v for k, v in environment.items() if k not in names and not k.startswith(prefixes)}


@cache
def _loader_cache() -> dict[str, Path]:
    """Map each soname that the dynamic loader knows to its file."""
    ldconfig = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        text = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    known: dict[str, Path] = {}
    for line in text.splitlines():
        left, arrow, path = line.partition(" => ")
        if arrow:
            known.setdefault(left.split()[0], Path(path.strip()))
    return known


def _system_library(soname: str) -> Finder:
    return lambda: _loader_cache().get(soname)


def _mimalloc3() -> Path | None:
    """Return the library inside the cmeel-mimalloc wheel, if it is installed."""
    libraries = Path(sysconfig.get_path("purelib")) / "cmeel.prefix" / "lib"
    found = sorted(libraries.glob("libmimalloc.so.3*"))
    return found[0] if found else None


def _zknalloc() -> Path | None:
    """Return the preload library of this project: environment, installed command, build."""
    named = os.environ.get(PRELOAD_VARIABLE)
    if named:
        return Path(named).resolve() if Path(named).is_file() else None
    beside = Path(sys.executable).with_name("zk-nalloc")
    command = str(beside) if beside.exists() else shutil.which("zk-nalloc")
    if command:
        done = subprocess.run(
            [command, "config", "--preload"], capture_output=True, text=True, check=False
        )
        path = Path(done.stdout.strip())
        if done.returncode == 0 and path.is_file():
            return path
    root = Path(__file__).resolve().parent.parent
    builds = [
        path for pattern in ("build", "build-*") for path in root.glob(f"{pattern}/**/{_PRELOAD}")
    ]
    return max(builds, key=lambda path: path.stat().st_mtime, default=None)


def _rust(crate: str, package: str) -> Allocator:
    name = f"rust-{crate}"
    return Allocator(name, f"Rust, {package}", name, crate=crate, package=package)


_PRELOAD = "libzknalloc_preload.so"
_DEBIAN = "apt-get install "
_JEMALLOC = _system_library("libjemalloc.so.2")
_MIMALLOC2 = _system_library("libmimalloc.so.2")
_TCMALLOC = _system_library("libtcmalloc_minimal.so.4")

# Settings that a prover's operator would choose: keep every freed page, use huge pages.
_JEMALLOC_KEEP = (
    "thp:always,metadata_thp:auto,retain:true,"
    "dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"
)

_ALL = (
    Allocator(
        OWN,
        "libzknalloc, defaults",
        OWN,
        finder=_zknalloc,
        get=f"build it, then --preload PATH/{_PRELOAD} or {PRELOAD_VARIABLE}=PATH",
    ),
    # For provers whose small blocks weigh as much as their large ones.
    Allocator(
        f"{OWN}-mimalloc3",
        "libzknalloc, defaults, mimalloc 3 behind it",
        OWN,
        finder=_zknalloc,
        behind=_mimalloc3,
        get=f"--preload PATH/{_PRELOAD} and pip install cmeel-mimalloc",
    ),
    Allocator("glibc", "glibc, defaults", "glibc"),
    # The base line to beat: what an operator can type for any prover, as it was built.
    Allocator(
        "glibc-keep",
        "glibc, never trims, small pages",
        "glibc",
        {
            "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
            "MALLOC_TRIM_THRESHOLD_": _TERA,
            "MALLOC_TOP_PAD_": str(64 << 20),
        },
    ),
    Allocator(
        "glibc-tuned",
        "glibc, never trims, huge pages",
        "glibc",
        {
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"
            f":glibc.malloc.mmap_threshold={_TERA}:glibc.malloc.trim_threshold={_TERA}"
        },
    ),
    Allocator(
        "jemalloc",
        "jemalloc 5, defaults",
        "jemalloc",
        finder=_JEMALLOC,
        get=_DEBIAN + "libjemalloc2",
    ),
    Allocator(
        "jemalloc-tuned",
        "jemalloc 5, keeps all, huge pages",
        "jemalloc",
        {"MALLOC_CONF": _JEMALLOC_KEEP},
        finder=_JEMALLOC,
        get=_DEBIAN + "libjemalloc2",
    ),
    Allocator(
        "mimalloc2",
        "mimalloc 2, defaults",
        "mimalloc2",
        finder=_MIMALLOC2,
        get=_DEBIAN + "libmimalloc2.0",
    ),
    Allocator(
        "mimalloc2-tuned",
        "mimalloc 2, keeps all, huge pages",
        "mimalloc2",
        # 2.0 spells the options in its own way; 2.1 and later as the second row does.
        {
            "MIMALLOC_ALLOW_DECOMMIT": "0",
            "MIMALLOC_LARGE_OS_PAGES": "1",
            "MIMALLOC_PURGE_DELAY": "-1",
            "MIMALLOC_ALLOW_LARGE_OS_PAGES": "1",
            "MIMALLOC_ALLOW_THP": "1",
        },
        finder=_MIMALLOC2,
        get=_DEBIAN + "libmimalloc2.0",
    ),
    Allocator(
        "mimalloc2-arena",
        "mimalloc 2, keeps all, in one reserved arena",
        "mimalloc2",
        {
            "MIMALLOC_RESERVE_OS_MEMORY": "8GiB",
            "MIMALLOC_ALLOW_DECOMMIT": "0",
            "MIMALLOC_PURGE_DELAY": "-1",
        },
        finder=_MIMALLOC2,
        get=_DEBIAN + "libmimalloc2.0",
    ),
    Allocator(
        "mimalloc3",
        "mimalloc 3, defaults",
        "mimalloc3",
        finder=_mimalloc3,
        get="pip install cmeel-mimalloc",
    ),
    Allocator(
        "mimalloc3-tuned",
        "mimalloc 3, keeps all, huge pages",
        "mimalloc3",
        {
            "MIMALLOC_PURGE_DELAY": "-1",
            "MIMALLOC_ALLOW_LARGE_OS_PAGES": "1",
            "MIMALLOC_ALLOW_THP": "1",
        },
        finder=_mimalloc3,
        get="pip install cmeel-mimalloc",
    ),
    Allocator(
        "tcmalloc",
        "gperftools tcmalloc, defaults",
        "tcmalloc",
        finder=_TCMALLOC,
        get=_DEBIAN + "libtcmalloc-minimal4",
    ),
    Allocator(
        "tcmalloc-tuned",
        "gperftools tcmalloc, keeps all",
        "tcmalloc",
        {"TCMALLOC_RELEASE_RATE": "0"},
        finder=_TCMALLOC,
        get=_DEBIAN + "libtcmalloc-minimal4",
    ),
    Allocator("rust-system", "Rust, System (glibc)", "rust-system", crate="system"),
    _rust("zk-nalloc", "zk-nalloc"),
    _rust("zk-alloc", "zk-alloc"),
    _rust("jemalloc", "tikv-jemallocator"),
    replace(
        _rust("jemalloc", "tikv-jemallocator"),
        name="rust-jemalloc-tuned",
        title="Rust, tikv-jemallocator, keeps all, huge pages",
        env={"_RJEM_MALLOC_CONF": _JEMALLOC_KEEP},
    ),
    _rust("mimalloc", "mimalloc"),
)

#: Every allocator by name, in the order in which the tables print them.
REGISTRY: dict[str, Allocator] = {allocator.name: allocator for allocator in _ALL}


def names() -> list[str]:
    """Return the names of all allocators, in the order of the tables."""
    return list(REGISTRY)


def _parse(spec: str) -> Allocator:
    """Return the allocator that `spec`, ``name`` or ``name+VARIABLE=value+…``, stands for."""
    name, *settings = spec.split("+")
    if name not in REGISTRY:
        known = ", ".join(REGISTRY)
        raise UnknownAllocatorError(f"no allocator is called {name!r}; known are: {known}")
    allocator = REGISTRY[name]
    if not settings:
        return allocator
    env = dict(allocator.env)
    for setting in settings:
        variable, equals, value = setting.partition("=")
        if not equals or not variable:
            raise UnknownAllocatorError(f"{spec!r}: write a setting as +VARIABLE=value")
        env[variable] = value
    return replace(allocator, name=spec, title=spec, env=env)


def find(specs: Iterable[str], preload: Path | None = None) -> list[Found]:
    """Look for allocators on this machine.

    Parameters
    ----------
    specs
        Names from :data:`REGISTRY`. ``name+VARIABLE=value`` is that allocator with further
        settings, so that two settings can be compared in one run.
    preload
        The library that ``zknalloc`` stands for; without it, it is looked for.

    Returns
    -------
    list of Found
        One for each name, in the same order, whether it is there or not.

    Raises
    ------
    UnknownAllocatorError
        For a name that is not in the registry.
    """
    found = []
    for allocator in map(_parse, specs):
        if allocator.finder is None:
            found.append(Found(allocator))
            continue
        if preload is not None and allocator.family == OWN:
            library = preload.resolve() if preload.is_file() else None
        else:
            library = allocator.finder()
        behind = allocator.behind() if allocator.behind else None
        whole = library and (behind or not allocator.behind)
        missing = None if whole else f"not found; to get it: {allocator.get}"
        found.append(Found(allocator, library, behind, missing))
    return found
