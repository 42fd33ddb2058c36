"""Programs of several processes on a network that loses, fences, kills and splits them; and what they have seen."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from anyio import Event, create_task_group, current_time, sleep
from anyio.abc import TaskGroup
from attrs import field, frozen, mutable
from hypothesis import strategies as st

from support.leaks import task_ids
from support.subscribers import Plain
from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobRequestMessage,
    BusMessage,
    BusUnavailable,
    JobContext,
    JobError,
    JobFailure,
    JobGroupError,
    NameTakenError,
    Peer,
    PeerBus,
    WorkerBus,
    WorkerRunner,
    bus_message,
    job,
)
from workerbus.testing import PeerFaults, PeerNetwork, settle
from workerbus.testing.buses._peer_end import PeerEnd
from workerbus.wire import Wire, register
from workerbus.worker._core import core_of

LEASE, BEAT, SPLIT, DELAY, TIMEOUT = 4.0, 1.0, 2.0, 0.3, 1.0
WITHIN = LEASE + 2 * BEAT + SPLIT + 2 * DELAY
"""Within so many seconds all who live have settled what concerned one that has gone."""

Deed = Literal["say", "whisper", "ask", "host", "drop", "kill", "start", "fence", "split", "lose"]


@frozen
class Step:
    """Something that happens in a program.

    Args:
        pause: Seconds before it.
        deed: What happens.
        who: The process that it happens to, or that does it.
        whom: Another process, where there is one in it.
        what: Which kind of job is asked for.
        timeout: Of that job.
    """

    pause: float
    deed: Deed
    who: int
    whom: int
    what: str = "echo"
    timeout: float | None = None


JOBS = ("hang", "slow", "hang", "echo", "stream", "relay", "group", "deferred", "fail")


def steps(processes: int, deeds: tuple[Deed, ...], most: int) -> st.SearchStrategy[list[Step]]:
    who = st.integers(0, processes - 1)
    return st.lists(
        st.builds(
            Step,
            pause=st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.0, 2.5]),
            deed=st.sampled_from(deeds),
            who=who,
            whom=who,
            what=st.sampled_from(JOBS),
            timeout=st.sampled_from([None, None, None, 0.4, 20.0]),
        ),
        min_size=12,
        max_size=most,
    )


fault_plans = st.builds(
    PeerFaults,
    delay=st.sampled_from([0.0, DELAY]),
    store=st.sampled_from([0.0, 0.1, (0.0, 2 * TIMEOUT)]),
    unconfirmed=st.sampled_from([0.0, 0.3]),
    duplicate=st.sampled_from([0.0, 0.2]),
    late=st.sampled_from([0.0, 0.3]),
    lose=st.sampled_from([0.0, 0.0, 0.03]),
    fence=st.sampled_from([0.0, 0.0, 0.03]),
    split=st.sampled_from([0.0, 0.05]),
    split_seconds=st.just((0.0, SPLIT)),
)


class Network:
    """A network of processes that are started again and again, and the steps that happen to them.

    Under every second seed messages go through the wire, and under every third one lanes are bounded.
    """

    def __init__(self, processes: int, seed: int, faults: PeerFaults) -> None:
        self.names = [f"p{n}" for n in range(processes)]
        wire = Wire() if seed % 2 else None
        self.size = 2.0 if seed % 3 == 0 else float("inf")
        self.network = PeerNetwork(seed=seed, faults=faults, lease=LEASE, beat=BEAT, wire=wire)
        self.alive: set[int] = set()
        self._ends: dict[int, PeerBus] = {}
        self.over = Event()

    async def play(self, program: list[Step], main: Callable[[int, PeerBus], Any], do: Callable[[Step], None]) -> None:
        """Run the program; ``main`` is what a process does, and ``do`` what is done in the steps that are no faults."""
        before = task_ids()
        async with create_task_group() as group:
            for n in range(len(self.names)):
                self._start(group, n, main)
            await settle()
            for step in program:
                await sleep(step.pause)
                self._happen(group, step, main, do)
                if step.deed == "start":
                    await settle()  # so that it is there when it is killed
            self.network.faults = PeerFaults()
            self.network.heal()
            await sleep(WITHIN)
            await self.settled()
            self.over.set()
        assert task_ids() == before

    async def settled(self) -> None:
        """Look at what there is when nothing has happened for long enough; overridden."""

    def _start(self, group: TaskGroup, n: int, main: Callable[[int, PeerBus], Any]) -> None:
        self.alive.add(n)
        self._ends.pop(n, None)  # of the life before, which may not have unwound yet

        async def process(end: PeerBus) -> None:
            self._ends[n] = end
            try:
                await main(n, end)
            finally:
                # By a fault of the plan, and no step of the program.
                if n in self.alive and self._ends.get(n) is end and is_dead(end):
                    self.alive.discard(n)
                    self.killed(n)

        group.start_soon(
            partial(self.network.run, self.names[n], process, send_timeout=TIMEOUT, max_buffer_size=self.size)
        )

    def _happen(
        self, group: TaskGroup, step: Step, main: Callable[[int, PeerBus], Any], do: Callable[[Step], None]
    ) -> None:
        name, lives = self.names[step.who], step.who in self.alive
        if step.deed == "start":
            if not lives:
                self._start(group, step.who, main)
        elif step.deed == "kill":
            if lives:
                self.alive.discard(step.who)
                self.killed(step.who)
                self.network.kill(name)
        elif step.deed == "fence":
            self.network.fence(name)
        elif step.deed == "split":
            self.network.split(name, seconds=SPLIT)
        elif step.deed == "lose":
            if step.who != step.whom:
                self.network.lose(name, self.names[step.whom])
        elif lives:
            do(step)

    def killed(self, n: int) -> None:
        """Note that a process is killed; overridden."""


def is_dead(bus: WorkerBus) -> bool:
    """Whether the process of an end is gone."""
    assert isinstance(bus, PeerEnd)
    return bus.dead


# --- messages


@register
@bus_message
class Said(BusDataMessage):
    """What a process has said to all, in one of its lives, numbered there; or to one subscriber."""

    life: str = ""
    n: int = 0


@frozen
class Heard:
    """What has arrived: at which process, in which life of its, and from which peer."""

    n: int
    life: str
    peer: Peer
    message: Said


class Speakers(Network):
    """Processes that say something to all, and to subscribers of each other.

    Attributes:
        said: What each life has said, by its id: message by message, in order.
        unsent: What was sent, and certainly not stored.
        heard: What has arrived, in order.
        ends: The bus of each process that lives.
        found: What was not as it should be.
    """

    def __init__(self, processes: int, seed: int, faults: PeerFaults) -> None:
        super().__init__(processes, seed, faults)
        self.said: dict[str, list[Said]] = {}
        self.unsent: list[Said] = []
        self.heard: list[Heard] = []
        self.ends: dict[int, PeerBus] = {}
        self.groups: dict[int, TaskGroup] = {}
        self.found: list[str] = []

    async def main(self, n: int, end: PeerBus) -> None:
        def hear(message: BusMessage) -> None:
            # Where it passes: by the time that a subscriber handles it, the end may be in another life.
            if isinstance(message, Said) and message.peer is not None:
                self.heard.append(Heard(n, end.incarnation, message.peer, message))

        await end.subscribe(Plain(f"ear {n}", receives="own"))
        end.add_tap(hear)
        async with end, create_task_group() as group:
            self.ends[n], self.groups[n] = end, group
            await self.over.wait()

    def do(self, step: Step) -> None:
        if step.who in self.ends:
            end, target = self.ends[step.who], f"ear {step.whom}" if step.deed == "whisper" else None
            if step.what in ("echo", "slow"):
                end.post(self.next(end, target))
            else:
                self.groups[step.who].start_soon(self._send, end, target)

    def next(self, end: PeerBus, target: str | None) -> Said:
        said = self.said.setdefault(end.incarnation, [])
        message = Said(end.incarnation, len(said), source=end.name, target=target)
        said.append(message)
        return message

    async def _send(self, end: PeerBus, target: str | None) -> None:
        message = self.next(end, target)
        try:
            await end.send(message)
        except BusUnavailable as error:
            if not error.maybe_stored:
                self.unsent.append(message)

    def killed(self, n: int) -> None:
        self.ends.pop(n, None)
        self.groups.pop(n, None)

    async def settled(self) -> None:
        living = {end.incarnation for end in self.ends.values()}
        for end in self.ends.values():
            if {peer.incarnation for peer in end.peers} != living - {end.incarnation}:
                self.found.append(f"{end.name} has peers {end.peers}, of {living}")
            if len(end._routes):  # of what is kept, nothing shows this
                self.found.append(f"{end.name} has routes")
        before = len(self.heard)
        for end in self.ends.values():
            end.post(self.next(end, None))
        await sleep(1)
        for end in self.ends.values():
            got = {heard.peer.incarnation for heard in self.heard[before:] if heard.life == end.incarnation}
            if got != living - {end.incarnation}:
                self.found.append(f"{end.name} has heard of {got}, of {living}")


# --- jobs


@mutable
class Handling:
    """A handler that has run."""

    life: str
    host: int
    asker: str
    job_id: str
    begun: float
    ended: float | None = None
    answer: Any = None


@mutable
class Asking:
    """A job that was asked for."""

    asker: int
    life: str
    step: Step
    begun: float
    job_id: str | None = None
    ended: float | None = None
    outcome: Any = None
    killed: bool = False
    chunks: list[int] = field(factory=list)


class Busy(BaseWorker):
    """Does jobs of every kind, and notes when each handler has begun and ended."""

    def __init__(self, world: "Workers", n: int, life: str, name: str | None = None) -> None:
        super().__init__(f"w{n}" if name is None else name)
        self._world, self._n, self._life = world, n, life

    async def _noted(self, message: BusJobRequestMessage, do: Callable[[], Any]) -> Any:
        noted = Handling(self._life, self._n, message.source, message.job_id, current_time())
        self._world.handled.append(noted)
        try:
            noted.answer = await do()
            return noted.answer
        finally:
            noted.ended = current_time()

    @job(name="echo")
    async def echo(self, message: BusJobRequestMessage) -> Any:
        return await self._noted(message, settle_and({"by": self._life}))

    @job(name="slow")
    async def slow(self, message: BusJobRequestMessage) -> Any:
        return await self._noted(message, sleep_and(1.5, {"by": self._life}))

    @job(name="fail")
    async def fail(self, message: BusJobRequestMessage) -> Any:
        async def fails() -> None:
            raise JobFailure("as asked")

        return await self._noted(message, fails)

    @job(name="hang")
    async def hang(self, message: BusJobRequestMessage) -> Any:
        return await self._noted(message, sleep_and(10_000, {}))

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> Any:
        async def streams() -> None:
            await self.send_job_stream_start(message.job_id, {})
            for n in range(5):
                await sleep(0.2)
                await self.send_job_stream_data(message.job_id, {"n": n})
            await self.send_job_stream_end(message.job_id, {"by": self._life})

        return await self._noted(message, streams)

    @job(name="relay")
    async def relay(self, message: BusJobRequestMessage) -> Any:
        async def relays() -> Any:
            return await self.job(f"w{(self._n + 1) % len(self._world.names)}", name="slow", timeout=5.0)

        return await self._noted(message, relays)

    @job(name="deferred", deferred=True)
    async def deferred(self, message: BusJobRequestMessage) -> None:
        async def answers() -> None:
            await sleep(0.5)
            with suppress(RuntimeError):  # it is over
                await self.send_job_response(message.job_id, {"by": self._life})

        self.create_task(answers)


def settle_and(answer: Any) -> Callable[[], Any]:
    return sleep_and(0.0, answer)


def sleep_and(seconds: float, answer: Any) -> Callable[[], Any]:
    async def do() -> Any:
        await sleep(seconds)
        return answer

    return do


class Workers(Network):
    """Processes with a worker each, that ask each other for jobs.

    Attributes:
        handled: The handlers that have run.
        asked: The jobs that were asked for.
        deaths: When each life was killed.
        runners: The runner of each process that lives.
        lives: The life of each process that lives.
        groups: What its jobs are asked for in.
        found: What was not as it should be when all had settled.
        late: The jobs that were not answered then.
    """

    def __init__(self, processes: int, seed: int, faults: PeerFaults) -> None:
        super().__init__(processes, seed, faults)
        self.handled: list[Handling] = []
        self.asked: list[Asking] = []
        self.deaths: dict[str, float] = {}
        self.runners: dict[int, WorkerRunner] = {}
        self.lives: dict[int, str] = {}
        self.groups: dict[int, TaskGroup] = {}
        self.found: list[str] = []
        self.late: list[Asking] = []
        self._numbers = 0

    async def main(self, n: int, end: PeerBus) -> None:
        self._numbers += 1
        life = f"{n}/{self._numbers}"
        runner = WorkerRunner(bus=end, name=f"r{n}", handle_sigint=False, grace_period=1.0)
        runner.add_event_handler("on_error", lambda runner, data: None)
        async with runner:
            await runner.add_workers(Busy(self, n, life))
            async with create_task_group() as group:
                self.runners[n], self.lives[n], self.groups[n] = runner, life, group
                await self.over.wait()
                group.cancel_scope.cancel()

    def do(self, step: Step) -> None:
        if step.who in self.groups:
            asking = Asking(step.who, self.lives[step.who], step, current_time())
            self.asked.append(asking)
            self.groups[step.who].start_soon(self._ask, asking, self.runners[step.who])

    async def _ask(self, asking: Asking, runner: WorkerRunner) -> None:
        step = asking.step
        try:
            if step.what == "group":
                async with runner.job_group(*self.workers, name="slow", timeout=step.timeout or 30.0) as group:
                    asking.job_id = group.job_id
                asking.outcome = dict(group.responses)
            else:
                async with runner.job(f"w{step.whom}", name=step.what, timeout=step.timeout) as asked:
                    asking.job_id = asked.job_id
                    await self._read(asking, asked)
                asking.outcome = asked.response
        except (JobError, JobGroupError) as error:
            asking.outcome = error
        finally:
            asking.killed |= is_dead(runner.bus)
            asking.ended = current_time()

    async def _read(self, asking: Asking, asked: JobContext[Any]) -> None:
        async for event in asked:
            if event.type == "stream_data":
                asking.chunks.append((event.data or {})["n"])

    @property
    def workers(self) -> list[str]:
        return [f"w{n}" for n in range(len(self.names))]

    def killed(self, n: int) -> None:
        life = self.lives.pop(n, None)
        if life is not None:
            self.deaths[life] = current_time()
            for asking in self.asked:
                asking.killed |= asking.asker == n and asking.ended is None
        self.runners.pop(n, None)
        self.groups.pop(n, None)

    async def settled(self) -> None:
        """See to it that all who live agree on who there is, and that nothing is left of who has gone."""
        self.late = self.unanswered
        hosts = self.hosts()
        if self.network.claims != hosts:
            self.found.append(f"claimed are {self.network.claims} of {hosts}")
        for n, runner in self.runners.items():
            bus = runner.bus
            assert isinstance(bus, PeerBus)
            remote = [runner.registry.get(name) for name in runner.registry.remote_workers]
            known = {entry.worker_name: entry.runner for entry in remote if entry is not None}
            if known != {name: host for name, host in hosts.items() if host != f"r{n}"}:
                self.found.append(f"r{n} knows {known} of {hosts}")
            if {peer.name for peer in bus.peers} != {f"r{m}" for m in self.runners if m != n}:
                self.found.append(f"r{n} has peers {bus.peers}")
            routes = bus._routes._peers  # what is kept shows nowhere else
            if any(peer not in bus.peers for peer in routes.values()):
                self.found.append(f"r{n} has routes {routes}")
            waiting = [each.job_id for each in self.unanswered if each.asker == n]
            groups = core_of(runner).job_client.groups
            if len(groups) != len(waiting):
                self.found.append(f"r{n} has groups {list(groups)}, and waits for {waiting}")
            worker = runner.get_worker(f"w{n}")
            open_jobs = set() if worker is None else set(core_of(worker).job_server.jobs)
            if not open_jobs <= {each.job_id for each in self.unanswered}:
                self.found.append(f"w{n} does jobs {open_jobs} that nobody waits for")

    def hosts(self) -> dict[str, str]:
        """Return the runner of each worker that there is, by its name."""
        return {f"w{n}": f"r{n}" for n in self.runners}

    @property
    def unanswered(self) -> list[Asking]:
        """The jobs that somebody who lives waits for."""
        return [asking for asking in self.asked if asking.ended is None and not asking.killed]


class Movers(Workers):
    """The same, with workers whose names any process may have, one at a time."""

    def do(self, step: Step) -> None:
        if step.who not in self.groups:
            return
        runner, group, name = self.runners[step.who], self.groups[step.who], f"s{step.whom % 2}"
        worker = runner.get_worker(name)
        if step.deed == "host":
            group.start_soon(self._host, runner, Busy(self, step.who, self.lives[step.who], name))
        elif step.deed == "drop":
            if worker is not None:
                group.start_soon(worker.stop)
        else:
            super().do(step)

    async def _host(self, runner: WorkerRunner, worker: BaseWorker) -> None:
        with suppress(NameTakenError, BusUnavailable):
            await runner.add_workers(worker)

    def hosts(self) -> dict[str, str]:
        hosts = super().hosts()
        for n, runner in self.runners.items():
            for name in ("s0", "s1"):
                if runner.get_worker(name) is not None:
                    if name in hosts:
                        self.found.append(f"{name} is at {hosts[name]} and r{n}")
                    hosts[name] = f"r{n}"
        return hosts
