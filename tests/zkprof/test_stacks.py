# SPDX-License-Identifier: MIT OR Apache-2.0
"""Stacks lead from main() to where the time goes, by the right names."""

from __future__ import annotations

import os
import platform
import random
import shutil
import subprocess
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.call_frames import CallFrames
from zkprof.classify import Classifier, NoKernelSymbolsError
from zkprof.model import Kind
from zkprof.procfs import Process
from zkprof.sampler import Counts, PerfUnavailableError, Sampler
from zkprof.stacks import Names, Spaces, stack_times
from zkprof.symbols import Module, demangle

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="stacks are walked by frame pointers only here"
)

Stacks = Counter[tuple[Kind, tuple[str, ...]]]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    try:
        classifier = Classifier()
        Sampler(os.getpid(), classifier=classifier).close()
    except (NoKernelSymbolsError, PerfUnavailableError) as error:
        pytest.skip(f"no kernel stacks here: {error}")
    return classifier


@pytest.fixture
def observe(
    run: Callable[..., Any], classifier: Classifier
) -> Callable[..., tuple[Stacks, Counts]]:
    def observe(*command: str | Path, rate_hz: float = 199.0) -> tuple[Stacks, Counts]:
        with (
            run(*command) as target,
            Process(target.pid) as process,
            Sampler(target.pid, rate_hz, classifier=classifier) as sampler,
        ):
            spaces = Spaces(process)
            deadline = time.monotonic() + 30
            spaces.supply(sampler)
            while sampler.counts.samples < 100 and time.monotonic() < deadline:
                sampler.drain(0.05)
                spaces.supply(sampler)
            names = Names(spaces)
            paths = names.update(sampler)
            found: Stacks = Counter()
            for stack in sampler.stacks():
                functions = tuple(names.frames[i].name for i in paths[stack.node])
                found[stack.kind, functions] += stack.count
            spaces.close()
            return found, sampler.counts

    return observe


def share(stacks: Stacks, *names: str) -> float:
    """Return the share of samples whose stack has these functions, one calling the next."""

    def has(stack: tuple[str, ...]) -> bool:
        return any(stack[i : i + len(names)] == names for i in range(len(stack) - len(names) + 1))

    return sum(n for (_, stack), n in stacks.items() if has(stack)) / stacks.total()


FRAME_POINTERS = ["-fno-omit-frame-pointer", "-fomit-frame-pointer"]


@pytest.mark.parametrize("flag", FRAME_POINTERS)
def test_the_caller_of_memset(
    compiled: Callable[..., Path], observe: Callable[..., tuple[Stacks, Counts]], flag: str
) -> None:
    stacks, counts = observe(compiled("stacks", flag), "memset")
    assert share(stacks, "main", "prove", "commit", "fill") > 0.6
    assert counts.complete > 0.95 * counts.samples
    leaves = [stack[-1] for (kind, stack), _ in stacks.items() if kind is Kind.FAULT_ANON]
    assert all("memset" in leaf for leaf in leaves)
    assert all("main" in stack for _, stack in stacks)


@pytest.mark.parametrize("flag", FRAME_POINTERS)
def test_a_realigned_stack(
    compiled: Callable[..., Path], observe: Callable[..., tuple[Stacks, Counts]], flag: str
) -> None:
    stacks, counts = observe(compiled("stacks", flag), "aligned", "1000")
    assert share(stacks, "main", "prove", "aligned", "commit", "fill") > 0.6
    assert counts.complete > 0.95 * counts.samples


def test_a_leaf_function(
    compiled: Callable[..., Path], observe: Callable[..., tuple[Stacks, Counts]]
) -> None:
    stacks, _ = observe(compiled("stacks", "-fomit-frame-pointer"), "leaf")
    assert share(stacks, "main", "prove", "leaf") > 0.9


def test_code_that_is_in_no_file(
    compiled: Callable[..., Path], observe: Callable[..., tuple[Stacks, Counts]]
) -> None:
    """By its frame pointer; its callers by call frame information again."""
    stacks, counts = observe(compiled("stacks"), "jit")
    assert counts.guessed > 0.8 * counts.samples
    assert counts.complete > 0.8 * counts.samples
    jitted = sum(
        n
        for (_, stack), n in stacks.items()
        if "commit" in stack
        and stack[stack.index("commit") - 1].startswith("0x")
        and stack[stack.index("commit") - 2] == "jit"
    )
    assert jitted > 0.8 * stacks.total()


