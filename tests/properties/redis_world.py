"""Programs of several processes at a Redis server that is unwell, and what has to be true all the same."""

import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from anyio import Event, create_task_group, current_time, sleep
from anyio.abc import TaskGroup
from attrs import field, frozen, mutable
from hypothesis import strategies as st

from support.hand_redis import HandRedis
from support.leaks import task_ids
from support.subscribers import Plain
from support.workers import Helper
from workerbus import BusDataMessage, BusMessage, BusUnavailable, NameTakenError, Peer, WorkerRunner, bus_message
from workerbus.redis import RedisBus, RedisReplyError, RedisSetupError
from workerbus.redis._lives import _LEAVE_SECONDS
from workerbus.redis._reader import BLOCK_SECONDS
from workerbus.testing import settle
from workerbus.wire import register

LEASE, TIMEOUT, LATENCY = 2.0, 1.5, 0.01
BEAT = LEASE / 5
WELL = 2 * LEASE + BLOCK_SECONDS + 3.0
"""So many seconds after the last fault all is well: what hangs was noticed, and whoever was lost is back."""
NAMES = ("u", "v")
CONNECTION = ("on_connected", "on_disconnected", "on_fenced")
PURPOSES = ("writer", "reader", "lease")
COMMANDS = ("JOIN", "BEAT", "CLAIM", "LEAVE", "ROLL_CALL", "XADD", "EXEC", "XREAD", "XTRIM", "PING", "RELEASE")
ERRORS = (
    "OOM command not allowed when used memory > 'maxmemory'.",
    "NOPERM this user has no permissions to run the command",
    "READONLY You can't write against a read only replica.",
    "BUSY Redis is busy running a script.",
)

Deed = Literal[
    "say", "whisper", "host", "drop", "stop", "start", "cut", "lose answer", "away", "freeze", "refuse", "fence",
    "gap", "garble",
]  # fmt: skip
TALK: tuple[Deed, ...] = ("say", "whisper", "whisper", "host", "drop")
FAULTS: tuple[Deed, ...] = (
    "cut", "cut", "cut", "lose answer", "lose answer", "away", "freeze", "refuse", "fence", "gap", "garble", "stop",
    "start",
)  # fmt: skip


@frozen
class Step:
    """Something that happens.

    Args:
        pause: Seconds before it.
        deed: What happens.
        who: The process that does it, or that it happens to.
        whom: Another process, where there is one in it.
        which: Draws which name, purpose, command or error it is about.
        seconds: How long it lasts.
    """

    pause: float
    deed: Deed
    who: int
    whom: int
    which: int
    seconds: float


def programs(processes: int) -> st.SearchStrategy[list[Step]]:
    who = st.integers(0, processes - 1)
    return st.lists(
        st.builds(
            Step,
            pause=st.sampled_from([0.0, 0.005, 0.015, 0.03, 0.3, 1.0]),
            deed=st.sampled_from(TALK * 2 + FAULTS),
            who=who,
            whom=who,
            which=st.integers(0, 1_000),
            seconds=st.sampled_from([0.03, 0.4, 1.2, 3.0]),
        ),
        min_size=10,
        max_size=40,
    )


@register(tag="tests.told")
@bus_message
class Told(BusDataMessage):
    """What a process tells one ear, or all, numbered."""

    n: int = 0


@frozen
class Heard:
    """What an ear has heard: in which life of its process, and from which life of whose."""

    life: str
    peer: Peer
    n: int


@mutable
class Sent:
    """What was sent: in which life, to which process, and what is known of it."""

    life: str
    to: int
    n: int
    stored: bool = False
    unstored: bool = False


