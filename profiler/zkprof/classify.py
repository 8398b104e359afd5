# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a kernel call chain was doing: every chain is of exactly one `Kind`.

Which functions play which role and which roles make which kind is data, in
``kernel_symbols.toml`` beside this file.  Here the data is checked and handed
to C, which finds the functions' addresses and classifies samples while they
are read (`sampler`).
"""

from __future__ import annotations

import errno
import os
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

from ._native import ffi, lib
from .model import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

KINDS: tuple[Kind, ...] = tuple(Kind)
"""Kinds by the number that stands for each on the C side."""

KALLSYMS = "/proc/kallsyms"

ATTRIBUTED_FAULTS: tuple[Kind, ...] = (
    Kind.FAULT_ANON,
    Kind.FAULT_FILE,
    Kind.FAULT_COW,
    Kind.FAULT_SWAP,
    Kind.FAULT_NUMA,
)
"""What `Kind.FAULT_OTHER` may have been."""


class NoKernelSymbolsError(Exception):
    """The kernel does not tell this user where its functions are."""


@dataclass(frozen=True)
class Rules:
    """The data file, checked: roles are bits, overlays the lowest of them."""

    overlays: tuple[str, ...]
    roles: Mapping[str, int]
    """The bit that stands for each role."""
    entry_roles: int
    symbols: Mapping[str, int]
    rules: tuple[tuple[int, Kind], ...]

    @property
    def overlay_roles(self) -> int:
        """The roles that are overlays."""
        return (1 << len(self.overlays)) - 1


def parse_rules(text: str) -> Rules:
    """Read rules written as in ``kernel_symbols.toml``.

    Raises
    ------
    KeyError, ValueError
        A rule names a role or a kind that does not exist.
    """
    data: dict[str, Any] = tomllib.loads(text)
    overlays: list[str] = data["overlays"]
    names = overlays + [role for role in data["roles"] if role not in overlays]
    if len(overlays) > 32 or len(names) > 64:
        msg = "at most 32 overlays and 64 roles"
        raise ValueError(msg)
    bit = {role: 1 << i for i, role in enumerate(names)}

    symbols: dict[str, int] = {}
    for role, functions in data["roles"].items():
        for function in functions:
            symbols[function] = symbols.get(function, 0) | bit[role]
    # C takes a function's exact name first, and only then one with a '*':
    # what plays both must have the roles of both.
    for pattern in [name for name in symbols if name.endswith("*")]:
        for name in symbols:
            if name != pattern and name.startswith(pattern[:-1]):
                symbols[name] |= symbols[pattern]

    def roles(wanted: Iterable[str]) -> int:
        return sum(bit[role] for role in set(wanted))

    rules = tuple((roles(rule["roles"]), Kind(rule["kind"])) for rule in data["rules"])
    return Rules(tuple(overlays), bit, roles(data["entries"]), symbols, rules)


@cache
def default_rules() -> Rules:
    """Return the rules that this package ships."""
    data = resources.files(__package__).joinpath("kernel_symbols.toml")
    return parse_rules(data.read_text(encoding="utf-8"))


class Classifier:
    """Rules together with the addresses that one kernel has its functions at.

    Parameters
    ----------
    kallsyms
        The kernel's list of symbols; None for /proc/kallsyms.
    rules
        What the symbols mean; None for the rules of this package.

    Raises
    ------
    NoKernelSymbolsError
        The list hides its addresses, or has none that the rules know.
    """

    learned = False
    """Whether the addresses were learned (`learn`): overlays are not known then."""

    def __init__(self, kallsyms: str | None = None, rules: Rules | None = None) -> None:
        kallsyms = kallsyms or KALLSYMS
        self.rules = rules = rules or default_rules()
        names = [ffi.new("char[]", name.encode()) for name in rules.symbols]
        symbols = ffi.new(
            "zkp_symbol_t[]",
            list(zip(names, rules.symbols.values(), strict=True)),
        )
        table = ffi.new("zkp_rule_t[]", [(roles, KINDS.index(kind)) for roles, kind in rules.rules])
        out = ffi.new("zkp_classifier_t **")
        rc = lib.zkp_classifier_new(
            os.fsencode(kallsyms),
            symbols,
            len(names),
            table,
            len(rules.rules),
            KINDS.index(Kind.KERNEL),
            out,
        )
        if rc == -errno.EPERM:
            msg = (
                f"{kallsyms} shows no addresses to this user: "
                "sudo sysctl kernel.perf_event_paranoid=1 kernel.kptr_restrict=0, or run as root"
            )
            raise NoKernelSymbolsError(msg)
        if rc == -errno.ENODATA:
            msg = f"{kallsyms} has none of the functions looked for"
            raise NoKernelSymbolsError(msg)
        if rc:
            msg = f"{kallsyms}: {os.strerror(-rc)}"
            raise NoKernelSymbolsError(msg)
        self.handle = ffi.gc(out[0], lib.zkp_classifier_free)

    @classmethod
    def from_calls(cls, roles: Mapping[int, int]) -> Self:
        """Make a classifier from addresses that kernel functions return to.

        Parameters
        ----------
        roles
            The roles of the calls that return to each address.
        """
        self = cls.__new__(cls)
        self.rules = rules = default_rules()
        table = ffi.new("zkp_rule_t[]", [(r, KINDS.index(kind)) for r, kind in rules.rules])
        out = ffi.new("zkp_classifier_t **")
        rc = lib.zkp_classifier_from_calls(
            ffi.new("uint64_t[]", list(roles)),
            ffi.new("uint64_t[]", list(roles.values())),
            len(roles),
            table,
            len(rules.rules),
            KINDS.index(Kind.KERNEL),
            out,
        )
        if rc:
            raise MemoryError
        self.handle = ffi.gc(out[0], lib.zkp_classifier_free)
        self.learned = True
        return self

    def __len__(self) -> int:
        """Return how many functions were found."""
        return int(lib.zkp_classifier_size(self.handle))

    def classify(self, chain: Sequence[int]) -> tuple[Kind, frozenset[str]]:
        """Return the kind and the overlays of a chain, innermost address first."""
        roles = lib.zkp_classifier_roles(self.handle, ffi.new("uint64_t[]", chain), len(chain))
        return KINDS[lib.zkp_classifier_kind(self.handle, roles)], self.overlays(roles)

    def overlays(self, roles: int) -> frozenset[str]:
        """Return the names of the overlays among `roles`."""
        return frozenset(name for i, name in enumerate(self.rules.overlays) if roles >> i & 1)
