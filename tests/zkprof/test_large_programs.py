# SPDX-License-Identifier: MIT OR Apache-2.0
"""What takes long with a large program is done once, and before samples pile up.

A ring holds a third of a second of samples; on a busy machine node's 100 MB take longer to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.zkprof.conftest import possible
from zkprof import sampled, target
from zkprof.measure import measure
from zkprof.model import Tier
from zkprof.symbols import Module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WINDOW_S = 2.5
"""Long enough that the program is looked at again, twice."""


def test_its_file_is_read_before_anything_is_sampled(
    monkeypatch: pytest.MonkeyPatch, compiled: Callable[..., Path], run: Callable[..., Any]
) -> None:
    if reason := possible(Tier.KERNEL):
        pytest.skip(reason)
    program = compiled("workload")
    done: list[str] = []

    def note(where: object, name: str, what: Callable[..., str]) -> None:
        real = getattr(where, name)

        def noted(*args: Any, **named: Any) -> Any:  # noqa: ANN401
            done.append(what(*args))
            return real(*args, **named)

        monkeypatch.setattr(where, name, noted)

    monkeypatch.setattr(target, "_inspected", {})
    note(target, "inspect_elf", lambda _: "inspected")
    note(Module, "_read_functions", lambda module: f"names of {module.name}")
    note(sampled, "open_sampler", lambda *_: "sampling")
    with run(program, "faults") as process:
        m = measure(process.pid, WINDOW_S, tier=Tier.KERNEL)
    assert m.method.samples
    assert m.duration_s > 2.0
    before = done[: done.index("sampling")]
    assert before.count("inspected") == 1
    assert before.count(f"names of {program.name}") == 1
    assert done.count("inspected") == 1
    assert done.count(f"names of {program.name}") == 1
