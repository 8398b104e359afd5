# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof stats` and `zkprof export`: counters of live processes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from zkprof.cli import main
from zkprof.errors import Exit
from zkprof.library import counter_rows
from zkprof.openmetrics import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ZKPROF = [sys.executable, "-m", "zkprof"]


@pytest.fixture
def target(compiled: Callable[..., Path], run: Callable[..., Any]) -> Iterator[Any]:
    """Run a program with a statistics block; a line makes it count 21 hits and 3 misses."""
    with run(compiled("block")) as process:
        yield process


def change(target: Any) -> None:  # noqa: ANN401
    target.stdin.write("go\n")
    target.stdin.flush()
    assert target.stdout.readline() == "changed\n"


def zkprof(*args: str) -> int:
    try:
        return main(list(args))
    except SystemExit as end:
        return int(end.code or 0)


# ---------------------------------------------------------------------- stats


def test_stats(capsys: pytest.CaptureFixture[str], target: Any) -> None:  # noqa: ANN401
    change(target)
    assert zkprof("stats", str(target.pid)) == Exit.OK
    text = capsys.readouterr().out
    assert "libzknalloc 9.8.7" in text
    assert re.search(r"^live_peak +9.0 kB$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 80


def test_stats_as_json(capsys: pytest.CaptureFixture[str], target: Any) -> None:  # noqa: ANN401
    change(target)
    assert zkprof("stats", str(target.pid), "--json") == Exit.OK
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "zkprof-stats/1"
    assert data["seconds"] is None
    library = data["library"]
    assert set(library["counters"]) == {name for name, _ in counter_rows()}
    assert library["hit_rate"] == pytest.approx(
        library["counters"]["hits"] / (library["counters"]["hits"] + library["counters"]["misses"])
    )
    assert "per_second" not in library


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_counts_what_is_new(target: Any, *, as_json: bool) -> None:  # noqa: ANN401
    command = [*ZKPROF, "stats", str(target.pid), "--watch", "--every", "0.3"]
    with subprocess.Popen(
        [*command, *(["--json"] if as_json else [])], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout
        if not as_json:
            assert watching.stdout.readline().split()[:2] == ["hits/s", "misses/s"]
        first = watching.stdout.readline()
        change(target)
        lines = [watching.stdout.readline() for _ in range(3)]
        target.kill()
        lines += watching.stdout.readlines()
        assert watching.wait(20) == Exit.OK, "its end is no failure"
    if as_json:
        readings = [json.loads(line)["library"] for line in lines]
        assert json.loads(first)["library"]["counters"]["hits"] == 0
        assert sum(r["counters"]["hits"] for r in readings) == 21
        assert sum(r["counters"]["misses"] for r in readings) == 3
        assert max(r["per_second"]["hits"] for r in readings) > 3
    else:
        assert first.split()[:2] == ["0", "0"]
        assert [line.split()[2] for line in lines].count("88%") == 1  # 21 of 24
        assert all(len(line) <= 81 for line in lines)


def test_ctrl_c_ends_watching(target: Any) -> None:  # noqa: ANN401
    command = [*ZKPROF, "stats", str(target.pid), "--watch", "--every", "0.2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout
        assert watching.stderr
        watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == Exit.OK
        assert watching.stderr.read() == ""


def test_stats_of_what_is_not_on_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert zkprof("stats", str(process.pid)) == Exit.ERROR
        process.kill()
    error = capsys.readouterr().err
    assert "is not on libzknalloc: start it with `zk-nalloc run -- CMD`" in error
    assert error.count("\n") == 1
    assert zkprof("stats", "2147483646") == Exit.GONE


# --------------------------------------------------------------------- export


@contextmanager
def exporting(*processes: str) -> Iterator[str]:
    """Run an exporter; yield its address."""
    with subprocess.Popen(
        [*ZKPROF, "export", "--listen", "127.0.0.1:0", *processes],
        stderr=subprocess.PIPE,
        text=True,
    ) as exporter:
        try:
            assert exporter.stderr
            found = re.search(r"http://(\S+)/metrics", exporter.stderr.readline())
            assert found
            yield found[1]
        finally:
            exporter.send_signal(signal.SIGINT)
            assert exporter.wait(20) == Exit.OK


def metrics(address: str) -> dict[str, list[Any]]:
    request = urllib.request.Request(
        f"http://{address}/metrics", headers={"Accept": "application/openmetrics-text"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read().decode()
    samples: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample)
    return samples


def test_export(target: Any) -> None:  # noqa: ANN401
    with exporting(str(target.pid), "2147483646") as address:
        before = metrics(address)
        change(target)
        after = metrics(address)
    ups = {s.labels["pid"]: s.value for s in before["zkprof_up"]}
    assert ups == {str(target.pid): 1, "2147483646": 0}
    (hits,) = after["zknalloc_hits_total"]
    assert hits.labels == {"pid": str(target.pid), "comm": "block"}
    assert hits.value - before["zknalloc_hits_total"][0].value == 21
    assert after["zknalloc_live_peak"][0].value == 9000
    assert after["zkprof_resident_bytes"][0].value > 100_000
    assert after["zkprof_fault_seconds"][0].value > 0
    for name, kind in counter_rows():
        assert f"zknalloc_{name}{'_total' if kind == 'c' else ''}" in after


def test_a_fleet_comes_and_goes(compiled: Callable[..., Path], run: Callable[..., Any]) -> None:
    program = compiled("block")
    with exporting("block") as address:
        assert "zkprof_minor_faults_total" not in metrics(address)
        with run(program) as one, run(program) as two:
            found = metrics(address)["zkprof_up"]
            assert {int(s.labels["pid"]) for s in found} >= {one.pid, two.pid}
        left = metrics(address).get("zkprof_up", [])
        assert not {str(one.pid), str(two.pid)} & {s.labels["pid"] for s in left}


def test_hostile_names_are_labels(tmp_path: Path) -> None:
    # A process is named after its file.
    program = tmp_path / 'x"} 1\nevil{a="'
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            with exporting(str(process.pid)) as address:
                (up,) = metrics(address)["zkprof_up"]
        finally:
            process.kill()
    assert up.labels["comm"] == 'x"} 1\\nevil{a="'


def test_processes_of_others(in_child: Callable[..., Any], drop: Callable[[], None]) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        found = in_child(lambda: list(Fleet([process.pid], []).collect()), drop)
        process.kill()
    (up,) = (metric for metric in found if metric.name == "zkprof_up")
    (caches,) = (metric for metric in found if metric.name == "zkprof_caches")
    assert up.samples[0].value == len(caches.samples)
    assert sum(s.value for s in caches.samples) == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["1", "--listen", "9000"], "'9000' is no address: give ADDR:PORT"),
        (["1", "--listen", "localhost:x"], "is no address"),
        (["1", "--listen", ":99999"], "is no address"),
        (["1", "--listen", "192.0.2.1:9"], "cannot listen on 192.0.2.1:9"),
        ([], "required: PID|NAME"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], args: list[str], words: str) -> None:
    assert zkprof("export", *args) == Exit.ERROR
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.mark.outside
def test_prometheus(tmp_path: Path, target: Any) -> None:  # noqa: ANN401
    """A real Prometheus finds nothing to object to, and computes with what it gets."""
    if not shutil.which("prometheus"):
        pytest.skip("Prometheus is not installed (Debian: apt install prometheus)")
    with exporting(str(target.pid)) as address:
        plain = urllib.request.urlopen(f"http://{address}/metrics", timeout=20).read()
        lint = subprocess.run(
            ["promtool", "check", "metrics"], input=plain, capture_output=True, check=False
        )
        assert (lint.returncode, lint.stderr) == (0, b"")
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            f"scrape_configs: [{{job_name: zkprof, static_configs: [{{targets: ['{address}']}}]}}]"
        )
        port = free_port()
        with subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=subprocess.DEVNULL,
        ) as prometheus:
            try:
                ask(port, "zknalloc_hits_total", lambda value: value == 100)
                change(target)
                ask(port, "zknalloc_hits_total", lambda value: value == 121)
                ask(port, "rate(zknalloc_hits_total[10s])", lambda value: value > 0)
                ask(
                    port,
                    "rate(zkprof_minor_faults_total[10s]) * on() group_left zkprof_fault_seconds",
                    lambda value: value >= 0,
                )
                ask(port, "scrape_samples_scraped", lambda value: value > 30)
            finally:
                prometheus.kill()


def ask(port: int, query: str, right: Callable[[float], bool]) -> None:
    address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    answer: Any = None
    for _ in range(120):
        try:
            with urllib.request.urlopen(address, timeout=5) as reply:
                answer = json.load(reply)["data"]["result"]
        except OSError as error:
            answer = error
        else:
            if answer and right(float(answer[0]["value"][1])):
                return
        time.sleep(0.5)
    pytest.fail(f"{query}: {answer}")
