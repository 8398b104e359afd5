# SPDX-License-Identifier: MIT OR Apache-2.0
"""The command zk-nalloc: what it starts, what it says, how it exits."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zk_nalloc
from zk_nalloc import _preload, cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

PRELOAD = str(zk_nalloc.preload_path())


@pytest.fixture
def zk_nalloc_command(python: Callable[..., CompletedProcess[str]]) -> Command:
    """Return a function that runs `zk-nalloc` with its arguments."""

    def run(*args: str, **environ: str) -> CompletedProcess[str]:
        return python("-m", "zk_nalloc.cli", *args, **environ)

    return run


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


# -------------------------------------------------------------------- run


def test_run_preloads_and_keeps_what_is_there(zk_nalloc_command: Command) -> None:
    libm = "libm.so.6"
    done = zk_nalloc_command("run", "--", "sh", "-c", "echo $LD_PRELOAD", LD_PRELOAD=libm)
    assert (done.stdout, done.stderr) == (f"{PRELOAD}:{libm}\n", "")


def test_run_puts_the_command_on_the_cache(zk_nalloc_command: Command) -> None:
    code = """if True:
        import zk_nalloc
        before = zk_nalloc.stats()
        for _ in range(8): bytearray(1 << 20)
        after = zk_nalloc.stats()
        print(after.frees - before.frees >= 8, after.hits - before.hits >= 7)
    """
    done = zk_nalloc_command("run", "--", sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_run_sets_the_ceiling(zk_nalloc_command: Command) -> None:
    done = zk_nalloc_command(
        "run", "--cache", "512M", "--", "sh", "-c", "echo $ZK_NALLOC_CACHE_BYTES"
    )
    assert done.stdout == "512M\n"


def test_run_prints_statistics_at_exit(zk_nalloc_command: Command) -> None:
    done = zk_nalloc_command("run", "--stats", "--", sys.executable, "-c", "bytearray(1 << 20)")
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(lines) == 1
    assert lines[0]["misses"] >= 1


def test_statistics_and_messages_share_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = f"{sys.executable} -c 'bytearray(1 << 20)'"
    script = f"echo before >&2; {child}; echo after >&2"
    with log.open("w") as stderr:
        command = [
            sys.executable,
            "-m",
            "zk_nalloc.cli",
            "run",
            "--stats",
            "--",
            "sh",
            "-c",
            script,
        ]
        subprocess.run(command, stderr=stderr, check=True, cwd=tmp_path)
    lines = log.read_text().splitlines()
    assert lines[0] == "before"
    assert json.loads(lines[1])["misses"] >= 1
    assert lines[2] == "after"


def test_run_hands_on_arguments_and_exit_code(zk_nalloc_command: Command) -> None:
    code = "import sys; print(sys.argv[1:]); sys.exit(7)"
    done = zk_nalloc_command("run", "--", sys.executable, "-c", code, "--", "--cache", "a b", "")
    assert done.stdout == "['--', '--cache', 'a b', '']\n"
    assert done.returncode == 7


def test_run_without_dashes(zk_nalloc_command: Command) -> None:
    assert zk_nalloc_command("run", "echo", "--stats").stdout == "--stats\n"


def test_run_replaces_itself() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "zk_nalloc.cli", "run", "--", "sh", "-c", "echo $$"],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["run"], 2, "no command given; write zk-nalloc run -- CMD"),
        (["run", "--"], 2, "no command given; write zk-nalloc run -- CMD"),
        (["run", "--cache", "lots", "--", "true"], 2, "'lots' is not a size; write bytes"),
        (["run", "--", "no-such-command"], 127, "no-such-command: command not found"),
        (["run", "--", "/no/such/command"], 127, "/no/such/command: command not found"),
        (["run", "--", "/"], 126, "/ is a directory"),
        (["run", "--", "/etc/passwd"], 126, "/etc/passwd is not executable; try chmod +x"),
        (["config"], 2, "say what to print: --cflags, --libs"),
        ([], 2, "the following arguments are required: COMMAND"),
    ],
)
def test_errors(zk_nalloc_command: Command, args: list[str], code: int, text: str) -> None:
    done = zk_nalloc_command(*args)
    assert done.returncode == code
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("zk-nalloc")
    assert text in last


def test_run_explains_what_the_kernel_refuses(zk_nalloc_command: Command, tmp_path: Path) -> None:
    for text, reason in [("echo hello\n", "#!/bin/sh"), ("#!/no/such/sh\n", "interpreter")]:
        done = zk_nalloc_command("run", "--", script(tmp_path / "script", text))
        assert done.returncode == 126
        assert reason in done.stderr


def test_run_drops_older_copies_of_itself() -> None:
    environ = _preload.environment(
        Path("/new/libzknalloc_preload.so"),
        {"LD_PRELOAD": "a.so /old/libzknalloc_preload.so:b.so ", "HOME": "/"},
    )
    assert environ == {"LD_PRELOAD": "/new/libzknalloc_preload.so:a.so:b.so", "HOME": "/"}


@pytest.mark.parametrize("path", ["/with space/lib.so", "/with:colon/lib.so"])
def test_run_refuses_paths_that_the_loader_splits(path: str) -> None:
    with pytest.raises(ValueError, match="no space or colon"):
        _preload.environment(Path(path), {})


# --------------------------------------------------------------- warnings


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that compiles an empty program with some flags."""
    folder = tmp_path_factory.mktemp("programs")
    source = folder / "main.c"
    source.write_text("int main(void) { return 0; }\n")

    def build(name: str, *flags: str) -> Path:
        subprocess.run(["cc", *flags, source, "-o", folder / name], check=True)
        return folder / name

    return build


