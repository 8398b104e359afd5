# SPDX-License-Identifier: MIT OR Apache-2.0
"""Faults on huge pages are counted by what they bring, and others are not taken for them."""

from __future__ import annotations

import mmap
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from zkprof import huge
from zkprof.calibrate import huge_page_ns
from zkprof.huge import HugeFaults
from zkprof.procfs import NoSuchProcessError

if TYPE_CHECKING:
    from zkprof.family import Family

PAGE = os.sysconf("SC_PAGESIZE")
HUGE = 2 << 20
BUFFER = 32 * HUGE


class Prover:
    """At each look another buffer came or went; so many bytes came with each fault."""

    def __init__(self, pid: int, bytes_a_fault: int) -> None:
        self.pid = pid
        self.bytes_a_fault = bytes_a_fault
        self.came = 0
        self.there = False
        self.looked = False

    def read(self, name: str) -> bytes:
        assert name == "statm"
        if self.looked:
            self.there = not self.there
            self.came += self.there
        self.looked = True
        anonymous = 1000 + self.there * BUFFER // PAGE
        return f"999999 {anonymous + 77} 77 1 0 999 0\n".encode()

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(minor_faults=5 + self.came * BUFFER // self.bytes_a_fault)


class Gone(Prover):
    def read(self, name: str) -> bytes:
        raise NoSuchProcessError(name)


def watching(monkeypatch: pytest.MonkeyPatch, *members: Prover, page_bytes: int) -> HugeFaults:
    monkeypatch.setattr(huge, "huge_page_bytes", lambda: page_bytes)
    return HugeFaults(cast("Family", SimpleNamespace(members=list(members))))


def test_what_comes_in_huge_pages_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    provers = Prover(1, HUGE), Prover(2, HUGE), Gone(3, HUGE)
    faults = watching(monkeypatch, *provers, page_bytes=HUGE)
    took = faults.burst(0.05)
    came = sum(prover.came for prover in provers)
    assert came >= 2
    assert faults.count(took)[1] == pytest.approx(came * BUFFER / HUGE, rel=0.01)
    assert faults.count(10 * took)[1] == pytest.approx(10 * came * BUFFER / HUGE, rel=0.01)
    assert faults.count(took)[0] == 0, "one burst says nothing about the others"
    assert faults.burst(0.05) == 0, "not so soon again"


def test_small_pages_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    prover = Prover(1, PAGE)
    faults = watching(monkeypatch, prover, page_bytes=HUGE)
    assert faults.burst(0.05) > 0
    assert prover.came
    assert faults.count(10.0) == (0, 0)


def test_nothing_is_looked_for_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    prover = Prover(1, HUGE)
    faults = watching(monkeypatch, prover, page_bytes=0)
    assert faults.burst(0.05) == 0
    assert not prover.looked
    assert faults.count(10.0) == (0, 0)


def test_small_pages_are_not_priced_as_huge_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", mmap.MADV_NOHUGEPAGE)
    assert huge_page_ns.__wrapped__(HUGE) == 0
