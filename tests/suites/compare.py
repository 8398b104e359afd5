# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run other projects' test suites with and without the library.

::

    python tests/suites/compare.py            # parts of CPython's, and NumPy's twice
    python tests/suites/compare.py cpython-full --python python3.13 --keep full.jsonl
    python tests/suites/compare.py node --source node-20.19.2 --keep node.jsonl

`cpython`, `cpython-full` and `numpy` run under the preload library, `numpy-install`
under `zk_nalloc.numpy.install()`; where meson and a compiler are installed, NumPy's
tests of other allocators run too. `cpython-full` is all of `python -m test` without
network, sound, screens, large files and long computations. It runs in slices of some
files, with and without the library in turn; `--keep` writes down each slice, and a
second call goes on where the first one ended, while `--slices 25-48` runs those alone.
`node` is test/parallel of node's source, run by the node that is installed, in slices
of every 35th file, so that some of them are a fair sample. `--before` is a command, such
as `nice`, to put before each run.

Every test must end as it does without the library. A test whose outcome
differs is run again, up to three times on each side, since tests of threads
and timeouts also differ between two runs of the same thing; it counts as a
difference where it never once ended the same, and is listed as not steady
otherwise.

Exit codes: 0 no difference, 1 differences (they are listed), too few tests, or a
library that served no request; 2 bad usage or a suite that is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from counters import served

from zk_nalloc import preload_path

CPYTHON = (
    "test_array",
    "test_memoryview",
    "test_mmap",
    "test_threading",
    "test_subprocess",
    "test_multiprocessing_fork",
)
RETRIES = 3

SLICE = 10
"""Files of CPython's tests in one run."""

RESOURCES = "all,-network,-urlfetch,-gui,-audio,-largefile,-cpu,-walltime"

#: Fewer that pass say nothing.
PASSED_LEAST = 1000
SUITES = {
    "cpython": "test.libregrtest",
    "numpy": "numpy",
    "numpy-install": "numpy",
    "cpython-full": "test.libregrtest",
    "node": "node and --source",
}
"""What each suite needs, a module but for node; all but the last two run by default."""

NODE_SLICES = 35

# A plugin, so that pytest imports it before any test, in the process that runs them.
PLUGIN = """\
import numpy
import zk_nalloc.numpy

zk_nalloc.numpy.install()


def pytest_sessionfinish(session):
    stats = zk_nalloc.stats()
    assert zk_nalloc.numpy.installed() and stats.hits + stats.misses > 0
"""

# A line such as: 0:00:09 load avg: 1.50 [ 7/10/1] test_array passed (1.2 sec) -- running (1)
FILE_LINE = re.compile(
    r"^\S+ (?:load avg: \S+ )?(?:mem: .+ )?\[ *\d+/\d+(?:/\d+)?\] (\S+) (.+)$", re.MULTILINE
)

# A test of node's: "ok 7 parallel/test-os"; where one failed, four lines below is its exit
# code, or the signal as a negative one.
TAP_LINE = re.compile(
    r"^(not )?ok \d+ (\S+)( # skip)?.*(?:\n  ---\n.*\n  severity: .*\n  exitcode: (\S+))?",
    re.MULTILINE,
)


@dataclass
class Result:
    """How one run of a slice ended."""

    outcomes: dict[str, str]
    """Name of a test, or of a file, to "passed", "skipped", "failed" and so on."""
    served: int = 0
    """Large requests that the library served, in all processes."""


