"""W10, R8, J17-J20, O1-O3, S1, S2, X1, X4, X8: the programs of some pages of docs/ print what they say."""

import contextlib
import io
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.programs import PATIENCE, plain_environment

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "index", "running", "stalls", "health", "view", "opentelemetry", "recording",
    "jobs", "supervision", "pools", "wire", "transports", "messages", "streams", "background-work", "logging",
    "lanes", "structured-concurrency", "deploying", "questions",
)  # fmt: skip
SIGNALS = "handle_sigterm"  # in programs that wait for a signal: `test_a_service_of_the_page_ends_as_it_says`


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)


PROGRAMS = [
    pytest.param(program, id=f"{page} {number}")
    for page in PAGES
    for number, program in enumerate(blocks(page), 1)
    if SIGNALS not in program
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
    """What a program says that it prints, behind ``anyio.run(main)``; nothing where it has none."""
    _, _, said = program.partition("anyio.run(main)")
    return [line.strip().removeprefix("# ") for line in said.strip().splitlines()]


def on(backend: str, program: str) -> str:
    return program.replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})")


def played(program: str, backend: str) -> list[str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        exec(on(backend, program), {"__name__": "__main__" if "__main__" in program else "page"})
    return output.getvalue().splitlines()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_page_prints_what_it_says(program: str, backend: str) -> None:
    printed = re.sub(r"\b[0-9a-f]{4,}-\w+", "1f8e-1", "\n".join(played(program, backend)))
    assert printed.splitlines() == promised(program)


@pytest.mark.slow
def test_a_service_of_the_page_ends_as_it_says(backend: str) -> None:
    """R5, R2: SIGTERM lets it finish."""
    (program,) = [program for program in blocks("deploying") if SIGNALS in program]
    ready, *rest = blocks("deploying", "text")[0].splitlines(keepends=True)
    service = subprocess.Popen(
        [sys.executable, "-c", on(backend, program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=plain_environment(),
    )  # fmt: skip
    with service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline() == ready
            service.send_signal(signal.SIGTERM)
            assert service.communicate(timeout=PATIENCE) == ("".join(rest), "")
            assert service.returncode == 0
        finally:
            service.kill()
