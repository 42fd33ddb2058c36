"""examples/handoff.py, run as a program."""

import random
import re
import signal
from pathlib import Path

import pytest

from support.programs import Terminal, run_example

pytestmark = pytest.mark.slow


OVER = re.compile(r" *(sums|words)  not my matter: over to (sums|words)")


def replies(output: str) -> list[tuple[str, list[str]]]:
    """Each line of the conversation, and what was said to it."""
    asked: list[tuple[str, list[str]]] = []
    for line in output.splitlines():
        if line.startswith("> "):
            asked.append((line[2:], []))
        elif asked and not line.startswith("answered: "):
            asked[-1][1].append(" ".join(line.split()))
    return asked


def converse(*lines: str, backend: str = "asyncio") -> list[tuple[str, list[str]]]:
    done = run_example("handoff.py", "-", "--backend", backend, given="\n".join(lines))
    assert (done.returncode, done.stderr) == (0, "")
    return replies(done.stdout)


def test_the_conversation_that_it_brings_has_both_speak_and_hands_over_both_ways(backend: str) -> None:
    done = run_example("handoff.py", "--backend", backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert "sums = 84" in replies(done.stdout)[0][1]
    assert set(OVER.findall(done.stdout)) == {("sums", "words"), ("words", "sums")}
    assert done.stdout.endswith("answered: 5 by sums, 3 by words; handed over: 3\n")


def test_whoever_gets_a_line_for_the_other_hands_it_over_with_the_line(backend: str) -> None:
    assert converse("to be", "6 * 7", "or not", backend=backend) == [
        (
            "to be",
            ["sums not my matter: over to words", "words 2 words, the longest is 'to' (2 different ones so far)"],
        ),
        ("6 * 7", ["words not my matter: over to sums", "sums = 42"]),
        (
            "or not",
            ["sums not my matter: over to words", "words 2 words, the longest is 'not' (4 different ones so far)"],
        ),
    ]


def test_every_line_is_answered_once_and_by_one(backend: str) -> None:
    """P3, W3: however often they hand over."""
    draw = random.Random(5)
    matters = [draw.choice(("sums", "words")) for _ in range(200)]
    lines = [f"{number} + 1" if matter == "sums" else f"word{'x' * number}" for number, matter in enumerate(matters)]
    asked = converse(*lines, backend=backend)
    assert [line for line, _ in asked] == lines
    speaker = "sums"
    for number, (matter, (_, said)) in enumerate(zip(matters, asked, strict=True)):
        handed = [f"{speaker} not my matter: over to {matter}"] if matter != speaker else []
        assert said[:-1] == handed
        assert said[-1].startswith(f"{matter} = {number + 1:,}" if matter == "sums" else "words 1 word, ")
        speaker = matter


def test_a_line_for_neither_is_handed_over_once() -> None:
    [(_, said)] = converse("?!")
    assert said == ["sums not my matter: over to words", "words that is a matter for neither of us"]


def test_each_remembers_across_hand_overs() -> None:
    asked = converse("20 + 1", "to be", "ans * 2", "to go")
    assert asked[2][1][-1] == "sums = 42"
    assert "heard before: to (3 different" in asked[3][1][-1]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("2 + 3 * 4", "= 14"),
        ("-(7 // 2) % 5", "= 2"),
        ("2 ** 10 / 4", "= 256.0"),
        ("ans", "= 0"),
        ("1 / 0", "cannot be worked out: division by zero"),
        ("9 ** 9 ** 9", "cannot be worked out: that would be a very large number"),
        ("(-8) ** 0.5", "cannot be worked out: a root of a negative number"),
        ("1e308 * 10 ** 400", "cannot be worked out: int too large to convert to float"),
    ],
)
def test_sums_are_worked_out(line: str, answer: str) -> None:
    assert converse(line)[0][1] == [f"sums {answer}"]


