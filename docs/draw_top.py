"""Takes the picture of `workerbus top` for docs/cli.md, of a real run, in a real Chromium: ``python docs/draw_top.py``.

The run is that of the crawler of draw_view.py; the picture differs each time.
"""

import logging
import sys
import tempfile
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread
from draw_view import PICTURES, ROOT, Fetcher, Parser, Site, crawl

from workerbus import WorkerPool, WorkerRunner
from workerbus.cli._address import Address
from workerbus.cli._app import TopApp
from workerbus.cli._rows import Choice
from workerbus.cli._view import ViewWatch
from workerbus.view import serve_view

SIZES = {"top.png": (150, 36), "top-narrow.png": (80, 24)}


def save(drawn: dict[str, str]) -> None:
    """Have a browser draw the pictures."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.browsers import chromium  # noqa: PLC0415 - beside the tests

    with chromium() as browser, tempfile.TemporaryDirectory() as folder:
        for name, svg in drawn.items():
            # Not the fonts of others, from elsewhere.
            text = svg.replace("Fira Code", "DejaVu Sans Mono").replace("@font-face", "@font-none")
            path = Path(folder) / f"{name}.html"
            path.write_text(f'<!doctype html><meta charset="utf-8"><body style="margin: 0">{text}</body>')
            _, _, width, height = text.partition('viewBox="')[2].partition('"')[0].split()
            page = browser.open(path.as_uri(), int(float(width)), int(float(height)))
            page.until("document.readyState === 'complete'")
            page.picture(PICTURES / name)


async def main() -> None:
    """Crawl for a minute, and look at it."""
    logging.getLogger("workerbus").addHandler(logging.NullHandler())
    sites = [Site(f"site-{number}") for number in range(8)]
    drawn: dict[str, str] = {}
    async with WorkerRunner(name="crawler") as runner, serve_view(runner, port=0) as view:
        pool = WorkerPool("fetchers", Fetcher, size=6)
        await runner.add_workers(pool, Parser("parser"), Parser("spare", active=False), *sites, wait=True)
        async with anyio.create_task_group() as tasks:
            for site in sites:
                tasks.start_soon(crawl, runner, site.name)
            address = Address("http://127.0.0.1:8765/", is_bus=False, token=None, prefix="")
            for name, size in SIZES.items():
                watch = ViewWatch(address._replace(url=view.url))
                watch.shown = address.shown
                app = TopApp(watch, Choice("name"), 0.5)
                async with app.run_test(size=size):
                    await anyio.sleep(65 if not drawn else 3)
                    drawn[name] = app.export_screenshot()
            tasks.cancel_scope.cancel()
    await to_thread.run_sync(partial(save, drawn))


if __name__ == "__main__":
    anyio.run(main)
