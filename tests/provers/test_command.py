# SPDX-License-Identifier: MIT OR Apache-2.0
"""The command, its exit codes and its arithmetic, without proving anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Command = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]
READY = 'print(\'{"ready": 1, "setup_s": 0, "what": ""}\')'


@pytest.fixture(autouse=True)
def _sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benches are not part of the installed package."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


def test_list_names_provers_and_allocators(command: Command) -> None:
    done = command("--list")
    assert done.returncode == 0
    for name in ("lean-multisig", "ezkl", "groth16", "barretenberg", "glibc-keep", "zknalloc"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonesuch"], "unknown prover nonesuch: choose from lean-multisig"),
        (
            ["groth16", "--allocators", "dlmalloc"],
            "no allocator is called 'dlmalloc'; known are",
        ),
        (["groth16", "--size", "huge"], "size 'huge' is neither a positive number nor one of"),
        (["groth16", "--size", "0"], "size '0' is neither"),
        (["groth16", "--proofs", "1"], "--proofs needs 2 or more"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    command: Command, arguments: list[str], message: str
) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_a_missing_allocator_is_named_and_no_row(tmp_path: Path) -> None:
    from benches.provers.__main__ import main

    cache = ["--cache", str(tmp_path)]
    nothing = [*cache, "--allocators", "zknalloc", "--preload", str(tmp_path / "none.so")]
    assert main(["groth16", *nothing]) == 3
    assert main(["groth16", *nothing, "--allow-missing"]) == 0
    assert not (tmp_path / "data").exists()


def test_summary_keeps_the_cold_proof_apart() -> None:
    from benches.provers.report import summarise
    from benches.provers.runner import Proof, Run

    def proof(number: int, wall: float, faults: int) -> Proof:
        return Proof(number, wall, wall * 0.75, wall * 0.25, faults, True, 1024 * (1 + number))

    runs = [
        Run("groth16", 8, 1, "glibc", "", 0.0, (proof(0, 9.0, 900), proof(1, 2.0, 20)), None),
        Run("groth16", 8, 1, "glibc", "", 0.0, (proof(0, 7.0, 700), proof(1, 4.0, 40)), None),
    ]
    (row,) = summarise(runs)
    assert (row.warm_proofs, row.wall_s, row.minor_faults) == (2, 3.0, 30)
    assert (row.wall_q1_s, row.wall_q3_s, row.cold_wall_s) == (2.5, 3.5, 8.0)
    assert row.spread == 1 / 6
    assert row.sys_share == 0.25
    assert row.peak_rss_kib == 2048
    assert row.hit_rate is None


def test_hit_rate_prefers_the_warm_proofs() -> None:
    from benches.provers.report import hit_rate
    from benches.provers.runner import Proof, Run

    warm = Proof(1, 1.0, 1.0, 0.0, 0, True, 1, hits=9, misses=1)
    silent = Proof(1, 1.0, 1.0, 0.0, 0, True, 1)
    run = Run("groth16", 8, 1, "zknalloc", "", 0.0, (warm,), {"hits": 1, "misses": 3})
    assert hit_rate([run], [warm]) == (0.9, "warm proofs")
    assert hit_rate([run], [silent]) == (0.25, "process")
    assert hit_rate([], [silent]) == (None, None)


def test_a_dump_of_several_processes_is_that_of_the_prover(tmp_path: Path) -> None:
    from benches.provers.runner import read_dump

    assert read_dump(tmp_path / "absent") is None
    dump = tmp_path / "stats"
    dump.write_text(
        '{"hits": 1, "misses": 1}\n{"hits": 70, "misses": 3}\n{"hits": 0, "misses": 0}\n'
    )
    assert read_dump(dump) == {"hits": 70, "misses": 3}


def test_chatter_is_not_the_protocol() -> None:
    from benches.provers.runner import parse_line

    assert parse_line('{"proof": 0, "wall_s": 1.5}') == {"proof": 0, "wall_s": 1.5}
    assert parse_line("wires: 30002") is None
    assert parse_line("{not json") is None
    assert parse_line('{"level": "info"}') is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('the circuit is broken')", "the circuit is broken"),
        (READY, "0 proofs of 2"),
        (
            READY
            + '; [print(\'{"proof": %d, "wall_s": 1, "verified": false}\' % i) for i in (0, 1)]',
            r"proofs \[0, 1\] were refused",
        ),
    ],
)
def test_a_failed_run_is_an_error_and_never_a_number(
    tmp_path: Path, body: str, message: str
) -> None:
    from benches.provers.registry import PROVERS
    from benches.provers.runner import RunFailed, Workload
    from benches.provers.tools import Installed

    script = tmp_path / "workload.py"
    script.write_text(f"import sys\n{body}\n")
    installed = Installed((sys.executable, str(script)))
    workload = Workload(PROVERS["groth16"], installed, 8, 1, tmp_path)
    with pytest.raises(RunFailed, match=message):
        workload.run("glibc", 2, {})


def test_allocator_settings_of_the_caller_do_not_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benches.provers.registry import PROVERS
    from benches.provers.runner import Workload
    from benches.provers.tools import Installed

    for name in ("LD_PRELOAD", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "MIMALLOC_VERBOSE"):
        monkeypatch.setenv(name, "leaked")
    for prover in ("groth16", "barretenberg"):
        workload = Workload(PROVERS[prover], Installed(("true",)), 8, 3, tmp_path)
        environment = workload.environment({"MALLOC_TOP_PAD_": "1"})
        assert "leaked" not in environment.values()
        assert environment["RAYON_NUM_THREADS"] == "3"
        in_child = PROVERS[prover].in_child
        assert ("MALLOC_TOP_PAD_" in environment) is not in_child
        assert ("MALLOC_TOP_PAD_" in environment.get("ZKN_BENCH_CHILD_ENV", "")) is in_child


FAKE_WORKLOAD = """
import json, os, sys
proofs = int(sys.argv[sys.argv.index("--proofs") + 1])
print(json.dumps({"ready": os.getpid(), "setup_s": 0, "what": "nothing"}), flush=True)
for i in range(proofs):
    print(json.dumps({"proof": i, "wall_s": 2.0, "user_s": 1.0, "sys_s": 1.0, "minor_faults": 5,
                      "verified": True, "peak_rss_kib": 9}), flush=True)
