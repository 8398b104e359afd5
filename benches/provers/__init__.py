# SPDX-License-Identifier: MIT OR Apache-2.0
"""Whole, verified proofs of provers that this project did not write.

Modules, each of which may import only those above it:

    tools       installs what a prover needs (pip, npm, cargo, go), pinned
    allocators  the settings that are compared: environment variables only
    registry    which provers there are, at what sizes
    runner      runs one prover under one allocator and reads its lines
    report      medians, tables, CSV and JSON
    __main__    the command line

`workloads/` holds the programs that prove; they run in processes of their own
and share with this package only the protocol described in `meter.py`.
"""
