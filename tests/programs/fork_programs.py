"""The programs that `test_forks` runs: ``python fork_programs.py BACKEND PROGRAM [ARGUMENT …]``."""

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from multiprocessing.process import BaseProcess
from typing import Any

import anyio
import trio
from anyio import to_thread

import workerbus
from workerbus import BaseWorker, WorkerRunner, job

FORK = multiprocessing.get_context("fork")
BACKEND = sys.argv[1]


def say(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


class Echo(BaseWorker):
    @job(name="echo")
    async def echo(self, message: Any) -> dict[str, Any]:
        return {"alive": True}


class Child:
    """A process that is forked, and says when it is ready."""

    def __init__(self, work: Callable[[Callable[[], None]], None]) -> None:
        self._hears, ready = os.pipe()
        self.process: BaseProcess = FORK.Process(target=work, args=(lambda: os.write(ready, b"."),), daemon=True)
        self.process.start()
        os.close(ready)

    def end_by(self, number: signal.Signals) -> int | None:
        """Send it a signal when it is ready; returns its exit code."""
        assert os.read(self._hears, 1)
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        self.process.join()
        return self.process.exitcode


def idle(ready: Callable[[], None]) -> None:
    try:
        ready()
        signal.pause()
    except KeyboardInterrupt:
        os._exit(3)


def handlers(ready: Callable[[], None]) -> None:
    defaults = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    say(f"defaults: {defaults and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL}")
    idle(ready)


def with_a_runner(ready: Callable[[], None]) -> None:
    async def main() -> None:
        runner = WorkerRunner(handle_sigterm=True)
        runner.add_event_handler("on_ready", lambda _: ready())
        await runner.run(auto_end=False)
        assert runner.signal is not None
        say(f"child: {runner.signal.name}")
        os._exit(7)

    asyncio.run(main()) if BACKEND == "asyncio" else trio.run(main)


async def fork(work: str, number: str) -> None:
    """A runner that listens to both signals forks a child that gets one."""
    async with WorkerRunner(handle_sigterm=True) as runner:
        await runner.add_workers(Echo("echo"))
        await runner.registry.wait_for("echo")
        if work == "in the loop":
            code = Child(handlers).end_by(signal.Signals[number])
        else:
            child: Callable[..., None] = {"idle": idle, "runner": with_a_runner, "handlers": handlers}[work]
            code = await to_thread.run_sync(lambda: Child(child).end_by(signal.Signals[number]))
        say(f"code {code}")
        with anyio.fail_after(60):
            say(f"answer: {await runner.job('echo', name='echo')}")
        say("goes on")
    say(f"signal: {runner.signal}")


def dumps(ready: Callable[[], None]) -> None:
    runners = workerbus.dump().splitlines()[0].partition(", ")[2]
    say(f"{runners}, default: {signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL}")
    idle(ready)


async def dump() -> None:
    """A runner whose signal dumps forks a child that dumps by itself, and then gets that signal."""
    async with WorkerRunner(dump_signal="SIGUSR1"):
        code = await to_thread.run_sync(lambda: Child(dumps).end_by(signal.SIGUSR1))
        say(f"code {code}")


async def own(number: str) -> None:
    """The program has a handler of its own, which the runner takes the place of: a child has the program's."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
    async with WorkerRunner(handle_sigterm=True) as runner:
        code = await to_thread.run_sync(lambda: Child(idle).end_by(signal.Signals[number]))
        say(f"code {code}")
    say(f"signal: {runner.signal}")


PROGRAMS: dict[str, Callable[..., Awaitable[None]]] = {"fork": fork, "own": own, "dump": dump}

if __name__ == "__main__":
    anyio.run(PROGRAMS[sys.argv[2]], *sys.argv[3:], backend=BACKEND)
