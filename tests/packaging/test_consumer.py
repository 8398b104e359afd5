# SPDX-License-Identifier: MIT OR Apache-2.0
"""Other people's builds: CMake, pkg-config, C and C++ compilers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Python = Callable[..., CompletedProcess[str]]

STRICT = ["-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Wundef", "-Werror"]


def output(command: list[str | Path], **environ: str) -> str:
    """Run a command that must succeed and say nothing on stderr."""
    done = subprocess.run(
        command, env=os.environ | environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def test_cmake_project(prefix: Path, root: Path, tmp_path: Path) -> None:
    build = tmp_path / "build"
    project = root / "tests/consumer/cmake"
    output(["cmake", "-S", project, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}"])
    output(["cmake", "--build", build])
    report = output(["ctest", "--test-dir", build, "--output-on-failure"])
    programs = 4 if (prefix / "lib/libzknalloc.a").exists() else 3
    assert re.search(rf"^100% tests passed.* out of {programs}$", report, re.MULTILINE)


def test_cmake_refuses_other_versions(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.21)\nproject(p LANGUAGES C)\n"
        "find_package(zknalloc 0.0.1 REQUIRED)\n"
    )
    done = subprocess.run(
        ["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert 'requested version "0.0.1"' in " ".join(done.stderr.split())


def test_cmake_finds_the_python_package(python: Python, root: Path, tmp_path: Path) -> None:
    """What `zk-nalloc config --cmakedir` prints is what zknalloc_DIR wants."""
    where = python("-m", "zk_nalloc.cli", "config", "--cmakedir").stdout.strip()
    project = root / "tests/consumer/cmake"
    output(["cmake", "-S", project, "-B", tmp_path / "build", f"-Dzknalloc_DIR={where}"])


def test_pkg_config(prefix: Path, root: Path, tmp_path: Path) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed")
    environ = {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    flags = shlex.split(output(["pkg-config", "--cflags", "--libs", "zknalloc"], **environ))
    program = tmp_path / "prover"
    output(["cc", root / "tests/consumer/prover.c", "-o", program, *flags])
    assert output([program], LD_LIBRARY_PATH=str(prefix / "lib")) == "one hit, one miss\n"
    preload = output(["pkg-config", "--variable=preload", "zknalloc"], **environ).strip()
    assert "libzknalloc_preload.so" in output(["cat", "/proc/self/maps"], LD_PRELOAD=preload)


def test_pkg_config_file_is_relocatable(prefix: Path) -> None:
    text = (prefix / "lib/pkgconfig/zknalloc.pc").read_text()
    assert text.startswith("prefix=${pcfiledir}/../..\n")
    assert not [line for line in text.splitlines() if "=/" in line or " /" in line]


@pytest.mark.parametrize(
    "compiler",
    [
        "cc -std=c99",
        "cc -std=c11",
        "cc -std=c2x",
        "c++ -x c++ -std=c++11",
        "c++ -x c++ -std=c++17",
        "c++ -x c++ -std=c++20",
    ],
)
@pytest.mark.parametrize("header", ["zknalloc.h", "zknalloc_block.h"])
def test_headers_compile_strictly(
    installed: Path, root: Path, tmp_path: Path, compiler: str, header: str
) -> None:
    command = compiler.split()
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    source = tmp_path / "alone.c"
    source.write_text(f"#include <{header}>\n#include <{header}>\nint main(void) {{ return 0; }}\n")
    flags = [f"-I{installed / 'include'}", *STRICT, "-c", "-o", tmp_path / "out.o"]
    output([*command, source, *flags])
    output([*command, root / "tests/consumer/prover.c", *flags])


@pytest.mark.parametrize("compiler", ["c++", "clang++-14"])
@pytest.mark.parametrize("standard", ["17", "20"])
def test_cxx_header_compiles_strictly(
    installed: Path, tmp_path: Path, compiler: str, standard: str
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    source = tmp_path / "alone.cpp"
    source.write_text("#include <zknalloc.hpp>\n#include <zknalloc.hpp>\nint main() {}\n")
    flags = [f"-std=c++{standard}", f"-I{installed / 'include'}", *STRICT]
    output([compiler, source, *flags, "-c", "-o", tmp_path / "out.o"])
