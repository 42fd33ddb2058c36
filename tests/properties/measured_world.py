"""Programs that are recorded, traced, measured and looked at, all at once and by two of each, and what they did.

A program is drawn from a number. Its workers ask each other for jobs and groups, by scripts that travel in the
payloads. What happened is kept twice, by means that no tool of the library has a part in: by the workers themselves
(`Ledger.runs`, `Ledger.asked`), and by a function that each bus calls with each message (`Ledger.passed`). In which
handler a job was asked for travels in a header.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any, Final

import anyio
from anyio import create_task_group, current_time, sleep
from attrs import define, field

from support.telemetry import Telemetry
from workerbus import (
    Backoff,
    BaseWorker,
    BusMessage,
    JobError,
    JobFailure,
    JobGroupError,
    JobGroupTimeoutError,
    JobTimeoutError,
    MemoryBus,
    PeerBus,
    UnknownJobError,
    WorkerBus,
    WorkerPool,
    WorkerRunner,
    job,
)
from workerbus import BusJobRequestMessage as Request
from workerbus._message_base import peer_of
from workerbus.observing import PassingMessages
from workerbus.otel import instrument
from workerbus.recording import Recording
from workerbus.testing import PeerFaults, PeerNetwork, settle
from workerbus.view._scenes import ClusterScene, RunnerScene
from workerbus.wire import Wire

HERE: Final = ("w0", "w1", "w2", "w3", "pool")
THERE: Final = ("v0", "v1")
JOBS: Final = ("plain", "turn", "pages")
WITHIN: Final = "asked-in"
"""The header that says in which handler a job is asked for: the job's id and the worker that was asked for it."""
Script = list[list[Any]]


@define
class Passed:
    """A message that a bus has passed on."""

    time: float
    message: BusMessage
    foreign: bool


@define
class Run:
    """A run of a handler."""

    job_id: str
    asked: str
    worker: str
    name: str
    begun: float
    ended: float | None = None


@define
class Asked:
    """What somebody has asked for, and what came of it in the eyes of who asked."""

    job_id: str
    requester: str
    workers: tuple[str, ...]
    single: bool
    within: str
    begun: float
    timeout: float | None = None
    left: float | None = None
    ended: float | None = None
    outcome: str = "open"

    @property
    def kind(self) -> str:
        """Whether it is a job or a group."""
        return "job" if self.single else "group"


@define
class Ledger:
    """What a program did."""

    runs: list[Run] = field(factory=list)
    asked: list[Asked] = field(factory=list)
    passed: dict[str, list[Passed]] = field(factory=dict)
    hooks_failed: dict[str, int] = field(factory=dict)
    cut: int = 0
    worked_out: dict[Any, Any] = field(factory=dict)

    def witness(self, place: str) -> Any:
        """Return what a bus is to call with each message."""
        passed = self.passed.setdefault(place, [])
        return lambda message: passed.append(Passed(current_time(), message, peer_of(message) is not None))


class LeavesError(Exception):
    """What somebody raises who leaves a context."""


async def ask(who: Any, ledger: Ledger, step: dict[str, Any], within: str) -> None:
    """Ask for a job or a group as a step says, whatever comes of it."""
    workers, scripts = step["workers"], step["scripts"]
    options: dict[str, Any] = {"name": step["name"], "timeout": step["timeout"], "headers": {WITHIN: within}}
    if step["single"]:
        context = who.job(workers[0], payload={"script": scripts[0], "hook": step["hook"]}, **options)
    else:
        payloads = {
            name: {"script": script, "hook": step["hook"]} for name, script in zip(workers, scripts, strict=True)
        }
        context = who.job_group(*workers, payloads=payloads, cancel_on_error=step["strict"], **options)
    asked = Asked("", who.name, tuple(workers), step["single"], within, current_time(), step["timeout"])
    outcome = "cut"
    try:
        async with context as held:
            asked.job_id = held.job_id
            ledger.asked.append(asked)
            if step["leave"] is not None:
                await sleep(step["leave"])
                asked.left = current_time()
                raise LeavesError
            if step["loop"]:
                async for _ in held:
                    pass
        outcome = "completed"
    except (JobTimeoutError, JobGroupTimeoutError):
        outcome = "timed_out"
    except (JobError, JobGroupError):
        outcome = "failed"
    except LeavesError:
        outcome = "left"
    finally:
        asked.ended, asked.outcome = current_time(), outcome
        ledger.cut += not asked.job_id


