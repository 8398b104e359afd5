# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every kernel call chain is of exactly the kind that it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from zkprof.classify import (
    KALLSYMS,
    Classifier,
    NoKernelSymbolsError,
    default_rules,
    parse_rules,
)
from zkprof.model import Kind

STACKS = Path(__file__).parent / "stacks"


def chains(path: Path) -> list[tuple[str, frozenset[str], list[str]]]:
    found = []
    for line in path.read_text().splitlines():
        head, chain = line.split(":")
        kind, *overlays = head.split()
        found.append(
            (
                kind,
                frozenset(o.removeprefix("+") for o in overlays),
                [f.strip() for f in chain.split("<")],
            )
        )
    return found


FILES = sorted(STACKS.glob("*.txt"))
GOLDEN = [
    pytest.param(path, *chain, id=f"{path.stem}-{i}")
    for path in FILES
    for i, chain in enumerate(chains(path), 1)
]


class Kernel:
    """A made-up kernel: functions of 256 bytes, 4 KiB apart, nothing between."""

    def __init__(self, names: list[str], folder: Path) -> None:
        self.address = {name: 0xFFFFFFFF81000000 + i * 4096 for i, name in enumerate(names)}
        lines = []
        for name, address in self.address.items():
            lines.append(f"{address:016x} t {name}\n")
            lines.append(f"{address + 256:016x} t filler\n")
        self.path = folder / "kallsyms"
        self.path.write_text("".join(lines))
        self.classifier = Classifier(str(self.path))

    def chain(self, names: list[str]) -> list[int]:
        inside = [self.address[name] + 0x10 for name in names]
        return inside[:1] + [address + 5 for address in inside[1:]]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Kernel]:
    made = {}
    for path in FILES:
        names = sorted({name for _, _, chain in chains(path) for name in chain})
        made[path] = Kernel(names, tmp_path_factory.mktemp(path.stem))
    return made


@pytest.mark.parametrize(("path", "kind", "overlays", "names"), GOLDEN)
def test_golden_chain(
    kernels: dict[Path, Kernel], path: Path, kind: str, overlays: frozenset[str], names: list[str]
) -> None:
    kernel = kernels[path]
    assert kernel.classifier.classify(kernel.chain(names)) == (Kind(kind), overlays)


def test_golden_chains_cover_every_kind_of_the_kernel() -> None:
    seen = {kind for path in FILES for kind, _, _ in chains(path)}
    assert seen == set(Kind) - {Kind.USER}


@pytest.mark.parametrize(("path", "kind", "overlays", "names"), GOLDEN)
def test_every_golden_chain_has_a_known_entry(
    path: Path, kind: str, overlays: frozenset[str], names: list[str]
) -> None:
    rules = default_rules()
    exact = {name.split(".")[0] for name in names}
    patterns = [
        s[:-1] for s, r in rules.symbols.items() if s.endswith("*") and r & rules.entry_roles
    ]
    assert any(rules.symbols.get(name, 0) & rules.entry_roles for name in exact) or any(
        name.startswith(tuple(patterns)) for name in exact
    ), (path, kind, overlays)


def test_return_address_after_a_final_call_belongs_to_the_caller(tmp_path: Path) -> None:
    kernel = Kernel(["leaf", "do_madvise", "do_syscall_64"], tmp_path)
    end = kernel.address["do_madvise"] + 256
    leaf = kernel.address["leaf"]
    assert kernel.classifier.classify([leaf, end])[0] is Kind.MADVISE
    # The innermost address is where the CPU is, not where a call returns to.
    assert kernel.classifier.classify([end, leaf])[0] is Kind.KERNEL


def test_suffixes_and_modules_and_aliases(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(
        "ffffffff81000000 t do_madvise.part.0.cold\n"
        "ffffffff81000000 t another_name_for_it\n"
        "ffffffff81000100 T end\n"
        "ffffffffc0000000 t asm_sysvec_of_a_module\t[module]\n"
        "ffffffffc0000100 t unmap_region_not\n"
        "ffffffff81000200 D do_anonymous_page\n"
    )
    classifier = Classifier(str(tmp_path / "k"))
    assert len(classifier) == 2
    assert classifier.classify([0xFFFFFFFF810000FF])[0] is Kind.MADVISE
    assert classifier.classify([0xFFFFFFFF81000100])[0] is Kind.KERNEL
    assert classifier.classify([0xFFFFFFFF81000200])[0] is Kind.KERNEL
    assert classifier.classify([0xFFFFFFFFC0000100])[0] is Kind.KERNEL
    assert classifier.classify([])[0] is Kind.KERNEL


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0000000000000000 T _text\n0000000000000000 T do_madvise\n", "shows no addresses"),
        ("ffffffff81000000 T unheard_of\n", "none of the functions"),
        ("\0\xff not a symbol list\n" * 3, "shows no addresses"),
        ("", "none of the functions"),
    ],
)
def test_symbol_lists_of_no_use(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "k").write_text(text)
    with pytest.raises(NoKernelSymbolsError, match=message):
        Classifier(str(tmp_path / "k"))


def test_missing_symbol_list() -> None:
    with pytest.raises(NoKernelSymbolsError, match="No such file"):
        Classifier("/nowhere/kallsyms")


def test_rules_that_name_no_role_or_kind() -> None:
    head = 'overlays = []\nentries = []\n[roles]\na = ["f"]\n[[rules]]\n'
    with pytest.raises(KeyError):
        parse_rules(head + 'kind = "kernel"\nroles = ["b"]\n')
    with pytest.raises(ValueError, match="nonsense"):
        parse_rules(head + 'kind = "nonsense"\nroles = ["a"]\n')


def test_a_pattern_adds_its_roles_to_exact_names() -> None:
    rules = default_rules()
    both = rules.symbols["asm_exc_page_fault"]
    assert both & rules.symbols["asm_exc_*"] == rules.symbols["asm_exc_*"]
    assert both & rules.symbols["do_user_addr_fault"]


def test_this_kernel_is_known() -> None:
    try:
        classifier = Classifier(KALLSYMS)
    except NoKernelSymbolsError as error:
        pytest.skip(str(error))
    assert len(classifier) > 30
