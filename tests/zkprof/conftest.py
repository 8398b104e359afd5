# SPDX-License-Identifier: MIT OR Apache-2.0
"""Targets for zkprof: small C programs whose behaviour is known."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import platform
import pwd
import shutil
import struct
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.classify import Classifier, NoKernelSymbolsError
from zkprof.model import Tier
from zkprof.sampler import PerfUnavailableError, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
INCLUDE = HERE.parents[1] / "libzknalloc" / "include"
FLAGS = ["-std=gnu11", "-O2", "-fno-omit-frame-pointer", "-pthread", "-D_GNU_SOURCE"]


class Compiler:
    """Compiles the programs in targets/ into a folder that every user may read."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        # pytest's own folders are for their owner alone.
        self.folder.chmod(0o755)

    def __call__(self, name: str, *flags: str) -> Path:
        program = self.folder / "-".join([name, *(f.strip("-") for f in flags)])
        if not program.exists():
            source = HERE / "targets" / f"{name}.c"
            command = [os.environ.get("CC", "cc"), *FLAGS, f"-I{INCLUDE}", str(source)]
            subprocess.run([*command, "-o", str(program), *flags], check=True)
        return program


@pytest.fixture(scope="session")
def compiled() -> Iterator[Compiler]:
    with TemporaryDirectory(prefix="zkprof-targets-") as folder:
        yield Compiler(folder)


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return a function that runs a program with parts of the extension in it, sanitized."""
    folder = tmp_path_factory.mktemp("native")
    sources = HERE.parents[1] / "profiler" / "native"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [os.environ.get("CC", "cc"), "-std=gnu11", "-g", "-O1", *sanitize, f"-I{sources}"]

    def run(name: str, *parts: str, arguments: tuple[str, ...] = ()) -> str:
        program = folder / name
        if not program.exists():
            files = [HERE / "targets" / f"{name}.c"]
            files += [sources / f"{part}.c" for part in parts]
            built = subprocess.run(
                [*command, "-D_GNU_SOURCE", *map(str, files), "-o", str(program)],
                capture_output=True,
                text=True,
                check=False,
            )
            if "cannot find" in built.stderr:
                pytest.skip("the compiler has no sanitizers")
            assert built.returncode == 0, built.stderr
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@contextmanager
def running(*command: str | Path, user: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a target from its first line of output to the end of the block."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
    )
    with process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def run() -> Callable[..., Any]:
    return running


def as_other(function: Callable[[], Any], prepare: Callable[[], None]) -> Any:  # noqa: ANN401
    """Return what `function` returns, or raise what it raises, in a changed child.

    The child is forked, so that everything is imported before it gives up its
    privileges, whatever it may not read any more then.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read_end)
            prepare()
            result: tuple[bool, Any] = (True, function())
        except BaseException as error:  # noqa: BLE001  (handed to the parent)
            result = (False, error)
        try:
            with os.fdopen(write_end, "wb") as pipe:
                pickle.dump(result, pipe)
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    ok, value = pickle.loads(data)
    if not ok:
        raise value
    return value


@pytest.fixture
def in_child() -> Callable[..., Any]:
    return as_other


def become_nobody() -> None:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
    os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)


@pytest.fixture
def drop() -> Callable[[], None]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    return become_nobody


def deny(call: int) -> None:
    """Let a system call fail with EPERM from now on, as a container's seccomp filter does."""
    load, equal, answer = 0x20, 0x15, 0x06
    allow, fail = 0x7FFF0000, 0x00050000 | errno.EPERM
    steps = [(load, 0, 0, 0), (equal, 0, 1, call), (answer, 0, 0, fail), (answer, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    no_new_privileges, set_seccomp, filter_ = 38, 22, 2
    if prctl(no_new_privileges, 1, 0, 0, 0) or prctl(set_seccomp, filter_, program):
        raise OSError(ctypes.get_errno(), "no seccomp filter can be set")


@pytest.fixture
def refuse_perf() -> Callable[[], None]:
    return lambda: deny({"x86_64": 298, "aarch64": 241}[platform.machine()])


@pytest.fixture(scope="session")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "big"
    # Page by page: a large write may make large folios, where memory is not fragmented,
    # of which one fault maps all: 16 faults in 32 MiB instead of 512.
    with path.open("wb", buffering=0) as stream:
        for _ in range((32 << 20) // 4096):
            stream.write(os.urandom(4096))
    return path


@pytest.fixture(scope="session")
def cmake() -> str:
    found = shutil.which("cmake")
    if not found:
        pytest.skip("cmake is not installed")
    return found


def possible(tier: Tier) -> str | None:
    """Say why a tier is not possible here, None if it is."""
    try:
        if tier is Tier.KERNEL:
            Sampler(os.getpid(), classifier=Classifier()).close()
        elif tier is Tier.USER:
            Sampler(os.getpid()).close()
    except (PerfUnavailableError, NoKernelSymbolsError) as error:
        return str(error)
    return None


@pytest.fixture(params=list(Tier), ids=str)
def tier(request: pytest.FixtureRequest) -> Tier:
    """Return each tier in turn; skip those that are not possible here."""
    tier = Tier(request.param)
    if reason := possible(tier):
        pytest.skip(reason)
    return tier