def test_no_warning_about_an_ordinary_program(compiled: Callable[..., Path]) -> None:
    assert list(_preload.warnings_about(compiled("dynamic"))) == []


@pytest.mark.parametrize("flag", ["-static", "-static-pie"])
def test_warning_about_static_programs(
    compiled: Callable[..., Path], zk_nalloc_command: Command, flag: str
) -> None:
    program = compiled(f"linked{flag}", flag)
    done = zk_nalloc_command("run", "--", str(program))
    assert done.returncode == 0
    assert "zk-nalloc: warning: " in done.stderr
    assert "is statically linked, so LD_PRELOAD has no effect" in done.stderr


def test_warning_about_setuid_programs(compiled: Callable[..., Path]) -> None:
    program = compiled("setuid")
    program.chmod(0o4755)
    (warning,) = _preload.warnings_about(program)
    assert "gains privileges" in warning


def test_scripts_are_judged_by_their_interpreter(
    compiled: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compiled("interpreter", "-static")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    for first in (
        f"#!{program}",
        "#!/usr/bin/env interpreter",
        "#! /usr/bin/env -S interpreter -u",
    ):
        path = Path(script(tmp_path / "script", first + "\n"))
        (warning,) = _preload.warnings_about(path)
        assert "statically linked" in warning


@pytest.mark.parametrize("content", [b"", b"#!", b"#!/no/such\n", b"\x7fELF", b"\x7fELF" * 20])
def test_damaged_programs_are_left_to_the_kernel(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    assert list(_preload.warnings_about(path)) == []
    assert list(_preload.warnings_about(tmp_path / "missing")) == []


# ----------------------------------------------------------------- config


def test_config_builds_a_program(zk_nalloc_command: Command, tmp_path: Path, root: Path) -> None:
    """As the help says: cc prover.c $(zk-nalloc config --cflags --libs)."""
    done = zk_nalloc_command("config", "--cflags", "--libs")
    assert done.returncode == 0
    program = tmp_path / "program"
    source = root / "tests/consumer/prover.c"
    subprocess.run(["cc", source, "-o", program, *shlex.split(done.stdout)], check=True)
    assert subprocess.run([program], check=False, cwd=tmp_path).returncode == 0


def test_config_names_what_exists(zk_nalloc_command: Command) -> None:
    for flag, file in [
        ("--preload", "."),
        ("--cmakedir", "zknallocConfig.cmake"),
        ("--pkgconfigdir", "zknalloc.pc"),
        ("--prefix", "include/zknalloc.h"),
    ]:
        path = zk_nalloc_command("config", flag).stdout.rstrip("\n")
        assert (Path(path) / file if file != "." else Path(path)).is_file()
    assert zk_nalloc_command("config", "--version").stdout == f"{zk_nalloc.version}\n"
    assert zk_nalloc_command("--version").stdout == f"zk-nalloc {zk_nalloc.version}\n"


def test_console_script_is_installed() -> None:
    command = shutil.which("zk-nalloc", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run(
        [command, "--version"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout == f"zk-nalloc {zk_nalloc.version}\n"


def test_main_returns_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--version"]) == 0
    assert capsys.readouterr().out == f"{zk_nalloc.version}\n"
