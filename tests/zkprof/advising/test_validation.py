# SPDX-License-Identifier: MIT OR Apache-2.0
"""The bench that checks zkprof: its programs tell the truth, its judgements are just."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from benches.zkprof import race, table
from benches.zkprof.__main__ import main
from benches.zkprof.document import Conditions, document, earlier, together
from benches.zkprof.judge import ClassRow, Judgement, Said, Saving
from benches.zkprof.race import (
    HUGE,
    KEPT,
    OURS,
    SYSTEM,
    WATCHED,
    Batch,
    BenchError,
    Outcome,
)
from benches.zkprof.targets import TARGETS, Target, build
from zkprof.estimate import Range, estimate
from zkprof.model import Kind, Tier
from zkprof.skid import FAULTS, corrections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zkprof.model import Measurement

    Make = Callable[..., Measurement]

HOW = Conditions(12, 397.0, "Linux 6", "2 CPUs, a processor")
PAGES_MIB = 256  # pages of 4 KiB in a MiB


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("validation"))


def batches(program: Path, *args: str, number: int = 2) -> list[dict[str, float]]:
    done = subprocess.run(
        [program, *args], input="\n" * number, capture_output=True, text=True, check=True
    )
    ready, *lines = done.stdout.splitlines()
    assert ready == "ready"
    assert len(lines) == number
    return [json.loads(line) for line in lines]


# ---------------------------------------------------------------- the programs


@pytest.mark.parametrize(
    ("args", "part", "faults"),
    [
        (["malloc", "size=40960"], "touch_s", 4 * 40 * PAGES_MIB),
        (["malloc", "size=40960", "touch=50"], "touch_s", 2 * 40 * PAGES_MIB),
        (["calloc", "size=40960"], "touch_s", 4 * 40 * PAGES_MIB),
        (["grow", "size=40960", "keep=2"], "touch_s", 4 * 40 * PAGES_MIB),
        (["mmap", "size=8192"], "touch_s", 4 * 8 * PAGES_MIB),
        (["dontneed", "size=8192"], "touch_s", 4 * 8 * PAGES_MIB),
        (["cow", "size=8192"], "copy_s", 4 * 8 * PAGES_MIB),
        (["file", "size=8192"], "files_s", 4 * 8 * 16),
        (["malloc", "size=40960", "threads=3"], "touch_s", 3 * 4 * 40 * PAGES_MIB),
        (["malloc", "size=40960", "threads=3", "alone=1"], "touch_s", 4 * 40 * PAGES_MIB),
        (["malloc", "size=40960", "threads=3", "serial=1"], "touch_s", 4 * 40 * PAGES_MIB),
    ],
)
def test_programs_do_what_they_say(program: Path, args: list[str], part: str, faults: int) -> None:
    _, batch = batches(program, *args, "rounds=4", "spin=10")
    assert faults <= batch["faults"] or part == "files_s"
    assert batch["faults"] <= 2.2 * faults + 200
    assert batch[part] > 0
    parts = [seconds for name, seconds in batch.items() if name.endswith("_s")]
    assert all(seconds >= 0 for seconds in parts)


def test_what_the_allocator_keeps_does_not_fault(program: Path) -> None:
    _, batch = batches(program, "malloc", "size=8192", "rounds=20")
    assert batch["faults"] < 8 * PAGES_MIB * 20 / 10


def test_arithmetic_is_own_work(program: Path) -> None:
    _, batch = batches(program, "none", "rounds=5", "spin=4000")
    cpu_s = batch["user_s"] + batch["system_s"]
    assert batch["compute_s"] == pytest.approx(cpu_s, rel=0.1, abs=0.01)


@pytest.mark.parametrize("args", [["malloc", "speed=1"], [], ["malloc", "threads=0"]])
def test_programs_refuse_what_they_do_not_know(program: Path, args: list[str]) -> None:
    done = subprocess.run([program, *args], capture_output=True, check=False)
    assert done.returncode == 2


def test_names_are_unique() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS)


# ------------------------------------------------------------------ judgements


def judged(
    m: Measurement,
    saved: float,
    *,
    spread: float = 0.01,
    negative: bool = False,
    tiers: float | None = None,
    classes: tuple[ClassRow, ...] = (),
    target: Target | None = None,
) -> Judgement:
    measured = Range(saved - spread, saved, saved + spread)
    saving = Saving(measured, measured)
    e = estimate(m)
    said = Said(e.verdict, e.saving_cpu, e.saving_wall, e.growth.share)
    other = said.saving_cpu.mid if tiers is None else tiers
    return Judgement(
        target=target or Target("t", "", "malloc", {}, 1, negative=negative),
        classes=classes,
        said=said,
        savings={OURS: saving, KEPT: saving, HUGE: saving},
        tiers={Tier.USER: other, Tier.PROC: None},
        samples=1000,
        advice=("preload",),
        cost_said=0.01,
        cost=Range(0.005, 0.015, 0.02),
        when="2026-11-25 12:00",
    )


def test_a_right_prediction(measurement: Make) -> None:
    j = judged(measurement({Kind.FAULT_ANON: 0.3}), 0.32)
    assert j.cpu_right(OURS)
    assert j.verdict_right
    assert j.tiers_right
    assert not judged(measurement({Kind.FAULT_ANON: 0.3}), 0.36).cpu_right(OURS)


def test_the_stated_interval(measurement: Make) -> None:
    m = measurement({Kind.FAULT_ANON: 0.3}, noise=0.02)
    assert judged(m, 0.31).wall_right(OURS)
    assert not judged(m, 0.50).wall_right(OURS)


@pytest.mark.parametrize(
    ("share", "saved", "right"),
    [
        (0.30, 0.30, True),
        (0.30, 0.14, True),  # within 2 points of the threshold
        (0.30, 0.10, False),
        (0.10, 0.30, False),
        (0.02, 0.01, True),
        (0.02, 0.20, False),
    ],
)
def test_verdicts(measurement: Make, share: float, saved: float, *, right: bool) -> None:
    assert judged(measurement({Kind.FAULT_ANON: share}), saved).verdict_right is right


def test_negative_controls_allow_no_gain(measurement: Make) -> None:
    assert judged(measurement({Kind.FAULT_FILE: 0.5}), 0.0, negative=True).verdict_right
    wrong = judged(measurement({Kind.FAULT_ANON: 0.5}), 0.5, negative=True)
    assert not wrong.verdict_right
    assert "MISSED" in table.summary_text([wrong])
    assert not table.all_met([wrong])


def test_tables_mark_what_is_wrong(measurement: Make) -> None:
    classes = (ClassRow("page faults", 0.30, 0.35), ClassRow("own work", 0.70, 0.69))
    j = judged(measurement({Kind.FAULT_ANON: 0.3}), 0.5, tiers=0.5, classes=classes)
    text = table.markdown([j], str(HOW))
    assert "35.0 / 30.0 !" in text
    assert "69.0 / 70.0 |" in text
    assert "50.0 !" in text
    assert "1.0 / 1.5 [0.5, 2.0]" in text
    assert text.startswith("12 rounds, 397 samples a second; 2 CPUs, a processor, Linux 6; 2026-")


def test_pieces_make_one_table(measurement: Make, tmp_path: Path) -> None:
    file = tmp_path / "v.json"
    classes = (ClassRow("page faults", 0.30, 0.35),)
    first, second = TARGETS[3], TARGETS[1]
    m = measurement({Kind.FAULT_ANON: 0.3})
    assert earlier(file, HOW) == []
    old = [
        judged(m, saved, target=t, classes=classes) for t, saved in ((first, 0.3), (second, 0.2))
    ]
    file.write_text(json.dumps(document(old, HOW)))
    assert earlier(file, HOW) == old
    new = judged(m, 0.1, target=first)
    assert together(old, [new]) == [old[1], new]
    with pytest.raises(BenchError, match=r"measured otherwise .*4 rounds"):
        earlier(file, replace(HOW, rounds=4))
    for text in ("{}", "[]", "?", file.read_text().replace(first.name, "nothing")):
        file.write_text(text)
        with pytest.raises(BenchError, match="not a table of this command"):
            earlier(file, HOW)


def test_unwatched_batches_wait_as_long_as_attaching_takes(
    measurement: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    now = 0.0

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now

        @staticmethod
        def sleep(seconds: float) -> None:
            log.append(f"wait {seconds:g}")

    @contextmanager
    def attached(_pid: int, tiers: tuple[Tier], _rate_hz: float, out: Outcome) -> Iterator[None]:
        nonlocal now
        now += 1.5
        out.reports[tiers[0]] = measurement()
        log.append("attach")
        yield
        now += 7.0

    def batch(_: object) -> Batch:
        log.append("batch")
        return Batch(1.0, 1.0, 0, {})

    monkeypatch.setattr(race, "time", Time)
    monkeypatch.setattr(race, "_watched", attached)
    monkeypatch.setattr(race, "_batch", batch)
    monkeypatch.setattr(race, "_started", lambda *_: nullcontext(SimpleNamespace(pid=1)))
    plain, watched, reports = race.watched_or_not([], {}, 2, 3, Tier.KERNEL, 199.0)
    assert plain == watched == [3.0, 3.0]
    assert len(reports) == 2
    watch, rest = ["attach", *3 * ["batch"]], ["wait 1.5", *3 * ["batch"]]
    assert log == ["batch", *watch, *rest, *rest, *watch]


def test_savings_are_paired() -> None:
    def batch(cpu_s: float) -> Batch:
        return Batch(cpu_s, cpu_s, 0, {"touch_s": cpu_s / 2})

    outcome = Outcome(
        {
            WATCHED: [batch(1.5), batch(4.5), batch(3.0)],
            SYSTEM: [batch(1.0), batch(4.0), batch(2.0)],
            OURS: [batch(0.5), batch(2.0), batch(1.0)],
        }
    )
    assert outcome.cpu_saving(OURS) == pytest.approx(0.5)
    assert outcome.cpu_saving(WATCHED) == pytest.approx(-0.5)  # what watching costs
    assert outcome.parts_s() == {"touch_s": 4.5}


def test_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, tables = tmp_path / "v.json", tmp_path / "v.md"
    args = ["faults-65", "--rounds", "3", "--json", str(file), "--markdown", str(tables)]
    if main(args) == 3:
        pytest.skip("the kernel cannot be sampled here")
    (target,) = json.loads(file.read_text())["targets"]
    assert target["name"] == "faults-65"
    assert target["measured"][OURS]["cpu"]["mid"] > 0.2
    assert target["saving_cpu"]["high"] > 0.2
    assert "faults-65" in tables.read_text()
    assert "CPU saving predicted" in capsys.readouterr().out


@pytest.mark.parametrize("args", [["nothing"], ["--rounds", "2"], ["--keep"]])
def test_wrong_usage(args: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 2


# ------------------------------------------------------------------------ skid


def test_corrections_move_time_and_keep_the_whole() -> None:
    shown = {Kind.FAULT_ANON: 3.0, Kind.FAULT_FILE: 1.0, Kind.UNMAP: 1.0, Kind.USER: 5.0}
    factors = corrections(shown, 0.4)
    fixed = {kind: seconds * factors.get(kind, 1.0) for kind, seconds in shown.items()}
    assert fixed[Kind.FAULT_ANON] == pytest.approx(3.3)
    assert fixed[Kind.FAULT_FILE] == pytest.approx(1.1)
    assert fixed[Kind.UNMAP] == 1.0
    assert fixed[Kind.USER] == pytest.approx(4.6)
    assert sum(fixed.values()) == pytest.approx(sum(shown.values()))


@pytest.mark.parametrize(
    ("shown", "late_s"),
    [({}, 1.0), ({Kind.USER: 1.0}, 1.0), ({Kind.FAULT_ANON: 1.0}, 1.0), ({Kind.USER: 1.0}, 0.0)],
)
def test_nothing_to_correct(shown: dict[Kind, float], late_s: float) -> None:
    assert corrections(shown, late_s) == {}


def test_own_work_is_never_less_than_nothing() -> None:
    factors = corrections({Kind.FAULT_ANON: 1.0, Kind.USER: 0.1}, 5.0)
    assert factors[Kind.USER] == 0.0
    assert factors[Kind.FAULT_ANON] == pytest.approx(1.1)
    assert set(factors) == {*FAULTS, Kind.USER}
