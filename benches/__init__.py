# SPDX-License-Identifier: MIT OR Apache-2.0
"""Benchmarks: allocation patterns of provers, each beside its limit and its peers.

``python -m benches`` runs them; ``benches/README.md`` says how they are measured.
"""
