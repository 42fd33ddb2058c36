"""Features that behave beside another as they do alone: what runs two of them in one program, and compares.

A feature is an async function of a `Side`. It makes workers with names of its own, uses something of the library with
them, and returns what it has observed: something that the guarantees determine under every schedule and on both
backends, however much else there is in the program. Virtual time is part of that.

What each observes when there is nothing else is written down in ``alone.json``, with which all is compared. Where one
is new or changed, ``WORKERBUS_WRITE=1 python -m pytest tests/properties/test_features_beside_each_other.py`` writes it
anew. Then somebody has to read whether that is what is promised.
"""

import json
import logging
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, TypeVar
from zlib import crc32

import anyio
from attrs import define, field

from workerbus import BaseWorker, MemoryBus, WorkerBus, WorkerErrorData, WorkerRunner
from workerbus.testing import run

W = TypeVar("W", bound=BaseWorker)

Mode = Literal["one runner", "two runners", "same workers", "one after the other"]

BACKENDS: Final = ("asyncio", "trio")
MARKS: Final = ("left", "right")
LAGS: Final = (0.0, 0.0, 0.3, 1.1)
"""How many seconds after the first feature the second one begins; when these are over, most features are not."""
WRITTEN: Final = Path(__file__).with_name("alone.json")
"""What each feature observes when there is nothing else."""
WRITE: Final = "WORKERBUS_WRITE"
"""The environment variable that has it written down anew."""
LIMIT: Final = 600.0
"""Seconds of virtual time after which a program has hung."""
_OF_A_SIDE: Final = re.compile(rf"_({'|'.join(MARKS)})\b|[0-9a-f]{{12}}-[0-9a-f]+")
"""The end of a name, or the id of a job."""


@define(eq=False)
class Place:
    """What two sides share: the bus, the workers where they use the same ones, and what was logged and reported."""

    bus: WorkerBus
    workers: dict[str, BaseWorker] | None = None
    lines: list[str] = field(factory=list)
    errors: list[WorkerErrorData] = field(factory=list)


@define(eq=False)
class Side:
    """What a feature has in a program that it shares with another one.

    Args:
        runner: Hosts its workers; the other one's, too, or not.
        mark: Ends all its names. In what it observes, it is left out.
    """

    runner: WorkerRunner
    mark: str
    place: Place
    began: float
    hired: list[BaseWorker] = field(factory=list)
    seen: list[Any] = field(factory=list)

    @property
    def bus(self) -> WorkerBus:
        """The bus, which the other one uses, too."""
        return self.place.bus

    def name(self, word: str) -> str:
        """A name of its own."""
        return f"{word}_{self.mark}"

    def now(self) -> float:
        """How many seconds the feature has been running."""
        return self.at(anyio.current_time())

    def at(self, moment: float) -> float:
        """How many seconds the feature had been running then."""
        return round(moment - self.began, 6) + 0.0  # which is never -0.0

    def see(self, *what: Any) -> None:
        """Take down what has happened, and when."""
        self.seen.append((self.now(), *what))

    def in_order(self) -> list[Any]:
        """What was taken down, where of what happens at one time the order is not determined."""
        return sorted(self.seen, key=lambda what: (what[0], repr(what)))

    async def hire(self, kind: Callable[..., W], word: str, *args: Any, **options: Any) -> W:
        """Return a worker that runs; where the sides use the same ones, the one that the other has hired."""
        name = self.name(word)
        if self.place.workers is not None:
            if word in self.place.workers:
                worker: Any = self.place.workers[word]
                await worker.worker_runner.registry.wait_for(worker.name)
                return worker  # type: ignore[no-any-return]  # it was made of the same kind
            self.place.workers[word] = made = kind(name, *args, **options)
        else:
            made = kind(name, *args, **options)
        self.hired.append(made)
        await self.runner.add_workers(made, wait=True)
        return made

    def lines(self, *words: str) -> list[str]:
        """What was logged, from INFO on, about workers of its own, and has one of these words in it."""
        own = [line for line in self.place.lines if f"_{self.mark}" in line]
        return [line for line in own if any(word in line for word in words)]

    def errors(self) -> list[tuple[str, str, bool]]:
        """What its runner was told of its workers: who, what, and whether that is the worker's end."""
        return [
            (data.worker_name, data.error, data.fatal)
            for data in self.place.errors
            if data.worker_name.endswith(f"_{self.mark}")
        ]


@define(frozen=True)
class Feature:
    """Something that the library does.

    Args:
        shares: Whether two of it can use the same workers.
    """

    name: str
    function: Callable[[Side], Awaitable[Any]]
    shares: bool


FEATURES: Final[dict[str, Feature]] = {}
"""All of them, by name, in the order in which their modules are imported."""


