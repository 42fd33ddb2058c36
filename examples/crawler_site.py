"""A small web site with everything that a crawler meets; `crawler.py` crawls it.

It is served on 127.0.0.1, on a free port, by the standard library's HTTP server in a thread:

    with Site(pages=100) as site:
        print(site.url)

    /                   links to page 1, to what is broken, to itself, and to another host
    /page/1 …           the pages: each links to two more, to the one before, to /, and to a place in itself
        every 5th           answers "500" when it is asked for the first time
        every 7th           breaks off in the middle, the first time
        every 11th          is slow
        every 4th           has an old address, /old/…, that redirects to it
        every 6th           links to /missing/…, which is not there
    /broken             always answers "500"
    /torn               always breaks off
    /stuck              never answers
    /loop/1, /loop/2    redirect to each other
"""

from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Event, Thread
from typing import Any, Self

SLOW = 0.15
"""Seconds that a slow page takes."""


@dataclass
class Answer:
    """What the site says to a request."""

    status: int = 200
    links: list[str] = field(default_factory=list)
    location: str | None = None
    breaks_off: bool = False
    after: float = 0.0


def answer(path: str, visit: int, pages: int) -> Answer:
    """Decide what to say to a request for a path: the first, the second, …, of a site with so many pages."""
    match path.split("/")[1:]:
        case [""]:
            return Answer(links=["/page/1", "/broken", "/torn", "/stuck", "/loop/1", "/#top", "http://example.com/"])
        case ["page", number]:
            return page(int(number), visit, pages)
        case ["old", number]:
            return Answer(301, location=f"/page/{number}")
        case ["loop", number]:
            return Answer(302, location=f"/loop/{3 - int(number)}")
        case ["broken"]:
            return Answer(500)
        case ["torn"]:
            return Answer(breaks_off=True)
        case ["stuck"]:
            return Answer(after=3600)
        case _:
            return Answer(404)


def page(number: int, visit: int, pages: int) -> Answer:
    """Decide what to say to a request for one of the pages."""
    if number % 5 == 0 and visit == 1:
        return Answer(500)
    below = [n for n in (2 * number, 2 * number + 1) if n <= pages]
    links = [f"/old/{n}" if n % 4 == 0 else f"/page/{n}" for n in below]
    links += [f"/page/{max(1, number - 1)}", "/", f"/page/{number}#more"]
    if number % 6 == 0:
        links.append(f"/missing/{number}")
    return Answer(links=links, breaks_off=number % 7 == 0 and visit == 1, after=SLOW if number % 11 == 0 else 0.0)


class Site(ThreadingTCPServer):
    """The site, which is served while the ``with`` block runs.

    Attributes:
        pages: How many pages it has.
        hits: Path to how often it was asked for.
        url: Its address.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, pages: int) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.pages = pages
        self.hits: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        self.closes = Event()

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closes.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a visitor has lost patience."""


class Visit(BaseHTTPRequestHandler):
    """One request."""

    server: Site

    def do_GET(self) -> None:
        self.server.hits[self.path] += 1
        said = answer(self.path, self.server.hits[self.path], self.server.pages)
        if self.server.closes.wait(said.after):
            return
        links = "".join(f'<li><a href="{link}">{link}</a></li>\n' for link in said.links)
        body = f"<h1>{self.path}</h1>\n<ul>\n{links}</ul>\n".encode()
        self.send_response(said.status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if said.location is not None:
            self.send_header("Location", said.location)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if said.breaks_off else body)

    def log_message(self, *_: object) -> None:
        """Nothing: the crawler says what it has seen."""
