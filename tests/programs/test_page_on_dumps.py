"""O6: the page on dumps shows what its program prints."""

import contextlib
import io
import linecache
import re
from pathlib import Path

import anyio
import pytest

from workerbus.testing import run

PAGE = (Path(__file__).parents[2] / "docs/dump.md").read_text()
(PROGRAM, WITH_A_SIGNAL) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(SHOWN,) = re.findall(r"<!-- output -->\n```text\n(.*?)```", PAGE, re.DOTALL)


def shown(text: str) -> str:
    """A dump as the page shows it: its ids are numbered, and those of the machine and the run are others."""
    ids: dict[str, str] = {}
    text = re.sub(r"process \d+", "process 4711", text)
    text = re.sub(r"MemoryBus-[0-9a-f]{12}-\w+", "MemoryBus-1", text)
    text = re.sub(r"task '\S+main'", "task '__main__.main'", text)
    return re.sub(r"[0-9a-f]{12}-\w+", lambda found: ids.setdefault(found[0], f"1f8e-{len(ids) + 1}"), text)


def without_ids(text: str) -> list[str]:
    """Its lines, in an order that does not depend on that of the tasks."""
    return sorted(re.sub(r"1f8e-\d", "1f8e", text).splitlines())


def test_the_program_prints_what_the_page_shows(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """O6: up to the order, in which tasks wait that began at the same moment."""
    monkeypatch.setattr(anyio, "run", lambda main: run(main, backend=backend))
    monkeypatch.setitem(linecache.cache, "shop.py", (len(PROGRAM), None, PROGRAM.splitlines(keepends=True), "shop.py"))
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(PROGRAM, "shop.py", "exec"), {"__name__": "__main__"})
    printed = shown(output.getvalue())
    assert without_ids(printed) == without_ids(SHOWN)
    assert [part.splitlines()[0] for part in printed.split("\n\n")][:3] == [
        part.splitlines()[0] for part in SHOWN.split("\n\n")
    ][:3]


def test_the_runner_of_the_page_can_be_made() -> None:
    """O6: with the signal that it names."""
    exec(f"from workerbus import WorkerRunner\n{WITH_A_SIGNAL}", {})
