"""What mkdocs does beside its own work when it builds the site: see ``mkdocs.yml``.

- Pages that stand elsewhere in the repository, such as ``CONTRIBUTING.md``, and the examples become pages of the site.
- Links are written for who reads the repository. Here they lead to the pages of the site.
- Numbers of promises (J6) lead to their lines in ``guarantees.md``.
- Diagrams of states are shown as tables: what draws Mermaid would have to be loaded from elsewhere.
"""

import builtins
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[2]
ELSEWHERE: Final = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "tests/README.md": "tests.md",
}
"""Pages of the repository that are not in ``docs/``, and where they are on the site."""
BASES: Final = re.compile(r'<p class="doc doc-class-bases">\s*Bases: (.*?)</p>', re.DOTALL)
CODE: Final = re.compile(r"(^```.*?^```$|``[^`]+``|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
FOR_OTHERS: Final = frozenset(
    {"architecture.md", "benchmarks.md", "changelog.md", "contributing.md", "mutants.md", "security.md", "tests.md"}
)
"""Pages for those who work on the library: in a search they come last."""
LINK: Final = re.compile(r"\]\(([\w./-]+)((?:#[\w-]+)?)\)")
NUMBER: Final = re.compile(r"\b[A-Z]\d+\b")
PROMISE: Final = re.compile(r"^- \*\*([A-Z]\d+)\*\* ", re.MULTILINE)
STATES: Final = re.compile(r"```mermaid\nstateDiagram-v2\n(.*?)```", re.DOTALL)
UNTOUCHED: Final = re.compile(r"(<(?:a|code|pre|h\d|svg|title)\b.*?</(?:a|code|pre|h\d|svg|title)>|<[^>]*>)", re.DOTALL)


def examples() -> dict[str, str]:
    """Return the examples: path in the repository, to path on the site."""
    paths = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("*.py"))
    return {path: f"{path.removesuffix('.py')}.md" for path in paths if not path.endswith("__init__.py")}


def promises() -> frozenset[str]:
    """Return the numbers of all promises."""
    return frozenset(PROMISE.findall((ROOT / "docs/guarantees.md").read_text(encoding="utf-8")))


SITE: Final[Mapping[str, str]] = {**ELSEWHERE, **examples()}
PROMISES: Final = promises()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand elsewhere, and the pictures that they show."""
    for path, uri in ELSEWHERE.items():
        if uri != "index.md":
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    for path, uri in examples().items():
        code = (ROOT / path).read_text(encoding="utf-8")
        page = f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n```python\n{code}```\n"
        files.append(File.generated(config, uri, content=page))
    for picture in sorted((ROOT / "benchmarks/pictures").glob("*.*")):
        files.append(File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have links lead to pages of the site, and draw what would be drawn elsewhere."""
    del config, files
    uri = page.file.src_uri
    source = next((path for path, other in SITE.items() if other == uri and other != "index.md"), f"docs/{uri}")
    if source.startswith("examples/"):
        return markdown
    page.meta.setdefault("search", {})["boost"] = 1 if uri.startswith("reference/") else 0.5 if uri in FOR_OTHERS else 3
    if uri == "reference/index.md":
        markdown += all_names()
    if uri == "guarantees.md":
        markdown = PROMISE.sub(r'- <a id="\1"></a>**\1** ', markdown)
    markdown = STATES.sub(lambda match: table_of_states(match[1]), markdown)
    parts = CODE.split(markdown)
    return "".join(linked(part, source, uri) for part in parts)


def all_names() -> str:
    """Return the names on the pages of the reference, page by page."""
    parts = []
    for page in re.findall(r"reference/(\w+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")):
        text = (ROOT / "docs/reference" / page).read_text(encoding="utf-8")
        paths = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
        names = sorted(((path.rpartition(".")[2], path) for path in paths), key=lambda pair: pair[0].lower())
        if names:
            links = ", ".join(f"[`{name}`][{path}]" for name, path in names)
            parts.append(f"**[{text.splitlines()[0].removeprefix('# ')}]({page})**\n:   {links}\n")
    return "\n" + "\n".join(parts)


def linked(text: str, source: str, uri: str) -> str:
    """Return a piece of a page, prose or code, with links to pages of the site."""
    example = text.strip("`")
    if example in SITE and text == f"`{example}`":
        return f"[{text}]({posixpath.relpath(SITE[example], posixpath.dirname(uri) or '.')})"
    if text.startswith("`"):
        return text
    return LINK.sub(lambda match: f"]({way_to(match[1], source, uri)}{match[2]})", text)


def way_to(target: str, source: str, uri: str) -> str:
    """Return where a link leads on the site that leads to a path as seen from a page of the repository."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path.startswith("benchmarks/pictures/"):
        there = path.removeprefix("benchmarks/")
    else:
        there = SITE.get(path, path.removeprefix("docs/"))
    return posixpath.relpath(there, posixpath.dirname(uri) or ".")


def table_of_states(diagram: str) -> str:
    """Return a diagram of states as a table."""
    rows = ["| in this state | comes | and leads to |", "|---|---|---|"]
    for line in diagram.splitlines():
        found = re.fullmatch(r"(\S+) --> (\S+?)(?:: (.*))?", line.strip())
        if found is not None and "[*]" not in found.groups():
            rows.append(f"| {found[1]} | {found[3]} | {found[2]} |")
    return "\n".join(rows).replace("_", " ") + "\n"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have each number of a promise lead to it."""
    del config, files
    uri = page.file.src_uri
    if uri == "errors.md":
        html = html.replace('<div class="highlight">', '<div class="highlight wrapped">')
    if uri == "mutants.md" or uri.startswith("examples/"):
        return html
    there = posixpath.relpath("guarantees.html", posixpath.dirname(uri) or ".")

    def link(match: re.Match[str]) -> str:
        number = match[0]
        return f'<a class="promise" href="{there}#{number}">{number}</a>' if number in PROMISES else number

    html = BASES.sub(lambda match: public_bases(match[1]), html)
    parts = UNTOUCHED.split(html)
    return "".join(part if UNTOUCHED.fullmatch(part) else NUMBER.sub(link, part) for part in parts)


def public_bases(shown: str) -> str:
    """Return the bases of a class that have a place in the reference, or are Python's."""
    bases = re.findall(r"<code>.*?</code>(?=,|\s*$)", shown, re.DOTALL)
    names = [re.sub(r"<[^>]*>", "", each) for each in bases]
    kept = [each for each, name in zip(bases, names, strict=True) if "<a " in each or hasattr(builtins, name)]
    return f'<p class="doc doc-class-bases">Bases: {", ".join(kept)}</p>' if kept else ""
