"""Crawl a web site with several workers: each page once, politely, and however broken the site is.

    python examples/crawler.py                               a site of 100 pages
    python examples/crawler.py --pages 1000 --backend trio   a larger one

The site is served by this program itself (`crawler_site.py`), so nothing leaves the machine. Its pages answer late or
never, break off, redirect in circles, or are not there.

How it works:

* `Fetcher` is a worker with one job: to fetch an `Address`, and to answer with a `Page`. Both are dataclasses; the
  handler's annotations say so, and who asks for the job gets a `Page`, for type checkers too.
* A `WorkerPool` is a name with several fetchers behind it. Each begins at most so many jobs a second (`rate=`).
* `pool.map` takes addresses from a queue, no faster than the fetchers do, and has the answers as they come. Links that
  are new go into the queue; when no page is under way any more the queue is closed, and the map ends.
* A page that is not there is an answer like any other. What may be better the next time is a `JobFailure`: that job is
  asked for again (`attempts=`, `backoff=`, `retry_on=`), and what then still fails is an answer with an error in it.
"""

import argparse
import logging
import math
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urldefrag, urljoin, urlsplit

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from crawler_site import Site
from workerbus import (
    Backoff,
    BaseWorker,
    JobError,
    JobFailure,
    JobStatus,
    Rate,
    WorkerPool,
    WorkerRunner,
    current_job,
    job,
)

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
    attempts: int


class Fetcher(BaseWorker):
    """Fetches pages."""

    @job(name="fetch", rate=Rate(50, burst=5))
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
        links = [urldefrag(urljoin(address.url, link)).url for link in links]
        return Page(status, links, attempts=current_job().attempt)


# --- the crawl


@dataclass
class Found:
    """What was at the addresses of a site: pages, or reasons why they were given up."""

    pages: dict[str, Page] = field(default_factory=dict)
    failures: dict[str, JobError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pages) + len(self.failures)


async def crawl(home: str, bar: Progress) -> Found:
    """Fetch each page of a site once."""
    pool = WorkerPool("fetchers", Fetcher, size=FETCHERS)
    task = bar.add_task("", url="")
    found = Found()
    known: set[str] = set()
    to_fetch, queue = anyio.create_memory_object_stream[Address](math.inf)

    def find(url: str) -> None:
        if url not in known and url.startswith(home):
            known.add(url)
            to_fetch.send_nowait(Address(url))

    async with WorkerRunner() as runner, to_fetch, queue:
        await runner.add_workers(pool)
        find(home)
        async with pool.map(
            Fetcher.fetch,
            queue,
            timeout=30,
            attempts=3,
            backoff=Backoff(initial=0.05),
            retry_on=JobStatus.FAILED,
            cancel_on_error=False,
        ) as answers:
            async for answer in answers:
                url = answer.payload.url
                if answer.error is not None:
                    found.failures[url] = answer.error
                else:
                    found.pages[url] = answer.response
                    for link in answer.response.links:
                        find(link)
                bar.update(task, completed=len(found), total=len(known), url=url)
                if len(found) == len(known):
                    to_fetch.close()  # nothing is under way that could lead to more
    return found


# --- the summary


def summary(found: Found) -> str:
    attempts = [page.attempts for page in found.pages.values()] + [error.attempts for error in found.failures.values()]
    lines = table("status", [page.status for page in found.pages.values()]) + table("attempts", attempts)
    for url, error in sorted(found.failures.items()):
        lines.append(f"given up: {urlsplit(url).path}: {error.reason}")
    for way in circles(found.pages):
        lines.append(f"redirects in a circle: {' → '.join(urlsplit(url).path for url in way)}")
    return "\n".join(lines)


def table(title: str, keys: list[int]) -> list[str]:
    counts = Counter(keys)
    return [f"{title:>8}  pages", *(f"{key:8}  {counts[key]:5,}" for key in sorted(counts)), ""]


def circles(pages: dict[str, Page]) -> list[list[str]]:
    """Find redirects that lead back to themselves: for each circle, the addresses on the way."""
    leads_to = {url: page.links[0] for url, page in pages.items() if 300 <= page.status < 400}
    ways = []
    for url in leads_to:
        way = [url]
        while (onward := leads_to.get(way[-1])) and onward not in way:
            way.append(onward)
        if onward == url == min(way):
            ways.append([*way, url])
    return ways


# --- HTTP, as much of it as is needed


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


# --- the program around it


def progress_bar() -> Progress:
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[url]}", style="dim", markup=False))
    return Progress(*columns, console=console, disable=not console.is_interactive)


def main() -> None:
    parser = argparse.ArgumentParser(description="Crawl a broken web site.")
    parser.add_argument("--pages", metavar="N", type=int, default=100, help="of the site; default: %(default)s")
    parser.add_argument("--backend", choices=anyio.get_available_backends(), default="asyncio")
    given = parser.parse_args()
    if given.pages < 1:
        parser.error(f"--pages: at least 1, not {given.pages}")
    logging.getLogger("workerbus").setLevel(logging.ERROR)  # else there is a warning for each new attempt
    began = time.monotonic()
    with Site(given.pages) as site, progress_bar() as bar:
        found = anyio.run(crawl, site.url, bar, backend=given.backend)
    print(f"{len(found):,} pages in {time.monotonic() - began:.1f} s on {given.backend}\n\n{summary(found)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
