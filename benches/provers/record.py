# SPDX-License-Identifier: MIT OR Apache-2.0
"""Record what a prover asks of malloc, as `zk-nalloc record` does.

Only proving is recorded: what was allocated in set-up and lives on comes first
in the trace.  The recorder is preloaded into the proving process alone, also
where that is a child of the workload.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from .runner import Progress, RunFailed, Workload
from .tools import Missing


def record(workload: Workload, proofs: int, folder: Path, progress: Progress) -> str:
    """Record so many proofs into a trace in `folder`; return one line about it."""
    try:
        from zk_nalloc import _config, _record  # noqa: PLC0415 - nothing else needs it
    except ImportError as error:
        raise Missing(f"zk-nalloc is not installed: pip install . ({error})") from error
    name = f"{workload.prover.name.replace('-', '')}-{workload.size}-{proofs}proofs.csv.gz"
    ready: list[float] = []
    with tempfile.TemporaryDirectory(prefix="zk-nalloc-record-") as raw:
        variables = {"LD_PRELOAD": str(_config.record_path()), _record.DIRECTORY: raw}
        workload.run(
            "the recorder",
            proofs,
            variables,
            progress,
            on_ready=lambda _pid: ready.append(time.monotonic()),
        )
        journals = _record.journals(Path(raw))
    if not journals:
        raise RunFailed(f"{workload.prover.name} made no request of 64 KiB or more")
    journal = journals[0]
    proving = journal.after(max(0.0, ready[0] - journal.start_s))
    if not proving.rows:
        raise RunFailed(f"{workload.prover.name} made no request of 64 KiB while proving")
    path = folder / name
    summary = _record.write_trace(proving, path)
    return (
        f"{path}: {summary.requests:,} requests, threads: {summary.threads}, "
        f"in use at most: {summary.live_peak / (1 << 20):,.1f} MiB, "
        f"size: {path.stat().st_size / 1024:,.1f} KiB"
    )
