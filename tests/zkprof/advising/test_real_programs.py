# SPDX-License-Identifier: MIT OR Apache-2.0
"""Which allocator programs of other languages have, told from programs as they are built."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from zkprof.procfs import Process
from zkprof.target import describe

if TYPE_CHECKING:
    from pathlib import Path

    from zkprof.model import Target

GO = """
package main
import ("fmt"; "os"; "bufio")
func main() { fmt.Println("ready"); bufio.NewReader(os.Stdin).ReadString('\\n') }
"""
RUST = """
fn main() {
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}
"""


def tool(name: str) -> str:
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def facts(*command: str | Path) -> Target:
    with subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            with Process(process.pid) as target:
                return describe(target, target.maps())
        finally:
            process.kill()


@pytest.mark.parametrize("cgo", ["0", "1"])
def test_go(tmp_path: Path, cgo: str) -> None:
    source = tmp_path / "main.go"
    source.write_text(GO.replace("import (", 'import ("C"; ' if cgo == "1" else "import ("))
    env = os.environ | {"CGO_ENABLED": cgo}
    build = [tool("go"), "build", "-ldflags", "-s -w", "-o", tmp_path / "p", source]
    subprocess.run(build, check=True, env=env, cwd=tmp_path)
    found = facts(tmp_path / "p")
    assert (found.allocator, found.preloadable) == ("go", False)
    assert "Go programs take memory from the kernel themselves" in found.preload_reason


def rust(tmp_path: Path, *options: str) -> Path:
    source = tmp_path / "main.rs"
    source.write_text(RUST)
    build = [tool("rustc"), "-O", "-o", tmp_path / "p", source, *options]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if "may not be installed" in done.stderr:
        pytest.skip(f"no Rust standard library for {options[-1]}")
    assert done.returncode == 0, done.stderr
    return tmp_path / "p"


def test_rust_on_glibc(tmp_path: Path) -> None:
    found = facts(rust(tmp_path))
    assert (found.allocator, found.preloadable) == ("glibc", True)


@pytest.mark.parametrize(
    "options",
    [("-C", "target-feature=+crt-static"), ("--target", "x86_64-unknown-linux-musl")],
    ids=["glibc", "musl"],
)
def test_static_rust(tmp_path: Path, options: tuple[str, ...]) -> None:
    found = facts(rust(tmp_path, *options, "-C", "strip=symbols"))
    assert (found.allocator, found.preloadable) == ("static", False)
    assert "#[global_allocator]" in found.preload_reason


def test_node() -> None:
    began = time.monotonic()
    found = facts(tool("node"), "-e", "console.log('ready'); setTimeout(() => {}, 60000)")
    assert (found.allocator, found.preloadable) == ("v8", False)
    assert "JavaScript" in found.preload_reason
    assert time.monotonic() - began < 60
