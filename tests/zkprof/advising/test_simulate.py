# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof simulate`: traces whose best cache is known, replayed by the library itself."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.cli import main
from zkprof.errors import Exit
from zkprof.model import Kind, MemoryPoint
from zkprof.report import Report, dump
from zkprof.simulate import parse_size, write_size
from zkprof.trace import TraceError, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from zkprof.model import Measurement

TRACES = Path(__file__).parents[3] / "benches" / "traces"
MIB = 1 << 20
HEAD = "t_us,tid,op,size,aux,id\n"


def trace(path: Path, *lines: str) -> Path:
    path.write_text(HEAD + "".join(f"0,1,{line}\n" for line in lines))
    return path


def results(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["simulate", str(path), "--json", "-", *options]) == Exit.OK
    return dict(json.loads(capsys.readouterr().out))


def churn(path: Path) -> Path:
    """Write a trace of 4 rounds: 3 buffers of 100 MiB at once, all given back."""
    lines = []
    for number in range(4):
        blocks = [3 * number + i for i in range(3)]
        lines += [f"m,{100 * MIB},0,{block}" for block in blocks]
        lines += [f"f,{100 * MIB},0,{block}" for block in blocks]
    return trace(path, *lines)


def test_a_cache_serves_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = results(churn(tmp_path / "t.csv"), capsys, "--cache", "0,150M,1G")
    assert found["live_peak"] == 300 * MIB
    assert found["requests"] == 12
    by_size = {point["bytes"]: point["hit_rate"] for point in found["curve"]}
    assert by_size[0] < 0.02
    assert 0.4 < by_size[150 * MIB] < 0.6  # holds half of what each round gives back
    assert by_size[1 << 30] > 0.99
    auto = found["runs"][-1]
    assert auto["setting"] == "auto"
    assert auto["hit_rate"] > 0.99
    # No page was touched, yet the library knows what it would have held.
    assert 300 * MIB <= auto["committed_peak"] < 340 * MIB


@pytest.mark.parametrize("module", ["zkprof", "json", "zk_nalloc"])
def test_nothing_is_imported_from_the_current_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    path = trace(tmp_path / "t.csv", f"m,{MIB},0,1", f"f,{MIB},0,1")
    (tmp_path / f"{module}.py").write_text("raise SystemExit('strange code ran')")
    monkeypatch.chdir(tmp_path)
    assert results(path, capsys, "--cache", "1M")["requests"] == 1


def test_the_default_is_praised_where_it_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", str(churn(tmp_path / "t.csv"))]) == Exit.OK
    text = capsys.readouterr().out
    assert "Set nothing" in text
    assert "ZK_NALLOC_CACHE_BYTES=512M" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_every_operation_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trace(
        tmp_path / "t.csv",
        f"c,{MIB},0,1",
        f"a,{2 * MIB},4096,2",
        f"r,{4 * MIB},{MIB},1",
        f"g,{MIB},1000,3",
        f"r,{MIB // 2},{MIB},3",
        f"f,{4 * MIB},0,1",
        # Blocks 2 and 3 are never given back by the program.
    )
    found = results(path, capsys, "--cache", "64M")
    assert found["runs"][0]["hit_rate"] > 0.9
    assert found["requests"] == 5


@pytest.mark.parametrize("path", sorted(TRACES.glob("groth16*.csv.gz")), ids=lambda p: p.name[:8])
def test_a_recorded_prover(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = results(path, capsys, "--cache", "0,1G")
    none, all_of_it = found["curve"]
    assert none["hit_rate"] < 0.1
    assert all_of_it["hit_rate"] > 0.9
    assert none["bytes_missed"] > 10 * all_of_it["bytes_missed"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no trace: its first line"),
        ("a,b\n1,2\n", "is no trace: its first line"),
        (HEAD, "holds no calls"),
        (HEAD + "0,1,m,5\n", "line 2: 4 columns, not 6"),
        (HEAD + "0,1,m,x,0,1\n", "line 2: sizes and blocks must be whole numbers"),
        (HEAD + "0,1,z,5,0,1\n", "line 2: no operation is spelled 'z'"),
        (HEAD + "0,1,m,0,0,1\n", "line 2: a request of 0 bytes"),
        (HEAD + "0,1,m,-5,0,1\n", "line 2: a request of -5 bytes"),
        (HEAD + "0,1,f,0,0,1\n", "line 2: block 1 is not in use"),
        (HEAD + "0,1,m,9,0,1\n0,1,m,9,0,1\n", "line 3: block 1 is already in use"),
        (HEAD + "0,1,a,9,3,1\n", "line 2: 3 is no alignment"),
    ],
)
def test_files_that_are_no_traces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert main(["simulate", str(path)]) == Exit.ERROR
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    damaged = tmp_path / "t.csv.gz"
    damaged.write_bytes(gzip.compress(HEAD.encode() * 1000)[:40])
    with pytest.raises(TraceError, match="is no trace"):
        load(damaged)
    damaged.write_bytes(b"BZh9")
    with pytest.raises(TraceError, match="is no trace"):
        load(damaged)
    assert main(["simulate", str(tmp_path / "none")]) == Exit.ERROR


def test_a_request_that_no_machine_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trace(tmp_path / "t.csv", f"m,{1 << 62},0,1")
    assert main(["simulate", str(path), "--cache", "64M"]) == Exit.ERROR
    assert "OutOfMemoryError" in capsys.readouterr().err


def test_a_report_has_a_curve_of_its_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], measurement: Callable[..., Measurement]
) -> None:
    import dataclasses

    m = measurement({Kind.FAULT_ANON: 0.5})
    sizes = [200 * MIB, 700 * MIB] * 8
    memory = tuple(
        MemoryPoint(t / 20, size, size, 700 * MIB, t * 100_000, 0, 0.0, 0.0, 1)
        for t, size in enumerate(sizes)
    )
    path = tmp_path / "r.json"
    path.write_text(dump(Report.of(dataclasses.replace(m, memory=memory))))
    found = results(path, capsys)
    assert found["source"] == "report"
    assert found["curve"][-1]["hit_rate"] == 1.0
    assert main(["simulate", str(path)]) == Exit.OK
    assert "export ZK_NALLOC_CACHE_BYTES=512M" in capsys.readouterr().out
    # One whose memory never came back has nothing to say.
    path.write_text(dump(Report.of(m)))
    assert main(["simulate", str(path)]) == Exit.ERROR
    assert "nothing to cache" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512M", 512 * MIB), ("4g", 4 << 30), ("65536", 65536)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(write_size(size)) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5G", "4GB", "9" * 13])
def test_what_is_no_size(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)
    with pytest.raises(SystemExit) as end:
        main(["simulate", "x", f"--cache={text}"])
    assert end.value.code == Exit.ERROR
    assert "is no size: write bytes, or 512M, or 4G" in capsys.readouterr().err
