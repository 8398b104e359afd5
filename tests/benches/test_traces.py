# SPDX-License-Identifier: MIT OR Apache-2.0
"""Recordings are read exactly, and the plan of the limit is sound."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from benches import traces
from benches.traces import Call, Trace, TraceError

Recording = Callable[[str], Path]

HEAD = "t_us,tid,op,size,aux,id\n"

#: Requests, frees that the recording lacks, threads and peak of live MiB of each recording,
#: counted by another program.
RECORDED = {
    "bb": (1598, 0, 1, 1386.48),
    "ezkl": (4508, 3, 2, 537.91),
    "groth16py": (982, 2, 1, 56.46),
    "halo2": (954, 0, 3, 31.0),
    "kzg": (300, 0, 4, 7.44),
    "leanmultisig": (7644, 17, 2, 1366.23),
    "plonky2": (4639, 0, 3, 448.19),
    "plonky3": (310, 0, 3, 677.70),
    "triton": (10775, 9, 3, 843.15),
}


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    def make(body: str) -> Path:
        path = tmp_path / "some-prover.csv"
        path.write_text(HEAD + body)
        return path

    return make


def test_the_recordings_are_there() -> None:
    assert {traces.short_name(path) for path in traces.recorded()} == set(RECORDED)


@pytest.mark.parametrize("path", traces.recorded(), ids=traces.short_name)
def test_recordings(path: Path) -> None:
    trace = traces.load(path)
    requests, never_freed, threads, live_peak = RECORDED[trace.name]
    assert trace.requests == requests
    assert trace.never_freed == never_freed
    assert trace.threads == threads
    assert round(trace.live_peak / (1 << 20), 2) == live_peak
    frees = sum(call.op == "f" for call in trace.calls)
    assert frees == trace.slots, "every block is freed once, so that rounds can follow rounds"


def test_calls_are_read(recording: Recording) -> None:
    path = recording(
        "0,7,m,100000,0,a\n"
        "1,9,a,200000,64,b\n"
        "2,9,g,70000,30000,c\n"
        "3,7,r,300000,100000,a\n"
        "4,7,f,200000,0,b\n"
        "5,9,c,65536,0,b\n"
    )
    trace = traces.load(path)
    assert trace.name == "some"
    assert trace.calls == [
        Call("m", 0, 0, 100000, 0),
        Call("a", 1, 1, 200000, 64),
        Call("g", 1, 2, 70000, 30000),
        Call("r", 0, 0, 300000, 100000),
        Call("f", 0, 1, 200000, 0),
        Call("c", 1, 3, 65536, 0),
        # What the recording never freed, each on the thread that last asked for it.
        Call("f", 1, 2, 70000, 0),
        Call("f", 0, 0, 300000, 0),
        Call("f", 1, 3, 65536, 0),
    ]
    assert (trace.threads, trace.slots, trace.never_freed) == (2, 4, 3)
    assert trace.live_peak == 300000 + 200000 + 70000


def test_compressed_or_not_is_the_same(recording: Recording) -> None:
    plain = recording("0,1,m,100000,0,1\n")
    packed = plain.with_name("some-prover.csv.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert traces.load(packed) == traces.load(plain)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("", "the first line must be"),
        ("0,1,m,100000,0,1\n0,1,m,100000,0,1\n", "line 3: block 1 is allocated a second time"),
        ("0,1,f,100000,0,1\n", "line 2: block 1 is used but was never allocated"),
        ("0,1,r,100000,5,1\n", "line 2: block 1 is used but was never allocated"),
        ("0,1,x,100000,0,1\n", "line 2: no operation is spelled 'x'"),
        ("0,1,m,many,0,1\n", "line 2: invalid literal"),
        ("0,1,m,0,0,1\n", "line 2: a request of no bytes"),
        ("0,1,m\n", "line 2"),
    ],
)
def test_bad_recordings(recording: Recording, body: str, complaint: str) -> None:
    with pytest.raises(TraceError, match=complaint):
        traces.load(recording(body))


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.csv.gz"
    other.write_bytes(b"not compressed")
    with pytest.raises(TraceError, match="cannot be read"):
        traces.load(other)
    with pytest.raises(TraceError, match="cannot be read"):
        traces.load(tmp_path / "missing.csv")


def random_trace(seed: int) -> Trace:
    """A made-up trace with blocks of all ages and some that grow."""
    draw = random.Random(seed)
    calls: list[Call] = []
    sizes: dict[int, int] = {}
    live = peak = slots = 0
    for _ in range(400):
        if sizes and draw.random() < 0.5:
            slot = draw.choice(list(sizes))
            live -= sizes[slot]
            if draw.random() < 0.3:
                old, sizes[slot] = sizes[slot], draw.randrange(1, 1 << 20)
                live += sizes[slot]
                calls.append(Call("r", 0, slot, sizes[slot], old))
            else:
                calls.append(Call("f", 0, slot, sizes.pop(slot), 0))
        else:
            sizes[slots] = draw.randrange(1, 1 << 20)
            live += sizes[slots]
            calls.append(Call("m", 0, slots, sizes[slots], 0))
            slots += 1
        peak = max(peak, live)
    calls += [Call("f", 0, slot, size, 0) for slot, size in sizes.items()]
    return Trace("random", calls, 1, slots, peak)


@pytest.mark.parametrize("seed", range(20))
def test_planned_blocks_never_overlap(seed: int) -> None:
    trace = random_trace(seed)
    places, span = traces.plan(trace)
    live: dict[int, int] = {}
    for call in trace.calls:
        if call.op == "f":
            del live[call.slot]
            continue
        live[call.slot] = call.size
        begin, end = places[call.slot], places[call.slot] + call.size
        assert begin % 4096 == 0
        assert end <= span
        for other, size in live.items():
            if other != call.slot:
                assert end <= places[other] or places[other] + size <= begin


@pytest.mark.parametrize("path", traces.recorded(), ids=traces.short_name)
def test_the_plan_is_tight(path: Path) -> None:
    """The limit is no limit if its memory is much larger than what is in use."""
    trace = traces.load(path)
    _, span = traces.plan(trace)
    assert trace.live_peak <= span <= 1.35 * trace.live_peak


def test_the_file_says_what_the_trace_says(tmp_path: Path) -> None:
    trace = random_trace(1)
    path = tmp_path / "trace"
    traces.write(trace, path)
    data = path.read_bytes()
    header = traces.HEADER.unpack_from(data)
    places, span = traces.plan(trace)
    assert header == (
        *(traces.MAGIC, len(trace.calls), trace.slots, trace.threads),
        *(trace.live_peak, span, trace.requests, 0),
    )
    calls = list(traces.CALL.iter_unpack(data[traces.HEADER.size :]))
    assert calls == [
        (ord(call.op), call.thread, 0, call.slot, call.size, call.extra, places[call.slot])
        for call in trace.calls
    ]
