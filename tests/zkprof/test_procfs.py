# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reading /proc, and the errors that targets cause."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.errors import NotPermittedError, TargetGoneError
from zkprof.procfs import (
    KernelThreadError,
    NoSuchProcessError,
    Process,
    ZombieError,
    parse_maps,
    parse_stat,
    parse_status,
)

if TYPE_CHECKING:
    from collections.abc import Callable

STAT = (
    "4242 (evil) R (\x1b[31m)) S 1 4242 4242 0 -1 4194304 5000 9 3 1 250 75 0 0 20 0 7 0 "
    "1234567 104857600 2560 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0"
)


def test_stat_of_a_process_with_an_evil_name() -> None:
    stat = parse_stat(STAT)
    assert stat.comm == "evil) R (?[31m)"
    assert (stat.state, stat.minor_faults, stat.major_faults, stat.threads) == ("S", 5000, 3, 7)
    ticks = os.sysconf("SC_CLK_TCK")
    assert stat.cpu_s == pytest.approx((250 + 75) / ticks)
    assert not stat.ended


@pytest.mark.parametrize(("state", "threads", "ended"), [("Z", 1, True), ("Z", 4, False)])
def test_a_leader_may_end_before_its_threads(state: str, threads: int, ended: bool) -> None:  # noqa: FBT001
    text = STAT.replace(") S ", f") {state} ").replace(" 20 0 7 0 ", f" 20 0 {threads} 0 ")
    assert parse_stat(text).ended is ended


def test_status_and_maps() -> None:
    status = parse_status("Name:\ta:b\nVmHWM:\t  12 kB\nTgid:\t7\n")
    assert status == {"Name": "a:b", "VmHWM": "12 kB", "Tgid": "7"}
    maps = parse_maps(
        "55d0a000-55d0b000 rw-p 00001000 fd:01 131 /opt/my prover (deleted)\n"
        "7f0000000000-7f0000001000 r-xp 00000000 00:00 0 \n"
        "7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]\n"
        "nonsense\n"
    )
    assert [(m.path, m.file_backed) for m in maps] == [
        ("/opt/my prover (deleted)", True),
        ("", False),
        ("[stack]", False),
    ]
    assert maps[0].start == 0x55D0A000
    assert maps[0].perms == "rw-p"


def test_counters_of_this_process() -> None:
    with Process(os.getpid()) as process:
        first, _ = process.point()
        kept = bytearray(64 << 20)
        kept[::4096] = b"x" * len(kept[::4096])
        second, stat = process.point()
        assert second.rss - first.rss > 60 << 20
        assert second.hwm >= second.rss > second.rss_anon > 60 << 20
        assert second.t > first.t
        assert second.threads == len(process.threads()) == stat.threads
        assert any(m.perms == "r-xp" for m in process.maps())


def test_threads_are_listed_with_their_own_counters() -> None:
    stop = threading.Event()
    tids = []

    def spin() -> None:
        tids.append(threading.get_native_id())
        while not stop.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        time.sleep(0.3)
        with Process(os.getpid()) as process:
            stats = process.threads()
        assert stats[tids[0]].cpu_s > 0.02
    finally:
        stop.set()
        thread.join()


def test_no_such_process() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(NoSuchProcessError, match=rf"no process {child.pid}\b"):
        Process(child.pid)


def test_a_zombie() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ZombieError, match="has ended and waits"):
            Process(child.pid)
    assert issubclass(ZombieError, TargetGoneError)


def test_a_kernel_thread() -> None:
    # kthreadd and its children exist outside of containers only.
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = parse_stat(path.read_text())
        except OSError:
            continue
        if stat.flags & 0x200000:
            with pytest.raises(KernelThreadError, match="kernel thread"):
                Process(int(path.parent.name))
            return
    pytest.skip("no kernel threads are visible here")


def test_a_thread_is_not_a_process() -> None:
    ids: list[int] = []
    stop = threading.Event()
    thread = threading.Thread(target=lambda: (ids.append(threading.get_native_id()), stop.wait()))
    thread.start()
    try:
        while not ids:
            time.sleep(0.01)
        with pytest.raises(NoSuchProcessError, match=rf"thread of process {os.getpid()}"):
            Process(ids[0])
    finally:
        stop.set()
        thread.join()


def test_another_users_process(in_child: Callable[..., Any], drop: Callable[[], None]) -> None:
    pid = os.getpid()
    with pytest.raises(NotPermittedError, match=rf"sudo zkprof {pid}"):
        in_child(lambda: Process(pid).close(), drop)


def test_a_recycled_number_is_not_mistaken() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = Process(child.pid)
        child.send_signal(signal.SIGKILL)
    # The directory that is held open belongs to the process that is gone,
    # whoever has its number by now.
    with process:
        assert process.threads() == {}
        with pytest.raises(NoSuchProcessError):
            process.stat()


def test_a_process_that_has_ended_keeps_its_times() -> None:
    code = "x = bytearray(32 << 20); x[::4096] = x[::4096]\nfor i in range(10**6): pass"
    with (
        subprocess.Popen(["python3", "-c", f"{code}\ninput()"], stdin=subprocess.PIPE) as child,
        Process(child.pid) as process,
    ):
        assert child.stdin
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        point, stat = process.point()
    assert stat.ended
    assert point.rss == 0
    assert point.minor_faults > 1000
