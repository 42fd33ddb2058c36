"""examples/sensor.py, run as a program."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from support.programs import Terminal, run_example

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("measures this machine")]


ONE = re.compile(r"(\w+) +([\d.]+)(?: %)?  (.+), 1 reading")
SEVERAL = re.compile(r"(\w+) +([\d.]+)(?: %)?  from ([\d.]+)(?: %)? to ([\d.]+)(?: %)?  (.+), (\d+) readings")


def ask(*questions: str, backend: str = "asyncio", patch: str = "") -> list[str]:
    done = run_example("sensor.py", *questions, "--every", "0.05", "--backend", backend, patch=patch)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_it_answers_some_questions_of_its_own(backend: str) -> None:
    answers = ask(backend=backend)
    assert len(answers) == 5
    assert all(ONE.fullmatch(answer) or SEVERAL.fullmatch(answer) for answer in answers)


def test_each_question_is_answered_when_its_readings_have_been_made(backend: str) -> None:
    began = time.monotonic()
    answers = ask("self:20", "self:5", "self", "self:5", backend=backend)
    assert time.monotonic() - began > 20 * 0.05
    assert [ONE.fullmatch(answer) is not None for answer in answers] == [True, False, False, False]
    found = [match for answer in answers[1:] if (match := SEVERAL.fullmatch(answer))]
    assert [match[6] for match in found] == ["5", "5", "20"]
    for match in found:
        assert float(match[3]) <= float(match[2]) <= float(match[4])


def load_and_memory() -> tuple[float, float]:
    lines = dict(re.findall(r"(\w+): +(\d+)", Path("/proc/meminfo").read_text()))
    return os.getloadavg()[0], 100 - 100 * int(lines["MemAvailable"]) / int(lines["MemTotal"])


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="there is nothing to compare with")
def test_the_figures_are_those_of_this_machine() -> None:
    before = load_and_memory()
    answers = {match[1]: match for answer in ask("load", "memory", "cpu:4") if (match := re.match(r"(\w+)", answer))}
    values = {name: float(re.findall(r"[\d.]+", match.string)[0]) for name, match in answers.items()}
    for name, first, last in zip(("load", "memory"), before, load_and_memory(), strict=True):
        margin = {"load": 1, "memory": 10}[name]
        assert min(first, last) - margin < values[name] < max(first, last) + margin
    assert 0 <= values["cpu"] <= 100


def test_a_busy_program_is_seen_to_be_busy() -> None:
    """The share of a processor is measured, and not made up."""
    patch = "import threading\nthreading.Thread(target=lambda: [n * n for n in iter(int, 1)], daemon=True).start()"
    busy, idle = (float(re.findall(r"[\d.]+", ask("self:8", patch=code)[0])[0]) for code in (patch, ""))
    assert busy > idle


def test_a_gauge_that_there_is_not_is_named_and_the_others_are_read(backend: str) -> None:
    done = run_example("sensor.py", "gpu:3", "load", "--every", "0.05", "--backend", backend)
    assert done.returncode == 1
    assert done.stdout.startswith("load")
    assert "no gauge for 'gpu' here; there is cpu, memory, load, self" in done.stderr


WITHOUT_PROC = (
    "from pathlib import Path\n"
    "def gone(*_, **__): raise FileNotFoundError('no /proc here')\n"
    "Path.read_text = gone\n"
    "import os; del os.getloadavg"
)


def test_where_the_machine_has_no_figures_it_asks_about_itself_alone(backend: str) -> None:
    [answer] = ask(backend=backend, patch=WITHOUT_PROC)
    assert answer.startswith("self")


def breaking_at(reading: int) -> str:
    return (
        "import time\n"
        "calls, real = [], time.process_time\n"
        "def process_time():\n"
        "    calls.append(1)\n"
        f"    if len(calls) > {reading}: raise OSError('the gauge is broken')\n"
        "    return real()\n"
        "time.process_time = process_time"
    )


def test_a_gauge_that_breaks_ends_the_sensor_and_leaves_no_question_open(backend: str) -> None:
    patch = breaking_at(10)
    done = run_example("sensor.py", "self:2", "self:1000", "--every", "0.05", "--backend", backend, patch=patch)
    assert done.returncode == 1
    assert "2 readings" in done.stdout
    assert "OSError: the gauge is broken" in done.stderr
    assert "worker 'sensor' was cancelled" in done.stderr


def test_in_a_terminal_a_line_shows_the_readings_until_the_end(backend: str) -> None:
    with Terminal("sensor.py", "self:8", "load", "--every", "0.05", "--backend", backend) as terminal:
        assert terminal.read_to_the_end() == 0
    shown = re.findall(r"self +[\d.]+ % +([▁▂▃▄▅▆▇█]+)", terminal.text)
    assert max(map(len, shown)) >= 7
    after = terminal.output.decode().rpartition("\x1b[?25h")
    assert after[1], "the cursor is shown again"
    assert "\x1b[2K" in terminal.output.decode().rpartition("8 readings")[2], "the line has been removed"


@pytest.mark.parametrize("readings", [0, 3])
def test_ctrl_c_ends_it_with_130_and_the_cursor_shown(backend: str, readings: int) -> None:
    with Terminal("sensor.py", "self:100000", "self", "--every", "0.05", "--backend", backend) as terminal:
        terminal.read_until("1 reading\n" if readings else r"self +[\d.]")
        terminal.read_until(rf"self +[\d.]+ % +[▁▂▃▄▅▆▇█]{{{readings},}}")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_to_the_end() == 130
    assert "Traceback" not in terminal.text
    assert "Exception" not in terminal.text
    assert terminal.output.rindex(b"\x1b[?25h") > terminal.output.rindex(b"\x1b[?25l")


def test_without_a_terminal_there_are_answers_and_nothing_else(backend: str) -> None:
    [answer] = ask("self:3", backend=backend)
    assert SEVERAL.fullmatch(answer)


@pytest.mark.parametrize("arguments", [["cpu:0"], ["cpu:-1"], ["cpu:many"], ["cpu:"], ["--every", "0"], ["--loud"]])
def test_a_bad_argument_is_one_line_and_exit_code_2(arguments: list[str]) -> None:
    done = run_example("sensor.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"sensor\.py: .+\n", done.stderr)
