# SPDX-License-Identifier: MIT OR Apache-2.0
"""The integration examples, built as their README says from what is installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zk_nalloc

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

EXPECTED = f"5 rounds on zknalloc {zk_nalloc.version}\n"
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]


@pytest.fixture
def examples(root: Path) -> Path:
    return root / "libzknalloc" / "examples"


def output(*command: str | Path, **environ: str) -> str:
    """Run a command that must succeed and return what it printed."""
    done = subprocess.run(
        command, env=os.environ | environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(program: str) -> str:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return program


def pkg_config(prefix: Path) -> dict[str, str]:
    needs("pkg-config")
    return {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}


@pytest.mark.parametrize("language", ["c", "cpp"])
def test_cmake(prefix: Path, examples: Path, tmp_path: Path, language: str) -> None:
    source, build = examples / language, tmp_path / "build"
    output("cmake", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    output("cmake", "--build", build)
    assert output(build / "prover") == EXPECTED


@pytest.mark.parametrize(
    ("compiler", "source"), [(("cc",), "c/prover.c"), (("c++", "-std=c++17"), "cpp/prover.cpp")]
)
def test_pkg_config(
    prefix: Path, examples: Path, tmp_path: Path, compiler: tuple[str, ...], source: str
) -> None:
    environ = pkg_config(prefix)
    flags = shlex.split(output("pkg-config", "--cflags", "--libs", "zknalloc", **environ))
    program = tmp_path / "prover"
    output(*compiler, *STRICT, examples / source, *flags, "-o", program)
    assert output(program, LD_LIBRARY_PATH=str(prefix / "lib")) == EXPECTED


@pytest.mark.parametrize("compiler", ["c++", "clang++-14"])
def test_cxx_compiles_strictly(
    installed: Path, examples: Path, tmp_path: Path, compiler: str
) -> None:
    flags = ["-std=c++17", *STRICT, f"-I{installed / 'include'}", "-c", "-o", tmp_path / "out.o"]
    output(needs(compiler), examples / "cpp/prover.cpp", *flags)


def test_rust(prefix: Path, examples: Path, tmp_path: Path) -> None:
    """Without network: the crate has no dependencies."""
    needs("cargo")
    project = shutil.copytree(
        examples / "rust", tmp_path / "rust", ignore=shutil.ignore_patterns("target")
    )
    manifest = ("--manifest-path", project / "Cargo.toml")
    command = ("cargo", "run", "--release", "--quiet", "--offline", *manifest)
    assert output(*command, **pkg_config(prefix)) == EXPECTED


def test_python(python: Callable[..., CompletedProcess[str]], examples: Path) -> None:
    done = python(str(examples / "python/prover.py"))
    assert (done.stdout, done.stderr) == (EXPECTED, "")
