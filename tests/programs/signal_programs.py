"""The programs that `test_signals` sends signals to: ``python signal_programs.py BACKEND PROGRAM [ARGUMENT …]``.

A backend ``asyncio.run`` or ``trio.run`` is that function, instead of anyio's; after ``bare`` nothing is caught.
"""

import asyncio
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import anyio
import trio
from anyio import create_task_group, sleep, sleep_forever

from workerbus import (
    BaseWorker,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
    MemoryBus,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus._concurrency import lifetime

LONG = 600.0


def say(text: str) -> None:
    """Say something, past Python's buffer: a signal handler that speaks while the program does would find it locked."""
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


def tell(runner: WorkerRunner) -> None:
    """Say how the run has ended."""
    outcome = runner.outcome
    assert outcome is not None
    assert outcome.signal is runner.signal
    say(f"{outcome.how} by {None if outcome.signal is None else outcome.signal.name}: {outcome.reason}")


async def say_when_idle(text: str) -> None:
    """Say something when all else waits, as it does by the time that somebody presses Ctrl-C again.

    On trio, whose tasks are not protected from it, an interrupt in the middle of an `Event.wait` breaks that event.
    """
    await anyio.wait_all_tasks_blocked()
    say(text)


async def be_slow() -> None:
    await say_when_idle("slow")
    await sleep(LONG)


class Slow(BaseWorker):
    """Says when it is cleaning up, and how long that takes depends on where it is slow."""

    def __init__(self, name: str = "slow", place: str = "") -> None:
        super().__init__(name)
        self.place = place

    async def cleanup(self) -> None:
        if self.place == "interrupted":
            raise KeyboardInterrupt
        await say_when_idle(f"{self.name} cleans up")
        if self.place == "cleanup":
            await sleep(LONG)
        await super().cleanup()

    async def on_bus_message(self, message: BusMessage) -> None:
        if self.place == "last hook" and isinstance(message, BusCancelWorkerMessage):
            await be_slow()


class SlowBus(MemoryBus):
    async def stop(self) -> None:
        await be_slow()


def runner_with(*workers: BaseWorker, **kwargs: Any) -> WorkerRunner:
    runner = WorkerRunner(**kwargs)
    runner.add_event_handler("on_ready", lambda _: say("ready"))
    return runner


async def run_as(form: str, runner: WorkerRunner) -> None:
    """Run in the main task, in a child of it, or around a body."""
    if form == "main":
        await runner.run(auto_end=False)
    elif form == "child":
        async with create_task_group() as group:
            group.start_soon(lambda: runner.run(auto_end=False))
    else:
        async with runner:
            await sleep_forever()


async def once(form: str, *options: str) -> None:
    """Run until a signal has ended it."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    runner = runner_with(**dict.fromkeys(options, True))
    await runner.add_workers(Slow())
    try:
        await run_as(form, runner)
        say("went on")
    finally:
        after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        tell(runner)
        say("restored" if after == before else f"not restored: {after}")


async def draining(form: str) -> None:
    """A SIGTERM lets the job that is under way finish."""

    class Busy(Slow):
        @job(name="work")
        async def work(self, message: BusMessage) -> dict[str, object]:
            await say_when_idle("ready")
            await told.wait()
            return {"worked": True}

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, BusEndWorkerMessage):
                say(f"told to end: {message.reason}")
                told.set()

    told, answered = anyio.Event(), anyio.Event()
    runner = WorkerRunner(handle_sigterm="end", job_grace=LONG)
    await runner.add_workers(Busy("busy"))

    async def run() -> None:
        if form == "main":
            await runner.run(auto_end=False)
        else:
            async with runner:
                await answered.wait()
                say("body finished")

    async with create_task_group() as group:
        group.start_soon(run)
        await runner.registry.wait_for("busy")
        say(f"answer: {await runner.job('busy', name='work')}")
        answered.set()
    say("went on")
    tell(runner)


async def twice(form: str, place: str) -> None:
    """Be slow in the wind-down, for the second signal to come."""

    async def watch(_: object) -> None:
        await be_slow()

    slow = Slow(place=place)
    runner = runner_with(bus=SlowBus() if place == "bus" else None, handle_sigterm=True)
    await runner.add_workers(slow)
    if place == "watcher":
        await runner.registry.watch_departure("slow", watch)
    await run_as(form, runner)
    say("returned")


async def interrupted() -> None:
    """The second interrupt comes while a task of the library runs: one worker's own, and another is slow."""
    runner = runner_with()
    await runner.add_workers(Slow(place="cleanup"), Slow("other", place="interrupted"))
    await runner.run(auto_end=False)
    say("returned")


async def twice_with_the_programs_bus() -> None:
    """The bus is closed by the program, when the runner has returned."""
    async with SlowBus() as bus:
        runner = runner_with(bus=bus)
        await runner.add_workers(Slow())
        await runner.run(auto_end=False)
        say("returned")


async def own_handler() -> None:
    """The program has a handler of its own."""
    called: list[int] = []

    def mine(number: int, frame: FrameType | None) -> None:
        called.append(number)
        say("mine")

    class Patient(Slow):
        async def cleanup(self) -> None:
            await super().cleanup()
            while not called:  # noqa: ASYNC110 - a signal handler can set no event
                await sleep(0.005)
            say("cleaned up")

    signal.signal(signal.SIGINT, mine)
    runner = runner_with(handle_sigint="always")
    await runner.add_workers(Patient())
    await runner.run(auto_end=False)
    say("restored" if signal.getsignal(signal.SIGINT) is mine else "not restored")


async def left_to_the_program() -> None:
    """The program has a handler of its own, and the runner was not asked to take its place."""
    called: list[int] = []

    def mine(number: int, frame: FrameType | None) -> None:
        called.append(number)

    signal.signal(signal.SIGINT, mine)
    async with runner_with() as runner:
        while not called:  # noqa: ASYNC110 - a signal handler can set no event
            await sleep(0.005)
    say("untouched" if signal.getsignal(signal.SIGINT) is mine else "not restored")
    tell(runner)


async def unasked(form: str) -> None:
    """The runner leaves SIGINT alone."""
    runner = runner_with(handle_sigint=False)
    await runner.add_workers(Slow())
    await run_as(form, runner)
    say("returned")


async def afterwards() -> None:
    """The run is over when the signal comes."""
    await WorkerRunner().run()
    say("ready")
    await sleep_forever()


async def ending(*by_signal: str) -> None:
    """A graceful end is under way, and waits; a SIGTERM begins it, if told so."""

    class Lingering(Slow):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await params.wait_for_end()
            await say_when_idle("told to end" if by_signal else "ready")
            await sleep_forever()

    runner = WorkerRunner(grace_period=LONG, handle_sigterm="end")
    await runner.add_workers(Lingering())

    async def end(_: WorkerRunner) -> None:
        if by_signal:
            say("ready")
        else:
            await runner.end()

    runner.add_event_handler("on_ready", end)
    await runner.run(auto_end=False)
    tell(runner)


async def leaving() -> None:
    """The body has finished, and its worker takes its time."""

    class Lingering(Slow):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await params.wait_for_end()
            await say_when_idle("ready")
            await sleep_forever()

    async with WorkerRunner(grace_period=LONG) as runner:
        await runner.add_workers(Lingering())
        await runner.registry.wait_for("slow")
    say("went on")


async def two_runners() -> None:
    """Both listen."""

    async def run(runner: WorkerRunner) -> None:
        await runner.run(auto_end=False)
        say(f"{runner.name} returned")

    async with MemoryBus() as bus, create_task_group() as group:
        for name in ("one", "two"):
            runner = WorkerRunner(name=name, bus=bus)
            await runner.add_workers(Slow(f"worker of {name}"))
            group.start_soon(run, runner)
            await runner.registry.wait_for(f"worker of {name}")
        await anyio.wait_all_tasks_blocked()
        say("ready")


async def after_an_abandoned_run() -> None:
    """The program has asked its event loop for a signal; an earlier loop was closed with a runner in it."""
    with anyio.open_signal_receiver(signal.SIGUSR1) as numbers:
        runner = runner_with()
        runner.add_event_handler("on_ready", lambda _: signal.raise_signal(signal.SIGUSR1))
        async with create_task_group() as group:
            group.start_soon(lambda: runner.run(auto_end=False))
            async for number in numbers:
                say(number.name)
                if runner.signal is not None:
                    break
                signal.raise_signal(signal.SIGINT)
                await anyio.wait_all_tasks_blocked()
                signal.raise_signal(signal.SIGUSR1)
    tell(runner)


async def in_a_thread() -> None:
    """Another thread than the event loop's gets the signals, while the loop waits."""
    runner = WorkerRunner()
    threads: list[threading.Thread] = []

    def send(_: WorkerRunner) -> None:
        threads.append(threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)))
        threads[0].start()

    runner.add_event_handler("on_ready", send)
    await runner.run(auto_end=False)
    threads[0].join()
    tell(runner)


