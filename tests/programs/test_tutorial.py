"""J3, J13, J17-J20, R5, S1, X4: the tutorial, followed word by word: its files, and what its commands print."""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from itertools import pairwise
from pathlib import Path
from typing import Self
from urllib.request import urlopen

import pytest

from support.programs import PATIENCE, plain_environment
from support.redis_servers import RedisServer, redis_running

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial"
PAGES = ["first-worker", "groups", "streams", "failures", "tests", "looking", "service", "processes"]
ON_BACKEND = """
import functools, runpy, sys, anyio
anyio.run = functools.partial(anyio.run, backend={backend!r})
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def text_of(page: str) -> str:
    return (TUTORIAL / f"{page}.md").read_text()


def steps(page: str) -> Iterator[tuple[str, str]]:
    """The files and the commands of a page, in order: a file's name, or "", and what is in the block."""
    for name, code, console in re.findall(
        r'```python title="(.*?)"\n(.*?)```|```console\n(.*?)```', text_of(page), re.DOTALL
    ):
        yield name, code or console


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    with chdir(tmp_path):
        yield tmp_path


def write_what_comes_before(page: str) -> None:
    for each in PAGES[: PAGES.index(page)]:
        for name, code in steps(each):
            if name:
                Path(name).write_text(code)


def run(command: str, backend: str) -> str:
    """Run a command, its program on a backend, and return all that it prints."""
    program, *arguments = shlex.split(command)
    how = ["-c", ON_BACKEND.format(backend=backend)] if program == "python" else ["-m", program]
    done = subprocess.run(
        [sys.executable, *how, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False,
        env=plain_environment(PYTHONPATH=str(ROOT / "src"), COLUMNS="80", PYTHONUNBUFFERED="1"),
    )  # fmt: skip
    return done.stdout


def in_words(output: str) -> list[str]:
    """Output without what is another one each time: times, and the ids of jobs."""
    output = re.sub(r" in \d+\.\d+(s| seconds)", r" in 0.2\1", output)
    ids: dict[str, str] = {}
    for found in re.findall(r"\(([0-9a-f]{2,}-\d+)\)", output):
        ids.setdefault(found, f"1f8e-{len(ids) + 1}")
    for found, number in ids.items():
        output = output.replace(f"({found})", f"({number})")
    return output.strip().splitlines()


def test_each_page_leads_to_the_next() -> None:
    assert re.findall(r"\]\(([a-z-]+)\.md\)", text_of("index")) == PAGES
    for page, following in pairwise(PAGES):
        assert f"({following}.md)" in text_of(page).splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "```console" in text_of(page)])
@pytest.mark.usefixtures("directory")
def test_a_page_does_what_it_says(page: str, backend: str) -> None:
    """J3, J13, J17-J20, R8, S1"""
    write_what_comes_before(page)
    for name, block in steps(page):
        if name:
            Path(name).write_text(block)
        else:
            command, _, promised = block.removeprefix("$ ").partition("\n")
            assert in_words(run(command, backend)) == in_words(promised), command


# --- the programs that run until they are told to end


class Program:
    """A program of the tutorial in a process of its own."""

    def __init__(self, source: str, backend: str, stderr: int | None = None) -> None:
        assert "anyio.run(main)" in source
        source = source.replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})")
        self.process = subprocess.Popen(
            [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=stderr, text=True,
            env=plain_environment(PYTHONPATH=str(ROOT / "src")),
        )  # fmt: skip

    def next_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()

    def rest(self) -> list[str]:
        return self.process.communicate(timeout=PATIENCE)[0].splitlines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def last_block(page: str, name: str) -> str:
    return [code for title, code in steps(page) if title == name][-1]


@pytest.mark.slow
@pytest.mark.parametrize(("told", "ends"), [(signal.SIGINT, "cancelled SIGINT"), (signal.SIGTERM, "ended SIGTERM")])
@pytest.mark.usefixtures("directory")
def test_the_service_serves_until_it_is_told_to_end(backend: str, told: signal.Signals, ends: str) -> None:
    """R5, O4"""
    write_what_comes_before("service")
    source = last_block("service", "service.py")
    assert f"{ends}\n" in text_of("service")
    assert source.count("serve_view(runner)") == 1
    source = source.replace("serve_view(runner)", "serve_view(runner, port=0)")
    with Program(source, backend, stderr=subprocess.STDOUT) as service:
        address = service.next_line().removeprefix("look at ")
        assert service.next_line() == "3 quotes, the best 350"
        with urlopen(f"{address}readyz") as answer:
            assert (answer.status, answer.reason) == (200, "OK")
        service.process.send_signal(told)
        *before, outcome = service.rest()
        assert outcome == ends
        assert not [line for line in before if "run()" in line]  # no run() has to be cancelled
        assert service.process.returncode == 0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_running() as server:
        yield server


def at(server: RedisServer, source: str, options: str = "") -> str:
    assert 'RedisBus("redis://localhost")' in source
    return source.replace('RedisBus("redis://localhost")', f'RedisBus("{server.url}"{options})')


@pytest.mark.slow
@pytest.mark.usefixtures("directory")
def test_two_processes_are_one_program(server: RedisServer, backend: str) -> None:
    """X6"""
    write_what_comes_before("processes")
    main, hall = (at(server, last_block("processes", name)) for name in ("main.py", "hall.py"))
    with Program(main, backend) as town, Program(hall, "trio" if backend == "asyncio" else "asyncio") as shops:
        assert town.rest() == ["Quote(shop='corner', cents=420)", "Quote(shop='market', cents=350)"]
        shops.process.send_signal(signal.SIGTERM)
        assert shops.rest() == []


@pytest.mark.slow
@pytest.mark.usefixtures("directory")
def test_who_waits_for_a_killed_process_is_told(server: RedisServer, backend: str) -> None:
    """X4"""
    write_what_comes_before("processes")
    main, hall = (at(server, last_block("processes", name), ", lease=1.0") for name in ("main.py", "hall.py"))
    with Program(main, backend) as town, Program(hall.replace("seconds=0.3", "seconds=60"), backend) as shops:
        assert town.next_line() == "Quote(shop='corner', cents=420)"
        shops.process.kill()
        assert town.rest() == []
        assert town.process.returncode == 0
