# SPDX-License-Identifier: MIT OR Apache-2.0
"""Builds the benchmark programs and asks them what they can do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BuildError", "Pattern", "build_c", "build_crate", "crate_version", "list_patterns"]

SOURCES = Path(__file__).resolve().parent


class BuildError(RuntimeError):
    """A tool is missing or a build failed; the message says what to do."""


@dataclass(frozen=True)
class Pattern:
    """A pattern as the program itself describes it.

    Attributes
    ----------
    name, what
        The pattern's name, and one line that explains it.
    threads
        How many threads it uses; 0 if any number will do.
    operations
        Operations of a round (each thread's), 0 where only the round's time counts.
    bytes
        Bytes written or read in a round (by each thread), 0 where a rate says nothing.
    """

    name: str
    what: str
    threads: int
    operations: int
    bytes: int


def _run(command: list[str], fix: str) -> str:
    if shutil.which(command[0]) is None:
        raise BuildError(f"{command[0]} is not installed; {fix}")
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        tail = done.stdout.replace(str(SOURCES), "benches").strip().splitlines()[-12:]
        raise BuildError("\n  ".join([f"{command[0]} says:", *tail]))
    return done.stdout


def build_c(folder: Path, sources: Path = SOURCES / "c", program: str = "bench") -> Path:
    """Build a C program and return its path.

    Parameters
    ----------
    folder
        Where to build; kept for the next time.
    sources
        Where its CMakeLists.txt is.
    program
        Its name.
    """
    tree = folder / "c"
    fix = "install cmake 3.21 or newer and a C compiler"
    ninja = ["-G", "Ninja"] if shutil.which("ninja") and not shutil.which("make") else []
    _run(["cmake", "-S", str(sources), "-B", str(tree), *ninja], fix)
    _run(["cmake", "--build", str(tree), "--parallel", str(len(os.sched_getaffinity(0)))], fix)
    return tree / program


def build_crate(crate: str, folder: Path) -> Path:
    """Build the Rust program whose global allocator is `crate` and return its path.

    Parameters
    ----------
    crate
        A folder below ``benches/rust``.
    folder
        Where to build; kept for the next time.
    """
    tree = folder / "rust"
    manifest = SOURCES / "rust" / crate / "Cargo.toml"
    command = ["cargo", "build", "--release", "--quiet"]
    command += ["--manifest-path", str(manifest), "--target-dir", str(tree)]
    _run(command, "install Rust, https://rustup.rs")
    return tree / "release" / f"bench-{crate}"


def crate_version(crate: str, package: str) -> str:
    """Return the version of `package` that the last build of `crate` used, or "unknown".

    Parameters
    ----------
    crate
        As for :func:`build_crate`.
    package
        The name under which the allocator is published.
    """
    try:
        lock = tomllib.loads((SOURCES / "rust" / crate / "Cargo.lock").read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return "unknown"
    versions = (p["version"] for p in lock["package"] if p["name"] == package)
    return str(next(versions, "unknown"))


def list_patterns(program: Path) -> list[Pattern]:
    """Return every pattern that `program` knows.

    Parameters
    ----------
    program
        What :func:`build_c` returned.
    """
    text = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
    return [Pattern(**json.loads(line)) for line in text.splitlines()]
