"""What the report of a failure shows of the programs that a test has started (`support/outputs`)."""

import subprocess
import sys

import anyio
import pytest

from support.outputs import MOST, written_by
from support.programs import Terminal


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def fail_after_a_program() -> None:
    done = run("import sys; print('this'); sys.stderr.write('that'); sys.exit(7)")
    assert done.returncode == 0


def test_what_a_program_has_written_and_how_it_has_ended_is_shown() -> None:
    with pytest.raises(AssertionError) as caught:
        fail_after_a_program()
    ((title, text),) = written_by(caught.value)
    assert title == "written by done"
    assert text.splitlines()[1:] == ["this", "that", "(ended with 7)"]


def test_a_terminal_is_shown_wherever_the_failure_comes_from() -> None:
    with (
        pytest.raises(AssertionError, match="it ended before") as caught,
        Terminal("survey.py", "nowhere") as terminal,
    ):
        terminal.read_until("never")
    assert written_by(caught.value) == [("written by terminal", "survey.py: 'nowhere' is not a directory")]


async def test_failures_in_groups_are_looked_at_too() -> None:
    async def fail() -> None:
        done = run("print('in a group')")
        raise ArithmeticError(done.args)

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
    ((_, text),) = written_by(caught.value)
    assert "in a group" in text


def test_a_program_that_was_given_up_is_shown_and_of_a_long_text_the_end() -> None:
    given_up = subprocess.TimeoutExpired(["the program"], 3, output=b"x" * 2 * MOST + b"the end")
    ((title, text),) = written_by(given_up)
    assert title == "written by the program"
    assert len(text) == MOST
    assert text.endswith("the end\n(timed out after 3 seconds)")


def test_where_nothing_was_written_nothing_is_shown() -> None:
    with pytest.raises(LookupError) as caught:
        raise LookupError("alone")
    assert written_by(caught.value) == []
