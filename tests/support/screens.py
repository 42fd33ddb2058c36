"""Pages of a real browser, for async tests."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from anyio import to_thread

from support.browsers import Browser, Page
from workerbus.view import View

PICTURES = os.environ.get("WORKERBUS_PICTURES")


class Screen:
    """A page, called from an async test: the browser is waited for in a thread."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def value(self, expression: str) -> Any:
        return await to_thread.run_sync(self._page.value, expression)

    async def until(self, expression: str) -> Any:
        return await to_thread.run_sync(self._page.until, expression)

    async def press(self, key: str, text: str | None = None) -> None:
        await to_thread.run_sync(self._page.press, key, text)

    async def picture(self, name: str, width: int = 1440, height: int = 900, *, dark: bool = False) -> None:
        """Take a picture, where somebody wants to look at it."""
        if PICTURES:
            await to_thread.run_sync(self._page.resize, width, height)
            await to_thread.run_sync(partial(self._page.dark, dark=dark))
            await self.value("new Promise((done) => setTimeout(done, 600))")
            await to_thread.run_sync(self._page.picture, Path(PICTURES) / f"{name}.png")

    async def resize(self, width: int, height: int) -> None:
        await to_thread.run_sync(self._page.resize, width, height)

    async def close(self) -> None:
        """Close it; nothing has gone wrong in it."""
        faults = self._page.faults
        await to_thread.run_sync(self._page.close)
        assert faults == []


async def opened(browser: Browser, view: View, query: str = "") -> Screen:
    screen = Screen(await to_thread.run_sync(browser.open, view.url + query))
    await screen.until("document.querySelector('#link.live')")
    return screen