def test_stacks_deeper_than_the_copy(
    compiled: Callable[..., Path], observe: Callable[..., tuple[Stacks, Counts]]
) -> None:
    """The inner part is right; the outer one is there where frame pointers are."""
    without, counts = observe(compiled("stacks", "-fomit-frame-pointer"), "deep", "60")
    assert counts.complete < 0.05 * counts.samples
    assert share(without, "descend", "descend", "commit", "fill") > 0.6
    with_, counts = observe(compiled("stacks", "-fno-omit-frame-pointer"), "deep", "60")
    assert counts.complete > 0.8 * counts.samples
    assert share(with_, "main", "prove", "descend") > 0.8
    assert share(with_, "descend", "descend", "commit", "fill") > 0.6
    depths = {stack.count("descend") for _, stack in with_ if "fill" in stack}
    assert depths == {60}


def test_a_faster_rate_copies_less(
    compiled: Callable[..., Path], observe: Callable[..., tuple[Stacks, Counts]]
) -> None:
    stacks, counts = observe(compiled("stacks", "-fomit-frame-pointer"), "memset", rate_hz=4999.0)
    assert counts.lost == 0
    assert share(stacks, "commit", "fill") > 0.6


def test_stripped_programs_show_addresses(
    compiled: Callable[..., Path], observe: Callable[..., tuple[Stacks, Counts]]
) -> None:
    stacks, counts = observe(compiled("stacks", "-s"), "memset")
    assert counts.complete > 0.95 * counts.samples
    assert not any(name == "fill" for _, stack in stacks for name in stack)
    # Its functions are told apart: main, prove, commit, fill.
    found = {name for _, stack in stacks for name in stack if name.startswith("stacks-s+")}
    with compiled("stacks").open("rb") as file:
        whole = Module("stacks", file)
        functions = [whole.function(int(name.rsplit("+", 1)[-1], 16)) for name in found]
    assert {f.name for f in functions if f} == {"_start", "main", "prove", "commit", "fill"}
    assert all(f"stacks-s+{f.start:#x}" in found for f in functions if f)
    assert len(functions) == 5


def test_a_static_program(
    compiled: Callable[..., Path], observe: Callable[..., tuple[Stacks, Counts]]
) -> None:
    """GNU ld gives it no index of its call frame information."""
    stacks, counts = observe(compiled("stacks", "-static", "-fomit-frame-pointer"), "memset")
    assert share(stacks, "main", "prove", "commit", "fill") > 0.6
    assert counts.complete > 0.9 * counts.samples


def test_an_index_made_here_is_the_linkers() -> None:
    files = _libraries("libc.so", "libffi", "libcrypto", "libstdc++")
    assert files
    for file in files:
        with file.open("rb") as stream:
            linked = Module(file.name, stream).call_frames
        assert linked, file
        made = CallFrames.unindexed(linked.frames, linked.frames_vaddr)
        assert made
        assert len(made.starts()) > 10
        assert made.starts() == linked.starts()


def _libraries(*names: str) -> list[Path]:
    paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return [Path(p) for p in paths if p.startswith("/") and any(f"/{n}" in p for n in names)]


def test_damaged_call_frame_information_has_an_index_or_none(compiled: Callable[..., Path]) -> None:
    with compiled("stacks").open("rb") as file:
        frames = Module("stacks", file).call_frames
    assert frames
    random_ = random.Random(3)
    indexed = 0
    for _ in range(2000):
        data = bytearray(frames.frames)
        for _ in range(random_.choice([1, 4, 64])):
            data[random_.randrange(len(data))] = random_.randrange(256)
        del data[random_.choice([len(data), random_.randrange(len(data))]) :]
        made = CallFrames.unindexed(bytes(data), random_.choice([0x2000, 2**64 - 0x100]))
        for _, entry in made.starts() if made else ():
            indexed += made.length(entry) > 0
    assert indexed > 1000


def test_go(tmp_path: Path, observe: Callable[..., tuple[Stacks, Counts]]) -> None:
    """No call frame information at all: a frame pointer of 0 marks the outermost frame."""
    if not shutil.which("go"):
        pytest.skip("go is not installed")
    (tmp_path / "prover.go").write_text(
        """
        package main
        import "fmt"
        var sink uint64
        //go:noinline
        func commit() { for i := uint64(0); i < 1 << 20; i++ { sink = sink * 3 + i } }
        func main() {
            fmt.Println("ready")
            for { commit() }
        }
        """
    )
    program = tmp_path / "prover"
    subprocess.run(["go", "build", "-o", program, tmp_path / "prover.go"], check=True)
    stacks, counts = observe(program)
    assert share(stacks, "main.main", "main.commit") > 0.8
    assert counts.complete > 0.8 * counts.samples


