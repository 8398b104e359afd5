# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reports that no zkprof wrote: shown, or refused in one line, in every format."""

from __future__ import annotations

import copy
import json
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.zkprof.showing.conftest import doing_well, everything
from zkprof.compare import compare
from zkprof.errors import ZkprofError
from zkprof.exports import collapsed, speedscope
from zkprof.html import comparison_page, page
from zkprof.render import console, screen, show
from zkprof.report import Report, dump, from_json, to_json
from zkprof.show_compare import dump as dump_comparison
from zkprof.show_compare import screen as comparison_screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Where a number or a text stood, another one; sometimes something else.
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 1 << 31, 1 << 63, -(1 << 63), 1 << 65]),
    st.integers(-1000, 1000),
    st.floats(-1e19, 1e19, allow_nan=False),
)
STRANGE = st.tuples(NUMBERS, st.text(max_size=20), st.sampled_from([None, [], {}, True, "", 1.5]))


def fitting(old: Any, strange: tuple[float, str, Any], *, misfit: bool) -> Any:  # noqa: ANN401
    number, text, other = strange
    if misfit or isinstance(old, bool | list | dict) or old is None:
        return copy.copy(other)
    if isinstance(old, str):
        return text
    return int(number) if isinstance(old, int) else float(number)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
    """Yield the path of every value in a report."""
    if path:
        yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from places(value, (*path, key))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from places(value, (*path, i))


@cache
def small() -> Any:  # noqa: ANN401
    """Return a measurement that has everything, as JSON's types."""
    m = everything(threads=2, duration_s=1.0, library=doing_well())
    data = json.loads(json.dumps(to_json(Report.of(m))))
    measured = data["measurement"]
    for name in ("bins", "memory", "stacks", "frames"):
        measured[name] = measured[name][:8] if name != "frames" else measured[name]
    return measured


@given(changes=st.lists(st.tuples(st.integers(0, 9999), STRANGE), min_size=1, max_size=3))
@settings(max_examples=3 * settings().max_examples, suppress_health_check=[HealthCheck.too_slow])
def test_anything_is_shown_or_refused(
    changes: list[tuple[int, Any]],
) -> None:
    changed = copy.deepcopy(small())
    for number, value in changes:
        all_places = list(places(changed))
        path = all_places[number % len(all_places)]
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = fitting(place[path[-1]], value, misfit=number % 11 == 0)
    full = Report.of(everything())
    try:
        report = from_json({"schema": "zkprof/1", "measurement": changed})
        outputs: list[Callable[[], Any]] = [
            lambda: dump(report),
            lambda: page(report),
            lambda: speedscope(report),
            lambda: collapsed(report),
            lambda: dump_comparison(compare([full], [report])),
            lambda: comparison_page(compare([report], [full])),
        ]
        out = console(StringIO())
        show(out, screen(report))
        show(out, comparison_screen(compare([report, report], [full, full])))
    except ZkprofError as error:
        assert "\n" not in str(error)  # noqa: PT017  (it need not be raised)
        return
    for output in outputs:
        try:
            assert output().encode()
        except ZkprofError as error:
            assert "\n" not in str(error)  # noqa: PT017
