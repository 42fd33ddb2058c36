"""`observe_cluster`: who looks at the runners of all processes on a network (L1, O3, O7, X4).

It is a peer among the others, without a runner. Each process that it meets is asked, and each of its runners answers;
each answer is asked for by a question of its own, so nothing comes that was not asked for, and what comes is no more
than is read. Where several runners of a process share a bus, one of them tells what passes on it.

A runner is seen for as long as the session with its peer lasts, or until it says that it has ended. One that begins
later, in a process that is known, is heard of by what it announces, and asked.
"""

import json
import logging
import math
from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from anyio import Event, current_time, move_on_after

from workerbus._concurrency.lane import Lane
from workerbus._log import about
from workerbus._message_base import peer_of
from workerbus._order import id_source
from workerbus._values import Peer, check_number
from workerbus.bus._inbox import BusSubscriber, Inbox, InboxHost, Receives, make_inbox
from workerbus.bus._peer_bus import PeerBus
from workerbus.errors import NotRunningError
from workerbus.messages import BusMessage, BusObservationMessage, BusObserveMessage, BusWorkerRegistryMessage
from workerbus.observing._clocks import ClockOffset
from workerbus.observing._overview import Overview
from workerbus.observing._passed import Passing, PassingMessages
from workerbus.observing._runners import SeenRunner
from workerbus.runner._notes import LEVELS, MessagesWanted, Note
from workerbus.runner._rows import Sections

logger = logging.getLogger("workerbus.observing")

FIRST: Final = 2.0
"""Seconds for which the first answers are waited for."""
SOON: Final = 0.1
"""Seconds after which what is wanted anew is wanted."""
_NOTHING: Final = json.dumps({"ended": True})
_new_id = id_source()


class _Asked(SeenRunner):
    """A runner that is asked.

    Attributes:
        at: The peer that it is at.
        number: The number of the last question.
        wanted: What of messages that has asked for.
        told: What of messages the last answer was about; None before the first.
        asked_at: When the last question was sent, by this process's monotonic clock.
        told_at: When the last answer came, by the clock of the event loop.
        clock: How far its clock is ahead.
        begun: Whether a part of an answer has come, and another one follows.
    """

    def __init__(self, name: str, at: Peer, asked_at: float) -> None:
        super().__init__(name, at.incarnation)
        self.at: Peer = at
        self.number: int = 1
        self.wanted: MessagesWanted = "none"
        self.told: MessagesWanted | None = None
        self.asked_at: float = asked_at
        self.told_at: float = math.inf
        self.clock: ClockOffset = ClockOffset()
        self.begun: bool = False


