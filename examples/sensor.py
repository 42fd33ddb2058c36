"""Ask about this machine: how busy it is, how full its memory. A sidecar measures all the time, and answers.

    python examples/sensor.py                             some questions, answered in a few seconds
    python examples/sensor.py cpu:40 memory --every 0.1   the next 40 readings of the processors, one of the memory
    python examples/sensor.py load --backend trio

A question is the name of a gauge and a number of readings, and is answered when as many have been made from then on.
In a terminal, a line shows the last readings meanwhile.

How it works:

* The sensor is a pipeline that has nothing to do with what else the program does. Its first processor has a task that
  reads the gauges; each `Reading` goes down the pipeline to the last one, which answers questions.
* Questions are jobs. The handler is `deferred`: it queues a `Question` frame and returns, and the job stays open. The
  last processor answers it, at the reading that makes it complete. So it may have many open at once.
* The sensor is `bridged`: what leaves its pipeline goes out to the bus. The display is a pipeline, too, with a bridge
  at its head that lets readings in. If it were slow, the sensor would not be.
* An error in the sensor's pipeline would not end it, and leave the questions open; so it ends itself then.
* The program around them asks by `runner.job(…)`. When it has its answers, the runner ends everything.
"""

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports: there is nothing to clean up yet
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Final, NoReturn

import anyio
from attrs import define, field
from rich.console import Console
from rich.live import Live
from rich.text import Text

from workerbus import (
    BusBridgeProcessor,
    BusJobRequestMessage,
    JobError,
    JobStatus,
    PipelineWorker,
    WorkerBus,
    WorkerRunner,
    job,
)
from workerbus.pipeline import (
    DataFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
    Pipeline,
    StartFrame,
    frame_type,
)

DEFAULT_QUESTIONS = ("load", "cpu:5", "memory:10", "cpu:20", "self:20")

Gauge = Callable[[], float]


# --- what can be measured


class Share:
    """What share of something has gone by since the last reading, in percent."""

    def __init__(self, read: Callable[[], tuple[float, float]]) -> None:
        self._read = read
        self._last = read()
        self._share = 0.0

    def __call__(self) -> float:
        part, whole = self._read()
        if whole > self._last[1]:
            self._share = 100 * (part - self._last[0]) / (whole - self._last[1])
            self._last = part, whole
        return self._share


def ticks_of_processors() -> tuple[float, float]:
    """How long all processors were busy, and how long they were there, since the machine was started."""
    ticks = [int(tick) for tick in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def memory_in_use() -> float:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return 100 - 100 * kilobytes["MemAvailable"] / kilobytes["MemTotal"]


def make_gauges() -> dict[str, Gauge]:
    """Make those that there are on this machine."""
    makers: dict[str, Callable[[], Gauge]] = {
        "cpu": lambda: Share(ticks_of_processors),
        "memory": lambda: memory_in_use,
        "load": lambda: lambda: os.getloadavg()[0],
        "self": lambda: Share(lambda: (time.process_time(), time.perf_counter())),
    }
    gauges = {}
    for name, make in makers.items():
        try:
            gauge = make()
            gauge()
        except (OSError, AttributeError, LookupError, ValueError):
            continue
        gauges[name] = gauge
    return gauges


UNITS: Final = {"cpu": " %", "memory": " %", "self": " %", "load": ""}
ABOUT: Final = {
    "cpu": "all processors",
    "memory": "memory in use",
    "load": "load average of a minute",
    "self": "this program",
}


def shown(name: str, value: float) -> str:
    return f"{value:.{2 if name == 'load' else 1}f}{UNITS[name]}"


# --- the sensor


@frame_type
class Reading(DataFrame):
    """One reading of every gauge."""

    values: dict[str, float]


@frame_type
class Question(DataFrame):
    """Somebody wants to know about the next readings of a gauge."""

    job_id: str
    gauge: str
    readings: int


class Sampler(FrameProcessor):
    """Pushes a reading every so many seconds."""

    def __init__(self, gauges: dict[str, Gauge], every: float) -> None:
        super().__init__("sampler")
        self._gauges = gauges
        self._every = every

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self.create_task(self._sample)  # ends with the pipeline

    async def _sample(self) -> None:
        at = anyio.current_time()
        while True:
            at = max(at + self._every, anyio.current_time())
            await anyio.sleep_until(at)
            await self.push_frame(Reading({name: gauge() for name, gauge in self._gauges.items()}))


@define
class Open:
    """A question that is waiting for its last reading."""

    question: Question
    values: list[float] = field(factory=list)


class Answerer(FrameProcessor):
    """Answers questions when there were enough readings."""

    def __init__(self) -> None:
        super().__init__("answerer")
        self._open: list[Open] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, Question):
            self._open.append(Open(frame))
            return
        if isinstance(frame, Reading):
            await self._count(frame)
        await self.push_frame(frame, direction)

    async def _count(self, reading: Reading) -> None:
        jobs = self.worker.active_jobs  # not those that were cancelled meanwhile
        self._open = [each for each in self._open if each.question.job_id in jobs]
        for each in self._open:
            question, values = each.question, each.values
            values.append(reading.values[question.gauge])
            if len(values) == question.readings:
                answer = {"mean": fmean(values), "lowest": min(values), "highest": max(values)}
                await self.worker.send_job_response(question.job_id, answer)


