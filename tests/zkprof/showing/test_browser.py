# SPDX-License-Identifier: MIT OR Apache-2.0
"""Pages in a real browser, without a network: what is drawn, and what keys do.

    pip install '.[test,outside]' && pytest -m outside

Needs Chromium, as CHROMIUM or on the path.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from zkprof.compare import compare
from zkprof.html import comparison_page, page
from zkprof.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.outside


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chrome")
    if not program:
        pytest.skip("Chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def tab(chromium: Any, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:  # noqa: ANN401
    """Return a function that opens a page; whatever a browser complains of fails the test."""
    context = chromium.new_context(
        color_scheme=request.param, viewport={"width": 1200, "height": 900}, offline=True
    )
    opened = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))

    def show(text: str) -> Any:  # noqa: ANN401
        file = tmp_path / "page.html"
        file.write_text(text, "utf-8")
        opened.goto(file.as_uri())
        opened.wait_for_selector("h1")
        return opened

    yield show
    assert said == []
    assert len(asked) == 1, "the file itself"
    context.close()


def frames(tab: Any) -> list[str]:  # noqa: ANN401
    return [g.get_attribute("aria-label") for g in tab.query_selector_all("#flame g")]


def frame(tab: Any, name: str) -> Any:  # noqa: ANN401
    return tab.query_selector(f'#flame g[aria-label^="{name},"]')


def test_charts_are_drawn(tab: Any, full: Report) -> None:  # noqa: ANN401
    page_ = tab(page(full))
    assert page_.locator("#time polygon").count() == 7, "six classes, and memory"
    assert page_.locator("#time polyline").count() == 2
    assert page_.locator("#strip rect").count() > 100
    assert page_.locator("#flame g").count() > 15
    page_.hover("#time svg", position={"x": 500, "y": 100})
    assert "cores" in page_.inner_text("#time .tip")
    assert "resident" in page_.inner_text("#time .tip")


def test_zoom_and_search(tab: Any, full: Report) -> None:  # noqa: ANN401
    page_ = tab(page(full))
    everything = len(frames(page_))
    whole = frame(page_, "merkle::build").query_selector("rect").bounding_box()["width"]
    frame(page_, "merkle::build").click()
    assert len(frames(page_)) < everything
    assert frame(page_, "fri::fold") is None
    assert frame(page_, "merkle::build").query_selector("rect").bounding_box()["width"] > 2 * whole
    page_.click("text=Reset zoom")
    assert len(frames(page_)) == everything
    page_.fill('input[type="search"]', "MEMSET")
    assert page_.locator("#flame g.found").count() == 2
    # 17 + 6 per cent of the time is below a memset.
    assert "23.0%" in page_.inner_text(".flame + .readout")


def test_classes_are_chosen(tab: Any, full: Report) -> None:  # noqa: ANN401
    page_ = tab(page(full))
    assert frame(page_, "butterflies")
    page_.click("text=Giving back")
    assert page_.get_attribute("text=Giving back", "aria-pressed") == "true"
    assert frame(page_, "butterflies") is None
    assert "7.0% of CPU time" in frames(page_)[0]


def test_keys(tab: Any, full: Report) -> None:  # noqa: ANN401
    page_ = tab(page(full))
    root = page_.locator("#flame g").first
    root.focus()
    page_.keyboard.press("ArrowDown")
    page_.keyboard.press("ArrowDown")
    label = "document.activeElement.getAttribute('aria-label')"
    assert page_.evaluate(label).startswith("prove,")
    page_.keyboard.press("ArrowRight")
    assert page_.evaluate(label).startswith("load_key,")
    page_.keyboard.press("Enter")
    assert frame(page_, "commit_trace") is None
    page_.keyboard.press("Escape")
    assert frame(page_, "commit_trace")
    page_.focus("#time svg")
    page_.keyboard.press("ArrowRight")
    page_.keyboard.press("ArrowRight")
    assert "cores" in page_.inner_text("#time + .legend + .readout")


def test_hostile_names(tab: Any, evil: Report) -> None:  # noqa: ANN401
    page_ = tab(page(evil))
    assert page_.evaluate("window.hacked") is None
    assert page_.locator("img").count() == 0
    assert "</script>" in page_.inner_text("h1")
    page_.locator("#flame g").nth(1).hover()
    assert "</script>" in page_.inner_text("#flame .tip")


def test_differences(tab: Any, full: Report, made: Callable[..., Any]) -> None:  # noqa: ANN401
    import dataclasses

    m = made()
    after = dataclasses.replace(m, stacks=tuple(s for s in m.stacks if s.kind != "fault.anon"))
    page_ = tab(comparison_page(compare([full], [Report.of(after)])))
    assert "17.0% before, 0.0% after (-17.0 points)" in frame(page_, "alloc_zeroed").get_attribute(
        "aria-label"
    )


def test_the_theme_can_be_changed(tab: Any, full: Report) -> None:  # noqa: ANN401
    page_ = tab(page(full))
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page_.evaluate(colour)
    page_.click("#theme")
    after = page_.evaluate(colour)
    page_.click("#theme")
    assert before == page_.evaluate(colour) != after


@pytest.mark.parametrize("both", [False, True])
def test_accessibility(tab: Any, full: Report, *, both: bool) -> None:  # noqa: ANN401
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page_ = tab(comparison_page(compare([full], [full])) if both else page(full))
    found = axe.run(page_).response
    assert [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in found["violations"]] == []


def test_a_narrow_window(tab: Any, full: Report) -> None:  # noqa: ANN401
    page_ = tab(page(full))
    page_.set_viewport_size({"width": 390, "height": 800})
    page_.wait_for_timeout(200)
    assert page_.evaluate("document.documentElement.scrollWidth") <= 390
