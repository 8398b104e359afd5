# SPDX-License-Identifier: MIT OR Apache-2.0
"""What NumPy's provers gain from the cache, and what they do not.

`workloads.py` has the work, `worker.py` is the process that does it on one
allocator, `runner.py` starts such processes in turn, `report.py` reduces their
rounds to a table; `python -m benches.numpy` is the command.
"""
