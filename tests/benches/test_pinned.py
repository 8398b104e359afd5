# SPDX-License-Identifier: MIT OR Apache-2.0
"""`python -m benches.pinned`, on a driver that needs no GPU (libcuda.c) and is strict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benches import build
from benches.pinned import report
from benches.pinned.__main__ import HERE, main
from benches.pinned.runner import Run, list_ways

if TYPE_CHECKING:
    from collections.abc import Callable

Ended = subprocess.CompletedProcess[str]

MIB = 1 << 20
SIZES = [6 * MIB, 6 * MIB, 20 * MIB, 44 * MIB, MIB + 4097, 100_001]
ROUNDS = 4

#: Ways whose every copy is from pinned memory.
PINNED = {"register-each", "alloc-each", "pool", "zknalloc-hooks"}
WAYS = ["pageable", "pageable-kept", "zknalloc", *sorted(PINNED)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pinned")


@pytest.fixture(scope="module")
def program(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CFLAGS", "-Werror")
        return build.build_c(folder, HERE / "c", "pinned")


@pytest.fixture(scope="module")
def libcuda(folder: Path) -> Path:
    compiler = shutil.which("cc")
    assert compiler, "the tests need a C compiler, cc"
    library = folder / "libcuda.so.1"
    source = Path(__file__).parent / "libcuda.c"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fPIC"]
    command = [compiler, *flags, "-shared", "-fvisibility=hidden", "-o", library, source]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="module")
def pinned(program: Path, libcuda: Path) -> Callable[..., Ended]:
    """Run the program on the driver that needs no GPU."""

    def run(*arguments: object, **environment: str) -> Ended:
        return subprocess.run(
            [program, libcuda, *map(str, arguments)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def lines(done: Ended) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_all_ways_are_tested(program: Path) -> None:
    assert sorted(list_ways(program)) == sorted(WAYS)


@pytest.mark.parametrize("way", WAYS)
def test_rounds_are_right_and_counted(pinned: Callable[..., Ended], way: str) -> None:
    # One copy of pageable memory is made before the first round.
    strict = {"STUB_PAGEABLE": "1"} if way in PINNED else {}
    *rounds, process = lines(pinned(way, ROUNDS, *SIZES, **strict))
    assert [one["round"] for one in rounds] == list(range(ROUNDS))
    for one in rounds:
        parts = one["take_ns"] + one["fill_ns"] + one["copy_ns"] + one["give_ns"]
        assert parts == one["wall_ns"]
    assert process["way"] == way
    assert process["bytes"] == sum(SIZES)
    assert process["refused"] == 0
    assert process["registrations"] == process["unregistrations"]
    assert process["registered_left"] == 0
    assert process["fallback_system"] == 0
    if way == "register-each":
        assert process["registrations"] == ROUNDS * len(SIZES)
        assert 0 <= process["registered_most"] - sum(SIZES) < len(SIZES) * 4096
    elif way != "zknalloc-hooks":
        assert process["registrations"] == 0
    if way.startswith("zknalloc"):
        assert process["hits"] + process["misses"] == ROUNDS * len(SIZES)


def test_hooks_register_once_and_warm_rounds_do_not_fault(pinned: Callable[..., Ended]) -> None:
    *rounds, process = lines(pinned("zknalloc-hooks", ROUNDS, *SIZES, STUB_PAGEABLE="1"))
    # No range is smaller than 32 MiB, and none larger than a buffer needs.
    assert 2 <= process["registrations"] <= len(SIZES)
    assert process["registered_most"] >= sum(SIZES)
    assert process["registered_most"] % (2 * MIB) == 0
    assert rounds[0]["faults"] > 0
    # Those of another thing than the buffers, of which each has hundreds of pages.
    assert [one["faults"] < 8 for one in rounds[1:]] == [True] * (ROUNDS - 1)


@pytest.mark.parametrize("way", ["pageable", "zknalloc-hooks"])
def test_a_wrong_byte_ends_the_program(pinned: Callable[..., Ended], way: str) -> None:
    # The first copy is made before the rounds; of round 1, buffer 1 is looked at.
    wrong = 1 + len(SIZES) + 2
    done = pinned(way, ROUNDS, *SIZES, STUB_FLIP=str(wrong))
    assert done.returncode == 3
    assert done.stderr == "pinned: round 1: buffer 1 is not what was written\n"


def test_a_range_that_is_refused_is_not_used(pinned: Callable[..., Ended]) -> None:
    done = pinned("zknalloc-hooks", ROUNDS, *SIZES, STUB_REFUSE="1")
    assert done.returncode == 0, done.stderr
    assert "cuMemHostRegister" in done.stderr
    assert "CUDA_ERROR_OUT_OF_MEMORY" in done.stderr
    process = json.loads(done.stdout.splitlines()[-1])
    assert process["refused"] == 1
    assert process["fallback_system"] == 1
    assert process["registered_left"] == 0
    assert pinned("register-each", ROUNDS, *SIZES, STUB_REFUSE="1").returncode == 1


def test_the_probe_asks_and_the_stub_is_strict(pinned: Callable[..., Ended]) -> None:
    answers = {line["probe"]: line["answer"] for line in lines(pinned("--probe"))}
    assert answers["copy within one registered range"] == "yes"
    refused = "CUDA_ERROR_INVALID_VALUE"
    assert answers["copy across two adjacent registered ranges"] == refused
    assert answers["copy out of a registered range"] == refused
    assert answers["register memory of which half is PROT_NONE"] == refused
    again = "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"
    assert answers["register it again"] == again
    assert answers["share of it resident then"] == "1.000"


MISUSES = {
    # What the program does with a registered page, and what the stub says of it.
    "madvise(page, 4096, MADV_DONTNEED)": "given back while registered",
    "munmap(page, 4096)": "unmapped while registered",
    "0": "",
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_the_stub_sees_what_a_driver_would_not(libcuda: Path, tmp_path: Path, misuse: str) -> None:
    source = tmp_path / "misuse.c"
    source.write_text(
        f"""
        #define _GNU_SOURCE
        #include <sys/mman.h>
        int cuInit(unsigned), cuDevicePrimaryCtxRetain(void **, int);
        int cuCtxSetCurrent(void *), cuMemHostUnregister(void *);
        int cuMemHostRegister_v2(void *, unsigned long, unsigned);
        int main(void)
        {{
            void *context, *page = mmap(0, 4096, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0))
                return 1;
            if (cuMemHostRegister_v2(page, 4096, 1) != 201) /* no context yet */
                return 2;
            if (cuCtxSetCurrent(context) || cuMemHostRegister_v2(page, 4096, 1))
                return 3;
            return {misuse} == 0 ? cuMemHostUnregister(page) : 4;
        }}
        """
    )
    program = tmp_path / "misuse"
    subprocess.run(
        ["cc", source, libcuda, f"-Wl,-rpath,{libcuda.parent}", "-o", program], check=True
    )
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert MISUSES[misuse] in done.stderr
    assert done.returncode == (70 if MISUSES[misuse] else 0)


# --------------------------------------------------------------- the command


def test_the_command(
    program: Path, libcuda: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    shape = ["--buffers", "2", "--mib", "4", "--rounds", "3", "--repetitions", "2"]
    where = ["--cuda", str(libcuda), "--build", str(program.parents[1]), "--json", str(out)]
    assert main(["pool", "zknalloc-hooks", *shape, *where]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "zknalloc-hooks" in shown
    document = json.loads(out.read_text())
    assert document["device"] == "stub"
    order = [(run["repetition"], run["way"]) for run in document["runs"]]
    assert order == [(0, "pool"), (0, "zknalloc-hooks"), (1, "zknalloc-hooks"), (1, "pool")]
    assert [row["to_pool"] for row in document["rows"] if row["way"] == "pool"] == [1.0]
    assert document["failures"] == []
    assert document["probe"]


def test_a_way_that_fails_is_named_and_is_not_tried_again(
    program: Path,
    libcuda: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STUB_FLIP", "2")
    where = ["--cuda", str(libcuda), "--build", str(program.parents[1])]
    assert main(["pool", "--buffers", "1", "--mib", "1", "--repetitions", "2", *where]) == 1
    shown = capsys.readouterr().out
    assert shown.count("failed: pool: exit status 3: pinned: round 0: buffer 0") == 1


@pytest.mark.parametrize("there", [True, False])
def test_without_a_gpu_one_line_says_so(
    program: Path,
    libcuda: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    there: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setenv("STUB_NO_DEVICE", "1")
    cuda = libcuda if there else tmp_path / "libcuda.so.1"
    assert main(["--cuda", str(cuda), "--build", str(program.parents[1])]) == 2
    said = capsys.readouterr().err
    assert said.startswith("benches.pinned: pinned: no GPU: ")
    assert said.count("\n") == 1
    assert ("CUDA_ERROR_NO_DEVICE" in said) == there


@pytest.mark.parametrize("bad", [["nothing"], ["--rounds", "1"], ["--buffers", "0"]])
def test_bad_usage(program: Path, bad: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*bad, "--build", str(program.parents[1])])
    assert stopped.value.code == 2


# ------------------------------------------------------------------ figures


def run(way: str, repetition: int, *wall_ms: int) -> Run:
    rounds = tuple(
        {
            "wall_ns": ms * 1_000_000,
            "take_ns": 0,
            "fill_ns": ms * 600_000,
            "copy_ns": ms * 400_000,
            "give_ns": 0,
            "faults": 5,
        }
        for ms in wall_ms
    )
    process = {
        "bytes": 4_000_000,
        "start_ns": 7_000_000,
        "base_rss": 100,
        "peak_rss": 300,
        "registrations": 2,
        "registered_most": 64,
    }
    return Run(way, repetition, rounds, process)


def test_figures() -> None:
    runs = [
        run("pool", 0, 50, 10, 10, 10),
        run("zknalloc", 0, 100, 20, 30, 22),
        run("zknalloc", 1, 200, 40, 44, 40),
        run("pool", 1, 60, 10, 16, 20),
    ]
    pool, cache = report.summarise(runs)
    assert (pool.way, pool.to_pool, pool.wall_ms) == ("pool", 1.0, 13.0)
    # 22 / 10 and 40 / 16
    assert (cache.to_pool, cache.wall_ms) == (2.35, 31.0)
    assert cache.first_ms == 157.0
    assert cache.parts_ms == pytest.approx({"take": 0, "fill": 18.6, "copy": 12.4, "give": 0})
    assert cache.copy_gb_s == pytest.approx((4 / 8.8 + 4 / 16) / 2)
    assert (cache.added_rss, cache.processes, cache.warm_rounds) == (200, 2, 6)
    assert report.summarise([runs[1]])[0].to_pool is None
