"""A headless Chromium, driven through its own DevTools protocol over a pipe: no driver, no port."""

from __future__ import annotations

import base64
import itertools
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run"),
    *("--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--no-proxy-server"),
)
ANSWER_S = 60.0


def find_chromium() -> str | None:
    """The browser of this machine; None if there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One browser process.

    Args:
        commands, answers: Descriptors of the two pipes.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._numbers = itertools.count(1)
        self._data = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(answers, selectors.EVENT_READ)
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: object) -> dict[str, Any]:
        """Calls a method and waits for its result; events that come meanwhile are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline_s = time.monotonic() + ANSWER_S
        while True:
            answer = self._next(deadline_s)
            assert answer is not None, f"no answer to {method}"
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self, deadline_s: float) -> dict[str, Any] | None:
        while b"\0" not in self._data:
            if not self._selector.select(max(0.0, deadline_s - time.monotonic())):
                return None
            chunk = os.read(self._answers, 1 << 20)
            assert chunk, "the browser has ended"
            self._data += chunk
        line, _, self._data = self._data.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def open(self, url: str) -> Page:
        """A new page; its errors are collected from the start."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=url)
        page.wait_until("location.href !== 'about:blank' && document.readyState === 'complete'")
        return page


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """Calls a method of this page."""
        return self._browser.call(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401  # whatever the page has
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_until(self, expression: str, timeout_s: float = 60.0) -> object:
        """Waits until an expression is true; returns its value."""
        deadline_s = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline_s, f"not so: {expression}\n{self.errors()[:9]}"
            time.sleep(0.05)
        return value

    def resize(self, width: int, height: int, *, is_phone: bool = False) -> None:
        """The size of the window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=is_phone,
        )

    def prefer(self, scheme: str) -> None:
        """`dark` or `light`."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def press(self, key: str, *, code: int = 0, text: str = "", shift: bool = False) -> None:
        """Presses and releases a key."""
        for kind in ("keyDown", "keyUp"):
            params = {"type": kind, "key": key, "windowsVirtualKeyCode": code, "modifiers": 0}
            if shift:
                params["modifiers"] = 8
            if text and kind == "keyDown":
                params["text"] = text
            self.call("Input.dispatchKeyEvent", **params)

    def screenshot(self, path: Path) -> None:
        """The whole page, however long it is, as a PNG file."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _events(self, method: str) -> Iterator[dict[str, Any]]:
        for event in self._browser.events:
            if event.get("sessionId") == self._session and event.get("method") == method:
                yield event["params"]

    def errors(self) -> list[str]:
        """Whatever the page has thrown, written to the console as an error, or been refused."""
        self.evaluate("0")
        thrown = [
            str(event["exceptionDetails"]) for event in self._events("Runtime.exceptionThrown")
        ]
        said = [
            str(event["args"])
            for event in self._events("Runtime.consoleAPICalled")
            if event["type"] in ("error", "warning", "assert")
        ]
        logged = [
            event["entry"]["text"] + event["entry"].get("url", "")
            for event in self._events("Log.entryAdded")
            if event["entry"]["level"] in ("error", "warning")
        ]
        return [*thrown, *said, *logged]

    def requested(self) -> list[str]:
        """Addresses of all requests of the page."""
        return [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]

    def num_messages(self) -> int:
        """Server-sent events that have come."""
        self.evaluate("0")
        return sum(1 for _ in self._events("Network.eventSourceMessageReceived"))


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser with a profile of its own, which is removed afterwards."""
    program = find_chromium()
    assert program is not None
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        flags = (*FLAGS, f"--user-data-dir={profile}")
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "", program, *flags],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )
        for inherited in (to_browser, from_browser):
            os.close(inherited)
        try:
            yield Browser(commands, answers)
        finally:
            process.kill()
            process.wait()
            for own in (commands, answers):
                os.close(own)