class ObservedCluster:
    """The runners of all processes on a network, as seen from here; made by `observe_cluster`.

    Guarantees: L1, O3, O7.
    """

    def __init__(self, bus: PeerBus, interval: float, messages: MessagesWanted, name: str) -> None:
        if not isinstance(bus, PeerBus):
            raise TypeError(f"a cluster is observed over a PeerBus, such as a RedisBus, and not over {bus!r}")
        check_number("interval", interval)
        if not 0 < interval < math.inf:
            raise ValueError(f"interval is a number of seconds, more than 0, not {interval!r}")
        if messages not in LEVELS:
            raise ValueError(f"messages is one of {', '.join(map(repr, LEVELS))}, not {messages!r}")
        self._bus = bus
        self._interval = interval
        self._messages: MessagesWanted = messages
        self._overview = Overview(name, cluster=True)
        self._me = _Subscriber(self, f"observer-{_new_id()}")
        self._used = self._owns = self._looks = False
        self._asked: dict[tuple[str, str], _Asked] = {}
        self._first: dict[str, float] = {}
        self._silent: set[str] = set()
        self._changed = Event()
        self._passing = Passing()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on bus {self._bus.name!r}, {len(self._asked)} runners>"

    # --- for how long

    async def join(self) -> None:
        """Open the bus, unless it is open, and ask nobody yet; the caller leaves with ``__aexit__``.

        Raises:
            NotRunningError: It was called before; a `RuntimeError`.
            Exception: The error with which the bus could not be opened.
        """
        if self._used:
            raise NotRunningError("this cluster was observed before: call observe_cluster() again")
        self._used = True
        await self._bus.subscribe(self._me)
        self._bus.add_listener(self._me)
        try:
            self._owns = not self._bus.is_open
            if self._owns:
                await self._bus.__aenter__()
        except BaseException:
            await self._leave()
            raise

    async def __aenter__(self) -> Self:
        """Open the bus, unless it is open, ask all runners, and wait for their first answers, for 2 seconds at most.

        Raises:
            NotRunningError: It was entered before; a `RuntimeError`.
            Exception: The error with which the bus could not be opened.
        """
        await self.join()
        try:
            self.look()
            await self.answered()
        except BaseException as exc:
            await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Say that nobody looks any more, and close the bus if it was opened here."""
        self.rest()
        self._passing.end()
        await self._leave()
        return await self._bus.__aexit__(exc_type, exc, traceback) if self._owns else None

    async def _leave(self) -> None:
        self._bus.remove_listener(self._me)
        await self._bus.unsubscribe(self._me)

    def look(self) -> None:
        """Ask all runners from now on; does nothing if they are already asked."""
        if not self._looks:
            self._looks = True
            for peer in self._bus.peers:
                self._ask_all(peer)

    def rest(self) -> None:
        """Stop asking until `look` is called; meanwhile nothing is gathered anywhere."""
        if self._looks:
            self._looks = False
            for peer in self._bus.peers:
                self._bus.post_to(BusObserveMessage(0, source=self._me.name), peer)
            for runner in list(self._asked.values()):
                self._forget(runner)
            self._first.clear()
            self._silent.clear()
            self._overview.rest()

    async def answered(self) -> None:
        """Wait until all runners that are asked have answered, with the messages that are wanted; at most 2 seconds."""
        with move_on_after(FIRST):
            while not self._all_have_answered():
                changed = self._changed = Event()
                await changed.wait()

    def want(self, messages: MessagesWanted) -> None:
        """Change what is reported of the messages that pass, from now on."""
        if messages != self._messages:
            self._messages = messages
            for runner in list(self._asked.values()):
                if runner.told is not None:
                    self._ask(runner)

    # --- what there is to see

    def state(self) -> Sections:
        """Return what is seen: sections of rows, which can be written as JSON.

        Guarantees: O2, O3, O7.
        """
        if self._changed.is_set():
            self._changed = Event()
        now = current_time()
        self._overview.bus = self._bus.connection
        for runner in self._asked.values():
            runner.silent = now - runner.told_at > max(3.0, 3 * self._interval)
        self._overview.measure(now)
        return self._overview.state()

    async def changed(self) -> None:
        """Wait until there may be something new since the last call of `state`."""
        await self._changed.wait()

    def story(self, job_id: str) -> dict[str, Any] | None:
        """Return the story of a job, over all processes; None if it is not remembered.

        Args:
            job_id: Its id.
        """
        return self._overview.story(job_id)

    def messages(self) -> PassingMessages:
        """Return the messages that pass anywhere from now on, each once; for ``async for``.

        Messages of one process come in their order. If more than a thousand pass between two reports, the rest is left
        out.
        """
        return self._passing.begin()

    @property
    def missed(self) -> int:
        """How many messages should have been seen but were not, as far as that is known."""
        return self._passing.missed

    # --- asking

    def met(self, peer: Peer) -> None:
        """Ask the runners of a peer that has joined."""
        if self._looks:
            self._ask_all(peer)

    def lost(self, peer: Peer) -> None:
        """Forget the runners of a peer."""
        for runner in [each for each in self._asked.values() if each.at == peer]:
            self._forget(runner)
        self._first.pop(peer.incarnation, None)
        self._silent.discard(peer.incarnation)
        self._changed.set()

    def heard(self, message: BusMessage) -> None:
        """Take a message of a peer."""
        peer = peer_of(message)
        if peer is None:
            return
        if isinstance(message, BusObservationMessage) and message.target == self._me.name:
            self._take(message, peer)
        elif isinstance(message, BusObserveMessage) and message.number == 1:
            answer = BusObservationMessage(1, _NOTHING, source=self._me.name, target=message.source)
            self._bus.post_to(answer, peer)
        elif isinstance(message, BusWorkerRegistryMessage) and message.asks and message.target is None and self._looks:
            self._ask_all(peer, message.runner)  # it begins, perhaps at a peer that is known

    def _ask_all(self, peer: Peer, runner: str | None = None) -> None:
        self._first[peer.incarnation] = monotonic()
        self._silent.add(peer.incarnation)
        self._bus.post_to(BusObserveMessage(1, SOON, "none", source=self._me.name, target=runner), peer)

    def _ask(self, runner: _Asked) -> None:
        runner.wanted = self._wanted_of(runner)
        interval = self._interval if runner.wanted == runner.told else SOON
        runner.number += 1
        runner.asked_at = monotonic()
        question = BusObserveMessage(runner.number, interval, runner.wanted, source=self._me.name, target=runner.name)
        self._bus.post_to(question, runner.at)

    def _wanted_of(self, runner: _Asked) -> MessagesWanted:
        """Return what a runner is asked to tell of messages: of several on one bus, one tells of them."""
        speaker = next(each for each in self._asked.values() if each.peer == runner.peer)
        return self._messages if runner is speaker else "none"

    def _all_have_answered(self) -> bool:
        return not self._silent and all(each.told == self._wanted_of(each) for each in self._asked.values())

    # --- answers

    def _take(self, message: BusObservationMessage, peer: Peer) -> None:
        if not self._looks:
            return
        self._silent.discard(peer.incarnation)
        self._changed.set()
        key = (peer.incarnation, message.source)
        runner = self._asked.get(key)
        try:
            report = json.loads(message.report)
            if report.get("ended"):
                if runner is not None:
                    self._forget(runner)
                return
            if runner is None:
                if message.number != 1:
                    return
                runner = self._asked[key] = _Asked(message.source, peer, self._first.get(peer.incarnation, monotonic()))
                self._overview.add(runner)
            self._read(runner, message, report)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            text = (
                "runner %r at peer %r tells of itself in a form that is not known here, and is not asked any more: %r"
            )
            logger.warning(text, message.source, peer.name, error, extra=about(runner=message.source))
            if runner is not None:
                self._forget(runner)
            return
        if not message.more and message.number == runner.number:
            self._ask(runner)

    def _read(self, runner: _Asked, message: BusObservationMessage, report: Mapping[str, Any]) -> None:
        if not runner.begun:
            if message.number == 1:
                runner.forget()
                runner.number = 1
            if message.number == runner.number:
                runner.clock.learn(runner.asked_at, report["asked_at"], report["now"], monotonic())
                runner.offset = runner.clock.seconds
            runner.note_sampled(report["now"], sampled=bool(report["sampled"]))
            self._passing.missed += int(report["missed"])
        runner.begun = message.more
        runner.take(report["changes"])
        self._pass(runner, [Note(*each) for each in report["notes"]])
        if not message.more:
            runner.told_at = current_time()
            if message.number == runner.number:
                runner.told = runner.wanted
            runner.measure(report.get("now", runner.asked_at))
            self._overview.measure(runner.told_at)

    def _pass(self, runner: _Asked, notes: list[Note]) -> None:
        seen = self._overview.learn(runner, notes)
        self._passing.add(runner.name, seen, self._overview.peers())

    def _forget(self, runner: _Asked) -> None:
        self._asked.pop((runner.at.incarnation, runner.name), None)
        self._overview.remove(runner)
        speaker = next((each for each in self._asked.values() if each.peer == runner.peer), None)
        if self._looks and speaker is not None and speaker.wanted != self._messages:
            self._ask(speaker)


class _Subscriber(BusSubscriber):
    """The place on the bus of one who looks."""

    receives: Receives = "own"

    def __init__(self, cluster: ObservedCluster, name: str) -> None:
        self._cluster = cluster
        self._name = name

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def heard(self, message: BusMessage) -> None:
        """Pass a message on."""
        self._cluster.heard(message)

    def met(self, peer: Peer) -> None:
        """Pass it on that a peer has joined."""
        self._cluster.met(peer)

    def lost(self, peer: Peer, _reason: str) -> None:
        """Pass it on that a peer is gone."""
        self._cluster.lost(peer)

    def report(self, text: str) -> None:
        """Do nothing: the bus has logged it, and joins again by itself."""

    def name_lost(self, name: str, owner: str) -> None:
        """Do nothing: no worker is here."""


class _ObserverInbox(Inbox):
    """Where the bus leaves what is for one who looks: all of it is read at once."""

    def __init__(self, subscriber: _Subscriber) -> None:
        super().__init__(subscriber.name, receives="own")
        self._subscriber = subscriber
        self._closed = False

    def take(self, message: BusMessage) -> None:
        """Read a message."""
        self.delivered += 1
        if not self._closed:
            self._subscriber.heard(message)

    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        """Return None: nothing waits here."""
        return None

    def open(self, host: object) -> None:
        """Do nothing: it needs no task."""

    def close(self) -> None:
        """Read nothing more."""
        self._closed = True

    @property
    def depth(self) -> int:
        """How many messages wait: none."""
        return 0


@make_inbox.register
def _(subscriber: _Subscriber, _bus: InboxHost) -> Inbox:
    return _ObserverInbox(subscriber)


def observe_cluster(
    bus: PeerBus, *, interval: float = 1.0, messages: MessagesWanted = "jobs", name: str = "cluster"
) -> ObservedCluster:
    """Look at the runners of all processes on a network, for as long as a block runs.

    ::

        async with observe_cluster(RedisBus("redis://localhost")) as cluster:
            while True:
                await cluster.changed()
                print(cluster.state()["about"])

    The processes need no preparation. They report only while they are asked, and stop as soon as the block is left or
    this process is lost. No payload is reported, unless ``messages`` asks for payloads and the runner allows it.

    Args:
        bus: The bus; it is opened for the block and closed with it, unless it is already open.
        interval: The least time between two reports of a runner, in seconds.
        messages: What to report of the messages that pass: ``"none"``; sender, receiver and time of those of
            ``"jobs"``, for the stories of jobs and how long they take; ``"all"``, for `ObservedCluster.messages`; or
            also ``"payloads"``.
        name: The name under which it is shown.

    Returns:
        The observed cluster, for ``async with``. When it is entered, the first answers are there, or 2 seconds have
        passed.

    Raises:
        TypeError: The bus has no peers.
        ValueError: The interval is not a number of seconds, or ``messages`` is none of the words above.

    Guarantees: L1, O3, O7.
    """
    return ObservedCluster(bus, interval, messages, name)
