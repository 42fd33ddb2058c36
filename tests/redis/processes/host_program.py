"""A process with a runner on a Redis bus, which does what it is told: ``python host_program.py OPTIONS``.

It is told on its standard input, and says on its standard output, an object of JSON on each line. ``OPTIONS`` is one,
too: ``url``, ``backend``, ``name``, ``workers`` (name to class, of `WORKERS`), ``bus`` (arguments of the `RedisBus`),
``clock`` (by how many seconds its wall clock is wrong).
"""

import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from random import Random
from typing import Any

import anyio
from anyio.abc import TaskGroup

from support.ledgers import Ledger
from workerbus import (
    BaseWorker,
    BusCancelMessage,
    BusDataMessage,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    JobGroupError,
    JobStatus,
    WorkerErrorData,
    WorkerPool,
    WorkerRunner,
    bus_message,
    job,
    wire,
)
from workerbus._concurrency.failures import unwrap_group
from workerbus.errors import BusUnavailable, NameTakenError
from workerbus.jobs._params import JobGroupOptions
from workerbus.redis import RedisBus


@wire.register
@bus_message
class Numbered(BusDataMessage):
    """A message that counts."""

    number: int


@wire.register
@bus_message
class Noted(BusDataMessage):
    """A message of the library's own kind: its sender does not wait until it is stored."""

    number: int
    confirmed = False


def say(what: str, **more: Any) -> None:
    """Say something, in one piece, past Python's buffer."""
    os.write(1, json.dumps({"said": what, **more}).encode() + b"\n")