"""

FAKE_ZKPROF = """#!{python}
import json, sys
pid, _, seconds, _, file = sys.argv[1:]
json.dump({{"pid": int(pid), "seconds": float(seconds)}}, open(file, "w"))
print("not allocation-bound")
"""


def test_zkprof_is_pointed_at_the_proving_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benches.provers import profile
    from benches.provers.registry import PROVERS
    from benches.provers.runner import Workload
    from benches.provers.tools import Installed

    script = tmp_path / "workload.py"
    script.write_text(FAKE_WORKLOAD)
    zkprof = tmp_path / "zkprof"
    zkprof.write_text(FAKE_ZKPROF.format(python=sys.executable))
    zkprof.chmod(0o755)
    monkeypatch.setattr(profile, "zkprof", lambda: str(zkprof))
    installed = Installed((sys.executable, str(script)))
    workload = Workload(PROVERS["groth16"], installed, 8, 1, tmp_path)
    run, found = profile.profile(workload, "glibc", 4, {}, seconds=10.0)
    assert len(run.proofs) == 4, "it is one of the runs that are compared"
    assert found["exit_code"] == 0
    assert found["screen"] == "not allocation-bound\n"
    assert found["report"]["seconds"] == 10.0
    assert found["report"]["pid"] > 1


def test_csv_has_one_line_for_each_proof(tmp_path: Path) -> None:
    from benches.provers.registry import PROVERS
    from benches.provers.report import write_csv
    from benches.provers.runner import Workload
    from benches.provers.tools import Installed

    script = tmp_path / "workload.py"
    script.write_text(FAKE_WORKLOAD)
    installed = Installed((sys.executable, str(script)))
    workload = Workload(PROVERS["groth16"], installed, 8, 1, tmp_path)
    runs = [workload.run("glibc", 3, {}) for _ in range(2)]
    file = tmp_path / "proofs.csv"
    with file.open("w", newline="") as out:
        write_csv(runs, out)
    lines = file.read_text().splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("prover,size,threads,allocator,run,slice,number,wall_s")
    assert lines[6].startswith("groth16,8,1,glibc,1,0,2,2.0")


def test_predictions_are_held_against_what_happened() -> None:
    from benches.provers import profile
    from benches.provers.runner import Proof, Run

    def run(allocator: str, cpu: float, part: int = 0) -> Run:
        proofs = tuple(Proof(i, cpu, cpu, 0.0, 1, True, 1) for i in range(3))
        return Run("groth16", 8, 1, allocator, "", 0.0, proofs, None, slice=part)

    def said(low: float, high: float) -> profile.Profile:
        saving = {"low": low, "mid": (low + high) / 2, "high": high}
        estimate = {"verdict": "v", "saving_cpu": saving, "saving_wall": saving}
        return profile.Profile("groth16", 8, 1, 0, 0, "glibc", True, "", 0.0, estimate, [])

    runs = [run("glibc", 4.0), run("zknalloc", 3.0), run("zknalloc", 2.0, 1)]
    hit = profile.compare(said(0.15, 0.21), runs)
    miss = profile.compare(said(0.10, 0.19), runs)
    assert hit is not None
    assert miss is not None
    assert hit.cpu_happened == 0.25, "of the same round"
    assert hit.holds, "within five points"
    assert not miss.holds
    assert profile.compare(said(0.15, 0.21), runs[:1]) is None, "nothing to compare with"
    lines = profile.table([hit, miss]).splitlines()
    assert max(map(len, lines)) <= 80
    assert "MISS" not in lines[-2]
    assert lines[-1].endswith("MISS")


def test_all_files_are_written(tmp_path: Path) -> None:
    from benches.provers import plots, report
    from benches.provers.runner import Proof, Run

    pytest.importorskip("matplotlib")
    runs = [
        Run(
            "groth16",
            8,
            1,
            name,
            "",
            0.0,
            tuple(Proof(i, 1, 1, 0, 1, True, 9) for i in (0, 1)),
            None,
        )
        for name in ("glibc", "zknalloc")
    ]
    rows = report.summarise(runs)
    written = plots.draw(rows, tmp_path)
    assert [path.suffix for path in written] == [".svg", ".png"]
    assert all(path.stat().st_size > 1000 for path in written)
    assert plots.draw(rows[1:], tmp_path) == [], "nothing to compare with"
