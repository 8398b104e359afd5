# SPDX-License-Identifier: MIT OR Apache-2.0
"""Secrets: each promise checked from outside, by the kernel, a core dump or another process.

Whoever searches memory for a secret must not leave copies of it there: the
processes that are searched fill their secrets in place, byte by byte, and only
the searcher builds the whole text.
"""

from __future__ import annotations

import contextlib
import copy
import doctest
import gc
import mmap
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from zk_nalloc import SecretBuf

PAGE = mmap.PAGESIZE

# What the programs below share.  fill(): bytes that depend on a salt.
PRELUDE = """if True:
    import ctypes, gc, os, resource, signal, struct, sys
    import zk_nalloc
    from zk_nalloc import SecretBuf

    def fill(buffer, salt):
        with memoryview(buffer) as view:
            for i in range(len(view)):
                view[i] = 1 + (i * i * 7 + i * salt) % 251

    def no_memfd():
        # A filter of system calls that answers number 447 with ENOSYS.
        libc = ctypes.CDLL(None, use_errno=True)
        code = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 447,
                           0x06, 0, 0, 0x00050000 | 38, 0x06, 0, 0, 0x7FFF0000)
        text = ctypes.create_string_buffer(code)
        program = struct.pack("HxxxxxxP", 4, ctypes.addressof(text))
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, program) == 0

    def unprivileged(limit):
        # RLIMIT_MEMLOCK, and no CAP_IPC_LOCK (14), which overrides it.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
        libc = ctypes.CDLL(None, use_errno=True)
        header = struct.pack("Ii", 0x20080522, 0)
        sets = (ctypes.c_uint32 * 6)()
        assert libc.capget(header, sets) == 0
        for i in range(3):
            sets[i] &= ~(1 << 14)
        assert libc.capset(header, sets) == 0
"""


def content(salt: int, size: int) -> bytes:
    return bytes(1 + (i * i * 7 + i * salt) % 251 for i in range(size))


def run(python, body: str, *lines: str):  # noqa: ANN001, ANN201
    """Run `body` after the prelude."""
    code = PRELUDE + "".join(f"    {line}\n" for line in (*body.splitlines(), *lines))
    return python(code=code)


# --------------------------------------------------------------- a buffer


def test_a_writable_buffer() -> None:
    secret = SecretBuf(100)
    assert (len(secret), secret.nbytes, secret.address % 16) == (100, 100, 0)
    with memoryview(secret) as view:
        assert (view.nbytes, view.format, view.readonly) == (100, "B", False)
        assert view == bytes(100)
        view[:] = bytes(range(100))
    numbers = np.frombuffer(secret, dtype="u4")
    assert int(numbers[0]) == int.from_bytes(bytes(range(4)), sys.byteorder)
    del numbers
    secret.close()
    secret.close()
    assert secret.closed


def test_read_straight_into_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef")
    secret = SecretBuf(16)
    with path.open("rb", buffering=0) as file:
        assert file.readinto(secret) == 16
    assert secret.compare(b"0123456789abcdef")


