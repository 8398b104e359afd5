# SPDX-License-Identifier: MIT OR Apache-2.0
"""A table that is measured in slices: merged, resumed, judged; with a fake prover.

The fake says what it "cost" from its environment: 4 s on glibc, 3.9 s on glibc that
never trims, and on whatever is preloaded the number of seconds in ``ZKN_FAKE_S``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.allocators import Found
    from benches.provers.progress import Step
    from benches.provers.runner import Workload
    from benches.provers.tools import Installed

    Main = Callable[..., int]

ROOT = Path(__file__).resolve().parents[2]

WORKLOAD = """
import json, os, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
ours = "LD_PRELOAD" in os.environ
kept = "MALLOC_TOP_PAD_" in os.environ
wall = float(os.environ["ZKN_FAKE_S"]) if ours else 3.9 if kept else 4.0
if kept and os.environ.get("ZKN_FAKE_BREAKS"):
    sys.exit("out of luck")
print(json.dumps({"ready": os.getpid(), "setup_s": 0, "what": given["--size"] + " steps"}),
      flush=True)
for i in range(int(given["--proofs"])):
    print(json.dumps({"proof": i, "wall_s": wall, "user_s": wall, "sys_s": 0.0,
                      "minor_faults": 7, "verified": True, "peak_rss_kib": 1030 if ours else 1000,
                      **({"hits": 19, "misses": 1} if ours else {})}), flush=True)
"""

ZKPROF = """#!{python}
import json, sys
saving = {{"low": 0.1, "mid": 0.15, "high": 0.2}}
json.dump({{
    "estimate": {{"verdict": "allocation-bound", "saving_cpu": saving, "saving_wall": saving}},
    "advice": [{{"id": "preload", "text": "run it"}}],
    "measurement": {{"method": {{"overhead": 0.001}}, "target": {{
        "allocator": "glibc", "preloadable": {preloadable}, "preload_reason": "because"}}}},
}}, open(sys.argv[5], "w"))
"""


@dataclass(frozen=True)
class FakeTool:
    """A tool that has nothing to install."""

    script: Path

    def install(self, cache: Path) -> Installed:  # noqa: ARG002 - as tools do
        from benches.provers.tools import Installed

        return Installed((sys.executable, str(self.script)))


@pytest.fixture
def prove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """Return the command, which knows a prover called ``fake``."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    from benches.provers import profile, registry
    from benches.provers.__main__ import main

    script = tmp_path / "workload.py"
    script.write_text(WORKLOAD)
    zkprof = tmp_path / "zkprof"
    zkprof.write_text(ZKPROF.format(python=sys.executable, preloadable=True))
    zkprof.chmod(0o755)
    preload = tmp_path / "libzknalloc_preload.so"
    preload.touch()  # the loader says that it is no library, and goes on
    fake = registry.Prover(
        "fake", "Fake", FakeTool(script), None, "steps", {"default": 8, "large": 16}, 3
    )
    monkeypatch.setitem(registry.PROVERS, "fake", fake)
    monkeypatch.setattr(profile, "zkprof", lambda: str(zkprof))
    monkeypatch.setenv("ZKN_FAKE_S", "3.0")

    def run(*args: str, allocators: str = "glibc,zknalloc") -> int:
        fixed = ("--preload", str(preload), "--cache", str(tmp_path / "cache"))
        return main(["fake", "--allocators", allocators, *fixed, *args])

    return run