def test_rust(tmp_path: Path, observe: Callable[..., tuple[Stacks, Counts]]) -> None:
    if not shutil.which("rustc"):
        pytest.skip("rustc is not installed")
    (tmp_path / "prover.rs").write_text(
        """
        use std::hint::black_box;
        mod stark {
            pub struct Trace(pub Vec<u8>);
            impl Trace {
                #[inline(never)]
                pub fn commit(n: usize) -> Trace { Trace(vec![std::hint::black_box(1u8); n]) }
            }
        }
        fn main() {
            println!("ready");
            loop { black_box(stark::Trace::commit(64 << 20)); }
        }
        """
    )
    program = tmp_path / "prover"
    subprocess.run(
        ["rustc", "-O", "--edition=2021", "-o", program, tmp_path / "prover.rs"], check=True
    )
    stacks, counts = observe(program)
    assert counts.complete > 0.9 * counts.samples
    assert share(stacks, "prover::stark::Trace::commit") > 0.8


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        ("main", "main"),
        ("malloc@@GLIBC_2.2.5", "malloc"),
        ("fill.part.0", "fill.part.0"),
        ("_ZN5stark3ntt7forwardEi.cold", "stark::ntt::forward(int)"),
        ("_ZN5stark3ntt7forward17h0123456789abcdefE", "stark::ntt::forward"),
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("_ZN", "_ZN"),
        ("_Znonsense\x1b[2J", "_Znonsense?[2J"),
        ("", ""),
    ],
)
def test_demangling(mangled: str, name: str) -> None:
    assert demangle(mangled) == name


def test_damaged_files_do_no_harm(compiled: Callable[..., Path]) -> None:
    """Whatever bytes of a program change, reading it ends, with or without names."""
    whole = compiled("stacks").read_bytes()
    random_ = random.Random(1)
    named = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(random_.choice([1, 4, 64])):
            data[random_.randrange(len(data))] = random_.randrange(256)
        del data[random_.choice([len(data), random_.randrange(len(data))]) :]
        module = Module("damaged", BytesIO(bytes(data)))
        named += module.function(0x1200) is not None
        module.close()
    assert named > 0


def test_damaged_call_frame_information_does_no_harm(
    compiled: Callable[..., Path], run: Callable[..., Any], classifier: Classifier
) -> None:
    """Every byte of it is the target's: random ones must end every walk."""
    program = compiled("stacks", "-fomit-frame-pointer")
    random_ = random.Random(2)
    with run(program, "deep", "20") as target, Process(target.pid) as process:
        for round_ in range(12):
            with Sampler(target.pid, 4999, classifier=classifier) as sampler:
                spaces = Spaces(process)
                for m in process.maps():
                    if "x" in m.perms and m.file_backed:
                        module = spaces._read(process, m)
                        assert module
                        spaces._modules[m.inode, m.path] = module
                        _damage(module, random_, round_)
                spaces.supply(sampler)
                deadline = time.monotonic() + 10
                while sampler.counts.samples < 50 and time.monotonic() < deadline:
                    sampler.drain(0.02)
                assert sampler.counts.samples >= 50
                spaces.close()


def _damage(module: Module, random_: random.Random, round_: int) -> None:
    cfi = module.call_frames
    if cfi is None:
        return
    for name in ("hdr", "frames"):
        data = bytearray(getattr(cfi, name))
        for _ in range(len(data) // (4 << round_) + 1):
            data[random_.randrange(4 if name == "hdr" else 0, len(data))] = random_.randrange(256)
        object.__setattr__(cfi, name, bytes(data))


def test_equal_stacks_are_one() -> None:
    times = stack_times(
        [
            (1, Kind.USER, (0, 1), 1.0, 10),
            (1, Kind.USER, (0, 1), 2.0, 20),
            (2, Kind.USER, (0, 1), 0.5, 5),
        ]
    )
    assert [(t.tid, t.seconds, t.samples) for t in times] == [(1, 3.0, 30), (2, 0.5, 5)]
