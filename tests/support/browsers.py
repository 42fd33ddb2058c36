"""A real Chromium, over a pipe that speaks its DevTools protocol: it needs nothing but the program."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium")) or shutil.which("google-chrome")
WHY_NOT = "there is no Chromium here: 'apt-get install chromium', or name one with CHROMIUM="
HANGS = 600.0
"""Seconds after which a browser is killed, with all that it was asked for."""

OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-proxy-server",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    *(("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()),
)

WAITS = 60.0
"""Seconds for which something on a page is waited for."""

LOOK = """new Promise((done, fail) => {
    const until = performance.now() + MILLISECONDS;
    const look = () => {
        const it = (EXPRESSION);
        if (it) done(it);
        else if (performance.now() > until) fail(new Error("never"));
        else setTimeout(look, 20);
    };
    look();
})"""


class Browser:
    """A browser; all calls block, so an async test calls them in a thread.

    Attributes:
        events: What it has told without being asked: exceptions in pages, lines of their consoles.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._numbers = count(1)
        self._rest = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Call a method of the protocol; returns its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._send, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._receive, 1 << 16)
            assert data, "the browser has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))

    def open(self, url: str, width: int = 1440, height: int = 900) -> "Page":
        """Open a page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        page.go(url)
        return page


class Page:
    """A page in a browser."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target

    def call(self, method: str, **params: Any) -> Any:
        return self._browser.call(method, self._session, **params)

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def dark(self, *, dark: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def value(self, expression: str) -> Any:
        """The value of an expression; a promise is awaited."""
        told = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression is true; returns its value."""
        until = time.monotonic() + WAITS
        look = LOOK.replace("MILLISECONDS", f"{1000 * WAITS:.0f}").replace("EXPRESSION", expression)
        while time.monotonic() < until:
            with contextlib.suppress(AssertionError):  # while it navigates, there may be no page
                return self.value(look)
        raise TimeoutError(f"it never became true: {expression}")

    def press(self, key: str, text: str | None = None) -> None:
        """Press a key and let it go."""
        typed = {"text": text} if text is not None else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the page has told without being asked."""
        return [each for each in self._browser.events if each.get("sessionId") == self._session]

    @property
    def faults(self) -> list[str]:
        """Exceptions, and errors in the console, the policy's among them."""
        told = self.events
        thrown = [str(each["params"]) for each in told if each["method"] == "Runtime.exceptionThrown"]
        logged = [each["params"]["entry"] for each in told if each["method"] == "Log.entryAdded"]
        return thrown + [str(entry) for entry in logged if entry["level"] == "error" and entry["source"] != "network"]


def above(number: int) -> int:
    """Move a file descriptor out of the way of those that the browser is given, 3 and 4."""
    moved = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(number)
    return moved


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a Chromium for as long as a block runs."""
    assert CHROMIUM is not None, WHY_NOT
    to_read, to_send = (above(each) for each in os.pipe())
    to_receive, to_write = (above(each) for each in os.pipe())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        start = f"import os, sys; os.dup2({to_read}, 3); os.dup2({to_write}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", start, CHROMIUM, *OPTIONS, f"--user-data-dir={folder}"]
        process = subprocess.Popen(
            command,
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        watchdog = threading.Timer(HANGS, process.kill)
        watchdog.start()
        try:
            browser = Browser(to_send, to_receive)
            yield browser
            with contextlib.suppress(AssertionError, OSError):
                browser.call("Browser.close")
        finally:
            watchdog.cancel()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(to_send)
            os.close(to_receive)