PROGRAMS: dict[str, Callable[..., Awaitable[None]]] = {
    function.__name__: function
    for function in (
        once,
        draining,
        twice,
        interrupted,
        twice_with_the_programs_bus,
        own_handler,
        left_to_the_program,
        unasked,
        afterwards,
        ending,
        leaving,
        two_runners,
        in_a_thread,
        after_an_abandoned_run,
    )
}


async def beside_others(backend: str, program: Callable[..., Awaitable[None]], *arguments: str) -> None:
    """Run a program in a loop that is never idle for long, as one with other things to do.

    An idle asyncio loop sees a signal only with its next timer, if it comes just before the selector begins to wait.
    """
    if backend == "asyncio" and program is not in_a_thread:
        loop = asyncio.get_running_loop()

        def tick() -> None:
            loop.call_later(0.05, tick)

        tick()
    await program(*arguments)


def main(backend: str, program: str, *arguments: str) -> None:
    lifetime.CLEANUP_SECONDS = math.inf  # type: ignore[misc]  # what ends in time has not waited for the bound (L4)
    logging.getLogger("workerbus").addHandler(logging.NullHandler())
    try:
        if program == "after_an_abandoned_run":
            asyncio.run(WorkerRunner().__aenter__())
        run(backend, PROGRAMS[program], *arguments)
    except BaseException as exc:  # the type is what is asked about
        code = f" {exc.code}" if isinstance(exc, SystemExit) else ""
        say(f"raised {type(exc).__name__}{code}")


def run(backend: str, program: Callable[..., Awaitable[None]], *arguments: str) -> None:
    """Run a program as its author would."""
    name = backend.removesuffix(".run")
    if backend == "asyncio.run":
        asyncio.run(beside_others(name, program, *arguments))
    elif backend == "trio.run":
        trio.run(beside_others, name, program, *arguments)
    else:
        anyio.run(beside_others, name, program, *arguments, backend=name)


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=logging.INFO)
        run(sys.argv[2], PROGRAMS[sys.argv[3]], *sys.argv[4:])
    else:
        main(*sys.argv[1:])
