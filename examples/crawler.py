"""Crawl a web site with several workers: each page once, politely, and however broken the site is.

    python examples/crawler.py                               a site of 100 pages
    python examples/crawler.py --pages 1000 --backend trio   a larger one

The site is served by this program itself (`crawler_site.py`), so nothing leaves the machine. Its pages answer late or
never, break off, redirect in circles, or are not there.

How it works:

* `Fetcher` is a worker with one job: to fetch an `Address`, and to answer with a `Page`. Both are dataclasses; the
  handler's annotations say so, and whoever asks gets a `Page`, for type checkers too.
* Each fetcher begins at most so many jobs a second (`rate=`). What comes faster stands in line.
* A page that is not there is an answer like any other. What may be better the next time is a `JobFailure`: the job is
  then asked for again (`attempts=`, `backoff=`, `retry_on=`).
* `Crawl` has a task for each address that is found, and asks one fetcher after the other.
* When all addresses have been visited the block of the runner is left, and with it the workers end.
"""

import argparse
import logging
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import urldefrag, urljoin, urlsplit

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from crawler_site import Site
from workerbus import Backoff, BaseWorker, JobError, JobFailure, JobStatus, Rate, WorkerRunner, job

PATIENCE = 0.8
"""Seconds that a fetcher waits for a page."""
FETCHERS = 8
LINK = re.compile(rb'<a href="([^"]+)"')


# --- the workers


@dataclass
class Address:
    url: str


@dataclass
class Page:
    status: int
    links: list[str]


class Fetcher(BaseWorker):
    """Fetches pages."""

    @job(name="fetch", sequential=True, rate=Rate(50, burst=5))
    async def fetch(self, address: Address) -> Page:
        try:
            with anyio.fail_after(PATIENCE):
                status, headers, body = await get(address.url)
        except TimeoutError:
            raise JobFailure(f"no answer within {PATIENCE} s") from None
        except (OSError, anyio.BrokenResourceError, anyio.IncompleteRead) as error:
            raise JobFailure(f"the connection broke: {type(error).__name__}") from error
        if status >= 500:
            raise JobFailure(f"the server answered {status}")
        links = [link.decode() for link in LINK.findall(body)]
        if "location" in headers:
            links = [headers["location"]]
        return Page(status, [urldefrag(urljoin(address.url, link)).url for link in links])


async def get(url: str) -> tuple[int, dict[str, str], bytes]:
    """Send a GET request; returns the status, the headers and the body of the answer."""
    address = urlsplit(url)
    async with await anyio.connect_tcp(str(address.hostname), address.port or 80) as stream:
        await stream.send(f"GET {address.path} HTTP/1.0\r\nHost: {address.netloc}\r\n\r\n".encode())
        received = BufferedByteReceiveStream(stream)
        head = await received.receive_until(b"\r\n\r\n", max_bytes=65536)
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body = await received.receive_exactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, body


# --- the crawl


class Crawl:
    """A crawl from one address on, and what it finds; it stays on that site.

    Attributes:
        pages: Address to what was there.
        failures: Address to why it was given up.
        attempts: Address to how often it was asked for.
    """

    def __init__(self, home: str) -> None:
        self.home = home
        self.pages: dict[str, Page] = {}
        self.failures: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self._found: set[str] = set()

    async def run(self, bar: Progress) -> None:
        self._bar, self._task = bar, bar.add_task("", url="")
        async with WorkerRunner() as runner:
            fetchers = [f"fetcher-{number}" for number in range(1, FETCHERS + 1)]
            await runner.add_workers(*map(Fetcher, fetchers))
            self._runner, self._turns = runner, cycle(fetchers)
            async with anyio.create_task_group() as self._tasks:
                self._find(self.home)

    def _find(self, url: str) -> None:
        if url not in self._found and url.startswith(self.home):
            self._found.add(url)
            self._tasks.start_soon(self._visit, url)

    async def _visit(self, url: str) -> None:
        asked = self._runner.job(
            next(self._turns),
            Fetcher.fetch,
            payload=Address(url),
            timeout=60,
            attempts=3,
            backoff=Backoff(initial=0.05),
            retry_on=JobStatus.FAILED,
        )
        try:
            self.pages[url] = page = await asked
        except JobError as error:
            self.failures[url] = error.reason
        else:
            for link in page.links:
                self._find(link)
        self.attempts[url] = asked.attempts
        self._bar.update(self._task, completed=len(self.attempts), total=len(self._found), url=url)

    def circles(self) -> list[list[str]]:
        """Find redirects that lead back to themselves: for each circle, the addresses on the way."""
        leads_to = {url: page.links[0] for url, page in self.pages.items() if 300 <= page.status < 400}
        circles = []
        for url in leads_to:
            way = [url]
            while (onward := leads_to.get(way[-1])) and onward not in way:
                way.append(onward)
            if onward == url == min(way):
                circles.append([*way, url])
        return circles


# --- the program around it


def progress_bar() -> Progress:
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[url]}", style="dim", markup=False))
    return Progress(*columns, console=console, disable=not console.is_interactive)


def table(title: str, counts: Counter[int]) -> list[str]:
    return [f"{title:>8}  pages", *(f"{key:8}  {counts[key]:5,}" for key in sorted(counts)), ""]


def summary(crawl: Crawl) -> str:
    lines = table("status", Counter(page.status for page in crawl.pages.values()))
    lines += table("attempts", Counter(crawl.attempts.values()))
    for url, reason in sorted(crawl.failures.items()):
        lines.append(f"given up: {urlsplit(url).path}: {reason}")
    for way in crawl.circles():
        lines.append(f"redirects in a circle: {' → '.join(urlsplit(url).path for url in way)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Crawl a broken web site.")
    parser.add_argument("--pages", metavar="N", type=int, default=100, help="of the site; default: %(default)s")
    parser.add_argument("--backend", choices=anyio.get_available_backends(), default="asyncio")
    given = parser.parse_args()
    if given.pages < 1:
        parser.error(f"--pages: at least 1, not {given.pages}")
    logging.getLogger("workerbus").setLevel(logging.ERROR)  # else there is a warning for each new attempt
    began = time.monotonic()
    with Site(given.pages) as site:
        crawl = Crawl(site.url)
        with progress_bar() as bar:
            anyio.run(crawl.run, bar, backend=given.backend)
    print(f"{len(crawl.attempts):,} pages in {time.monotonic() - began:.1f} s on {given.backend}\n\n{summary(crawl)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
