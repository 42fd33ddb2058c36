"""O6, O8: `workerbus dump`, and what keeps it from ending a program that does not expect its signal."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import pytest

from support.commands import environment
from workerbus.cli import _dump
from workerbus.cli._main import main

PROGRAM = """
import sys
import anyio
from workerbus import BaseWorker, WorkerRunner

async def main():
    async with WorkerRunner(name="shop", {options}) as runner:
        await runner.add_workers(BaseWorker("till"), wait=True)
        async with anyio.create_task_group() as group:
            group.start_soon(ready)  # which runs when this one waits
            await anyio.sleep_forever()

async def ready():
    print("ready", flush=True)

anyio.run(main, backend=sys.argv[1])
"""


@contextmanager
def started(backend: str, options: str = "") -> Iterator[subprocess.Popen[str]]:
    """A program that runs, and is killed when the block ends."""
    command = [sys.executable, "-c", PROGRAM.format(options=options), backend]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_program_that_was_given_the_signal_writes_what_it_waits_for(backend: str) -> None:
    """O6: to its standard error, and goes on."""
    with started(backend, "dump_signal='SIGUSR1'") as process:
        for _ in range(2):
            assert main(["dump", str(process.pid)]) == 0
            lines = [*takewhile(lambda line: line != "    at <string>:11, in main\n", process.stderr or ())]
            assert lines[0] == f"process {process.pid}, with 1 runner\n"
            assert lines[2].startswith("runner 'shop' runs, with 1 worker, on bus 'MemoryBus-")
            assert lines[3] == "    idle is 'till'\n"
            assert lines[-1] == "    waits for ever: it sleeps\n"
        assert process.poll() is None


@pytest.mark.slow
def test_a_program_that_does_not_handle_the_signal_gets_none(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """O8: it would end of it."""
    with started(backend) as process:
        assert main(["dump", str(process.pid)]) == 1
        assert process.poll() is None
    said = f"process {process.pid} does not handle SIGUSR1, which would end it: its runner needs dump_signal='SIGUSR1'"
    assert capsys.readouterr().err == f"workerbus: {said}, and to run\n"


def test_where_the_system_does_not_say_what_a_process_handles_no_signal_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """O8: but the command that would is named."""
    monkeypatch.setattr(_dump, "_PROCESSES", tmp_path)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    assert main(["dump", "1"]) == 1
    assert "does not say whether process 1 handles SIGUSR1, which ends one that does not: kill -USR1 1 sends it" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["4194304999"], "there is no process 4194304999"),
        (["1", "--signal", "SIGNONE"], "has no signal SIGNONE"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """O8: with an exit code of 1."""
    assert main(["dump", *arguments]) == 1
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_another_users_process_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """O8: the system refuses that."""

    def refuse(*_: object) -> None:
        raise PermissionError

    for name in ("self", "7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status").write_text(f"SigCgt:\t{1 << (signal.SIGUSR1 - 1):016x}\n")
    monkeypatch.setattr(_dump, "_PROCESSES", tmp_path)
    monkeypatch.setattr(os, "kill", refuse)
    assert main(["dump", "7"]) == 1
    assert capsys.readouterr().err == "workerbus: process 7 is another user's\n"
