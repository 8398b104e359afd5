# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof doctor` says what works because it has tried it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof import classify, cli, doctor
from zkprof.doctor import Check, diagnose
from zkprof.measure import measure
from zkprof.model import Tier
from zkprof.sampler import paranoid_level

if TYPE_CHECKING:
    from collections.abc import Callable


def by_id(checks: tuple[Check, ...]) -> dict[str, Check]:
    found = {check.id: check for check in checks}
    assert len(found) == len(checks), "an id stands for one thing"
    return found


def test_the_tier_is_the_one_that_measuring_uses(
    compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    with run(compiled("workload"), "compute") as target:
        found = diagnose(target.pid)
        m = measure(target.pid, 0.3)
    assert found.tier is m.method.tier
    checks = by_id(found.checks)
    assert checks["symbols"].ok
    assert checks["counters"].ok
    assert "glibc" in checks["preload"].detail
    assert checks["tracepoints"].ok == (m.traffic is not None)
    for check in found.checks:
        assert check.detail.isprintable()
        assert not (check.ok and check.fix)


def test_without_privileges(
    compiled: Callable[..., Path],
    run: Callable[..., Any],
    in_child: Callable[..., Any],
    drop: Callable[[], None],
) -> None:
    if paranoid_level() != 2:
        pytest.skip(f"perf_event_paranoid is {paranoid_level()}")
    diagnose(os.getpid())  # imports what the child may not be able to read
    with run(compiled("workload"), "compute", user="nobody") as target:
        found = in_child(lambda: diagnose(target.pid), drop)
    checks = by_id(found.checks)
    assert found.tier is Tier.USER
    assert checks["kernel-stacks"].fix == "sudo sysctl kernel.perf_event_paranoid=1"
    assert checks["user-perf"].ok
    assert "kptr_restrict=0" in checks["kernel-symbols"].fix
    assert not checks["tracepoints"].ok
    assert "root" in checks["tracepoints"].fix
    assert checks["counters"].ok


def test_a_sandbox_that_refuses_perf(
    in_child: Callable[..., Any], refuse_perf: Callable[[], None]
) -> None:
    """Not even root is let through: paranoid has nothing to do with it."""
    found = in_child(lambda: diagnose(os.getpid()), refuse_perf)
    assert found.tier is Tier.PROC
    checks = by_id(found.checks)
    for name in ("kernel-stacks", "user-perf"):
        assert not checks[name].ok
        assert "paranoid" not in checks[name].detail
        assert "--cap-add=PERFMON" in checks[name].fix


def test_hidden_symbols(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("0000000000000000 T do_madvise\n")
    monkeypatch.setattr(classify, "KALLSYMS", str(tmp_path / "kallsyms"))
    check = by_id(diagnose(None).checks)["kernel-symbols"]
    assert not check.ok
    assert "sysctl kernel.kptr_restrict=0" in check.fix


def test_stripped_programs_and_missing_py_spy(
    compiled: Callable[..., Path], run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "py_spy", lambda: None)
    with run(compiled("workload", "-s"), "compute") as target:
        checks = by_id(diagnose(target.pid).checks)
    assert not checks["symbols"].ok
    assert "workload--s" in checks["symbols"].detail or "workload-s" in checks["symbols"].detail
    assert checks["py-spy"].fix == "pip install py-spy"


def test_python_programs(run: Callable[..., Any]) -> None:
    with run(sys.executable, Path(__file__).parent / "targets" / "prover.py") as target:
        check = by_id(diagnose(target.pid).checks)["python-exact"]
    assert not check.ok
    assert "PYTHONPERFSUPPORT=1" in check.fix


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", str(os.getpid())]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "Measured by" in text
    assert cli.main(["doctor", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "zkprof-doctor/1"
    assert data["tier"] in set(Tier)
    assert {"id", "ok", "detail", "fix"} == set(data["checks"][0])


def test_targets_that_cannot_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert cli.main(["doctor", str(ended.pid)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no process" in error