class Actor(BaseWorker):
    """A worker that plays the scripts that it is asked to."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        super().__init__(name)
        self.ledger = ledger

    @job(name="plain")
    async def plain(self, message: Request) -> dict[str, Any]:
        return await self._play(message)

    @job(name="turn", sequential=True)
    async def turn(self, message: Request) -> dict[str, Any]:
        return await self._play(message)

    @job(name="pages")
    async def pages(self, message: Request) -> AsyncIterator[dict[str, Any]]:
        run = self._begins(message)
        try:
            for number, (_, pause, *_) in enumerate(each for each in message.payload["script"] if each[0] == "sleep"):
                await sleep(pause)
                yield {"page": number}
        finally:
            run.ended = current_time()

    def _begins(self, message: Request) -> Run:
        asked = message.target if message.options is None else message.options.asked_as or message.target
        run = Run(message.job_id, asked or "", self.name, message.job_name or "", current_time())
        self.ledger.runs.append(run)
        return run

    async def _play(self, message: Request) -> dict[str, Any]:
        run = self._begins(message)
        try:
            for what, *more in message.payload["script"]:
                await self._do(message, run, what, more)
            return {"hook": message.payload["hook"]}
        finally:
            run.ended = current_time()

    async def _do(self, message: Request, run: Run, what: str, more: list[Any]) -> None:
        job_id = message.job_id
        try:
            if what == "sleep":
                await sleep(more[0])
            elif what == "update":
                await self.send_job_update(job_id, {"n": more[0]}, urgent=more[0] % 2 == 0)
            elif what == "chunk":
                await self.send_job_stream_data(job_id, {"n": more[0]})
            elif what == "answer":
                await self.send_job_response(job_id, {"early": True, "hook": False}, urgent=more[0] % 2 == 0)
            elif what == "ask":
                await ask(self, self.ledger, more[0], f"{job_id}@{run.asked}")
        except UnknownJobError:
            return  # it is answered, or cancelled
        if what == "fail":
            raise JobFailure("it could not be done")
        if what == "raise":
            raise ValueError("it went wrong")

    async def on_job_response(self, message: Any) -> None:
        if (message.response or {}).get("hook"):
            self.ledger.hooks_failed[self.name] = self.ledger.hooks_failed.get(self.name, 0) + 1
            raise RuntimeError("the hook went wrong")


class Fragile(Actor):
    """Fails as a worker when it is asked to."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        super().__init__(name, ledger)
        self.broken = anyio.Event()

    @job(name="break")
    async def break_it(self, message: Request) -> dict[str, Any]:
        run = self._begins(message)
        try:
            self.broken.set()
            await anyio.sleep_forever()
        finally:
            run.ended = current_time()
        return {}

    async def run(self, params: Any) -> None:
        await self.start()
        async with create_task_group() as group:
            group.start_soon(self._fail)
            await params.wait_for_end()
            group.cancel_scope.cancel()

    async def _fail(self) -> None:
        await self.broken.wait()
        raise ValueError("broken")