class Clerk(BaseWorker):
    """Keeps a ledger of the numbered messages, and answers jobs."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ledger = Ledger()
        self.done: set[str] = set()
        self.go = anyio.Event()

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Numbered | Noted):
            self.ledger.note(message.source, message.number)

    @job(name="add")
    async def add(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Add 1 to a number: who asks knows whether the answer is its own."""
        number = _payload(message)["number"]
        if message.job_id in self.done:
            say("done twice", job=message.job_id)
        self.done.add(message.job_id)
        return {"number": number + 1, "worker": self.name, "pid": os.getpid()}

    @job(name="nap")
    async def nap(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Add 1 to a number, and take some time for it."""
        number = _payload(message)["number"]
        await anyio.sleep(number % 100 / 500)
        return {"number": number + 1}

    @job(name="hold")
    async def hold(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Hold a job until it is cancelled, or told to go."""
        say("holds", worker=self.name)
        try:
            await self.go.wait()
        except BaseException:
            say("unwound", worker=self.name)
            raise
        return {"let go": True}

    @job(name="count")
    async def count(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Send updates with numbers from 1, then answer, and then, maybe, leave."""
        payload = _payload(message)
        for number in range(1, payload["updates"] + 1):
            await self.send_job_update(message.job_id, {"number": number})
        if "then" in payload:
            self.create_task(self.leave, payload["then"], message.job_id)
        return {"counted": payload["updates"]}

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        """Stream chunks with numbers from 1."""
        for number in range(1, _payload(message)["chunks"] + 1):
            yield {"number": number}

    @job(name="bad")
    async def bad(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Answer what cannot travel."""
        kind = _payload(message)["kind"]
        return {"deep": [0, {"it": {1, 2} if kind == "set" else "x" * (2 << 20)}]}

    @job(name="report")
    async def report(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Tell of the ledger, once it has so many messages of a sender: hooks come behind handlers."""
        payload = _payload(message)
        while len(self.ledger.received[payload["sender"]]) < payload["count"]:  # noqa: ASYNC110 - a hook notes them
            await anyio.sleep(0.002)
        return self.ledger.report()

    async def leave(self, how: str, job_id: str) -> None:
        """End the process, or kill it, once the answer of a job is stored."""
        bus = self.bus
        assert isinstance(bus, RedisBus)
        while job_id in self.active_jobs or bus.statistics().unsent:  # noqa: ASYNC110 - nobody else wants to know
            await anyio.sleep(0.005)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        assert isinstance(self.worker_runner, WorkerRunner)
        await self.worker_runner.end("it has counted")


class Narrow(Clerk):
    """Its data lane has room for a few; it takes nothing until it is told to go."""

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Numbered | Noted):
            await self.go.wait()
        await super().on_bus_message(message)


class Slow(Clerk):
    """Takes its time for each message; of some it makes another one for itself, if there is room.

    Attributes:
        own: How many messages it has sent itself.
        full: How many times there was no room for one.
        deepest: How many messages have waited at the same time.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.own = 0
        self.full = 0
        self.deepest = 0

    async def on_bus_message(self, message: BusMessage) -> None:
        await super().on_bus_message(message)
        if not isinstance(message, Numbered | Noted):
            return
        self.deepest = max(self.deepest, self.bus.statistics().subscribers[self.name].depth)
        if message.source != self.name and message.number % 5 == 0:
            try:
                await self.send_bus_message(Noted(source=self.name, target=self.name, number=self.own + 1))
            except anyio.WouldBlock:
                self.full += 1
            else:
                self.own += 1
        await anyio.sleep(0.002)


WORKERS: Mapping[str, Callable[[str], BaseWorker]] = {
    **{each.__name__: each for each in (Clerk, Narrow, Slow)},
    "Pool": lambda name: WorkerPool(name, Clerk, size=2, shared=True),
}


def _payload(message: BusJobRequestMessage) -> dict[str, Any]:
    assert message.payload is not None
    return dict(message.payload)


class Host:
    """The process: its runner, and what it can be told."""

    def __init__(self, runner: WorkerRunner, bus: RedisBus, group: TaskGroup) -> None:
        self.runner = runner
        self.bus = bus
        self.group = group
        self.bustling = False
        self.sent = Counter[str]()
        self.sent_here = 0
        self.outcomes = Counter[str]()
        self.wrong: list[str] = []

    async def ask(self, key: Any, worker: str, name: str, payload: dict[str, Any], timeout: float | None) -> None:
        """Ask for a job, and say what has become of it."""
        updates: list[int] = []
        began = anyio.current_time()
        try:
            async with self.runner.job(worker, name=name, payload=payload, timeout=timeout) as context:
                async for event in context:
                    if event.data is None:
                        continue  # the beginning of a stream
                    updates.append(event.data["number"])
                    if len(updates) == 1:
                        say("updated", key=key)
            said: dict[str, Any] = {"outcome": "completed", "response": context.response}
        except JobError as exc:
            said = {"outcome": str(next(iter(exc.statuses.values()), "none")), "error": str(exc)}
        if updates:
            said["updates"] = {"last": updates[-1], "in_order": updates == list(range(1, len(updates) + 1))}
        say("answered", key=key, seconds=anyio.current_time() - began, **said)

    async def ask_many(self, worker: str, count: int, at_once: int, timeout: float | None) -> None:
        """Ask for jobs with numbers from 1, so many at once, and say how many were right."""
        right, wrong = 0, list[str]()
        numbers = iter(range(1, count + 1))

        async def some() -> None:
            nonlocal right
            for number in numbers:
                try:
                    answer = await self.runner.job(worker, name="add", payload={"number": number}, timeout=timeout)
                except JobError as exc:
                    wrong.append(str(exc))
                    continue
                right += answer["number"] == number + 1
                if number % 100 == 0:
                    say("asked", number=number)

        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(some)
        say("asked all", worker=worker, right=right, wrong=wrong[:3], wrongs=len(wrong))

    async def send_many(self, target: str, count: int, confirmed: bool, first: int = 1) -> None:
        """Send numbered messages to a worker, one after the other."""
        kind = Numbered if confirmed else Noted
        for number in range(first, first + count):
            await self.bus.send(kind(source=self.sender, target=target, number=number))
            if number % 500 == 0:
                say("sent", number=number)
        say("sent all", target=target, count=count)

    async def send(self, target: str, number: int) -> None:
        """Send one message, and say how that went."""
        began = anyio.current_time()
        try:
            await self.bus.send(Numbered(source=self.sender, target=target, number=number))
        except BusUnavailable as exc:
            say("unavailable", error=str(exc), maybe=exc.maybe_stored, seconds=anyio.current_time() - began)
        else:
            say("sent one", number=number)

    async def bustle(self, workers: list[str], pool: str, slow: str, seed: int, at_once: int) -> None:
        """Ask and send at random, until `settle`; messages are numbered in each session: there none may be missing.

        Args:
            workers: Workers of other processes, of whom each does one job at a time.
            pool: The name of a pool, of whose parts one is here; it is asked as they are, but for all of them at once.
            slow: A worker of this process, which is sent more than it can take.
            seed: Of what is done.
            at_once: How many jobs are asked for at once.
        """
        self.bustling = True
        async with anyio.create_task_group() as group:
            for number in range(at_once):
                group.start_soon(self._ask_at_random, workers, pool, Random(seed + number))
            group.start_soon(self._send_at_random, workers, Random(seed - 1))
            group.start_soon(self._fill, slow)
        say("settled", sent=self.sent, sent_here=self.sent_here, outcomes=self.outcomes, wrong=self.wrong)

    async def _fill(self, slow: str) -> None:
        while self.bustling:
            self.sent_here += 1
            await self.bus.send(Noted(source=self.runner.name, target=slow, number=self.sent_here))

    async def _ask_at_random(self, workers: list[str], pool: str, random: Random) -> None:
        kinds = (self._add, self._add, self._add_for_all, self._follow)
        while self.bustling:
            timeout = random.random() if random.random() < 0.2 else None
            kind = random.choice(kinds)
            asked = workers if kind == self._add_for_all else [*workers, pool, pool]
            try:
                await kind(asked, random, timeout)
            except JobError as exc:
                outcome = exc.reason.rpartition("is gone: ")[2]
            except JobGroupError as exc:
                outcome = exc.reason
            else:
                outcome = "completed"
            self.outcomes[outcome.partition(" (")[0]] += 1

    async def _add(self, workers: list[str], random: Random, timeout: float | None) -> None:
        number, name = random.randrange(1 << 30), random.choice(("add", "nap"))
        answer = await self.runner.job(random.choice(workers), name=name, payload={"number": number}, timeout=timeout)
        self._look_at(answer, number)

    async def _add_for_all(self, workers: list[str], random: Random, timeout: float | None) -> None:
        number = random.randrange(1 << 30)
        payload = {"number": number}
        options: JobGroupOptions = {"timeout": timeout, "cancel_on_error": random.random() < 0.5}
        async with self.runner.job_group(*workers, name="nap", payload=payload, **options) as group:
            pass
        for worker, answer in group.responses.items():
            if group.statuses[worker] is JobStatus.COMPLETED:
                self._look_at(answer, number)

    async def _follow(self, workers: list[str], random: Random, timeout: float | None) -> None:
        count, name = random.randrange(1, 300), random.choice(("updates", "chunks"))
        payload = {"updates": count, "chunks": count}
        job = "count" if name == "updates" else "stream"
        came: list[int] = []
        try:
            async with self.runner.job(random.choice(workers), name=job, payload=payload, timeout=timeout) as context:
                async for event in context:
                    if event.data is not None:
                        came.append(event.data["number"])  # noqa: PERF401 - so that those before an error are in it
            if len(came) != count:
                self.wrong.append(f"{len(came)} of {count} {name}")
        finally:
            if came != list(range(1, len(came) + 1)):
                self.wrong.append(f"{name} out of order: {came}")

    def _look_at(self, answer: Mapping[str, Any], number: int) -> None:
        if answer["number"] != number + 1:
            self.wrong.append(f"{number}: {answer}")

    async def _send_at_random(self, workers: list[str], random: Random) -> None:
        while self.bustling:
            target = random.choice(workers)
            peer = self.peer_of(target)
            if peer is None or not self.bus.is_alive:
                await anyio.sleep(0.01)
                continue
            # Nothing may come between the number and the place in line.
            session = f"{self.bus.incarnation}>{peer}"
            self.sent[session] += 1
            await self.bus.send(Noted(source=session, target=target, number=self.sent[session]))
            if random.random() < 0.1:
                await anyio.sleep(random.random() * 0.05)

    def peer_of(self, worker: str) -> str | None:
        peer = self.bus._routes.get(worker)
        return None if peer is None else peer.incarnation

    async def settle(self) -> None:
        """Begin nothing new; it says ``settled`` when all that was asked is answered."""
        self.bustling = False

    async def sessions(self) -> None:
        """Say in which life it is, with which peers, and what has come from each sender."""
        workers = [self.runner.get_worker(name) for name in sorted(self.runner.registry.local_workers)]
        slow = next((each for each in workers if isinstance(each, Slow)), None)
        say(
            "sessions",
            incarnation=self.bus.incarnation,
            known=sorted(peer.incarnation for peer in self.bus.peers),
            local=sorted(self.runner.registry.local_workers),
            received=next(each.ledger.report() for each in workers if type(each) is Clerk and "@" not in each.name),
            slow=None
            if slow is None
            else {"report": slow.ledger.report(), "own": slow.own, "full": slow.full, "deepest": slow.deepest},
        )

    @property
    def sender(self) -> str:
        """A name for its messages that no other life has."""
        return f"{self.runner.name}-{os.getpid()}"

    async def tell(self) -> None:
        """Say how all is."""
        seen = self.bus.statistics()
        runs = self.runner.statistics()
        names = ("peers", "repeated", "late", "gaps", "retries", "lives", "unknown", "unsent", "refused", "waiting")
        say(
            "statistics",
            **{name: getattr(seen, name) for name in names},
            state=self.bus.state,
            remote=sorted(self.runner.registry.remote_workers),
            in_flight=sum(len(each.jobs) for each in runs.workers.values()),
            answered={f"answered_{status}": number for status, number in runs.jobs_answered.items()},
            requested=runs.jobs_requested,
            lanes={name: each.lanes for name, each in runs.workers.items()},
        )

    async def wait_for(self, worker: str) -> None:
        await self.runner.registry.wait_for(worker)
        say("found", worker=worker)

    async def add(self, worker: str, kind: str) -> None:
        """Add a worker, and say whether that went."""
        try:
            await self.runner.add_workers(WORKERS[kind](worker), wait=True)
        except NameTakenError as exc:
            say("taken", error=str(exc))
        else:
            say("added", worker=worker)

    async def go(self, worker: str) -> None:
        """Let a worker go on."""
        clerk = self.runner.get_worker(worker)
        assert isinstance(clerk, Clerk)
        clerk.go.set()

    async def send_cancel(self) -> None:
        """Cancel all runners: of this process."""
        await self.bus.send(BusCancelMessage(source=self.runner.name))

    async def end(self) -> None:
        await self.runner.end("it was told so")

    async def obey(self) -> None:
        """Do what it is told, each in a task of its own."""
        async for line in told():
            command = json.loads(line)
            self.group.start_soon(partial(getattr(self, command.pop("do")), **command))


async def told() -> AsyncIterator[bytes]:
    """What is said on the standard input, line by line; at its end, whoever has started this is gone."""
    rest = b""
    while True:
        await anyio.wait_readable(0)
        data = os.read(0, 65536)
        if not data:
            os._exit(3)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line


def tell_events(bus: RedisBus, runner: WorkerRunner) -> None:
    """Say what happens to the bus and the runner."""

    def handler(event: str) -> Callable[..., Awaitable[None]]:
        async def handle(_: object, *args: object) -> None:
            say(event, about=[str(getattr(each, "name", each)) for each in args])

        return handle

    for event in ("on_connected", "on_disconnected", "on_gap", "on_fenced", "on_peer_joined", "on_peer_gone"):
        count = {"on_connected": 0, "on_peer_gone": 2}.get(event, 1)
        bus.add_event_handler(event, _with_arguments(handler(event), count))

    async def on_error(_: WorkerRunner, data: WorkerErrorData) -> None:
        say("on_error", worker=data.worker_name, error=data.error)

    runner.add_event_handler("on_error", on_error)


def _with_arguments(function: Callable[..., Awaitable[None]], count: int) -> Callable[..., Awaitable[None]]:
    async def none(bus: object) -> None:
        await function(bus)

    async def one(bus: object, first: object) -> None:
        await function(bus, first)

    async def two(bus: object, first: object, second: object) -> None:
        await function(bus, first, second)

    return (none, one, two)[count]


async def host(url: str, name: str, workers: Mapping[str, str], bus: Mapping[str, Any]) -> None:
    """Host the workers until it is told to end."""
    redis = RedisBus(url, **bus)
    runner = WorkerRunner(bus=redis, name=name, handle_sigint=False)
    tell_events(redis, runner)
    runner.add_event_handler("on_ready", lambda _: say("ready", pid=os.getpid()))
    await runner.add_workers(*(WORKERS[kind](worker) for worker, kind in workers.items()))
    async with anyio.create_task_group() as group:
        group.start_soon(Host(runner, redis, group).obey)
        say("opens")
        await runner.run(auto_end=False)
        group.cancel_scope.cancel()


def main(options: dict[str, Any]) -> None:
    """Run the process, and say how it has ended."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    backend, wrong = options.pop("backend"), options.pop("clock", 0.0)
    if wrong:
        right = time.time
        time.time = lambda: right() + wrong
    try:
        anyio.run(partial(host, **options), backend=backend)
    except BaseException as exc:
        cause = unwrap_group(exc)
        say("raised", type=type(cause).__name__, error=str(cause))
        raise
    say("ended")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
