"""What nobody can do without to ask for a job: two passes of the loop, a message, a scope, a look at the deadline."""

import time
from collections.abc import Callable

import anyio
from attrs import frozen

from benchmarks._run import Run


@frozen(kw_only=True, eq=False)
class Request:
    """A message with the fields of a request for a job."""

    source: str
    target: str
    job_id: str
    job_name: str | None = None
    payload: object = None
    seconds_left: float | None = None


def nothing() -> None:
    """Do nothing."""


def message() -> None:
    """Make a message."""
    Request(source="asker", target="answerer", job_id="job", job_name="echo")


def scope_maker() -> Callable[[], None]:
    """Return what enters a cancel scope, and leaves it; the class is looked up once."""
    scope = type(anyio.CancelScope())

    def enter() -> None:
        with scope():
            pass

    return enter


def deadline() -> None:
    """Look at the deadline of all scopes around."""
    anyio.current_effective_deadline()


class Pair:
    """A task that is used again, and one that asks it and waits: two passes of the loop."""

    def __init__(self) -> None:
        self._event = type(anyio.Event())  # `anyio.Event()` finds out each time on what it runs
        self._asked, self._answered = self._event(), self._event()
        self._over = False

    async def serve(self) -> None:
        """Answer."""
        while True:
            await self._asked.wait()
            if self._over:
                return
            self._asked = self._event()
            self._answered.set()

    async def ask(self, count: int, *between: Callable[[], None]) -> None:
        """Ask so often, and each time do something."""
        for _ in range(count):
            for do in between:
                do()
            self._answered = self._event()
            self._asked.set()
            await self._answered.wait()

    def end(self) -> None:
        """Let the task end."""
        self._over = True
        self._asked.set()


def timed(count: int, do: Callable[[], None]) -> float:
    """Return what something takes, by processor time, less the call."""
    start = time.process_time()
    for _ in range(count):
        nothing()
    call = time.process_time() - start
    start = time.process_time()
    for _ in range(count):
        do()
    return max(0.0, time.process_time() - start - call) / count


async def least(run: Run) -> None:
    """Measure each alone, and all together."""
    pair, scope = Pair(), scope_maker()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.serve)
        for count in run.counts:
            run.values |= {
                "message": timed(count, message),
                "scope": timed(count, scope),
                "deadline": timed(count, deadline),
            }
            with run.clock():
                await pair.ask(count)
            run.values["passes"] = run.values["cpu"]
            with run.clock():
                await pair.ask(count, message, scope, deadline)
        pair.end()
