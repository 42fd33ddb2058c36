"""The documentation as a site: it has every public name, is whole in itself, and can be read from the disk."""

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import workerbus
from support.browsers import CHROMIUM, WHY_NOT, Page, chromium
from workerbus import BusMessage, WorkerBusError

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "tools/site/check.py"
REFERENCE = sorted((ROOT / "docs/reference").glob("*.md"))


def public_modules() -> Iterator[ModuleType]:
    """All modules that have public names, and no underscore on their way."""
    yield workerbus
    for found in pkgutil.walk_packages(workerbus.__path__, "workerbus."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield importlib.import_module(found.name)


def documented() -> list[str]:
    """The names on the pages of the reference, each where it is imported from."""
    return [name for page in REFERENCE for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)]


def found(path: str) -> object:
    """What a name on a page is: a module, or something of one."""
    module, _, name = path.rpartition(".")
    try:
        return importlib.import_module(path)
    except ImportError:
        return getattr(importlib.import_module(module), name)


UNSHOWN = {"GROUP_TABLE", "JOB_TABLE"}
"""What one package shows to another, and to the documents."""


def public_names(module: ModuleType) -> list[str]:
    """What may be imported from a module: what it says, or its errors and messages."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if name not in UNSHOWN]
    classes = [each for each in vars(module).values() if isinstance(each, type) and each.__name__[0] != "_"]
    return [each.__name__ for each in classes if issubclass(each, WorkerBusError | BusMessage)]


@pytest.mark.parametrize("module", list(public_modules()), ids=lambda module: module.__name__)
def test_every_public_name_is_on_a_page_of_the_reference(module: ModuleType) -> None:
    """N1"""
    shown = [found(name) for name in documented()]
    names = public_names(module)
    assert [name for name in names if not any(getattr(module, name) is each for each in shown)] == []


def test_no_name_is_on_two_pages_of_the_reference() -> None:
    names = documented()
    assert len(names) == len(set(names))


def places(page: Path) -> set[str]:
    """The places of a page that its links may name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    sorted([*ROOT.glob("*.md"), ROOT / "tests/README.md", ROOT / "benchmarks/README.md", *ROOT.glob("docs/**/*.md")]),
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_links_of_a_page_lead_somewhere_for_who_reads_the_repository(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target, place in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", text):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not place or there.suffix != ".md" or place in places(there), f"{target}#{place}"


def test_every_example_is_on_its_page() -> None:
    page = (ROOT / "docs/examples.md").read_text()
    examples = [path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("*.py")]
    assert [path for path in examples if not path.endswith("__init__.py") and f"`{path}`" not in page] == []


def checked(site: Path) -> str:
    """What is wrong with a site, in the words of the tool."""
    told = subprocess.run([sys.executable, CHECK, site], capture_output=True, text=True, check=False)
    assert (told.returncode == 0) is (told.stderr == "")
    return told.stderr


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<a href="other.html">x</a>', "leads to other.html, which is not there"),
        ('<a href="#there">x</a>', "leads to #there: there is no such place on that page"),
        ('<a href="../outside.html">x</a>', "leads to ../outside.html, which is not there"),
        ('<img src="picture.png">', "leads to picture.png, which is not there"),
        ('<script src="https://example.com/x.js"></script>', "loads https://example.com/x.js"),
        ('<link rel="stylesheet" href="//example.com/x.css">', "loads //example.com/x.css"),
        ('<pre class="mermaid">', "has a Mermaid diagram"),
    ],
)
def test_what_is_wrong_with_a_page_of_the_site_is_found(tmp_path: Path, page: str, fault: str) -> None:
    site = tmp_path / "site"
    (site / "search").mkdir(parents=True)
    (tmp_path / "outside.html").touch()
    (site / "search/search_index.json").write_text('{"docs": [{"location": "index.html"}]}')
    (site / "index.html").write_text('<a href="#here" id="here">x</a> <a href="https://example.com">x</a>')
    assert checked(site) == ""
    (site / "index.html").write_text(page)
    assert f"index.html: {fault}" in checked(site)
    (site / "lost.html").touch()
    assert "lost.html: the search does not know it" in checked(site)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site needs the extra 'docs'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    return folder


def requests(page: Page) -> set[str]:
    """The addresses that a page has asked for."""
    told = [each for each in page.events if each["method"] == "Network.requestWillBeSent"]
    return {each["params"]["request"]["url"] for each in told}


FOUND = """(
    document.querySelector("[data-md-component=search-query]").dispatchEvent(new KeyboardEvent("keyup")),
    document.querySelector(".md-search-result__link")?.href
)"""
"""The first that the search has found. It looks when a key goes up, and only when it has its index."""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_the_site_is_searched_and_read_from_the_disk_and_asks_nobody_for_anything(site: Path) -> None:
    assert checked(site) == ""
    with chromium() as browser:
        page = browser.open("about:blank")
        page.call("Network.enable")
        page.go((site / "index.html").as_uri())
        page.until("document.querySelector('[data-md-component=search-query]')")
        page.value("document.querySelector('[data-md-component=search-query]').focus()")
        page.call("Input.insertText", text="WorkerRunner")
        first = page.until(FOUND)
        assert Path(first.removeprefix("file://").partition("#")[0].partition("?")[0]).is_file()
        for path in sorted(site.glob("*.html")):
            page.go(path.as_uri())
            page.until(f"document.readyState == 'complete' && location.pathname.endsWith({path.name!r})")
        assert {url for url in requests(page) if not url.startswith(("file:", "data:", "blob:", "about:"))} == set()
        assert page.faults == []