@pytest.mark.parametrize("line", ["__import__('os')", "True + 1 is two", "(" * 500, "1 if x else 2", "'a' * 3"])
def test_what_is_not_arithmetic_is_never_evaluated(line: str) -> None:
    assert converse(line)[0][1][0] == "sums not my matter: over to words"


def test_the_lines_of_a_file_and_those_of_a_pipe_are_taken_alike(tmp_path: Path, backend: str) -> None:
    text = "1 + 1\r\n\n   \nthe caf\xe9 is shut\nlast"
    file = tmp_path / "lines.txt"
    file.write_bytes(text.encode())
    from_file = run_example("handoff.py", file, "--backend", backend)
    from_pipe = run_example("handoff.py", "-", "--backend", backend, given=text)
    assert [line for line, _ in replies(from_file.stdout)] == ["1 + 1", "the caf\xe9 is shut", "last"]
    assert from_file.stdout == from_pipe.stdout


def test_a_file_as_standard_input_is_read_to_its_end(tmp_path: Path, backend: str) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("1 + 1\n2 + 2\n")
    patch = f"import os; os.dup2(os.open({str(file)!r}, os.O_RDONLY), 0)"
    done = run_example("handoff.py", "-", "--backend", backend, patch=patch)
    assert [said for _, said in replies(done.stdout)] == [["sums = 2"], ["sums = 4"]]


def test_without_input_it_ends_at_once(backend: str) -> None:
    done = run_example("handoff.py", "-", "--backend", backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("answered: 0 by sums, 0 by words; handed over: 0\n")


def test_in_a_terminal_it_waits_for_what_you_type(backend: str) -> None:
    with Terminal("handoff.py", "-", "--backend", backend) as terminal:
        terminal.read_until("> $")
        terminal.type("6 * 7\n")
        terminal.read_until("sums  = 42\n> $")
        terminal.type("\n")
        terminal.read_until("> \n> $")
        terminal.type("to be\n")
        terminal.read_until("words  2 words.*\n> $")
        terminal.type("\x04")
        assert terminal.read_to_the_end() == 0
    assert terminal.text.endswith("answered: 1 by sums, 1 by words; handed over: 1\n")


@pytest.mark.parametrize("lines", [0, 2])
def test_ctrl_c_ends_it_with_130_and_without_a_traceback(backend: str, lines: int) -> None:
    with Terminal("handoff.py", "-", "--backend", backend) as terminal:
        for _ in range(lines):
            terminal.type("to be\n")
        terminal.read_until("(?s)words.*words.*> $" if lines else "> $")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_to_the_end() == 130
    assert "Traceback" not in terminal.text
    assert "Exception" not in terminal.text


def test_an_error_in_a_processor_ends_the_conversation_with_1(backend: str) -> None:
    patch = """
import ast
parse = ast.parse
def broken(source, *rest, mode="exec", **options):
    if mode == "eval":  # as the example parses; Python 3.13 parses the lines of a traceback, too
        raise OSError("broken")
    return parse(source, *rest, mode=mode, **options)
ast.parse = broken
"""
    done = run_example("handoff.py", "--backend", backend, patch=patch)
    assert done.returncode == 1
    assert "OSError: broken" in done.stderr
    assert "answered" not in done.stdout


def test_it_ends_quietly_when_nobody_reads_on(backend: str) -> None:
    patch = "import os; read, write = os.pipe(); os.close(read); os.dup2(write, 1)"
    done = run_example("handoff.py", "--backend", backend, patch=patch)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_without_a_terminal_there_are_no_control_codes() -> None:
    assert "\x1b" not in run_example("handoff.py").stdout


def test_a_bad_argument_is_named_and_exit_code_2(tmp_path: Path) -> None:
    for arguments in ([tmp_path / "nowhere.txt"], [tmp_path], ["-", "--backend", "curio"]):
        done = run_example("handoff.py", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.search(r"handoff\.py: .+\n$", done.stderr)


def test_no_descriptor_is_taken_for_a_standard_input_that_is_closed() -> None:
    done = run_example("handoff.py", "-", patch="sys.stdin = None")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no standard input" in done.stderr
