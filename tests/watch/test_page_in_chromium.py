"""The page in a real browser: a run that goes on, by keyboard, in both schemes and on a phone."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.helpers.chromium import Browser, Page, find_chromium, running_browser
from tests.helpers.running import Command
from tests.helpers.synthetic_run import HOSTILE, write_synthetic_run
from tests.helpers.watching import served

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium here"),
]
ENTER = {"key": "Enter", "code": 13, "text": "\r"}
TAB = {"key": "Tab", "code": 9}
MESSAGES = 5
PATIENCE_S = 60.0
FOCUS = "document.activeElement"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


def text_of(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({selector!r}).textContent"))


def tile(page: Page, head: str) -> str:
    """The figure of the tile with this heading."""
    return str(
        page.evaluate(
            "[...document.querySelectorAll('.tile')]"
            f".find((tile) => tile.children[0].textContent === {head!r}).children[1].textContent"
        )
    )


def tab_to(page: Page, is_there: str) -> None:
    """Presses Tab until the focus is where it is wanted, and can be seen there."""
    for _ in range(40):
        page.press(**TAB)  # type: ignore[arg-type]
        if page.evaluate(is_there):
            outline = page.evaluate(f"getComputedStyle({FOCUS}).outlineStyle")
            assert outline not in ("none", ""), "the focus is not visible"
            return
    raise AssertionError(f"Tab does not lead there: {is_there}")


def check_layout(page: Page, directory: Path) -> None:
    """Nothing is wider than the window, in any size and scheme; and the schemes differ."""
    for width, height, is_phone in ((1280, 900, False), (390, 844, True), (320, 640, True)):
        backgrounds = set()
        for scheme in ("light", "dark"):
            page.resize(width, height, is_phone=is_phone)
            page.prefer(scheme)
            page.wait_until(f"innerWidth === {width}")
            root = "document.documentElement"
            assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), width
            backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.screenshot(directory / f"page-{width}-{scheme}.png")
        assert len(backgrounds) == 2


def test_a_run_that_goes_on_is_shown_live(training: Command, browser: Browser, tmp_path: Path):
    results = tmp_path / "results"
    with served(results) as server:
        page = browser.open(server.url)
        page.wait_until("document.querySelector('#list a')?.textContent === 'run'")
        page.wait_until("document.querySelector('#list .state')?.textContent === 'running'")

        tab_to(page, f"{FOCUS}.getAttribute('href') === '#run=run'")
        page.press(**ENTER)  # type: ignore[arg-type]
        page.wait_until("document.querySelectorAll('#returns path').length > 0")
        page.wait_until("document.getElementById('run-state').textContent === 'running'")

        num_before, begin_s = page.num_messages(), time.monotonic()
        while page.num_messages() < num_before + MESSAGES:
            assert time.monotonic() - begin_s < PATIENCE_S, "it is shown once and no more"
        before = tile(page, "Env steps consumed")
        page.wait_until(
            "[...document.querySelectorAll('.tile')]"
            ".find((tile) => tile.children[0].textContent === 'Env steps consumed')"
            f".children[1].textContent !== {before!r}"
        )
        assert tile(page, "Collected").endswith("/s")
        drawn = text_of(page, "#flow svg")
        assert all(name in drawn for name in ("actors ×2", "buffer", "learner", "env steps"))
        assert page.evaluate("document.querySelectorAll('#processes tbody tr').length") >= 5
        assert "joined" in text_of(page, "#events tbody")
        page.wait_until("document.querySelector('#log-lines').textContent.length > 0")

        tab_to(page, f"{FOCUS}.closest('#flow') && {FOCUS}.tagName === 'SUMMARY'")
        page.press(**ENTER)  # type: ignore[arg-type]
        page.wait_until("document.querySelectorAll('#flow tbody tr').length === 3")
        assert "rollout (gather)" in text_of(page, "#flow tbody")
        tab_to(page, f"{FOCUS}.closest('#rates') && {FOCUS}.tagName === 'svg'")
        page.press("End", code=35)
        assert "env steps/s collected" in text_of(page, "#rates output")
        tab_to(page, f"{FOCUS}.id === 'log'")
        page.press("Home", code=36)
        page.wait_until("document.querySelector('#log-lines').textContent.includes('actor-0')")

        check_layout(page, tmp_path)
        training.role("actor-0").send_signal(signal.SIGKILL)
        page.wait_until("document.querySelector('#events tbody').textContent.includes('SIGKILL')")
        training.process.send_signal(signal.SIGINT)
        page.wait_until("document.getElementById('run-state').textContent === 'interrupted'")
        assert page.errors() == []
        assert {urlsplit(url).netloc for url in page.requested()} == {urlsplit(server.url).netloc}
        assert server.end() == 0
        page.wait_until("document.getElementById('connection').textContent.includes('not answer')")


def test_text_of_files_stays_text(browser: Browser, tmp_path: Path):
    name = "<img src=x onerror=alert(1)>"
    paths = write_synthetic_run(tmp_path / "results" / name, status="failed")
    (paths.logs / "box<1>/actor-0.log").write_text(HOSTILE + "\x1b[31m")
    with served(tmp_path / "results") as server:
        page = browser.open(server.url)
        page.wait_until("document.querySelectorAll('#list a').length === 1")
        page.evaluate("document.querySelector('#list a').click()")
        page.wait_until("document.querySelector('#log-lines').textContent.length > 0")
        page.wait_until("document.getElementById('run-state').textContent === 'failed'")
        assert text_of(page, "#run-title") == name
        for place in ("#run-lead", "#run-words", "#events tbody", "#hosts tbody", "#log-lines"):
            assert "<script>alert('x')</script>" in text_of(page, place), place
        assert page.evaluate("document.querySelectorAll('script, img').length") == 1
        check_layout(page, tmp_path)
        assert page.errors() == []


def test_a_page_without_runs_and_a_run_that_is_not_there(browser: Browser, tmp_path: Path):
    with served(tmp_path / "results") as server:
        page = browser.open(server.url)
        page.wait_until("document.getElementById('list-note').textContent.includes('No run here')")
        page.evaluate("location.hash = 'run=none'")
        page.wait_until("document.getElementById('run-words').textContent.includes('no run')")
        assert page.errors() == []
