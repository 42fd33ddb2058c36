"""Takes the pictures of the live view for docs/view.md, of a real run in a real Chromium: ``python docs/draw_view.py``.

The run is that of a crawler; the pictures differ each time. ``--show`` runs it and takes none, for who wants to look.
"""

import logging
import random
import sys
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from workerbus import BaseWorker, BusJobRequestMessage, JobError, JobFailure, WorkerPool, WorkerRunner, job
from workerbus.view import serve_view

ROOT = Path(__file__).parents[1]
PICTURES = Path(__file__).parent / "pictures"
chance = random.Random(7)  # noqa: S311 - no secret


class Fetcher(BaseWorker):
    """Fetches pages, which sometimes are not there."""

    @job(name="fetch")
    async def fetch(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Fetch a page, and tell how much of it is there."""
        for part in range(chance.randint(1, 4)):
            await anyio.sleep(chance.expovariate(4))
            await self.send_job_update(message.job_id, {"part": part})
        if chance.random() < 0.03:
            raise ConnectionError("the site has closed the connection")
        if chance.random() < 0.05:
            raise JobFailure("there is no such page")
        return {"text": "…"}


class Parser(BaseWorker):
    """Finds the links in pages."""

    @job(name="parse")
    async def parse(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Parse a page."""
        await anyio.sleep(chance.expovariate(8))
        return {"links": []}


class Site(BaseWorker):
    """Knows what is to be fetched of one site."""

    @job(name="crawl")
    async def crawl(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Fetch a page and parse it."""
        page = await self.job("fetchers", name="fetch", payload={"url": "…"}, timeout=8)
        return dict(await self.job("parser", name="parse", payload=page, timeout=8))


async def crawl(runner: WorkerRunner, site: str) -> None:
    """Have a site crawled again and again."""
    while True:
        try:
            await runner.job(site, name="crawl", timeout=20)
        except JobError:
            await anyio.sleep(0.5)
        await anyio.sleep(chance.random())


def take_pictures(url: str) -> None:
    """Look at the page for a minute, and take pictures of it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.browsers import chromium  # noqa: PLC0415 - beside the tests

    with chromium() as browser:
        page = browser.open(url, 1440, 900)
        for dark, name in ((False, "view.png"), (True, "view-dark.png")):
            page.dark(dark=dark)
            page.value(f"new Promise((done) => setTimeout(done, {3_000 if dark else 50_000}))")
            page.picture(PICTURES / name)
        page.dark(dark=False)
        page.resize(1000, 640)
        page.until(
            "(() => { const row = [...document.querySelectorAll('#jobs .row:not([hidden])')]"
            ".find((each) => each.textContent.startsWith('crawl')); row?.click(); return row !== undefined; })()"
        )
        page.until("/crawl (completed|error)/.test(document.querySelector('#detail svg')?.textContent)")
        page.value("new Promise((done) => setTimeout(done, 300))")
        page.picture(PICTURES / "view-story.png")


async def main() -> None:
    """Crawl until the pictures are taken."""
    logging.getLogger("workerbus").addHandler(logging.NullHandler())
    sites = [Site(f"site-{number}") for number in range(8)]
    async with WorkerRunner(name="crawler") as runner, serve_view(runner, port=0) as view:
        pool = WorkerPool("fetchers", Fetcher, size=6)
        await runner.add_workers(pool, Parser("parser"), Parser("spare", active=False), *sites, wait=True)
        async with anyio.create_task_group() as tasks:
            for site in sites:
                tasks.start_soon(crawl, runner, site.name)
            if "--show" in sys.argv:
                print(view.url)  # noqa: T201 - for whoever has asked for it
                await anyio.sleep_forever()
            await to_thread.run_sync(take_pictures, view.url)
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
