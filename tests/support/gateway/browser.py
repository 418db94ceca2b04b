"""A real Chromium, spoken to by the WebDriver protocol (https://www.w3.org/TR/webdriver2/)."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tools.common.packages import install_debian_packages
from tools.common.shell import WITH_PARENT
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SECONDS = 60.0
# Keys, by the code points of the protocol.
TAB, ENTER, CONTROL = "\ue004", "\ue007", "\ue009"
_PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}
# Name of the property that an element's identifier comes in.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_ARGUMENTS = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]


@dataclass(frozen=True)
class Browser:
    """One window.

    Attributes:
        session: address of its session.
    """

    session: str

    def call(self, path: str, **body: object) -> Any:  # noqa: ANN401 - any JSON
        """Send a command; the value of its answer."""
        answer = httpx.post(f"{self.session}/{path}", json=body, timeout=_SECONDS)
        assert answer.is_success, answer.text
        return answer.json()["value"]

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("url", url=url)

    def run(self, script: str, *arguments: object) -> Any:  # noqa: ANN401 - any JSON
        """The value that a script of the page returns."""
        return self.call("execute/sync", script=script, args=list(arguments))

    def type(self, selector: str, text: str) -> None:
        """Replace the text of a field by keys that are pressed."""
        element = self.find(selector)
        self.run("arguments[0].value = ''", {_ELEMENT: element})
        self.call(f"element/{element}/value", text=text)

    def choose(self, selector: str, text: str) -> None:
        """Press keys in a field without emptying it: a file, or an entry of a list."""
        self.call(f"element/{self.find(selector)}/value", text=text)

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.call(f"element/{self.find(selector)}/click")

    def find(self, selector: str) -> str:
        """Identifier of the first element that a CSS selector matches."""
        return str(self.call("element", using="css selector", value=selector)[_ELEMENT])

    def drag(self, selector: str, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Press the pointer at a point of an element, counted in pixels from its center, and move it to another."""
        origin = {_ELEMENT: self.find(selector)}
        self.run("arguments[0].scrollIntoView({block: 'center'})", origin)
        moves = [{"type": "pointerMove", "duration": 50, "x": x, "y": y, "origin": origin} for x, y in (start, end)]
        steps = [moves[0], {"type": "pointerDown", "button": 0}, moves[1], {"type": "pointerUp", "button": 0}]
        self.call("actions", actions=[{"type": "pointer", "id": "mouse", "actions": steps}])

    def wait_for(self, script: str, *arguments: object) -> Any:  # noqa: ANN401 - any JSON
        """Wait until a script returns something true, with a deadline."""
        deadline = time.monotonic() + _SECONDS
        while not (value := self.run(script, *arguments)):
            assert time.monotonic() < deadline, f"{script} has not come true; the page says: {self.text('body')}"
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        """What an element shows."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def resize(self, width: int, height: int) -> None:
        """Give the window another size in pixels."""
        self.call("window/rect", width=width, height=height)

    def screenshot(self, path: Path) -> None:
        """Write a PNG of what the window shows."""
        value = httpx.get(f"{self.session}/screenshot", timeout=_SECONDS).json()["value"]
        path.write_bytes(base64.b64decode(value))

    def problems(self) -> list[str]:
        """Errors of the page's console, such as what its security policy refused."""
        return [entry["message"] for entry in self.call("se/log", type="browser") if entry["level"] == "SEVERE"]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium, installing it where it is missing, and end it with the block.

    Raises:
        ToolError: it cannot be installed.
    """
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if missing:
        install_debian_packages(missing)
    (port,) = free_ports(1)
    driver = subprocess.Popen(
        [*WITH_PARENT, "chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for_driver(f"http://127.0.0.1:{port}")
        browser = Browser(_start_session(f"http://127.0.0.1:{port}"))
        yield browser
        httpx.delete(browser.session, timeout=_SECONDS)
    finally:
        driver.terminate()
        driver.wait(_SECONDS)


def _wait_for_driver(url: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/status").json()["value"]["ready"]:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError("chromedriver does not answer")


def _start_session(url: str) -> str:
    # Chromium's sandbox needs a user that is not root.
    arguments = _ARGUMENTS + (["--no-sandbox"] if os.geteuid() == 0 else [])
    options = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
    answer = httpx.post(f"{url}/session", json={"capabilities": {"alwaysMatch": options}}, timeout=_SECONDS)
    assert answer.is_success, answer.text
    return f"{url}/session/{answer.json()['value']['sessionId']}"