@dataclass(frozen=True)
class Suite:
    """A suite, the Python that has it, and how to start it."""

    name: str
    python: str
    before: Sequence[str] = ()
    source: Path | None = None
    """Node's."""
    only: range | None = None
    """Numbers of the slices to run, from 1; all for None."""
    keep: Path | None = None
    kept: dict[tuple[str, bool], Result] = field(default_factory=dict)

    def slices(self) -> list[tuple[str, ...]]:
        """Return the files of each run; NumPy's is one, without names."""
        if self.name == "cpython":
            return [tuple(name for name in CPYTHON if exists(self.python, f"test.{name}"))]
        if self.name == "node":
            return [(f"--run={at},{NODE_SLICES}", "parallel") for at in range(NODE_SLICES)]
        if self.name != "cpython-full":
            return [()]
        command = [self.python, "-m", "test", "--list-tests"]
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return [tuple(names[at : at + SLICE]) for at in range(0, len(names), SLICE)]

    def command(
        self, files: Sequence[str], only: Sequence[str], report: Path, *, plugin: bool
    ) -> list[str]:
        """Return what runs the tests named `only`, all for none, and writes JUnit XML or TAP."""
        if self.source is not None:
            runner = self.source.resolve() / "tools" / "test.py"
            options = ["--shell", str(shutil.which("node")), "--temp-dir", str(report.parent)]
            return [self.python, str(runner), "-p", "tap", "-j2", *options, *(only or files)]
        if self.name.startswith("cpython"):
            match = [arg for test in only for arg in ("-m", test.lstrip("."))]
            options = ["-j2", "--timeout", "900", "-u", RESOURCES, "--junit-xml", str(report)]
            return [self.python, "-m", "test", *options, *match, *files]
        short = {test.rsplit(".", 1)[-1].split("[")[0] for test in only}
        match = ["-k", " or ".join(sorted(short))] if only else []
        options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", f"--junitxml={report}"]
        # Where f2py's own needs are not met, its modules cannot be collected.
        options += ["--continue-on-collection-errors"]
        if plugin:
            options += ["-p", "installing"]
        return [self.python, "-m", "pytest", "--pyargs", "numpy", *options, *match]


def exists(python: str, module: str) -> bool:
    """Whether `python` can import `module`."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code], check=False, stderr=-3).returncode == 0


def there(name: str, python: str, source: Path | None) -> bool:
    """Whether there is such a suite, and what it needs."""
    if name == "node":
        runner = source is not None and (source / "tools" / "test.py").is_file()
        return runner and shutil.which("node") is not None
    return name in SUITES and exists(python, SUITES[name])


def outcomes(report: Path, said: str) -> dict[str, str]:
    """Read JUnit XML or TAP, and how CPython's files ended: a crash is not in the XML."""
    found = {
        f"file {name}": re.sub(r" --.*| \([^()]*\d[^()]*\)", "", how)
        for name, how in FILE_LINE.findall(said)
    }
    for failed, name, skipped, code in TAP_LINE.findall(said):
        found[name] = f"failed with {code}" if failed else "skipped" if skipped else "passed"
    for case in ET.parse(report).iter("testcase") if report.exists() else ():
        name = f"{case.get('classname', '')}.{case.get('name', '')}"
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        found[name] = {"failure": "failed"}.get(kinds.pop(), "skipped") if kinds else "passed"
    return found


