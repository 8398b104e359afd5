# SPDX-License-Identifier: MIT OR Apache-2.0
"""``python -m zkprof``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
