# SPDX-License-Identifier: MIT OR Apache-2.0
"""Odd and hostile targets: measured rightly, or refused in one clear line."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof import cli
from zkprof.classify import Classifier, NoKernelSymbolsError
from zkprof.errors import Exit, NotPermittedError, ZkprofError
from zkprof.measure import measure
from zkprof.model import Kind, Measurement, Tier
from zkprof.procfs import KernelThreadError, NoSuchProcessError, Process, ZombieError
from zkprof.sampler import PerfUnavailableError, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def kernel_stacks() -> None:
    try:
        Sampler(os.getpid(), classifier=Classifier()).close()
    except (NoKernelSymbolsError, PerfUnavailableError) as error:
        pytest.skip(f"no kernel stacks here: {error}")


def refused(pid: int, error: type[ZkprofError], capsys: pytest.CaptureFixture[str]) -> str:
    """Check that a target is refused in one line with the right code; return the line."""
    with pytest.raises(error):
        measure(pid, 1.0)
    assert cli.main([str(pid), "-d", "1"]) == error.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.removesuffix("\n").isprintable()
    return err


def test_zombie(capsys: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert "has ended" in refused(child.pid, ZombieError, capsys)
    child.wait()
    assert "no process" in refused(child.pid, NoSuchProcessError, capsys)


def test_kernel_thread(capsys: pytest.CaptureFixture[str]) -> None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                Process(int(entry.name)).close()
            except KernelThreadError:
                assert "kernel thread" in refused(int(entry.name), KernelThreadError, capsys)
                return
            except ZkprofError:
                continue
    pytest.skip("no kernel threads are visible here")


def test_a_thread_is_not_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        assert thread.native_id
        line = refused(thread.native_id, NoSuchProcessError, capsys)
        assert f"zkprof {os.getpid()}" in line
    finally:
        go.set()
        thread.join()


def test_another_users_process(
    compiled: Callable[..., Path],
    run: Callable[..., Any],
    in_child: Callable[..., Any],
    drop: Callable[[], None],
) -> None:
    with run(compiled("workload"), "compute") as target:
        with pytest.raises(NotPermittedError, match="sudo zkprof") as caught:
            in_child(lambda: measure(target.pid, 1.0), drop)
        assert caught.value.exit_code is Exit.PERMISSION


def texts(m: Measurement) -> list[str]:
    return [
        m.target.comm,
        m.target.exe,
        *(thread.comm for thread in m.threads),
        *(text for f in m.frames for text in (f.name, f.module, f.file)),
        *m.method.notes,
    ]


@pytest.mark.usefixtures("kernel_stacks")
def test_names_that_would_control_a_terminal(
    compiled: Callable[..., Path], run: Callable[..., Any], tmp_path: Path
) -> None:
    program = tmp_path / "a\x1b[2J\nb"
    shutil.copy(compiled("workload"), program)
    with run(program, "mixed") as target:
        m = measure(target.pid, 1.0, 499.0)
    assert m.stacks
    assert any("?[2J" in text for text in texts(m))
    assert all(text.isprintable() for text in texts(m))


@pytest.mark.usefixtures("kernel_stacks")
def test_a_program_that_was_deleted(
    compiled: Callable[..., Path], run: Callable[..., Any], tmp_path: Path
) -> None:
    program = tmp_path / "workload"
    shutil.copy(compiled("workload"), program)
    with run(program, "mixed") as target:
        program.unlink()
        # Another file of that name must not lend its symbols.
        shutil.copy("/bin/true", program)
        m = measure(target.pid, 1.0, 499.0)
    names = {f.name for f in m.frames if f.module == "workload"}
    if os.geteuid() == 0:
        assert {"main", "compute"} <= names
    else:
        assert not names


@pytest.mark.usefixtures("kernel_stacks")
def test_another_program_is_executed(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    """Code at addresses where other code was: the names are those of the new program."""
    script = 'echo ready; read line; exec "$0" mixed'
    with run("/bin/sh", "-c", script, compiled("workload")) as target:

        def go() -> None:
            target.stdin.write("\n")
            target.stdin.flush()

        timer = threading.Timer(2.0, go)
        timer.start()
        m = measure(target.pid, 5.0, 499.0, tier=Tier.KERNEL)
        timer.join()
    assert m.target.comm == "workload"
    there = sum(
        stack.seconds
        for stack in m.stacks
        if any(m.frames[i].name in ("touch", "compute", "faults") for i in stack.frames)
    )
    assert there > 0.7 * m.cpu_s


def test_its_own_pid_namespace(compiled: Callable[..., Path]) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root can make a namespace")
    outer = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", compiled("workload"), "mixed"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert outer.stdout
        if outer.stdout.readline() != "ready\n":
            pytest.skip("namespaces are not permitted here")
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        pid = int(children[0])
        with Process(pid) as process:
            assert process.status()["NSpid"].split()[-1] == "1"
        m = measure(pid, 1.5, 499.0)
        assert m.target.pid == pid
        assert m.cpu_s > 0.1
        assert m.classes[Kind.FAULT_ANON].seconds > 0.2 * m.cpu_s
        m = measure(outer.pid, 1.5, 499.0, children=True)
        assert m.pids == (outer.pid, pid)
        assert m.cpu_s > 0.1
    finally:
        outer.kill()
        outer.communicate()


CLOCK = """
#include <stdio.h>
#include <time.h>
int main(void) {
    puts("ready");
    fflush(stdout);
    for (struct timespec t;;) clock_gettime(CLOCK_MONOTONIC, &t);
}
"""


def test_the_kernels_own_code_in_a_32_bit_program(
    tmp_path: Path, run: Callable[..., Any], kernel_stacks: None
) -> None:
    """Its clock is another one than ours, at other addresses."""
    del kernel_stacks
    (tmp_path / "clock.c").write_text(CLOCK)
    program = tmp_path / "clock"
    command = ["cc", "-m32", "-O1", "-o", program, tmp_path / "clock.c"]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no compiler for 32-bit programs")
    with run(program) as target:
        m = measure(target.pid, 2.0, 499.0, tier=Tier.KERNEL)
    innermost = Counter[str]()
    for stack in m.stacks:
        if stack.kind is Kind.USER:
            innermost[m.frames[stack.frames[-1]].name] += stack.samples
    assert innermost["__vdso_clock_gettime64"] > 0.5 * innermost.total() > 10, innermost


def test_a_32_bit_program(tmp_path: Path, compiled: Callable[..., Path]) -> None:
    del compiled
    source = Path(__file__).parent / "targets" / "workload.c"
    program = tmp_path / "workload32"
    command = ["cc", "-m32", "-static", "-O2", "-fno-omit-frame-pointer", "-pthread"]
    built = subprocess.run(
        [*command, "-D_GNU_SOURCE", str(source), "-o", str(program)],
        capture_output=True,
        check=False,
    )
    if built.returncode:
        pytest.skip("no compiler for 32-bit programs")
    target = subprocess.Popen([program, "faults"], stdout=subprocess.PIPE, text=True)
    try:
        assert target.stdout
        assert target.stdout.readline() == "ready\n"
        m = measure(target.pid, 2.0, 499.0)
        assert m.classes[Kind.FAULT_ANON].seconds > 0.4 * m.cpu_s
        assert any(f.name == "main" for f in m.frames) or m.method.tier is Tier.PROC
        assert m.traffic is None
    finally:
        target.kill()
        target.communicate()


def test_a_target_that_ends_while_it_is_being_attached_to(compiled: Callable[..., Path]) -> None:
    """However early it ends: measured, or refused as gone."""
    for delay in (0.0, 0.05, 0.2, 0.5, 1.0):
        target = subprocess.Popen([compiled("workload"), "compute"], stdout=subprocess.DEVNULL)
        timer = threading.Timer(delay, target.kill)
        timer.start()
        try:
            m = measure(target.pid, 30.0, 499.0)
            assert m.exited
        except (NoSuchProcessError, ZombieError):
            pass
        finally:
            timer.join()
            target.wait()


@pytest.mark.usefixtures("kernel_stacks")
def test_descriptors_are_all_given_back(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with run(compiled("workload"), "mixed") as target:
        measure(target.pid, 0.2, children=True)
        before = count()
        for _ in range(3):
            measure(target.pid, 0.2, children=True)
        assert count() <= before