def run(suite: Suite, files: Sequence[str], *, library: bool, only: Sequence[str] = ()) -> Result:
    """Run a slice of the suite, or those tests in it, and return how each ended."""
    plugin = library and suite.name == "numpy-install"
    with tempfile.TemporaryDirectory() as folder:
        report, stats = Path(folder) / "report.xml", Path(folder) / "stats"
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        if library:
            environment["ZK_NALLOC_STATS_FILE"] = str(stats)
        if plugin:
            (Path(folder) / "installing.py").write_text(PLUGIN)
            environment["PYTHONPATH"] = folder
        elif library:
            environment["LD_PRELOAD"] = str(preload_path())
        # `--before` is not what is tested: env(1) sets the variables after it.
        variables = [f"{k}={v}" for k, v in environment.items() if os.environ.get(k) != v]
        command = suite.command(files, only, report, plugin=plugin)
        done = subprocess.run(
            [*suite.before, "env", "-u", "LD_PRELOAD", *variables, *command],
            # Some of node's tests open test/fixtures.
            cwd=suite.source or folder,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode < 0:
            print(f"{suite.name}: signal {-done.returncode} ended {' '.join(files)}", flush=True)
        found = outcomes(report, done.stdout)
        if not found and not only:
            sys.exit(f"compare: {suite.name} wrote no report:\n{done.stdout[-2000:]}{done.stderr}")
        return Result(found, served(stats))


def both(suite: Suite, files: Sequence[str]) -> Iterator[tuple[bool, Result]]:
    """Run a slice without and with the library, or say how it ended before."""
    for library in (False, True):
        key = (" ".join(files), library)
        if key not in suite.kept:
            suite.kept[key] = result = run(suite, files, library=library)
            if suite.keep is not None:
                line = {"suite": suite.name, "files": key[0], "library": library, **vars(result)}
                with suite.keep.open("a") as stream:
                    stream.write(json.dumps(line) + "\n")
        yield library, suite.kept[key]


def again(
    suite: Suite, files: Sequence[str], ended: Mapping[bool, Mapping[str, str]]
) -> dict[str, Mapping[bool, set[str]]]:
    """Run what ended differently again, until it has ended the same, and say how it ended."""
    names = ended[False].keys() | ended[True].keys()
    seen: dict[str, Mapping[bool, set[str]]] = {
        name: {side: {ended[side].get(name, "not run")} for side in ended}
        for name in sorted(names)
        if ended[False].get(name) != ended[True].get(name)
    }
    for _ in range(RETRIES):
        for library in (True, False):
            left = [name for name, ends in seen.items() if not ends[False] & ends[True]]
            whole = [name.removeprefix("file ") for name in left if name.startswith("file ")]
            only = [name for name in left if not name.startswith("file ")]
            result: dict[str, str] = {}
            if whole:
                result |= run(suite, whole, library=library).outcomes
            if not result.keys() >= set(only):
                result |= run(suite, files, library=library, only=only).outcomes
            for name in left:
                seen[name][library].add(result.get(name, "not run"))
    return seen


def differences(suite: Suite) -> list[str]:
    """Return a line for each test that ends otherwise with the library."""
    found: list[str] = []
    counts: dict[bool, dict[str, int]] = {False: {}, True: {}}
    requests = unsteady = 0
    slices = suite.slices()
    for number, files in enumerate(slices, 1):
        if suite.only is not None and number not in suite.only:
            continue
        ended: dict[bool, dict[str, str]] = {}
        for library, result in both(suite, files):
            ended[library] = result.outcomes
            requests += result.served
            for name, how in result.outcomes.items():
                kind = f"files {how}" if name.startswith("file ") else how
                counts[library][kind] = counts[library].get(kind, 0) + 1
        for name, ends in again(suite, files, ended).items():
            differs = not ends[False] & ends[True]
            unsteady += not differs
            text = f"{name}: {sorted(ends[False])} without, {sorted(ends[True])} with"
            print(f"{suite.name}: {'DIFFERS' if differs else 'not steady'}: {text}", flush=True)
            found += [text] if differs else []
        print(f"{suite.name}: slice {number} of {len(slices)} done", flush=True)
    for library, kinds in counts.items():
        print(f"{suite.name}: {'with' if library else 'without'} the library: {kinds}")
    print(f"{suite.name}: {requests} requests served, {unsteady} not steady, {len(found)} differ")
    if counts[False].get("passed", 0) < PASSED_LEAST:
        found.append(f"{suite.name}: too few tests passed without the library: what is amiss?")
    if requests == 0:
        found.append(f"{suite.name}: the library served no request: was it there?")
    return found


def read_kept(keep: Path | None, suite: str) -> dict[tuple[str, bool], Result]:
    """Read what an earlier call wrote down."""
    lines = keep.read_text().splitlines() if keep is not None and keep.exists() else []
    return {
        (line["files"], line["library"]): Result(line["outcomes"], line["served"])
        for line in map(json.loads, lines)
        if line["suite"] == suite
    }


def numbers(text: str) -> range:
    """Read the numbers of slices: "25-48", or "25"."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"not a number, nor FIRST-LAST: {text!r}")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)} (default: the first three)"
    )
    parser.add_argument("--python", default=sys.executable, help="the Python that has the suite")
    parser.add_argument("--source", type=Path, help="node's source")
    parser.add_argument("--before", type=shlex.split, default=[], help="a command before each run")
    parser.add_argument("--slices", type=numbers, metavar="FIRST-LAST", help="run these alone")
    parser.add_argument("--keep", type=Path, help="a file to write results to and to go on from")
    options = parser.parse_args()
    # A shell that starts this in the background has it, and all tests, ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found = []
    for name in options.suites or list(SUITES)[:-2]:
        source = options.source if name == "node" else None
        if not there(name, options.python, source):
            needed = SUITES.get(name, "see --help")
            parser.error(f"{name}: no such suite, or what it needs is not there ({needed})")
        kept = read_kept(options.keep, name)
        found += differences(
            Suite(name, options.python, options.before, source, options.slices, options.keep, kept)
        )
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
