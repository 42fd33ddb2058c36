"""O8: the commands of docs/cli.md print what the page says."""

import contextlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import commands
from support.redis_servers import RedisServer

PAGE = (Path(__file__).parents[2] / "docs/cli.md").read_text()
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHOWN = re.findall(r"^\$ (workerbus call .*)\n((?:[^$`].*\n)*)", PAGE, re.MULTILINE)


@contextlib.contextmanager
def counting(url: str) -> Iterator[None]:
    """The program of the page, at a server of the test's own."""
    program = PROGRAM.replace("redis://localhost", url)
    with subprocess.Popen([sys.executable, "-c", program], env=commands.environment()) as process:
        try:
            yield
        finally:
            process.terminate()


BLOCKS = re.findall(r"```(?:sh|console)\n(.*?)```", PAGE, re.DOTALL)
LINES = re.findall(r"^(?:\$ )?(workerbus .*)", "".join(BLOCKS), re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_is_one(line: str) -> None:
    """O8: with its options."""
    words = shlex.split(line, comments=True)[1:]
    end = next((n for n, word in enumerate(words) if word in ("|", ">")), len(words))
    assert callable(commands.parsed(*words[:end]).run)


@pytest.mark.slow
def test_the_commands_print_what_the_page_says() -> None:
    assert len(SHOWN) == 5
    with RedisServer() as server, counting(server.url):
        commands.run("call", "counter", "count", '{"text": "ready"}', "--wait", "30", WORKERBUS_URL=server.url)
        for command, said in SHOWN:
            done = commands.run(*shlex.split(command)[1:], WORKERBUS_URL=server.url)
            assert done.stdout + done.stderr == said
            assert (done.returncode == 0) == (done.stderr == "")
