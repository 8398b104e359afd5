# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run :mod:`benches.cli`."""

from benches.cli import main

raise SystemExit(main())
