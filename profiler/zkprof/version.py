# SPDX-License-Identifier: MIT OR Apache-2.0
"""The version of the package that zkprof was installed with."""

from __future__ import annotations

import importlib.metadata


def version() -> str:
    """Return it, or say that this is a source folder."""
    try:
        return importlib.metadata.version("zk-nalloc")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
