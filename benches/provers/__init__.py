# SPDX-License-Identifier: MIT OR Apache-2.0
"""Whole, verified proofs of provers that this project did not write.

Modules, each of which may import only those above it:

    tools       installs what a prover needs (pip, npm, cargo, go), pinned
    registry    which provers there are, at what sizes
    runner      runs one prover under one allocator and reads its lines
    record      records a prover's allocations instead
    report      medians, tables, CSV
    profile     what zkprof says of a run, and what happened
    aims        what is to hold for every prover
    store       results that grow by slices
    markdown    the tables for a document
    plots       the same as pictures
    progress    how long it will take
    session     installs, runs, tells, keeps
    __main__    the command line

The allocators are those of all benchmarks, `benches.allocators`.
`workloads/` holds the programs that prove; they run in processes of their own
and share with this package only the protocol described in `meter.py`.
"""
