"""examples/crawler.py, run as a program: it says of the site what the site is, and asks no more often than needed."""

import json
import re
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from support.programs import EXAMPLES, Terminal, run_example

pytestmark = pytest.mark.slow

ON_THE_PATH = f"import sys\nsys.path.insert(0, {str(EXAMPLES)!r})\n"
WATCHED = f"""{ON_THE_PATH}
import atexit, json
import crawler_site

class Watched(crawler_site.Site):
    def __init__(self, pages):
        super().__init__(pages)
        atexit.register(lambda: print(json.dumps(self.hits)))

crawler_site.Site = Watched
"""
"""Has the program print, as its last line, which path the site was asked for how often."""


def expected_hits(pages: int) -> Iterator[tuple[str, int]]:
    """Yield each path of the site, and how often it takes to get it."""
    yield from {"/": 1, "/broken": 3, "/torn": 3, "/stuck": 3, "/loop/1": 1, "/loop/2": 1}.items()
    for number in range(1, pages + 1):
        yield f"/page/{number}", 2 if number % 5 == 0 or number % 7 == 0 else 1
        if number % 4 == 0:
            yield f"/old/{number}", 1
        if number % 6 == 0:
            yield f"/missing/{number}", 1


def counts(output: str, title: str) -> dict[int, int]:
    """Return a table of the summary."""
    table = re.search(rf" *{title}  pages\n((?: +\d+ +[\d,]+\n)+)", output)
    assert table is not None
    rows = [line.split() for line in table[1].splitlines()]
    return {int(key): int(count.replace(",", "")) for key, count in rows}


@pytest.mark.parametrize("pages", [100])
def test_the_summary_is_what_the_site_has_and_each_page_was_fetched_once(pages: int, backend: str) -> None:
    """J13, J17, J20, S2: again only where that helps, and not more often than it may."""
    done = run_example("crawler.py", "--pages", pages, "--backend", backend, patch=WATCHED)
    assert (done.returncode, done.stderr) == (0, "")
    hits, expected = json.loads(done.stdout.splitlines()[-1]), dict(expected_hits(pages))
    assert hits == expected
    assert done.stdout.startswith(f"{len(expected)} pages in ")
    assert counts(done.stdout, "attempts") == Counter(expected.values())
    found = {200: pages + 1, 301: pages // 4, 302: 2, 404: pages // 6}
    assert counts(done.stdout, "status") == {status: count for status, count in found.items() if count}
    assert re.findall(r"given up: (/\w+): worker '[\w-]+' failed: (.*)", done.stdout) == [
        ("/broken", "the server answered 500"),
        ("/stuck", "no answer within 0.8 s"),
        ("/torn", "the connection broke: IncompleteRead"),
    ]
    assert "redirects in a circle: /loop/1 → /loop/2 → /loop/1\n" in done.stdout


def test_in_a_terminal_a_bar_says_how_far_it_is(backend: str) -> None:
    with Terminal("crawler.py", "--pages", "30", "--backend", backend) as terminal:
        assert terminal.read_to_the_end() == 0
    bar, shown, rest = terminal.text.rpartition("\x1b[?25h")
    assert shown
    assert re.search(r"━ +48/48 http://127\.0\.0\.1:\d+/\w+", bar)
    assert rest.strip().startswith("48 pages in ")


def test_ctrl_c_ends_it_with_130_and_the_cursor_shown(backend: str) -> None:
    with Terminal("crawler.py", "--pages", "5000", "--backend", backend) as terminal:
        terminal.read_until(r"\d\d/\d+ http")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_to_the_end() == 130
    assert "Traceback" not in terminal.text
    assert "pages in" not in terminal.text
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


def test_a_bad_number_of_pages_is_refused() -> None:
    done = run_example("crawler.py", "--pages", 0, patch=ON_THE_PATH)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("crawler.py: error: --pages: at least 1, not 0\n")
