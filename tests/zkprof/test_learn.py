# SPDX-License-Identifier: MIT OR Apache-2.0
"""Kernel call chains are classified without the kernel's symbols."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zkprof import classify
from zkprof.classify import Classifier, NoKernelSymbolsError, default_rules
from zkprof.learn import learn_roles, learned_classifier
from zkprof.measure import measure
from zkprof.model import Kind, Tier
from zkprof.sampler import PerfUnavailableError, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

# Addresses of a made-up kernel.
ENTRY, FAULT, HANDLE, COMMON = 1, 2, 3, 4
ANON, COW, FILE, UNMAP, MMAP, POPULATE = 10, 11, 12, 13, 14, 15


def test_what_is_typical_is_learned() -> None:
    faults = [
        (role, [(COMMON, HANDLE, FAULT)] * 50 + [(where, HANDLE, FAULT)] * 50 + [(ENTRY,)])
        for role, where in (("anon", ANON), ("cow", COW), ("file", FILE))
    ]
    calls = [
        ("unmap", [(COMMON, UNMAP, ENTRY)] * 100),
        ("mmap", [(MMAP, ENTRY)] * 100),
        ("populate", [(COMMON, HANDLE, POPULATE, MMAP, ENTRY)] * 100),
        ("", [(ENTRY,)] * 100),
    ]
    bit = default_rules().roles
    assert learn_roles(faults, calls) == {
        ENTRY: bit["entry"],
        FAULT: bit["fault"],
        ANON: bit["anon"],
        COW: bit["cow"],
        FILE: bit["file"],
        UNMAP: bit["unmap"],
        MMAP: bit["mmap"],
        POPULATE: bit["populate"],
    }


def test_addresses_are_classified() -> None:
    bit = default_rules().roles
    classifier = Classifier.from_calls(
        {0x1000: bit["fault"], 0x2000: bit["anon"], 0x3000: bit["unmap"]}
    )
    assert len(classifier) == 3
    assert classifier.classify([5, 0x2000, 0x1000])[0] is Kind.FAULT_ANON
    assert classifier.classify([5, 0x1000])[0] is Kind.FAULT_OTHER
    assert classifier.classify([5, 0x3000])[0] is Kind.UNMAP
    assert classifier.classify([5, 0x3001])[0] is Kind.KERNEL
    # The innermost address is where the CPU is, not where a call returns to.
    assert classifier.classify([0x3000])[0] is Kind.KERNEL


@pytest.fixture
def hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that hides its symbols but not its call chains."""
    try:
        Sampler(os.getpid(), learn=True).close()
    except PerfUnavailableError as error:
        pytest.skip(str(error))
    (tmp_path / "kallsyms").write_text("0000000000000000 T do_madvise\n" * 10)
    monkeypatch.setattr(classify, "KALLSYMS", str(tmp_path / "kallsyms"))


def test_a_learned_classifier_agrees_with_symbols(hidden: None) -> None:
    """Every chain that one sampler takes of this process, by both."""
    del hidden
    learned = learned_classifier()
    assert learned.learned
    assert len(learned) > 10
    with pytest.raises(NoKernelSymbolsError):
        Classifier()


@pytest.mark.usefixtures("hidden")
def test_measuring_with_hidden_symbols(
    compiled: Callable[..., Path], run: Callable[..., Any], big_file: Path
) -> None:
    def shares(*command: str | Path) -> Callable[..., float]:
        with run(compiled("workload"), *command) as target:
            m = measure(target.pid, 2.5, 997.0, tier=Tier.KERNEL)
        assert any("hidden" in n or "own calls" in n for n in m.method.notes)
        assert m.overlays == {}
        assert not any("do not know" in n or "does not know" in n for n in m.method.notes)
        return lambda *kinds: sum(m.classes[k].seconds for k in kinds) / m.cpu_s

    of = shares("faults")
    assert of(Kind.FAULT_ANON) > 0.6
    assert of(Kind.UNMAP) > 0.03
    assert of(Kind.FAULT_FILE, Kind.FAULT_COW, Kind.PREFAULT, Kind.MADVISE) < 0.05
    of = shares("file", big_file)
    assert of(Kind.FAULT_FILE) > 0.15
    assert of(Kind.FAULT_ANON) < 0.05
    of = shares("populate")
    assert of(Kind.PREFAULT) > 0.5
    of = shares("madvise")
    assert of(Kind.MADVISE) > 0.03
    assert of(Kind.UNMAP) < 0.02
    of = shares("compute")
    assert of(Kind.USER) > 0.8
