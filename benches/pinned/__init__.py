# SPDX-License-Identifier: MIT OR Apache-2.0
"""What pinned memory costs a prover on a GPU, and what the cache's hooks save of it.

``python -m benches.pinned`` runs it; ``benches/README.md`` says what is measured.
"""
