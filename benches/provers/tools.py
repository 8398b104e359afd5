# SPDX-License-Identifier: MIT OR Apache-2.0
"""Install provers with the ordinary clients, once, outside of the repository.

Each tool is a plain value that says what it needs, versions pinned; `install`
puts it into a folder of the cache named after those needs, so that another
version never meets an old install.  A folder counts as installed once it has
its `complete` stamp, which is written last, under a lock: a broken download is
made again, two runs at a time do not meet.

`Missing` means that this machine lacks a program that the reader has to
install (node, cargo, go); `InstallFailed` means that an install was tried and
went wrong.  The two differ because the first is a fact about the machine and
the second is an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

HERE = Path(__file__).resolve().parent


class Missing(Exception):
    """A program that the tool needs is not on this machine."""


class InstallFailed(Exception):
    """An installation was tried and failed; the message ends with its output."""


@dataclass(frozen=True, slots=True)
class Installed:
    """How to start a program of an installed tool."""

    command: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    """What the workload must be told of the installation."""


class Tool(Protocol):
    """Anything that can be installed into a cache."""

    def install(self, cache: Path) -> Installed:
        """Install unless that is done already; raise Missing or InstallFailed."""


def default_cache() -> Path:
    """Return where installations are kept unless the user says otherwise."""
    if chosen := os.environ.get("ZK_NALLOC_BENCH_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "zk-nalloc" / "provers"


def require(program: str, package: str) -> str:
    """Return the path of a program, or raise Missing with how to get it."""
    found = shutil.which(program)
    if found is None:
        raise Missing(f"{program} is not installed: install {package}")
    return found


def zkprof() -> str:
    """Return the zkprof to call: beside this Python, else on PATH."""
    beside = Path(sys.executable).with_name("zkprof")
    found = str(beside) if beside.exists() else shutil.which("zkprof")
    if found is None:
        raise Missing("zkprof is not installed: pip install .")
    return found


def execute(*command: str, cwd: Path) -> None:
    """Run one step of an installation."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise InstallFailed(f"{' '.join(command)} failed ({done.returncode}):\n{tail}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file beside `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def once(cache: Path, kind: str, needs: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` fills, filling it where it is not complete."""
    digest = hashlib.sha256("\n".join(needs).encode()).hexdigest()[:12]
    folder = cache.resolve() / "tools" / f"{kind}-{digest}"
    with locked(folder):
        stamp = folder / "complete"
        if not stamp.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            stamp.write_text("\n".join(needs) + "\n")
    return folder


@dataclass(frozen=True, slots=True)
class Pip:
    """A virtual environment with these packages of the running Python."""

    requirements: tuple[str, ...]

    def install(self, cache: Path) -> Installed:
        """Make the environment; the command is its interpreter."""

        def make(folder: Path) -> None:
            execute(sys.executable, "-m", "venv", str(folder), cwd=folder)
            pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet")
            execute(*pip, "--disable-pip-version-check", *self.requirements, cwd=folder)

        needs = (sys.version, sys.base_prefix, *self.requirements)
        folder = once(cache, "venv", needs, make)
        return Installed((str(folder / "bin" / "python"),))


@dataclass(frozen=True, slots=True)
class Npm:
    """An npm prefix with these packages, no install script of theirs run."""

    packages: tuple[str, ...]

    def install(self, cache: Path) -> Installed:
        """Fill the prefix; the command is node, told where the prefix is."""
        node = require("node", "Node.js 20 or later")
        npm = require("npm", "npm")

        def make(folder: Path) -> None:
            (folder / "package.json").write_text('{"private": true}\n')
            flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--save-exact")
            execute(npm, "install", *flags, *self.packages, cwd=folder)

        folder = once(cache, "npm", self.packages, make)
        return Installed((node,), ("--packages", str(folder)))


@dataclass(frozen=True, slots=True)
class Cargo:
    """A program of the workspace in this folder, which pins the versions of its prover."""

    workspace: str
    program: str

    #: Crates that can be the program's allocator: features of the workspace's `meter`.
    ALLOCATORS: ClassVar[tuple[str, ...]] = ("jemalloc", "zk-alloc")

    def install(self, cache: Path) -> Installed:
        """Build in release mode; cargo itself knows what is up to date."""
        return self._build(cache, self.program, ())

    def on(self, cache: Path, allocator: str) -> Installed:
        """Build the program whose allocator is one of `ALLOCATORS`."""
        features = ("--features", f"meter/{allocator}")
        return self._build(cache, f"{self.program}-{allocator}", features)

    def _build(self, cache: Path, name: str, features: tuple[str, ...]) -> Installed:
        cargo = require("cargo", "Rust 1.89 or later")
        target = cache.resolve() / "tools" / f"cargo-{self.workspace}"
        built, kept = target / "release" / self.program, target / "programs" / name
        with locked(target):
            execute(
                cargo, "build", "--release", "--quiet", "--package", self.program, *features,
                "--target-dir", str(target), cwd=HERE / self.workspace,
            )  # fmt: skip
            # cargo has one place for the program, whatever its features: keep each apart.
            kept.parent.mkdir(exist_ok=True)
            fresh = kept.with_name(f"{name}.new")
            shutil.copy2(built, fresh)
            fresh.replace(kept)
        return Installed((str(kept),))


@dataclass(frozen=True, slots=True)
class CSources:
    """A C program in this folder over C sources that crates of its Cargo.toml carry.

    It is built with CMake, once as it is and once for each libzknalloc that it is to be
    linked with, so that linking is measured beside preloading.
    """

    module: str
    variables: tuple[tuple[str, str], ...]
    """CMake variables and the crates whose folders they name."""
    program: str
    arguments: tuple[tuple[str, str, str], ...]
    """Options of the program: name, crate, path in it."""

    def install(self, cache: Path) -> Installed:
        """Build the program without libzknalloc."""
        return self._build(cache, self.program, ())

    def linked(self, cache: Path, preload: Path) -> Installed:
        """Build the program linked with the installation that `preload` is part of."""
        prefix = preload.resolve().parents[1]
        if not (prefix / "lib" / "cmake" / "zknalloc").is_dir():
            raise Missing(f"{prefix} is no installation to link with: use cmake --install, or pip")
        package = f"-DCMAKE_PREFIX_PATH={prefix}"
        return self._build(cache, f"{self.program}-linked", (package,))

    def _build(self, cache: Path, target: str, options: tuple[str, ...]) -> Installed:
        cargo = require("cargo", "Rust 1.85 or later")
        cmake = require("cmake", "CMake 3.21 or later")
        source = HERE / self.module
        # A tree belongs to one checkout: CMake refuses it to another.
        digest = hashlib.sha256("\n".join((str(source), *options)).encode()).hexdigest()[:12]
        tree = cache.resolve() / "tools" / f"c-{self.module.replace('/', '-')}-{digest}"
        with locked(tree):
            crates = self._crates(cargo, source)
            names = [f"-D{name}={crates[crate]}" for name, crate in self.variables]
            execute(cmake, "-S", str(source), "-B", str(tree), *names, *options, cwd=source)
            execute(cmake, "--build", str(tree), "--target", target, cwd=source)
        arguments = tuple(
            word
            for option, crate, path in self.arguments
            for word in (option, str(crates[crate] / path))
        )
        return Installed((str(tree / target),), arguments)

    @staticmethod
    def _crates(cargo: str, source: Path) -> dict[str, Path]:
        """Download the crates and return where each lies."""
        execute(cargo, "fetch", cwd=source)
        asked = subprocess.run(
            [cargo, "metadata", "--format-version", "1", "--offline"],
            cwd=source, text=True, capture_output=True, check=True,
        )  # fmt: skip
        packages = json.loads(asked.stdout)["packages"]
        return {package["name"]: Path(package["manifest_path"]).parent for package in packages}


@dataclass(frozen=True, slots=True)
class Go:
    """A main package in this folder, built from its committed go.sum."""

    module: str

    def install(self, cache: Path) -> Installed:
        """Build; go itself knows what is up to date."""
        go = require("go", "Go 1.24 or later")
        binary = cache.resolve() / "tools" / f"go-{self.module.replace('/', '-')}"
        with locked(binary):
            execute(go, "build", "-mod=readonly", "-o", str(binary), ".", cwd=HERE / self.module)
        return Installed((str(binary),))