@mutable
class Process:
    """A process, over all its openings.

    Attributes:
        bus: Its bus, which is opened again and again.
        runner: Its runner, while it is there.
        events: What the bus has told since it was opened last: the event, and its arguments.
        opened: How often it was there.
        stopping: Set where it is to end.
        workers: Those that it hosts, by name.
        heard: What its ear has heard.
        sent: What it has sent.
        garbled: Which messages came to it as none.
    """

    n: int
    bus: RedisBus
    runner: WorkerRunner | None = None
    group: TaskGroup | None = None
    events: list[tuple[str, tuple[Any, ...]]] = field(factory=list)
    opened: int = 0
    stopping: Event = field(factory=Event)
    gone: Event = field(factory=Event)
    workers: dict[str, Helper] = field(factory=dict)
    heard: list[Heard] = field(factory=list)
    sent: list[Sent] = field(factory=list)
    garbled: set[int] = field(factory=set)


class World:
    """Processes, their server, and what was found to be wrong.

    Attributes:
        found: What was not as it should be, in words.
    """

    def __init__(self, processes: int) -> None:
        self.server = HandRedis(LEASE)
        self.server.latency = LATENCY
        self.processes = [Process(n, self._new_bus(n)) for n in range(processes)]
        self.found: list[str] = []
        self._told = 0

    def _new_bus(self, n: int) -> RedisBus:
        return RedisBus("redis://server", lease=LEASE, send_timeout=TIMEOUT, name=f"p{n}")

    def check(self, true: object, text: str) -> None:
        if not true:
            self.found.append(f"at {current_time():.3f}: {text}")

    # --- the program

    async def play(self, program: list[Step]) -> None:
        before = task_ids()
        with self.server.reached():
            for process in self.processes:
                await process.bus.subscribe(Plain(f"ear {process.n}", receives="own"))
                self._listen(process)
            async with create_task_group() as group:
                for process in self.processes:
                    self._start(group, process)
                await settle()
                for step in program:
                    await sleep(step.pause)
                    self._happen(group, step)
                await sleep(max(step.seconds for step in program))
                self.server.well()
                for process in self.processes:
                    if process.stopping.is_set():
                        await process.gone.wait()
                    self._start(group, process)
                await sleep(TIMEOUT)
                await self._all_send()  # so that those notice who have missed something
                await sleep(WELL)
                await self._look_again()
                for process in self.processes:
                    await self._stop(process)
            self.check(not self.server.links, f"connections are left: {[each.purpose for each in self.server.links]}")
            self.check(not self.server.members, f"members are left: {self.server.members}")
            self.check(not self.server.inboxes, "inboxes are left")
        assert task_ids() == before

    def _listen(self, process: Process) -> None:
        def hear(message: BusMessage) -> None:
            if isinstance(message, Told) and message.peer is not None:
                process.heard.append(Heard(process.bus.incarnation, message.peer, message.n))

        process.bus.add_tap(hear)
        for event in ("on_connected", "on_disconnected", "on_peer_joined", "on_peer_gone", "on_gap", "on_fenced"):
            process.bus.add_event_handler(event, partial(self._note, process, event))

    @staticmethod
    def _note(process: Process, event: str, _bus: object, *args: Any) -> None:
        process.events.append((event, args))

    def _start(self, group: TaskGroup, process: Process) -> None:
        if process.group is None and (process.opened == 0 or process.gone.is_set()):
            process.stopping, process.gone = Event(), Event()
            process.events.clear()
            process.opened += 1
            group.start_soon(self._live, process)

    async def _live(self, process: Process) -> None:
        begun = current_time()
        try:
            async with WorkerRunner(bus=process.bus, name=f"p{process.n}", handle_sigint=False) as runner:
                async with create_task_group() as mine:
                    process.runner, process.group = runner, mine
                    await process.stopping.wait()
                    mine.cancel_scope.cancel()
                    process.runner = process.group = None
                ends = current_time()
            self.check(current_time() - ends <= 2.0 + _LEAVE_SECONDS, f"p{process.n} needs too long to close")
        except NameTakenError:  # of a worker whose name another process has taken meanwhile
            pass
        except (BusUnavailable, RedisSetupError):
            late = current_time() - begun - TIMEOUT
            self.check(late <= _LEAVE_SECONDS + 0.001, f"p{process.n} has tried for {late} s too long")
        finally:
            process.runner = process.group = None
            process.workers.clear()
            process.gone.set()
        left = [each.purpose for each in self.server.links if each.purpose.startswith(f"p{process.n}:")]
        self.check(not left, f"p{process.n} has closed, and its connections are left: {left}")
        self.check(process.bus.state == "closed", f"p{process.n} is {process.bus.state}")
        self._check_events(process)

    async def _stop(self, process: Process) -> None:
        process.stopping.set()
        await process.gone.wait()

    def _happen(self, group: TaskGroup, step: Step) -> None:
        process, server, which = self.processes[step.who], self.server, step.which
        if step.deed == "start":
            self._start(group, process)
        elif step.deed == "stop":
            process.stopping.set()
        elif step.deed == "cut":
            server.cut_off(f"p{step.who}:{PURPOSES[which % 3]}")
        elif step.deed == "lose answer":
            server.lose_answer(COMMANDS[which % len(COMMANDS)], done=which % 2 == 0)
        elif step.deed == "away":
            server.go_away()
            group.start_soon(self._later, step.seconds, server.come_back)
        elif step.deed == "freeze":
            server.freeze()
            group.start_soon(self._later, step.seconds, server.thaw)
        elif step.deed == "refuse":
            command = COMMANDS[which % len(COMMANDS)]
            server.refuse(command, ERRORS[which % len(ERRORS)])
            group.start_soon(self._later, step.seconds, partial(server.refuse, command, None))
        elif step.deed == "fence":
            server.forget(process.bus.incarnation)
        elif step.deed == "gap":
            server.spoil(process.bus.incarnation, lambda _: None)
        elif step.deed == "garble":
            server.spoil(process.bus.incarnation, partial(_garbled, process))
        elif process.group is not None:
            self._do(process, step)

    @staticmethod
    async def _later(seconds: float, do: Callable[[], None]) -> None:
        await sleep(seconds)
        do()

    def _do(self, process: Process, step: Step) -> None:
        assert process.group is not None
        name = NAMES[step.which % len(NAMES)]
        if step.deed in ("say", "whisper"):
            process.group.start_soon(self._send, process, step.whom, step.which % 4 == 0)
        elif step.deed == "host":
            process.group.start_soon(self._host, process, name)
        elif step.deed == "drop" and name in process.workers:
            process.group.start_soon(process.workers[name].stop)

    async def _send(self, process: Process, to: int, unconfirmed: bool = False) -> None:
        self._told += 1
        sent = Sent(process.bus.incarnation, to, self._told)
        process.sent.append(sent)
        message = Told(sent.n, source=f"p{process.n}", target=f"ear {to}")
        if unconfirmed:
            process.bus.post(message)
            return
        begun = current_time()
        try:
            await process.bus.send(message)
            sent.stored = process.bus.incarnation == sent.life
        except BusUnavailable as error:
            sent.unstored = not error.maybe_stored
        self.check(current_time() - begun <= TIMEOUT + 0.001, f"a send of p{process.n} has taken too long")

    async def _host(self, process: Process, name: str) -> None:
        worker = Helper(name)
        assert process.runner is not None
        try:
            await process.runner.add_workers(worker)
        except (NameTakenError, BusUnavailable, RedisReplyError):
            return
        process.workers[name] = worker

    # --- what has to be true

    async def _look_again(self) -> None:
        """See to it that all is well by now, and that all hear each other."""
        there = [each for each in self.processes if each.runner is not None]
        lives = {each.bus.incarnation for each in there}
        for each in there:
            name, bus, seen = f"p{each.n}", each.bus, each.bus.statistics()
            self.check(bus.state == "connected", f"{name} is {bus.state}")
            peers = {peer.incarnation for peer in bus.peers}
            self.check(peers == lives - {bus.incarnation}, f"{name} knows {bus.peers}, and there are {lives}")
            self.check(seen.unsent == seen.unsent_bytes == 0, f"at {name} {seen.unsent} messages wait")
            self.check(abs((seen.round_trip or 0) - 2 * LATENCY) < 1e-6, f"a beat of {name} took {seen.round_trip}")
            self.check(seen.lag == 0, f"{seen.lag} entries wait for {name}")
            fenced = [args for event, args in each.events if event == "on_fenced"]
            self.check(seen.lives == 1 + len(fenced), f"{name} has had {seen.lives} lives, and told of {len(fenced)}")
            beats = self.server.times("BEAT", f"p{each.n}:lease")[-5:]
            even = all(abs(after - before - BEAT) < 1e-6 for before, after in pairwise(beats))
            self.check(even, f"{name} has beaten at {beats}")
            told = [event for event, _ in each.events if event in ("on_connected", "on_disconnected")]
            self.check(told[-1:] == ["on_connected"], f"{name} has told of {told[-4:]}")
        self.check(set(self.server.members) == lives, f"there are {lives}, and members {set(self.server.members)}")
        self.check(set(self.server.inboxes) == lives, f"there are {lives}, and inboxes {set(self.server.inboxes)}")
        self._check_names(there)
        await self._all_send()
        await sleep(1.0)
        for each in there:
            self.check(all(sent.stored for sent in each.sent[1 - len(there) :]), f"p{each.n} could not send")
            lasting = not self.server.inboxes[each.bus.incarnation]
            self.check(lasting, f"what p{each.n} has read was not trimmed")
        self._check_messages(lives)

    async def _all_send(self) -> None:
        async with create_task_group() as group:
            for each in self.processes:
                for other in self.processes:
                    if each is not other and each.runner is not None:
                        group.start_soon(self._send, each, other.n)

    def _check_names(self, there: list[Process]) -> None:
        hosted: dict[str, str] = {}
        for each in there:
            for name in NAMES:
                assert each.runner is not None
                if each.runner.get_worker(name) is not None:
                    self.check(name not in hosted, f"{name} is there twice")
                    hosted[name] = each.bus.incarnation
        self.check(self.server.names == hosted, f"workers are {hosted}, and names {self.server.names}")

    def _check_messages(self, lives: set[str]) -> None:
        sent = {each.n: each for process in self.processes for each in process.sent}
        for process in self.processes:
            sessions: dict[tuple[str, Peer], list[int]] = {}
            for heard in process.heard:
                sessions.setdefault((heard.life, heard.peer), []).append(heard.n)
            for (life, peer), numbers in sessions.items():
                whole = [
                    each
                    for other in self.processes
                    for each in other.sent
                    if other.bus.name == peer.name and each.to == process.n and each.life == peer.incarnation
                ]
                self.check(numbers == sorted(set(numbers)), f"p{process.n} has heard {numbers} of {peer.name}")
                last = numbers[-1]
                if life in lives and peer.incarnation in lives:
                    last = max(each.n for each in whole)
                stored = [each.n for each in whole if each.stored and numbers[0] <= each.n <= last]
                missed = set(stored) - set(numbers) - process.garbled
                self.check(not missed, f"p{process.n} has missed {missed} of {peer.name}")
            wrong = [each.n for each in process.heard if sent[each.n].unstored]
            self.check(not wrong, f"p{process.n} has heard {wrong}, which were not stored")

    def _check_events(self, process: Process) -> None:
        connected, lost, fenced = CONNECTION
        told = [fenced, *(event for event, _ in process.events if event in CONNECTION)]
        wrong = {(connected, connected), (lost, lost)} & set(pairwise(told))
        self.check(not wrong, f"p{process.n} has told of {told[1:]}")
        there: set[Peer] = set()
        for event, args in process.events:
            if event == "on_peer_joined":
                self.check(args[0] not in there, f"p{process.n} has met {args[0]} twice")
                there.add(args[0])
            elif event == "on_peer_gone":
                self.check(args[0] in there, f"p{process.n} has lost {args[0]}, whom it had not met")
                there.discard(args[0])


def _garbled(process: Process, fields: list[bytes]) -> list[bytes]:
    data = fields[fields.index(b"m") + 1]
    process.garbled.update(int(n) for n in re.findall(rb'"n":(\d+)', data))
    return [b"{" if each is data else each for each in fields]