def feature(*, shares: bool = False) -> Callable[[Callable[[Side], Awaitable[Any]]], Callable[[Side], Awaitable[Any]]]:
    """Make an async function a feature. Two of one that ``shares`` may be given the same workers."""

    def note(function: Callable[[Side], Awaitable[Any]]) -> Callable[[Side], Awaitable[Any]]:
        name = function.__name__
        assert name not in FEATURES, name
        FEATURES[name] = Feature(name, function, shares)
        return function

    return note


def names_of(*modules: ModuleType) -> list[str]:
    """The names of the features that these modules have."""
    written = [module.__name__ for module in modules]
    return [name for name, it in FEATURES.items() if it.function.__module__ in written]


@define(frozen=True)
class Together:
    """A program of two features, or of one."""

    features: tuple[Feature, ...]
    mode: Mode
    lag: float = 0.0

    async def run(self, lines: list[str]) -> list[str]:
        """Run them, and return what each has observed, as a text without names of sides and ids."""
        seen: dict[int, str] = {}
        async with AsyncExitStack() as stack:
            bus = await stack.enter_async_context(MemoryBus())
            place = Place(bus, {} if self.mode == "same workers" else None, lines)
            runners = []
            for number in range(2 if self.mode == "two runners" else 1):
                runner = WorkerRunner(name=f"host{number}", bus=bus, handle_sigint=False)
                runner.add_event_handler("on_error", lambda _, data: place.errors.append(data))
                runners.append(await stack.enter_async_context(runner))
            in_turn = self.mode == "one after the other"
            sides = [
                Side(runners[number % len(runners)], MARKS[0 if in_turn else number], place, 0.0)
                for number in range(len(self.features))
            ]
            try:
                if in_turn:
                    for number in range(len(sides)):
                        await self._run_one(number, sides[number], seen)
                        await _dismiss(sides[number])
                        place.errors.clear()
                        lines.clear()
                else:
                    async with anyio.create_task_group() as tasks:
                        for number, side in enumerate(sides):
                            tasks.start_soon(self._run_one, number, side, seen)
            finally:
                for side in sides:
                    await _dismiss(side)
        return [seen[number] for number in range(len(sides))]

    async def _run_one(self, number: int, side: Side, seen: dict[int, str]) -> None:
        if self.mode != "one after the other":
            await anyio.sleep(number * self.lag)
        side.began = anyio.current_time()
        seen[number] = _plain(await self.features[number].function(side))


async def _dismiss(side: Side) -> None:
    with anyio.CancelScope(shield=True):
        while side.hired:
            await side.hired.pop().stop()


def _plain(observation: Any) -> str:
    return _OF_A_SIDE.sub("", repr(observation))


class _Lines(logging.Handler):
    """Keeps what the library logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(f"{record.levelname}: {record.getMessage()}")


def _observe(program: Together, backend: str, seed: int) -> list[str]:
    lines, logger = _Lines(), logging.getLogger("workerbus")
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # what features do is logged at length; none of it is to be shown
    logger.addHandler(lines)
    try:
        return run(program.run, lines.kept, backend=backend, seed=seed, limit=LIMIT)
    finally:
        logger.removeHandler(lines)
        logger.level, logger.propagate = before


def observed_alone(name: str, backend: str, seed: int) -> str:
    """Run a feature when there is nothing else, and return what it observes."""
    return _observe(Together((FEATURES[name],), "one runner"), backend, seed)[0]


@cache
def _written() -> dict[str, str]:
    return dict(json.loads(WRITTEN.read_text()))


def alone(name: str) -> str:
    """What a feature observes when there is nothing else, as it is written down; it is read by whoever changes it."""
    text = _written().get(name)
    assert text is not None, f"what {name!r} observes is not written down: run this with {WRITE}=1, and read it"
    return text


def write_down(names: Sequence[str]) -> None:
    """Write down what features observe when there is nothing else."""
    told = {name: observed_alone(name, BACKENDS[0], 0) for name in sorted(names)}
    WRITTEN.write_text(json.dumps(told, indent=1) + "\n")
    _written.cache_clear()


def modes(first: str, second: str) -> list[Mode]:
    """How two features can be together."""
    found: list[Mode] = ["one runner", "two runners"]
    if first == second:
        found.append("one after the other")
        if FEATURES[first].shares:
            found.append("same workers")
    return found


def check_beside(first: str, second: str, mode: Mode, backend: str, seed: int) -> None:
    """Run two features together, and see that each observes what it observes alone.

    Raises:
        AssertionError: One does not; the text says which, and how to run it again.
    """
    lag = random.Random(seed).choice(LAGS)
    again = f"check_beside({first!r}, {second!r}, {mode!r}, {backend!r}, {seed})"
    try:
        seen = _observe(Together((FEATURES[first], FEATURES[second]), mode, lag), backend, seed)
    except BaseException as exc:
        exc.add_note(f"in {again}")
        raise
    for name, observed in zip((first, second), seen, strict=True):
        assert observed == alone(name), f"{name}, in {again}:\n  together: {observed}\n  alone:    {alone(name)}"


def seed_of(*what: str) -> int:
    """A number that is the same for the same words."""
    return crc32("|".join(what).encode())
