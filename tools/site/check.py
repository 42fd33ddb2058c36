"""Looks at the site that was built: ``python tools/site/check.py build/site``. `scripts/docs` calls it.

- No page loads anything from another host, or has a diagram that would be drawn by what is loaded from there.
- Each link leads to a page that there is, and to a place that it has.
- The search knows every page that is to be found.
"""

import json
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

LOADED: Final = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""Elements that load something, and the attribute that says what."""
NOT_LOADED: Final = frozenset({"canonical", "next", "prev", "alternate"})
"""What a link in the head may be that loads nothing."""


class Outline(HTMLParser):
    """What a page loads, where its links lead, and the places that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.drawn: bool = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        has = {name: value or "" for name, value in attrs}
        self.places |= {has[name] for name in ("id", "name") if name in has}
        if tag == "a" and "href" in has:
            self.links.append(has["href"])
        loaded = has.get(LOADED.get(tag, ""), "")
        if loaded and has.get("rel", "") not in NOT_LOADED:
            self.loads.append(loaded)
        self.drawn |= "mermaid" in has.get("class", "").split()


@cache
def outline(path: Path) -> Outline:
    """Return what is on a page."""
    found = Outline()
    found.feed(path.read_text(encoding="utf-8"))
    return found


def faults_of(path: Path, site: Path) -> list[str]:
    """Return what is wrong with a page."""
    page = outline(path)
    faults = [f"loads {url}" for url in page.loads if urlsplit(url).scheme or url.startswith("//")]
    faults += ["has a Mermaid diagram, which would have to be drawn by what is elsewhere"] * page.drawn
    for url in [*page.loads, *page.links]:
        parts = urlsplit(url)
        if parts.scheme or parts.netloc or path.name == "404.html":
            continue
        there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        there = there / "index.html" if there.is_dir() else there
        if not there.is_file() or site not in there.parents:
            faults.append(f"leads to {url}, which is not there")
        elif parts.fragment and there.suffix == ".html" and unquote(parts.fragment) not in outline(there).places:
            faults.append(f"leads to {url}: there is no such place on that page")
    return faults


def faults_of_styles(site: Path) -> list[str]:
    """Return the style sheets that load something from elsewhere."""
    styles = [path for path in site.rglob("*.css") if "url(http" in path.read_text(encoding="utf-8")]
    return [f"{path.relative_to(site)}: loads from elsewhere" for path in styles]


def faults_of_search(site: Path, pages: list[Path]) -> list[str]:
    """Return the pages that the search does not know."""
    index = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    known = {entry["location"].partition("#")[0] or "index.html" for entry in index["docs"]}
    names = [path.relative_to(site).as_posix() for path in pages]
    return [f"{name}: the search does not know it" for name in names if name not in known and "examples/" not in name]


def main() -> None:
    """Print what is wrong, and fail if something is."""
    site = Path(sys.argv[1]).resolve()
    pages = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    faults = [f"{path.relative_to(site)}: {fault}" for path in pages for fault in faults_of(path, site)]
    faults += faults_of_styles(site) + faults_of_search(site, pages)
    if faults or not pages:
        sys.exit("\n".join(faults) or "there are no pages")
    print(f"{len(pages)} pages, {sum(len(outline(path).links) for path in pages)} links")  # noqa: T201 - a program


if __name__ == "__main__":
    main()