class Sensor(PipelineWorker):
    """Measures, and answers questions."""

    def __init__(self, gauges: dict[str, Gauge], every: float) -> None:
        super().__init__(Pipeline([Sampler(gauges, every), Answerer()]), name="sensor", bridged=())
        self._gauges = gauges

    @job(name="ask", deferred=True)
    async def ask(self, message: BusJobRequestMessage) -> None:
        asked = message.payload or {}
        if asked["gauge"] in self._gauges:
            await self.queue_frame(Question(message.job_id, asked["gauge"], asked["readings"]))
        else:
            reason = f"no gauge for {asked['gauge']!r} here; there is {', '.join(self._gauges)}"
            await self.send_job_response(message.job_id, {"reason": reason}, status=JobStatus.FAILED)

    async def on_pipeline_error(self, frame: ErrorFrame) -> None:
        await self.stop()  # its jobs are answered: CANCELLED


# --- the display


class LiveLine(FrameProcessor):
    """Shows the last readings in a line at the bottom of the terminal."""

    BARS = "▁▂▃▄▅▆▇█"

    def __init__(self, console: Console) -> None:
        super().__init__("live line")
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shows = console.is_interactive
        self._busy: deque[float] = deque(maxlen=24)

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        if self._shows:
            self._live.start()

    async def cleanup(self) -> None:
        await super().cleanup()
        self._live.stop()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, Reading) and self._shows:
            self._live.update(self._line(frame.values), refresh=True)
        await self.push_frame(frame, direction)

    def _line(self, values: dict[str, float]) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        for name, value in values.items():
            line.append(f"{name} ", "dim").append(f"{shown(name, value):>7}   ", "bold")
        self._busy.append(values.get("cpu", values["self"]))
        steps = len(self.BARS) - 1
        return line.append("".join(self.BARS[round(min(max(busy, 0), 100) / 100 * steps)] for busy in self._busy))


def make_display(bus: WorkerBus, console: Console) -> PipelineWorker:
    bridge = BusBridgeProcessor(bus=bus, worker_name="display", target_task="sensor")
    return PipelineWorker(Pipeline([bridge, LiveLine(console)]), name="display")


# --- the program around them


async def ask(runner: WorkerRunner, console: Console, gauge: str, readings: int) -> bool:
    """Ask a question and print the answer; returns whether there was one."""
    try:
        answer = await runner.job("sensor", name="ask", payload={"gauge": gauge, "readings": readings})
    except JobError as exc:
        print(f"sensor.py: {exc.reason}", file=sys.stderr)
        return False
    figures = {name: shown(gauge, value) for name, value in answer.items()}
    line = Text(f"{gauge:<7}").append(f"{figures['mean']:>8}", "bold")
    if readings > 1:
        line.append(f"  from {figures['lowest']} to {figures['highest']}")
    line.append(f"  {ABOUT[gauge]}, {readings} reading{'s' * (readings > 1)}", "dim")
    console.print(line, soft_wrap=True)
    return True


async def run(questions: list[tuple[str, int]], every: float, console: Console) -> int:
    """Have all questions answered; returns the program's exit code."""
    answered = []

    async def keep(gauge: str, readings: int) -> None:
        answered.append(await ask(runner, console, gauge, readings))

    async with WorkerRunner() as runner:
        await runner.add_workers(Sensor(make_gauges(), every), make_display(runner.bus, console))
        async with anyio.create_task_group() as tasks:
            for gauge, readings in questions:
                tasks.start_soon(keep, gauge, readings)
    return 0 if len(answered) == len(questions) and all(answered) else 1


def question(text: str) -> tuple[str, int]:
    gauge, colon, readings = text.partition(":")
    if colon and not (readings.isdecimal() and int(readings)):
        raise argparse.ArgumentTypeError(f"a number of readings, at least 1, not {readings!r}")
    return gauge, int(readings or 1)


class Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> int:
    parser = Arguments(description="Ask about this machine.")
    about = f"one of {', '.join(ABOUT)}, and after a colon a number of readings; default: {' '.join(DEFAULT_QUESTIONS)}"
    parser.add_argument("questions", metavar="GAUGE[:READINGS]", nargs="*", type=question, help=about)
    parser.add_argument("--every", metavar="SECONDS", type=float, default=0.2, help="default: %(default)s")
    parser.add_argument("--backend", choices=anyio.get_available_backends(), default="asyncio")
    given = parser.parse_args()
    if not given.every > 0:
        parser.error(f"--every: more than 0 seconds, not {given.every:g}")
    questions = given.questions or [question(text) for text in DEFAULT_QUESTIONS if text.split(":")[0] in make_gauges()]
    console = Console(markup=False, emoji=False, highlight=False)
    return anyio.run(partial(run, questions, given.every, console), backend=given.backend)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody reads on: `… | head`
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        Console().show_cursor()
        sys.exit(130)
