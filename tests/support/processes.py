"""Processes that host runners on a Redis bus: started, told what to do, frozen, killed, and always ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import Process

from support.ledgers import complete
from support.redis_servers import GUARD, RedisServer
from support.runners import runner_on
from workerbus import BaseWorker, WorkerRunner
from workerbus.redis import RedisBus

TESTS = Path(__file__).parents[1]
PROGRAM = TESTS / "redis" / "processes" / "host_program.py"
PATIENCE = 60.0
"""Seconds until a process that has not said what was expected is a failure."""
BASE = "{workerbus}:"
"""What all keys of a network begin with."""
LEASE = 1.0
"""Seconds, in tests that wait for one."""
BACKENDS = ("asyncio", "trio")
OTHER = {"asyncio": "trio", "trio": "asyncio"}


def matches(said: Mapping[str, Any], what: str, having: Mapping[str, Any]) -> bool:
    return said["said"] == what and all(said.get(name) == value for name, value in having.items())


class Host:
    """A process of `host_program`.

    Attributes:
        name: Of its runner.
        lines: All that it has said and that nobody has waited for.
        has_raised: Whether it has said that its program has raised something.
    """

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.lines: list[dict[str, Any]] = []
        self._process = process
        self._log = log
        self._kept = ""
        self.has_raised = False
        self._changed = anyio.Event()
        self._at_end = False
        self._guard = subprocess.Popen(["/bin/sh", "-c", GUARD, "guard", str(process.pid)], stdin=subprocess.PIPE)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def written(self) -> str:
        lines = [json.dumps(line) for line in self.lines[-20:]]
        return "\n".join([f"{self.name}, process {self.pid}:", *lines, self.log[-4000:]])

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text() if self._log.exists() else self._kept

    def keep_log(self) -> None:
        """Keep what it has logged, since the file goes."""
        self._kept = self.log

    async def listen(self) -> None:
        """Keep what it says."""
        assert self._process.stdout is not None
        rest = b""
        async for data in self._process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            said = [json.loads(line) for line in lines]
            self.has_raised = self.has_raised or any(line["said"] == "raised" for line in said)
            self.lines += said
            self._tell()
        self._at_end = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def said(self, what: str, *, patience: float = PATIENCE, **having: Any) -> dict[str, Any]:
        """Wait until it says something, and return it; each line is returned once."""
        with anyio.move_on_after(patience):
            while True:
                for line in self.lines:
                    if matches(line, what, having):
                        self.lines.remove(line)
                        return line
                if self._at_end:
                    break
                await self._changed.wait()
        why = "it has ended" if self._at_end else f"not in {patience:g} s"
        raise AssertionError(f"{self.name} did not say {what!r} {having}: {why}")

    def has_said(self, what: str, **having: Any) -> bool:
        """Whether it has said something that nobody has waited for."""
        return any(matches(line, what, having) for line in self.lines)

    async def tell(self, do: str, **arguments: Any) -> None:
        """Tell it to do something: the name of a method of the program's `Host`, and its arguments."""
        assert self._process.stdin is not None
        await self._process.stdin.send(json.dumps({"do": do, **arguments}).encode() + b"\n")

    async def ask(
        self,
        worker: str,
        name: str,
        *,
        key: Any = 0,
        timeout: float | None = None,
        **payload: Any,
    ) -> None:
        """Have it ask for a job; it says ``answered``."""
        await self.tell("ask", key=key, worker=worker, name=name, payload=payload, timeout=timeout)

    @property
    def sender(self) -> str:
        """The name under which it sends numbered messages."""
        return f"{self.name}-{self.pid}"

    async def reported(self, worker: str, sender: str, count: int) -> None:
        """Assert, through a job, that a worker has got messages of a sender, each once and in their order."""
        await self.ask(worker, "report", key="report", timeout=PATIENCE / 2, sender=sender, count=count)
        answered = await self.said("answered", key="report")
        assert complete(answered.get("response", {}), sender, count), answered

    async def statistics(self) -> dict[str, Any]:
        await self.tell("tell")
        return await self.said("statistics")

    async def end(self) -> None:
        """Have its runner end, and wait until the process has."""
        await self.tell("end")
        await self.ended()

    async def ended(self) -> int:
        """Wait until the process has ended by itself, and return its exit code."""
        with anyio.fail_after(PATIENCE):
            return await self._process.wait()

    def freeze(self) -> None:
        """Stop it with SIGSTOP: it keeps its connections, and does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kill it with SIGKILL, unless it has ended, and wait for its end."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        if self._guard.returncode is None:
            self._guard.communicate(b"\n")


class Hosts:
    """The processes of a test, for as long as its ``async with`` lasts; all are killed at its end.

    Args:
        url: Of the server.
        **bus: Arguments of their buses.
    """

    def __init__(self, url: str, **bus: Any) -> None:
        self._url = url
        self._bus = bus
        self._hosts: list[Host] = []

    async def __aenter__(self) -> Self:
        self._directory = TemporaryDirectory(prefix="workerbus-hosts-")
        self._group = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            for host in self._hosts:
                await host.kill()
                host.keep_log()
        wrong = [host.log for host in self._hosts if "Traceback" in host.log and not host.has_raised]
        self._group.cancel_scope.cancel()
        try:
            await self._group.__aexit__(None, None, None)  # what the block has raised goes through as it is
        finally:
            self._directory.cleanup()
        if exc is None:
            assert not wrong, f"an exception that nobody has expected: {wrong[0][-4000:]}"

    async def launch(
        self,
        name: str,
        backend: str,
        workers: Mapping[str, str] | None = None,
        *,
        clock: float = 0.0,
        url: str | None = None,
        **bus: Any,
    ) -> Host:
        """Start a process, and do not wait until it is ready.

        Args:
            name: Of its runner.
            backend: Its event loop.
            workers: Name to class, one of the program's.
            clock: By how many seconds its wall clock is wrong.
            url: Of the server, if it is another one.
            **bus: Arguments of its bus.
        """
        options = {
            "url": url or self._url,
            "backend": backend,
            "name": name,
            "workers": dict(workers or {}),
            "bus": {**self._bus, **bus},
            "clock": clock,
        }
        log = Path(self._directory.name) / f"{len(self._hosts)}-{name}.log"
        with log.open("wb") as errors:
            process = await anyio.open_process(
                [sys.executable, "-W", "error", str(PROGRAM), json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(),
            )
        host = Host(name, process, log)
        self._hosts.append(host)
        self._group.start_soon(host.listen)
        return host

    async def start(
        self,
        name: str,
        backend: str,
        workers: Mapping[str, str] | None = None,
        *,
        clock: float = 0.0,
        url: str | None = None,
        **bus: Any,
    ) -> Host:
        """Start a process, and wait until its runner and workers run; the arguments are those of `launch`."""
        host = await self.launch(name, backend, workers, clock=clock, url=url, **bus)
        await host.said("ready")
        return host

    @asynccontextmanager
    async def joined(self, name: str, *workers: BaseWorker) -> AsyncIterator[WorkerRunner]:
        """Have a runner of this process join the network, on a bus like the others'."""
        async with runner_on(RedisBus(self._url, **self._bus), name) as runner:
            await runner.add_workers(*workers, wait=True)
            yield runner


def bus_of(runner: WorkerRunner) -> RedisBus:
    assert isinstance(runner.bus, RedisBus)
    return runner.bus


def environment() -> dict[str, str]:
    """What the processes inherit, and where they find the tests' modules."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def keys_of(server: RedisServer) -> list[str]:
    """Return the keys that are left at a server."""
    return sorted(key.decode() for key in server.call("KEYS", "*"))


def incarnations(server: RedisServer) -> dict[str, str]:
    """Return the incarnation of each runner in the network, by its name."""
    return {name.decode(): each.decode() for name, each in pairs(server.call("HGETALL", BASE + "runners")).items()}


def leave(server: RedisServer, incarnation: str, **fields: str | bytes | int) -> None:
    """Leave an entry in somebody's inbox, as anyone may who may write the keys."""
    flat = [each for field in fields.items() for each in field]
    server.call("XADD", f"{BASE}inbox:{incarnation}", "*", *flat)


def refused(server: RedisServer) -> list[dict[bytes, bytes]]:
    """Return what is kept for the operator."""
    return [pairs(flat) for _, flat in server.call("XRANGE", BASE + "refused", "-", "+")]


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
