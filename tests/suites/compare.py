# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run other projects' test suites with and without the library.

::

    python tests/suites/compare.py            # CPython's, and NumPy's twice
    python tests/suites/compare.py cpython --python python3.13

`cpython` and `numpy` run under the preload library, `numpy-install` under
`zk_nalloc.numpy.install()`; where meson and a compiler are installed, NumPy's
tests of other allocators run too.

Every test must end as it does without the library. A test whose outcome
differs is run again, alone, three times on each side, since tests of threads
and timeouts also differ between two runs of the same thing; it counts as a
difference where it never once ended the same.

Exit codes: 0 no difference, 1 differences (they are listed) or too few tests, 2 bad usage or
a suite that is not installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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

#: Fewer that pass say nothing.
PASSED_LEAST = 1000
SUITES = {"cpython": "test.libregrtest", "numpy": "numpy", "numpy-install": "numpy"}
"""What each suite needs to be importable."""

# A plugin, so that pytest imports it before any test, in the process that runs them.
PLUGIN = """\
import numpy
import zk_nalloc.numpy

zk_nalloc.numpy.install()


def pytest_sessionfinish(session):
    stats = zk_nalloc.stats()
    assert zk_nalloc.numpy.installed() and stats.hits + stats.misses > 0
"""

Outcomes = Mapping[str, str]
"""Name of a test to "passed", "skipped", "failed" or "error"."""


@dataclass(frozen=True)
class Suite:
    """How to run a suite: `command(selection, report)` writes JUnit XML to `report`."""

    name: str
    python: str

    def command(self, selection: Sequence[str], report: Path, *, plugin: bool) -> list[str]:
        """Return the command that runs `selection`, everything for none."""
        if self.name == "cpython":
            match = [arg for test in selection for arg in ("-m", test)]
            names = [name for name in CPYTHON if exists(self.python, f"test.{name}")]
            return [self.python, "-m", "test", "--junit-xml", str(report), *match, *names]
        match = ["-k", " or ".join(sorted(set(selection)))] if selection else []
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


def outcomes(report: Path) -> Outcomes:
    """Read JUnit XML."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname', '')}.{case.get('name', '')}"
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        found[name] = {"failure": "failed"}.get(kinds.pop(), "skipped") if kinds else "passed"
    return found


def run(suite: Suite, *, library: bool, selection: Sequence[str] = ()) -> Outcomes:
    """Run the suite, or the tests of `selection`, and return how each ended."""
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    plugin = library and suite.name == "numpy-install"
    if library and not plugin:
        environment["LD_PRELOAD"] = str(preload_path())
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        if plugin:
            (Path(folder) / "installing.py").write_text(PLUGIN)
            environment["PYTHONPATH"] = folder
        done = subprocess.run(
            suite.command(selection, report, plugin=plugin),
            env=environment,
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
        )
        if not report.exists():
            sys.exit(f"compare: {suite.name} wrote no report:\n{done.stdout[-2000:]}{done.stderr}")
        return outcomes(report)


def differences(suite: Suite) -> list[str]:
    """Return a line for each test that ends otherwise with the library."""
    print(f"{suite.name}: without the library", flush=True)
    plain = run(suite, library=False)
    passed = sum(outcome == "passed" for outcome in plain.values())
    if passed < PASSED_LEAST:
        sys.exit(
            f"compare: {suite.name}: {passed} tests passed without the library: what is amiss?"
        )
    print(f"{suite.name}: {len(plain)} tests; with the library", flush=True)
    ours = run(suite, library=True)
    suspects = [name for name in plain.keys() | ours.keys() if plain.get(name) != ours.get(name)]
    found = []
    for name in sorted(suspects):
        short = name.rsplit(".", 1)[-1].split("[")[0]
        seen: dict[bool, set[str]] = {False: {plain.get(name, "not run")}, True: set()}
        seen[True].add(ours.get(name, "not run"))
        for _ in range(RETRIES):
            for library in (False, True):
                again = run(suite, library=library, selection=[short])
                seen[library].add(again.get(name, "not run"))
        if not seen[False] & seen[True]:
            found.append(f"{name}: {seen[False]} without, {seen[True]} with")
    counts = {kind: sum(v == kind for v in ours.values()) for kind in set(ours.values())}
    print(f"{suite.name}: {counts}, {len(suspects)} to look at again, {len(found)} differ")
    return found


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)} (default: all)"
    )
    parser.add_argument("--python", default=sys.executable, help="the Python that has the suite")
    options = parser.parse_args()
    found = []
    for name in options.suites or SUITES:
        needed = SUITES.get(name)
        if needed is None or not exists(options.python, needed):
            parser.error(f"{name}: no such suite, or {options.python} has it not ({needed})")
        found += differences(Suite(name, options.python))
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
