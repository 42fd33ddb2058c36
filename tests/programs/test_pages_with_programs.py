"""W10, R8, J17-J20, O1-O3, S1, S2, X1, X4, X8: the programs of some pages of docs/ print what they say."""

import contextlib
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "index", "running", "stalls", "health", "view", "opentelemetry", "recording",
    "jobs", "supervision", "pools", "wire", "transports",
)  # fmt: skip
PROGRAMS = [
    pytest.param(program, id=f"{page} {number}")
    for page in PAGES
    for number, program in enumerate(
        re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL), 1
    )
]


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("workerbus", "workerbus.jobs")]
    before = [(each.level, each.handlers[:]) for each in loggers]
    yield
    for each, (level, handlers) in zip(loggers, before, strict=True):
        each.setLevel(level)
        each.handlers = handlers


def promised(program: str) -> list[str]:
    """What a program says that it prints, behind ``anyio.run(main)``."""
    _, said = program.split("anyio.run(main)")
    return [line.strip().removeprefix("# ") for line in said.strip().splitlines()]


def played(program: str, backend: str) -> list[str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        exec(program.replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})"), {"__name__": "page"})
    return output.getvalue().splitlines()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_page_prints_what_it_says(program: str, backend: str) -> None:
    printed = re.sub(r"\b[0-9a-f]{4,}-\w+", "1f8e-1", "\n".join(played(program, backend)))
    assert printed.splitlines() == promised(program)
