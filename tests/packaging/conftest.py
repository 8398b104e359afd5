# SPDX-License-Identifier: MIT OR Apache-2.0
"""The artefacts under test, each built once: sdist, wheel, installed prefix."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import zk_nalloc


@pytest.fixture(scope="session")
def dist(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from the sdist; return their folder."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, root], check=True
    )
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    """Return the wheel."""
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the content of the wheel, as pip would install it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prefix written by `cmake --install`, moved after that."""
    folder = tmp_path_factory.mktemp("installed")
    build, prefix = folder / "build", folder / "prefix"
    for command in (
        ["cmake", "-S", root / "libzknalloc", "-B", build],
        ["cmake", "--build", build, "--parallel", "2"],
        ["cmake", "--install", build, "--prefix", prefix],
    ):
        subprocess.run(command, check=True)
    return prefix.rename(folder / "moved")


@pytest.fixture(params=["cmake --install", "wheel", "pip install"])
def prefix(request: pytest.FixtureRequest) -> Path:
    """Return a prefix with the C library, however it got there."""
    if request.param == "pip install":
        return zk_nalloc.preload_path().parents[1]
    if request.param == "wheel":
        return Path(request.getfixturevalue("unpacked"), "zk_nalloc")
    return Path(request.getfixturevalue("installed"))