class Choosy(WorkerRunner):
    """A runner that is asked about each message, which therefore takes another way through its inbox."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


class Draw:
    """Draws scripts from a number."""

    def __init__(self, rnd: Random, names: tuple[str, ...]) -> None:
        self._rnd = rnd
        self._names = names
        self._left = 12

    def script(self, depth: int) -> Script:
        rnd = self._rnd
        return [step for _ in range(rnd.randrange(4)) for step in self._step(depth)]

    def _step(self, depth: int) -> Script:
        rnd = self._rnd
        draw = rnd.random()
        if draw < 0.35:
            return [["sleep", rnd.choice((0.25, 0.5, 1.0, 1.5))]]
        if draw < 0.6:
            return [[rnd.choice(("update", "update", "chunk")), rnd.randrange(4)] for _ in range(rnd.choice((1, 1, 3)))]
        if draw < 0.66:
            return [[rnd.choice(("fail", "raise"))]]
        if draw < 0.7:
            return [["answer", rnd.randrange(4)]]
        self._left -= 1
        return [["ask", self.asks(depth + 1)]] if depth < 3 and self._left > 0 else []

    def asks(self, depth: int = 0) -> dict[str, Any]:
        rnd = self._rnd
        single = rnd.random() < 0.5
        workers = rnd.sample(self._names, 1 if single else rnd.choice((1, 2, 2, 3)))
        broken = depth == 0 and rnd.random() < 0.08
        return {
            "single": single or broken,
            "workers": ["fragile"] if broken else workers,
            "name": "break" if broken else rnd.choice(JOBS),
            "scripts": [self.script(depth) for _ in workers],
            "timeout": rnd.choice((None, None, None, 0.71, 1.93)),  # what nothing else takes
            "leave": rnd.choice((None, None, None, None, 0.437)),
            "loop": rnd.random() < 0.3,
            "strict": rnd.random() < 0.5,
            "hook": rnd.random() < 0.1,
        }


class World:
    """A program, those who look at it, and what it did.

    Args:
        seed: What it is drawn from.
        network: Whether some of its workers are in another process.
    """

    def __init__(self, seed: int, *, network: bool) -> None:
        self.rnd = Random(seed)
        self.network = network
        self.ledger = Ledger()
        self.runners: dict[str, WorkerRunner] = {}
        self.places: dict[str, WorkerBus] = {}
        self.place_of: dict[str, str] = {}
        self.telemetry: dict[str, Telemetry] = {}
        self.recordings: dict[str, list[Recording]] = {}
        self.looked_from: dict[str, PeerBus] = {}
        self.heard: dict[str, list[BusMessage]] = {}
        self.delivered_before: dict[str, int] = {}
        self.scenes: list[RunnerScene | ClusterScene] = []
        self.passing: list[PassingMessages] = []
        self.is_open = True
        self._net: PeerNetwork | None = None
        names = (*HERE, *THERE) if network else HERE
        draw = Draw(self.rnd, (*names, "fragile"))
        self.clients = [[(self.rnd.random() * 2, draw.asks()) for _ in range(3)] for _ in range(3)]

    async def run(self, check: Any) -> None:
        """Run the program to its end; ``check`` looks at it now and then.

        Each time, nothing can go on without time passing. It gets the world, and ``"moving"``, or ``"quiet"`` when all
        jobs have long been over, or ``"over"`` when nobody looks any more.
        """
        async with AsyncExitStack() as stack:
            await self._open(stack)
            await self._look(stack)
            await self.parent.add_workers(Actor("w2-child", self.ledger))
            await self.runners["a"].registry.wait_for("w2-child")
            async with create_task_group() as viewing:
                viewing.start_soon(self._view)
                async with create_task_group() as group:
                    for number, client in enumerate(self.clients):
                        group.start_soon(self._client, list(self.runners.values())[number % len(self.runners)], client)
                    group.start_soon(self._check_now_and_then, check)
                await sleep(3)
                await settle()
                check(self, "quiet")
                viewing.cancel_scope.cancel()
        self.is_open = False
        check(self, "over")

    def home_of(self, name: str) -> str:
        """Return the runner that a worker, or a member of a pool, is at; of a runner, itself."""
        homes = {"w0": "a", "w1": "a", "w2": "b", "w3": "b", "fragile": "b", "w2-child": "b", "v0": "c", "v1": "c"}
        return "a" if name.startswith("pool") else homes.get(name, name)

    def place(self, name: str) -> str:
        """Return the place of a worker, a member of a pool or a runner."""
        return self.place_of[self.home_of(name)]

    async def _check_now_and_then(self, check: Any) -> None:
        for _ in range(2):
            await sleep(1.1)
            await settle()
            check(self, "moving")

    async def _client(self, runner: WorkerRunner, asks: list[tuple[float, dict[str, Any]]]) -> None:
        for pause, step in asks:
            await sleep(pause)
            await ask(runner, self.ledger, step, "")

    # --- what there is

    async def _open(self, stack: AsyncExitStack) -> None:
        self.places["here"] = self._bus("here")
        await stack.enter_async_context(self.places["here"])
        hosts = {"a": HERE[:2], "b": HERE[2:4]}
        for name, workers in hosts.items():
            await self._runner(stack, name, "here", workers)
        pool = WorkerPool("pool", lambda name: Actor(name, self.ledger), size=2)
        await self.runners["a"].add_workers(pool)
        await self.runners["b"].supervise(
            lambda: Fragile("fragile", self.ledger), backoff=Backoff(initial=0.5, jitter=0), max_restarts=50
        )
        if self.network:
            self.places["there"] = self._bus("there")
            await stack.enter_async_context(self.places["there"])
            await self._runner(stack, "c", "there", THERE)
        for runner in self.runners.values():
            for worker in (*HERE, "fragile", *(THERE if self.network else ())):
                await runner.registry.wait_for(worker)
        await settle()

    def _bus(self, name: str) -> WorkerBus:
        if not self.network:
            return MemoryBus()
        if self._net is None:
            delay = self.rnd.choice((0.01, 0.1))  # never none, so that causes come before effects by their times
            self._net = PeerNetwork(seed=self.rnd.getrandbits(30), faults=PeerFaults(delay=(delay, delay)), wire=Wire())
        return self._net.end(name)

    async def _runner(self, stack: AsyncExitStack, name: str, place: str, workers: tuple[str, ...]) -> None:
        kind = Choosy if name == "b" else WorkerRunner
        runner = kind(bus=self.places[place], name=name, handle_sigint=False)
        self.runners[name] = await stack.enter_async_context(runner)
        self.place_of[name] = place
        actors = [Actor(worker, self.ledger) for worker in workers]
        await runner.add_workers(*actors)
        if name == "b":
            self.parent = actors[0]

    async def _look(self, stack: AsyncExitStack) -> None:
        """Record, trace and look at it, by two of each."""
        for place, bus in self.places.items():
            witness = self.ledger.witness(place)
            bus.add_tap(witness)
            for name, counts in bus.statistics().subscribers.items():
                self.delivered_before[name] = counts.delivered + counts.depth
            stack.callback(bus.remove_tap, witness)
            self.recordings[place] = [Recording(bus), Recording(bus, payloads=True)]
            for recording in self.recordings[place]:
                stack.enter_context(recording)
            self.telemetry[place] = Telemetry()
        for name, runner in self.runners.items():
            instrument(runner, **self.telemetry[self.place_of[name]].providers)
        if self._net is None:
            self.scenes = [RunnerScene(self.runners[name]) for name in "ab"]
        else:
            self.looked_from = {name: self._net.end(name) for name in ("eye", "ear")}
            for name, bus in self.looked_from.items():
                bus.add_tap(self.heard.setdefault(name, []).append)
            self.scenes = [ClusterScene(bus, name) for name, bus in self.looked_from.items()]
        for scene, wanted in zip(self.scenes, ("all", "jobs"), strict=True):
            await stack.enter_async_context(scene)
            scene.look(wanted)  # type: ignore[arg-type]  # one of its words
            self.passing.append(scene.messages())
            await scene.answered()

    async def _view(self) -> None:
        while True:
            for scene in self.scenes:
                scene.state()
            await sleep(0.25)