@pytest.mark.parametrize("size", [0, 1, 16, 4095, PAGE, 3 * PAGE + 5])
def test_from_bytes_and_compare(size: int) -> None:
    data = content(3, size)
    with SecretBuf.from_bytes(data) as secret, SecretBuf.from_bytes(bytearray(data)) as other:
        assert secret.compare(data)
        assert secret.compare(other)
        assert secret.compare(secret)
        assert not secret.compare(data + b"\0")
        for at in {0, size // 2, size - 1} if size else set():
            with memoryview(other) as view:
                view[at] ^= 128
            assert not secret.compare(other)
            with memoryview(other) as view:
                view[at] ^= 128


def test_sources_of_other_types() -> None:
    numbers = np.arange(6, dtype="u2").reshape(2, 3)
    secret = SecretBuf.from_bytes(numbers)
    assert secret.compare(numbers)
    assert secret.compare(numbers.tobytes())
    with pytest.raises((BufferError, TypeError, ValueError)):
        SecretBuf.from_bytes(numbers[:, ::2])
    with pytest.raises(TypeError):
        SecretBuf.from_bytes("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        secret.compare(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "error", "text"),
    [
        (-1, ValueError, "nbytes must be at least 0, got -1"),
        (2**70, OverflowError, "nbytes must be at most"),
        (2**60, MemoryError, f"cannot allocate a secret of {2**60} bytes"),
        ("8", TypeError, "'str' object cannot be interpreted as an integer"),
    ],
)
def test_bad_sizes(size: int, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SecretBuf(size)


def test_views_die_first() -> None:
    secret = SecretBuf.from_bytes(b"0123456789")
    view = memoryview(secret)
    array = np.frombuffer(secret, dtype="u1")
    with pytest.raises(BufferError, match="2 views of this buffer are alive"):
        secret.close()
    del array
    with pytest.raises(BufferError, match="1 view"):
        secret.close()
    assert bytes(view) == b"0123456789"
    view.release()
    secret.close()


def test_views_outlive_a_dropped_secret() -> None:
    view = memoryview(SecretBuf.from_bytes(b"0123456789"))
    gc.collect()
    assert bytes(view) == b"0123456789"
    view.release()


def test_use_after_close() -> None:
    secret = SecretBuf(10)
    secret.close()
    assert repr(secret) == "<SecretBuf of 10 bytes, closed>"
    for use in (
        lambda: memoryview(secret),
        lambda: secret.compare(bytes(10)),
        lambda: secret.address,
        lambda: secret.locked,
        lambda: secret.protect("read-only"),
        secret.wipe,
        secret.__enter__,
    ):
        with pytest.raises(ValueError, match="operation on a closed"):
            use()


def test_wipe() -> None:
    for access in ("read-write", "read-only", "no-access"):
        secret = SecretBuf.from_bytes(b"0123456789")
        secret.protect(access)
        secret.wipe()
        assert secret.protection == access
        secret.protect("read-only")
        view = memoryview(secret)
        assert bytes(view) == bytes(10)
        view.release()
    secret = SecretBuf.from_bytes(b"0123456789")
    view = memoryview(secret)
    secret.wipe()
    assert bytes(view) == bytes(10)
    view.release()


# -------------------------------------------------------- a Python object


def test_nothing_shows_the_content() -> None:
    secret = SecretBuf.from_bytes(b"swordfish")
    for text in (repr(secret), str(secret), f"{secret}"):
        assert "swordfish" not in text
        assert text.startswith("<SecretBuf of 9 bytes, read-write, ")
    for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(
            TypeError, match="cannot pickle or copy a SecretBuf: it keeps"
        ) as caught:
            refuse(secret)
        assert "bytes(" not in str(caught.value)
    with pytest.raises(TypeError):
        iter(secret)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        secret[0]  # type: ignore[index]


def test_references_and_attributes() -> None:
    secret = SecretBuf(10)
    reference = weakref.ref(secret)
    assert {secret: 1}[secret] == 1
    for name in ("nbytes", "locked", "protection", "other"):
        with pytest.raises(AttributeError):
            setattr(secret, name, 1)
    del secret
    assert reference() is None


def test_operations_that_interrupt_each_other() -> None:
    secret = SecretBuf(10)
    with secret._lock:
        for use in (secret.close, secret.wipe, lambda: secret.protect("read-only")):
            with pytest.raises(RuntimeError, match="this secret was interrupted by another"):
                use()
    secret.close()


# ------------------------------------------------------------- protection


def test_protection_in_python() -> None:
    secret = SecretBuf.from_bytes(b"0123456789")
    assert secret.protection == "read-write"
    secret.protect("read-only")
    assert repr(secret).startswith("<SecretBuf of 10 bytes, read-only, ")
    with memoryview(secret) as view:
        assert view.readonly
        assert bytes(view) == b"0123456789"
        with pytest.raises(TypeError, match="read-only"):
            view[0] = 1
    assert not np.frombuffer(secret, dtype="u1").flags.writeable
    with Path("/dev/null").open("rb", buffering=0) as file, pytest.raises(TypeError):
        file.readinto(secret)
    secret.protect("no-access")
    for use in (memoryview, bytes, secret.compare):
        with pytest.raises((BufferError, TypeError)):
            use(secret)
    secret.protect("read-write")
    assert secret.compare(b"0123456789")
    with pytest.raises(ValueError, match="access must be one of no-access, read-only, read-write"):
        secret.protect("write-only")  # type: ignore[arg-type]


def test_no_view_can_trap() -> None:
    secret = SecretBuf.from_bytes(b"0123456789")
    view = memoryview(secret)
    for access in ("read-only", "no-access"):
        with pytest.raises(BufferError, match=f"cannot change to {access}: 1 view of this secret"):
            secret.protect(access)
        view[0] = view[1]
    secret.protect("read-write")
    view.release()
    secret.protect("read-only")
    view = memoryview(secret)
    secret.protect("read-only")
    with pytest.raises(BufferError, match="cannot change to no-access"):
        secret.protect("no-access")
    secret.protect("read-write")  # more than the view needs
    assert view.readonly
    assert view[0] == ord("1")
    view.release()
    assert secret.views == 0


@pytest.mark.parametrize(
    ("line", "traps"),
    [
        ("ctypes.memset(secret.address, 1, 1)", False),
        ("ctypes.string_at(low - 1, 1)", True),
        ("ctypes.memset(low - 1, 1, 1)", True),
        ("ctypes.string_at(high, 1)", True),
        ("ctypes.memset(high, 1, 1)", True),
        ("secret.protect('read-only'); ctypes.string_at(secret.address, 1)", False),
        ("secret.protect('read-only'); ctypes.memset(secret.address, 1, 1)", True),
        ("secret.protect('no-access'); ctypes.string_at(secret.address, 1)", True),
    ],
)
@pytest.mark.parametrize("kind", ["", "no_memfd()"])
def test_guards_and_protection_trap(python, kind: str, line: str, *, traps: bool) -> None:  # noqa: ANN001
    done = run(
        python,
        f"""
{kind}
secret = SecretBuf(5008)
page = os.sysconf("SC_PAGESIZE")
low, high = secret.address // page * page, secret.address + 5008
assert high % page == 0
{line}
secret.close()
""",
    )
    assert done.returncode == (-signal.SIGSEGV if traps else 0), done.stderr


@pytest.mark.parametrize("at", ["-1", "100"])
def test_canary(python, at: str) -> None:  # noqa: ANN001
    done = run(
        python,
        "secret = SecretBuf(100)",
        f"address = secret.address + {at}",
        "ctypes.memset(address, ctypes.string_at(address, 1)[0] ^ 1, 1)",
        "secret.close()",
    )
    assert done.returncode == -signal.SIGABRT
    assert "libzknalloc: memory around a secret was written to at 0x" in done.stderr


# ------------------------------------------------------- what was achieved


def vm_flags(address: int) -> set[str]:
    """Return the flags of the mapping at `address` in this process."""
    here = False
    for line in Path("/proc/self/smaps").read_text(errors="replace").splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(match[1], 16) <= address < int(match[2], 16)
        elif here and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError("no such mapping")


def test_what_is_achieved_is_what_the_kernel_says() -> None:
    secret = SecretBuf(100)
    flags = vm_flags(secret.address)
    assert secret.locked == ("lo" in flags)
    assert secret.dontdump == ("dd" in flags)
    assert secret.secret_memory == ("sh" in flags)
    assert secret.wipe_on_fork == bool(flags & {"wf", "dc"})
    assert secret.dontdump
    assert secret.wipe_on_fork


def test_private_memory_where_the_kernel_lacks_memfd_secret(python) -> None:  # noqa: ANN001
    done = run(
        python,
        """
no_memfd()
secret = SecretBuf(100)
print(secret)
lines = open("/proc/self/smaps").read().splitlines()
for i, line in enumerate(lines):
    bounds = line.partition(" ")[0].split("-")
    if len(bounds) == 2 and int(bounds[0], 16) <= secret.address < int(bounds[1], 16):
        print(next(line for line in lines[i:] if line.startswith("VmFlags")))
""",
    )
    assert done.returncode == 0, done.stderr
    shown, flags = done.stdout.splitlines()
    assert shown == "<SecretBuf of 100 bytes, read-write, locked, dontdump, wipe_on_fork>"
    assert {"lo", "dd", "wf"} <= set(flags.split())


def test_memory_that_cannot_be_locked(python) -> None:  # noqa: ANN001
    done = run(
        python,
        f"""
unprivileged({4 * PAGE})
held = SecretBuf({3 * PAGE}, require_lock=True)
assert held.locked
loose = SecretBuf({3 * PAGE - 1})
assert not loose.locked and loose.dontdump and loose.wipe_on_fork
print(loose)
try:
    SecretBuf({3 * PAGE - 1}, require_lock=True)
except OSError as error:
    print(error.errno, error.strerror)
assert SecretBuf({PAGE}, require_lock=True).locked
""",
    )
    assert done.returncode == 0, done.stderr
    shown, error = done.stdout.splitlines()
    assert shown == f"<SecretBuf of {3 * PAGE - 1} bytes, read-write, dontdump, wipe_on_fork>"
    # 3 pages are held; those tried before are not in the count.
    needed = 6 * PAGE
    assert error.startswith(
        f"12 cannot lock {3 * PAGE} bytes in RAM: RLIMIT_MEMLOCK is {4 * PAGE} bytes now, "
        f"of which {3 * PAGE} are in use, and {needed} are needed; raise it with "
        f"`ulimit -l {needed // 1024}` (as root: the hard limit is lower), with "
        f"LimitMEMLOCK={needed} in a systemd unit"
    )


def test_no_locking_at_all(python) -> None:  # noqa: ANN001
    done = run(
        python,
        """
unprivileged(0)
try:
    SecretBuf(1, require_lock=True)
except PermissionError as error:
    print(error)
assert SecretBuf(1).compare(bytes(1))
""",
    )
    assert done.returncode == 0, done.stderr
    assert f"RLIMIT_MEMLOCK is 0 bytes now, of which 0 are in use, and {PAGE} are" in done.stdout


# ------------------------------------------------------------ other processes


def test_a_forked_child_reads_zeros() -> None:
    secrets = [SecretBuf.from_bytes(content(5, 5000)) for _ in range(3)]
    secrets[1].protect("read-only")
    secrets[2].protect("no-access")
    view = memoryview(secrets[0])
    child = os.fork()
    if child == 0:
        good = view == bytes(5000) and secrets[1].compare(bytes(5000))
        secrets[2].protect("read-only")
        good = good and secrets[2].compare(bytes(5000)) and secrets[0].locked == secrets[1].locked
        view[:] = content(6, 5000)  # the child's own
        view.release()
        for secret in secrets:
            secret.close()
        good = good and SecretBuf.from_bytes(b"new").compare(b"new")
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0) == (child, 0)
    assert view == content(5, 5000)
    secrets[2].protect("read-write")
    assert all(secret.compare(content(5, 5000)) for secret in secrets[1:])
    view.release()


def has(pid: int, needle: bytes) -> bool:
    """Search the memory of a process, as a debugger can read it."""
    found = False
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
        for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
            start, end = (int(part, 16) for part in line.partition(" ")[0].split("-"))
            fields = line.split()
            if fields[4] != "0" and "w" not in fields[1] and "r" in fields[1]:
                continue  # code and constants
            # A debugger reads what has no permissions, too; reservations are that, and huge.
            while start < end < start + (1 << 30):
                size = min(end - start, 1 << 22)
                try:
                    memory.seek(start)
                    block = memory.read(size)
                except (OSError, OverflowError, ValueError):
                    break  # not readable: reservations, guards, memfd_secret
                found = found or needle in block
                start += size - (len(needle) if size < end - start else 0)
    return found


@pytest.mark.parametrize("ending", ["secret.close()", "del secret; gc.collect()", "secret.wipe()"])
@pytest.mark.parametrize("kind", ["no_memfd()", ""])
def test_memory_searched_from_outside(kind: str, ending: str) -> None:
    """Another process finds the secret while it is there, and then no more.

    It finds it only where the kernel has no memfd_secret(), which is what
    proves that the search would find what it looks for.
    """
    code = f"""if True:
    import atexit, sys
    def stop(*stage):
        print(*stage, flush=True)
        assert sys.stdin.readline()
    atexit.register(stop, "exiting")  # runs last, as it was registered before zk_nalloc's
{PRELUDE.partition(chr(10))[2]}
    {kind}
    secret = SecretBuf(5000)
    fill(secret, 11)
    plain = bytearray(64)
    fill(plain, 12)
    secret.protect("no-access")
    stop("alive", secret.secret_memory)
    {ending}
    stop("ended")
    left = SecretBuf(5000)
    fill(left, 11)
    stop("another")
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],  # the installed package, wherever we are
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"ZK_NALLOC_RESERVE_BYTES": "0"},  # less to search
    )
    assert process.stdin is not None
    assert process.stdout is not None
    needle = content(11, 5000)[100:164]
    expected = {"alive": True, "ended": False, "another": True, "exiting": False}
    with process:
        for stage, there in expected.items():
            words = process.stdout.readline().split()
            assert words[0] == stage
            if stage == "alive":
                hidden = words[1] == "True"
                assert hidden == (not kind)
                assert has(process.pid, content(12, 64))
            assert has(process.pid, needle) == (there and not hidden)
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == 0


@pytest.mark.parametrize("kind", ["no_memfd()", ""])
def test_core_dump(tmp_path: Path, kind: str) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern or pattern.startswith("|"):
        pytest.skip(f"core dumps do not go to the working directory, but to {pattern}")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("the hard limit on core dumps is 0")
    code = (
        PRELUDE
        + f"""
    {kind}
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    secret = SecretBuf(5000)
    fill(secret, 21)
    plain = bytearray(5000)
    fill(plain, 22)
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    os.abort()
    """
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        check=False,
        env={"ZK_NALLOC_RESERVE_BYTES": "0"},
    )
    assert done.returncode == -signal.SIGABRT
    (core,) = tmp_path.iterdir()
    with core.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as dump:
        assert dump.find(content(22, 5000)[1000:1064]) >= 0  # the search works
        assert dump.find(content(21, 5000)[1000:1064]) < 0
        assert dump.find(content(21, 5000)[:32]) < 0


def test_secrets_left_at_exit(python) -> None:  # noqa: ANN001
    """What runs after the wipe sees zeros, and nothing breaks."""
    done = python(
        "-X",
        "dev",
        code="""if True:
            import atexit, sys
            atexit.register(lambda: print(sys.secret.compare(bytes(10)), sys.view == bytes(10)))
            import zk_nalloc
            sys.secret = zk_nalloc.SecretBuf.from_bytes(b"0123456789")
            sys.secret.protect("no-access")
            sys.secret.protect("read-only")
            other = zk_nalloc.SecretBuf.from_bytes(b"0123456789")
            sys.view = memoryview(other)
            class Late:
                def __del__(self, secret=sys.secret, view=sys.view):
                    assert view[0] == 0 and secret.compare(bytes(10))
            sys.late = Late()
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")


# ---------------------------------------------------------------- threads


def test_threads_share_secrets() -> None:
    """No interleaving traps, loses content, or shows another's."""
    rounds = 150
    secrets = [SecretBuf.from_bytes(bytes([tag]) * 100) for tag in range(4)]
    barrier = threading.Barrier(4)

    def protect() -> None:
        barrier.wait()
        for turn in range(rounds):
            for secret in secrets:
                with contextlib.suppress(BufferError):
                    secret.protect(("no-access", "read-only", "read-write")[turn % 3])

    def read() -> None:
        barrier.wait()
        for _ in range(rounds):
            for tag, secret in enumerate(secrets):
                with contextlib.suppress(BufferError), memoryview(secret) as view:
                    assert bytes(view) == bytes([tag]) * 100
                    if not view.readonly:
                        view[0] = tag
                with contextlib.suppress(BufferError):
                    assert secret.compare(bytes([tag]) * 100)

    def create() -> None:
        barrier.wait()
        for turn in range(rounds):
            with SecretBuf.from_bytes(bytes([turn]) * 50) as secret:
                assert secret.compare(bytes([turn]) * 50)

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(job) for job in (protect, read, read, create)]
        for future in futures:
            future.result()
    for tag, secret in enumerate(secrets):
        secret.protect("read-write")
        with memoryview(secret) as view:
            assert bytes(view) == bytes([tag]) * 100
        secret.close()


# ------------------------------------------------------------------- docs


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(sys.modules["zk_nalloc._secret"])
    assert result.failed == 0
    assert result.attempted > 8
