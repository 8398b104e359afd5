# SPDX-License-Identifier: MIT OR Apache-2.0
"""Which allocator a program has, and whether preloading can replace it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.procfs import Process
from zkprof.target import describe, inspect_elf, selected_thp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zkprof.model import Target

STAY = """
#include <stdio.h>
#include <unistd.h>
int main(void) { puts("ready"); fflush(stdout); pause(); }
"""


@pytest.fixture
def facts(tmp_path: Path, run: Callable[..., Any]) -> Callable[..., Target]:
    def facts(source: str, *flags: str) -> Target:
        (tmp_path / "p.c").write_text(source)
        program = tmp_path / "p"
        subprocess.run(["cc", "-o", program, tmp_path / "p.c", *flags], check=True)
        with run(program) as target, Process(target.pid) as process:
            return describe(process, process.maps())

    return facts


def test_an_ordinary_program(facts: Callable[..., Target], tmp_path: Path) -> None:
    target = facts(STAY)
    assert (target.allocator, target.preloadable) == ("glibc", True)
    assert target.exe == str(tmp_path / "p")
    assert target.comm == "p"
    assert target.thp == selected_thp()


@pytest.mark.parametrize("how", ["path", "relative", "search", "shell"])
def test_the_path_it_was_called_by(tmp_path: Path, how: str) -> None:
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    interpreter = environment / "bin" / "python"
    interpreter.symlink_to(os.path.realpath(sys.executable))
    called, folder, path = {
        "path": (str(interpreter), "/", ""),
        "relative": ("venv/bin/python", tmp_path, ""),
        "search": ("python", "/", f"/nowhere:{interpreter.parent}:/usr/bin:/bin"),
        "shell": ("python", environment / "bin", "/nowhere::/usr/bin"),
    }[how]
    code = "import sys; print('ready', flush=True); sys.stdin.read()"
    with started([called, "-c", code], interpreter, folder, path) as pid, Process(pid) as process:
        target = describe(process, process.maps())
    assert target.command == str(interpreter)
    assert target.exe == os.path.realpath(sys.executable)


@pytest.mark.parametrize("called", ["prover: proof 7 of 9", "/bin/sh", "", "/", "nowhere"])
def test_a_name_that_leads_elsewhere_is_not_believed(tmp_path: Path, called: str) -> None:
    code = "import sys; print('ready', flush=True); sys.stdin.read()"
    interpreter = Path(os.path.realpath(sys.executable))
    arguments = [called, "-c", code]
    with started(arguments, interpreter, tmp_path, "/nowhere") as pid, Process(pid) as process:
        assert describe(process, process.maps()).command == ""


@contextmanager
def started(arguments: list[str], program: Path, folder: object, path: str) -> Iterator[int]:
    """Run a program by any name, and say when it is there."""
    with subprocess.Popen(
        arguments,
        executable=program,
        cwd=str(folder),
        env=os.environ | {"PATH": path, "PYTHONHOME": sys.base_prefix},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process.pid


def test_a_static_program(facts: Callable[..., Target]) -> None:
    target = facts(STAY, "-static")
    assert (target.allocator, target.preloadable) == ("static", False)
    assert "statically" in target.preload_reason


def test_a_32_bit_program(tmp_path: Path, run: Callable[..., Any]) -> None:
    (tmp_path / "p.c").write_text(STAY)
    program = tmp_path / "p"
    built = subprocess.run(
        ["cc", "-m32", "-o", program, tmp_path / "p.c"], check=False, capture_output=True
    )
    if built.returncode:
        pytest.skip("no compiler for 32-bit programs")
    with run(program) as target, Process(target.pid) as process:
        found = describe(process, process.maps())
    assert (found.allocator, found.preloadable) == ("glibc", False)
    assert "32-bit" in found.preload_reason


@pytest.mark.parametrize(
    ("symbol", "allocator"),
    [("_rjem_malloc", "jemalloc"), ("mi_malloc", "mimalloc"), ("tc_malloc", "tcmalloc")],
)
def test_an_allocator_linked_in(facts: Callable[..., Target], symbol: str, allocator: str) -> None:
    target = facts(STAY + f"void *{symbol}(unsigned long n) {{ (void)n; return 0; }}\n")
    assert (target.allocator, target.preloadable) == (allocator, False)
    assert "linked into the program" in target.preload_reason


def test_an_allocator_linked_in_and_stripped(facts: Callable[..., Target]) -> None:
    text = 'const char *volatile message = "<jemalloc>: Error in munmap(): ";\n'
    assert facts(text + STAY, "-s").allocator == "jemalloc"


def test_an_allocator_inside_a_library(facts: Callable[..., Target], tmp_path: Path) -> None:
    source = tmp_path / "ext.c"
    source.write_text("void *mi_malloc(unsigned long n) { (void)n; return 0; }\nint x;\n")
    extension = tmp_path / "ext.abi3.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", extension, source], check=True)
    target = facts("extern int x;\nint *keep(void) { return &x; }\n" + STAY, str(extension))
    assert (target.allocator, target.preloadable) == ("mimalloc", False)
    assert "ext.abi3.so" in target.preload_reason


def test_a_shared_allocator(facts: Callable[..., Target], tmp_path: Path) -> None:
    source = tmp_path / "je.c"
    source.write_text("void *je_malloc(unsigned long n) { (void)n; return 0; }\nint x;\n")
    library = tmp_path / "libjemalloc.so.2"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    target = facts("extern int x;\nint *keep(void) { return &x; }\n" + STAY, str(library))
    assert (target.allocator, target.preloadable) == ("jemalloc", True)


def test_a_go_program(facts: Callable[..., Target]) -> None:
    section = '__attribute__((section(".go.buildinfo"))) char info[] = "go";\n'
    target = facts(section + STAY)
    assert (target.allocator, target.preloadable) == ("go", False)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF" + b"\xff" * 500])
def test_files_that_are_no_elf_files(data: bytes) -> None:
    assert inspect_elf(io.BytesIO(data)) is None
