# SPDX-License-Identifier: MIT OR Apache-2.0
"""libzknalloc alone: built, tested and installed by the documented commands."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_ctest_passes(installed: Path) -> None:
    build = installed.parent / "build"
    done = subprocess.run(
        ["ctest", "--test-dir", build, "--output-on-failure"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "No tests were found" not in done.stdout + done.stderr


def test_installed_files(installed: Path) -> None:
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    cmake = "lib/cmake/zknalloc/zknalloc"
    assert files == {
        "include/zknalloc.h",
        "include/zknalloc.hpp",
        "include/zknalloc_block.h",
        "lib/libzknalloc.a",
        "lib/libzknalloc.so",
        "lib/libzknalloc.so.0",
        "lib/libzknalloc.so.0.1.0",
        "lib/libzknalloc_preload.so",
        "lib/libzknalloc_record.so",
        f"{cmake}Config.cmake",
        f"{cmake}ConfigVersion.cmake",
        f"{cmake}Targets-relwithdebinfo.cmake",
        f"{cmake}Targets.cmake",
        "lib/pkgconfig/zknalloc.pc",
    }
    assert (installed / "lib/libzknalloc.so").readlink().name == "libzknalloc.so.0"