def follow(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference of a JSON Schema stands for."""
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def check_names(value: object, node: dict[str, Any], schema: dict[str, Any]) -> None:
    """Assert that `value` has no field that zkprof's reports do not have."""
    node = follow(node, schema)
    if isinstance(value, dict):
        for name, one in value.items():
            check_names(one, node["properties"][name], schema)
    elif isinstance(value, list):
        for one in value:
            check_names(one, node["items"], schema)


def test_the_fake_report_is_one_of_zkprofs(prove: Main, tmp_path: Path) -> None:  # noqa: ARG001
    text = files("zkprof").joinpath("data/zkprof-1.schema.json").read_text()
    schema = json.loads(text)
    report = tmp_path / "report.json"
    subprocess.run([tmp_path / "zkprof", "1", "-d", "1", "--json", report], check=True)
    check_names(json.loads(report.read_text()), schema, schema)


def load(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return document


def rows(folder: Path) -> dict[tuple[int, str], int]:
    """Return how many processes each row comes from."""
    return {(r["size"], r["allocator"]): r["processes"] for r in load(folder)["summary"]}


def test_slices_make_one_table(prove: Main, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prove("--out", str(out), "--rounds", "1", "--zkprof", allocators="glibc") == 0
    assert load(out)["predictions"] == [], "there is nothing yet to hold it against"
    assert prove("--out", str(out), "--rounds", "2", allocators="glibc-keep,zknalloc") == 0
    assert rows(out) == {(8, "glibc"): 1, (8, "glibc-keep"): 2, (8, "zknalloc"): 2}
    document = load(out)
    assert [run["slice"] for run in document["runs"]] == [0, 1, 1, 1, 1]
    first, second = document["slices"]
    assert "--zkprof" in first["command"]
    assert first["ended"]
    assert "glibc-keep,zknalloc" in second["command"]
    assert first["machine"]["kernel"] == second["machine"]["kernel"]
    assert second["settings"]["zknalloc"] == {"LD_PRELOAD": "libzknalloc_preload.so"}
    (prediction,) = document["predictions"]
    assert prediction["cpu_happened"] == pytest.approx(0.25)
    assert prediction["holds"], "5 points beyond what was said, and 5 are allowed"
    assert len((out / "summary.csv").read_text().splitlines()) == 4
    assert len((out / "predictions.csv").read_text().splitlines()) == 2
    assert len((out / "proofs.csv").read_text().splitlines()) == 1 + 5 * 3


def test_two_sizes_are_two_groups_of_rows(
    prove: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    sizes = ("--size", "default,large,16", "--threads", "2")
    assert prove("--out", str(out), "--rounds", "1", *sizes) == 0
    assert set(rows(out)) == {(n, name) for n in (8, 16) for name in ("glibc", "zknalloc")}
    capsys.readouterr()
    from benches.provers.__main__ import main

    assert main(["--show", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown == (out / "tables.md").read_text()
    assert "8 steps; " in shown
    assert "16 steps; " in shown
    assert (
        "| fake, 16, 2 | 4.00, 7, 1 | glibc: 4.00, 7, 1 | 3.00, 7, 1 | 0.750 (0.750-0.750) |"
        in shown
    )


def test_earlier_rows_grow_are_completed_or_measured_anew(prove: Main, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"))
    folder = tmp_path / "out"
    assert prove(*out, "--rounds", "1", allocators="glibc") == 0
    assert prove(*out, "--rounds", "2", "--earlier", "complete") == 0
    assert rows(folder) == {(8, "glibc"): 2, (8, "zknalloc"): 2}
    order = [(run["allocator"], run["slice"]) for run in load(folder)["runs"]]
    assert order == [("glibc", 0), ("zknalloc", 1), ("zknalloc", 1), ("glibc", 1)]
    assert prove(*out, "--rounds", "2", "--earlier", "complete") == 0
    assert len(load(folder)["runs"]) == 4, "nothing was missing"
    assert prove(*out, "--rounds", "1", "--earlier", "replace", allocators="zknalloc") == 0
    assert rows(folder) == {(8, "glibc"): 2, (8, "zknalloc"): 1}
    assert prove(*out, "--rounds", "1") == 0
    assert rows(folder) == {(8, "glibc"): 3, (8, "zknalloc"): 2}


def test_zkprof_looks_at_the_first_process_on_glibc(prove: Main, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert prove("--out", str(out), "--rounds", "1", "--zkprof", allocators="glibc") == 0
    assert [one["slice"] for one in load(out)["profiles"]] == [0]


def test_what_was_measured_survives_what_fails(
    prove: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZKN_FAKE_BREAKS", "1")
    out = tmp_path / "out"
    settings = "glibc,glibc-keep,zknalloc"
    assert prove("--out", str(out), "--rounds", "2", allocators=settings) == 1
    assert rows(out) == {(8, "glibc"): 2, (8, "zknalloc"): 2}
    (why,) = load(out)["slices"][0]["failed"].values()
    assert "out of luck" in why
    told = capsys.readouterr().out.count("failed: fake 8 on glibc-keep")
    assert told == 1, "it is not tried again"
    assert "failed: fake 8 on glibc-keep" in (out / "tables.md").read_text()


def test_each_process_is_kept_at_once(
    prove: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benches.provers.session import Session

    real = Session.run
    seen: list[Step] = []

    def killed(self: Session, step: Step, workload: Workload, found: Found) -> None:
        seen.append(step)
        if len(seen) == 3:
            raise KeyboardInterrupt
        real(self, step, workload, found)

    monkeypatch.setattr(Session, "run", killed)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prove("--out", str(out), "--rounds", "2")
    assert len(load(out)["runs"]) == 2


def test_figures_of_two_machines_are_never_mixed(
    prove: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert prove("--out", str(out), "--rounds", "1") == 0
    document = load(out)
    document["slices"][0]["machine"]["cpus"] = 96
    (out / "results.json").write_text(json.dumps(document))
    with pytest.raises(SystemExit) as ended:
        prove("--out", str(out))
    assert ended.value.code == 2
    assert "the results there are of another machine: 96, not" in capsys.readouterr().err
    document["schema_version"] = 1
    (out / "results.json").write_text(json.dumps(document))
    with pytest.raises(SystemExit) as ended:
        prove("--out", str(out))
    assert ended.value.code == 2
    assert "has schema version 1, not 2: choose another folder" in capsys.readouterr().err


def test_it_says_how_long_it_will_take_once_it_knows(
    prove: Main, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prove("--rounds", "1") == 0
    said = capsys.readouterr().out
    assert "2 processes, not known yet: fake 8" in said
    assert "fake 8 on glibc, process 1: 4.00 4.00 s" in said
    assert prove("--rounds", "1", "--size", "default,large") == 0
    said = capsys.readouterr().out
    assert re.search(r"^4 processes, about .+; not known yet: fake 16$", said, re.MULTILINE)
    assert re.search(r"^  about [^;]+ left$", said, re.MULTILINE), "they are all known by then"


def test_it_says_how_much_is_left(
    prove: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three proofs in each process; what was remembered stays."""
    from benches.provers.progress import Durations

    monkeypatch.setattr(Durations, "note", lambda *_: None)
    (tmp_path / "cache").mkdir()
    known = {"fake/8/2": (20.0, 20.0), "fake/16/2": (40.0, 60.0), "fake/16/1": (1.0, 1.0)}
    (tmp_path / "cache/durations.json").write_text(json.dumps(known))
    assert prove("--rounds", "1", "--size", "8,16", "--threads", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "about" in line] == [
        "4 processes, about 10 min",
        "  about 9 min left",
        "  about 7 min left",
        "  about 4 min left",
    ]


def test_crates_are_rows_of_provers_that_cargo_builds() -> None:
    from benches.allocators import find
    from benches.provers.registry import PROVERS
    from benches.provers.report import Case
    from benches.provers.session import plan
    from benches.provers.store import Results

    (crate, other) = find(["rust-zk-alloc", "rust-system"])
    settings = {"glibc": find(["glibc"])[0], "rust-zk-alloc": crate, "rust-system": other}
    cases = [Case(name, 8, 1) for name in ("groth16", "plonky2")]
    steps = plan(cases, settings, None, 1, Results(), complete=False)
    assert [(step.case.prover, step.allocator) for step in steps] == [
        ("groth16", "glibc"),
        ("plonky2", "glibc"),
        ("plonky2", "rust-zk-alloc"),
    ]
    assert steps[0].proofs == PROVERS["groth16"].proofs


@pytest.mark.parametrize(
    ("seconds", "verdict"), [("3.93", "met"), ("3.95", "MISSED"), ("3.0", "met")]
)
def test_aims_are_judged(
    prove: Main,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: str,
    verdict: str,
) -> None:
    monkeypatch.setenv("ZKN_FAKE_S", seconds)
    out = tmp_path / "out"
    settings = "glibc,glibc-keep,zknalloc"
    assert prove("--out", str(out), "--rounds", "1", "--zkprof", allocators=settings) == 0
    found = {one["aim"]: one["verdict"] for one in load(out)["aims"]}
    assert found == {
        "prove time": verdict,
        "peak memory": "MISSED",
        "hit rate": "met",
        "prediction": "met" if seconds == "3.0" else "MISSED",
    }
    said = capsys.readouterr().out
    assert "peak memory: met 0 of 1" in said
    assert "MISSED  fake 8: 1.030 of glibc's" in said


def test_other_settings_of_ours_are_not_what_we_are_held_against(
    prove: Main, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = "zknalloc+ZK_NALLOC_COLOUR=0,zknalloc,glibc"
    assert prove("--out", str(out), "--rounds", "1", allocators=settings) == 0
    (time,) = (one for one in load(out)["aims"] if one["aim"] == "prove time")
    assert time["figure"].endswith("of glibc's")


def test_every_other_round_runs_backwards() -> None:
    from benches.allocators import find
    from benches.provers.report import Case
    from benches.provers.session import plan
    from benches.provers.store import Results

    settings = {name: find([name])[0] for name in ("glibc", "glibc-keep")}
    steps = plan([Case("groth16", 8, 1)], settings, None, 3, Results(), complete=False)
    names = [(step.allocator, step.number) for step in steps]
    assert names == [
        ("glibc", 0), ("glibc-keep", 0), ("glibc-keep", 1), ("glibc", 1),
        ("glibc", 2), ("glibc-keep", 2),
    ]  # fmt: skip


def test_of_a_negative_control_it_must_be_said_that_preloading_cannot_help(
    prove: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benches.provers import profile, registry

    fake = registry.PROVERS["fake"]
    changed = registry.Prover(
        *(fake.name, fake.title, fake.tool, None, fake.unit, fake.sizes, 3), preload_helps=False
    )
    monkeypatch.setitem(registry.PROVERS, "fake", changed)
    monkeypatch.setenv("ZKN_FAKE_S", "4.0")
    verdicts = {}
    for preloadable in (True, False):
        zkprof = tmp_path / f"zkprof-{preloadable}"
        zkprof.write_text(ZKPROF.format(python=sys.executable, preloadable=preloadable))
        zkprof.chmod(0o755)
        monkeypatch.setattr(profile, "zkprof", lambda: str(zkprof))  # noqa: B023
        out = tmp_path / str(preloadable)
        assert prove("--out", str(out), "--rounds", "1", "--zkprof") == 0
        verdicts[preloadable] = {one["aim"]: one["verdict"] for one in load(out)["aims"]}
    assert verdicts[True]["says no help"] == "MISSED"
    assert verdicts[True]["prediction"] == "MISSED", "10 % were promised"
    assert verdicts[False]["says no help"] == "met"
    assert verdicts[False]["prediction"] == "met", "what cannot be preloaded saves nothing"
    assert "hit rate" not in verdicts[False]


def test_a_long_name_hides_no_figure(
    prove: Main, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    setting = "zknalloc+GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=67108864"
    assert prove("--rounds", "1", allocators=f"glibc,{setting}") == 0
    shown = capsys.readouterr().out
    assert "3.00" in shown
    assert "0.750" in shown
    assert "zknalloc+GLIBC" in shown
