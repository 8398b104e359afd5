# SPDX-License-Identifier: MIT OR Apache-2.0
"""Help, manual page and completion: all of them know every command and option."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from zkprof.cli import main, parser

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
MANUAL = ROOT / "profiler" / "zkprof.1"


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def options(of: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in of._actions:
        if action.option_strings and action.dest != "help":
            yield action


def plain(roff: str) -> str:
    """Return the words of a manual page."""
    text = re.sub(r"\\f[BIR]|\\,|\\/", "", roff)
    return " ".join(text.replace("\\-", "-").split())


def test_the_manual_page_is_up_to_date() -> None:
    text = plain(MANUAL.read_text("utf-8"))
    hint = "run profiler/man.sh"
    for name, command in commands().items():
        assert f"zkprof {name}" in text, hint
        for option in options(command):
            assert all(spelling in text for spelling in option.option_strings), hint
            words = " ".join((option.help or "").split())
            assert words in text, hint
    known = {s for c in commands().values() for o in options(c) for s in o.option_strings}
    for word in re.findall(r"(?<!\S)--[a-z-]+", text):
        assert word in known | {"--version", "--help", "--"}, hint
    assert " 10 a condition of --fail-on is met" in text


def test_the_manual_page_is_sound() -> None:
    if not shutil.which("groff"):
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", MANUAL], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize("name", [None, *commands()])
def test_help_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main([*([name] if name else []), "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    if name:
        for option in options(commands()[name]):
            assert option.option_strings[-1] in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_valid(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in commands():
        assert name in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("zkprof comp", {"compare", "completion"}),
        ("zkprof report --h", {"--help", "--html"}),
        ("zkprof completion z", {"zsh"}),
        ("zkprof stats --w", {"--watch"}),
    ],
)
def test_bash_completes(typed: str, completed: set[str]) -> None:
    words = typed.split()
    code = f"""
        source <({sys.executable} -m zkprof completion bash)
        COMP_WORDS=({typed})
        COMP_CWORD={len(words) - 1}
        "$(complete -p zkprof | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert set(done.stdout.split()) == completed


def test_completion_of_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["completion", "csh"])
    assert end.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
