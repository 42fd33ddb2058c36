"""pykka's actors, each in a thread of its own. What waits here, waits in the main thread, whose event loop is idle."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pykka import ActorRef, ActorRegistry, ThreadingActor, get_all

from benchmarks._late import LateJobs
from benchmarks._run import Run, resident
from benchmarks._subject import ASKING, TIMEOUT
from benchmarks._subjects import Subjects


class Counter(ThreadingActor):
    """Counts what it is told, down to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0
        self.done = threading.Event()

    def on_receive(self, message: Any) -> None:
        """Count, or begin to count anew."""
        if isinstance(message, int):
            self.left = message
            self.done.clear()
            return
        self.left -= 1
        if self.left == 0:
            self.done.set()


class Waker(ThreadingActor):
    """Sets an event for each thing that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.done = threading.Event()

    def on_receive(self, _message: Any) -> None:
        """Set it."""
        self.done.set()


class Answerer(ThreadingActor):
    """Answers at once."""

    def on_receive(self, _message: Any) -> dict[str, bool]:
        """Answer."""
        return {"ok": True}


@contextmanager
def actors(kind: type[ThreadingActor], count: int) -> Iterator[list[ActorRef[Any]]]:
    """Run so many actors; all are ready in the body."""
    refs = [kind.start() for _ in range(count)]
    get_all([ref.ask(0, block=False) for ref in refs])
    try:
        yield refs
    finally:
        ActorRegistry.stop_all()


class Contender(Subjects):
    """pykka."""

    packages = ("pykka",)

    async def flood(self, run: Run) -> None:
        run.size = 1
        await self.targeted(run)

    async def targeted(self, run: Run) -> None:
        with actors(Counter, run.size) as refs:
            done = refs[-1].proxy().done.get()
            for count in run.counts:
                refs[-1].ask(count)
                messages = [{"number": number} for number in range(count)]
                with run.clock():
                    for message in messages:
                        refs[-1].tell(message)
                    done.wait()

    async def wake(self, run: Run) -> None:
        with actors(Waker, 1) as [ref]:
            done = ref.proxy().done.get()
            for count in run.counts:
                messages = [{"number": number} for number in range(count)]
                with run.clock():
                    for message in messages:
                        done.clear()
                        ref.tell(message)
                        done.wait()

    async def broadcast(self, run: Run) -> None:
        with actors(Counter, run.size) as refs:
            all_done = [ref.proxy().done.get() for ref in refs]
            for count in run.counts:
                get_all([ref.ask(count, block=False) for ref in refs])
                messages = [{"number": number} for number in range(count)]
                with run.clock():
                    for message in messages:
                        ActorRegistry.broadcast(message, Counter)
                    for done in all_done:
                        done.wait()

    async def broadcast_wake(self, run: Run) -> None:
        with actors(Waker, run.size) as refs:
            all_done = [ref.proxy().done.get() for ref in refs]
            for count in run.counts:
                messages = [{"number": number} for number in range(count)]
                with run.clock():
                    for message in messages:
                        for done in all_done:
                            done.clear()
                        ActorRegistry.broadcast(message, Waker)
                        for done in all_done:
                            done.wait()

    async def _jobs(self, run: Run, timeout: float | None) -> None:
        with actors(Answerer, 1) as [ref]:
            for count in run.counts:
                with run.clock():
                    for number in range(count):
                        ref.ask(number, timeout=timeout)

    async def job(self, run: Run) -> None:
        await self._jobs(run, None)

    async def job_timeout(self, run: Run) -> None:
        await self._jobs(run, TIMEOUT)

    async def in_flight(self, run: Run) -> None:
        with actors(Answerer, 1) as [ref], run.clock():
            for _ in range(run.count // run.size):
                get_all([ref.ask(number, block=False) for number in range(run.size)])

    async def pool(self, run: Run) -> None:
        with actors(Answerer, run.size) as refs, run.clock():
            turns = itertools.cycle(refs)
            for _ in range(run.count // ASKING):
                get_all([next(turns).ask(number, block=False) for number in range(ASKING)])

    async def group(self, run: Run) -> None:
        with actors(Answerer, run.size) as refs:
            for count in run.counts:
                with run.clock():
                    for number in range(count):
                        get_all([ref.ask(number, block=False) for ref in refs])

    async def late(self, run: Run) -> None:
        with actors(Answerer, 1) as [ref]:
            for hundred in LateJobs(run):
                for number in hundred:
                    ref.ask(number)

    async def start_stop(self, run: Run) -> None:
        for size, count in ((10, 1), (run.size, run.count)):
            with run.clock():
                for _ in range(count):
                    with actors(Answerer, size):
                        pass

    async def memory(self, run: Run) -> None:
        with actors(Answerer, 10):
            pass
        before = resident()
        with actors(Answerer, run.size):
            run.values["bytes"] = (resident() - before) / run.size
