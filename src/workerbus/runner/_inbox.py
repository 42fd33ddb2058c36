"""A runner's inbox: what is done with a message at once, and what goes through two lanes (B7, N4, R7).

Answers to jobs that the runner has asked for, workers that are sent to it, and what other runners announce are handled
at once; all else, in the lanes, where the runner's ``on_bus_message`` is awaited. So that may await a job of the
runner's. Where ``accepts_bus_message`` is overridden, which is the user's code and has no place in a sender's step, all
messages go through an `Intake` first. Who watches for a worker elsewhere is told in a lane of its own, so
that it holds up nothing else. The runner knows its own workers without their announcements, so those are dropped here:
starting N workers costs the runner one look at each message and no more.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from workerbus._concurrency.failures import own_error, own_error_of_call
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus._log import about
from workerbus.bus._inbox import Inbox
from workerbus.bus._intake import Intake
from workerbus.jobs._client import JobClient
from workerbus.messages import BusAddWorkerMessage, BusMessage, BusObserveMessage, BusWorkerGoneMessage
from workerbus.runner._discovery import Announcement, Discovery

logger = logging.getLogger("workerbus.runner")

Call = Callable[[], Awaitable[None]]


class RunnerInbox(Inbox):
    """Where the bus leaves a runner's messages.

    Args:
        name: The runner's name.
        client: The jobs that the runner has asked for.
        add: Takes a worker that was sent to the runner.
        departed: Called with the name of a worker of this runner when the announcement that it has gone comes back.
        discovery: Is told what other runners announce.
        handle: Awaited with each other message, one at a time per lane.
        observe: Takes the questions of those who look at the runner, which its user does not see.
        watched: Whether ``handle`` is to get the announcements, too: the runner's class overrides it.
        accepts: The runner's ``accepts_bus_message``, if its class overrides that.

    Attributes:
        calls: Functions to be awaited, one after the other.
        delivered: How many messages were handled.
        failed: How many times the handling of one has raised.
    """

    def __init__(
        self,
        name: str,
        *,
        client: JobClient,
        add: Callable[[BusAddWorkerMessage], None],
        departed: Callable[[str], None],
        discovery: Discovery,
        handle: Callable[[BusMessage], Awaitable[None]],
        observe: Callable[[BusObserveMessage], None],
        watched: bool = False,
        accepts: Callable[[BusMessage], bool] | None = None,
    ) -> None:
        super().__init__(name, receives="own")
        self.delivered: int = 0
        self.failed: int = 0
        self._client = client
        self._add = add
        self._departed = departed
        self._discovery = discovery
        self._watched = watched
        self.of_runner: bool = not watched and accepts is None
        self._handle = handle
        self._observe = observe
        self._accepts = accepts
        self._system: Lane[BusMessage] = Lane(f"{name} system", self._handle_rest)
        self._data: Lane[BusMessage] = Lane(f"{name} data", self._handle_rest, first=(self._system,))
        self._intake: Intake | None = None
        if accepts is not None:
            self._intake = Intake(name, self._ask_and_take)
            self._data.first = (self._intake.system, self._system)
        self.calls: Lane[Call] = Lane(f"{name} calls", self._call)
        self._closed = False

    def take(self, message: BusMessage) -> None:
        """Handle what can be handled at once; leave the rest to the lanes."""
        if self._closed:
            return
        if self._intake is None:
            handle = JobClient.HANDLERS.get(type(message))
            if handle is None:
                self._take_other(message)
            else:  # as `_take` has it: a call less for each answer
                self.delivered += 1
                if message.target == self.name:
                    handle(self._client, message)
        elif isinstance(message, BusObserveMessage):
            self._take_other(message)
        elif not (isinstance(message, Announcement) and self._take_own(message)):
            # Announcements all in one lane: lists are system messages, and would overtake.
            self._intake.put(message, system=bool(message.system) and not message.announcement)

    def _take(self, message: BusMessage) -> None:
        handle = JobClient.HANDLERS.get(type(message))
        if handle is not None:
            self.delivered += 1
            if message.target == self.name:
                handle(self._client, message)
        else:
            self._take_other(message)

    def _take_other(self, message: BusMessage) -> None:
        if message.announcement and isinstance(message, Announcement):
            if not self._take_own(message):
                self._take_announcement(message)
        elif message.announcement and isinstance(message, BusObserveMessage):
            self.delivered += 1
            self._observe(message)
        elif isinstance(message, BusAddWorkerMessage):
            self.delivered += 1
            if message.target in (None, self.name):
                self._add(message)
        else:
            (self._system if message.system else self._data).put(message)

    def _take_own(self, message: Announcement) -> bool:
        if not self._discovery.is_own(message):
            return False
        if isinstance(message, BusWorkerGoneMessage):
            self._departed(message.source)
        return True

    def _take_announcement(self, message: Announcement) -> None:
        if self._watched:
            self._data.put(message)  # all in one lane here, too
        else:
            self.delivered += 1
        try:
            self._discovery.handle(message)
        except Exception as error:  # noqa: BLE001 - logged and counted
            self._failed(message, error)

    def _failed(self, message: BusMessage, error: BaseException) -> None:
        self.failed += 1
        logger.error(
            "runner %r failed to handle %s",
            self.name,
            type(message).__name__,
            exc_info=error,
            extra=about(runner=self.name),
        )

    async def _call(self, function: Call) -> None:
        await function()

    def call_behind(self, function: Callable[[], None]) -> None:
        """Call a function behind the answers that have come: at once, unless they wait to be accepted."""
        if self._intake is None or not self._intake.holds_back(function):
            function()

    async def _handle_rest(self, message: BusMessage) -> None:
        # What `take` could not handle at once. A runner sees every broadcast: so this is short.
        self.delivered += 1
        try:
            await self._handle(message)
        except BaseException as exc:  # noqa: BLE001 - logged and counted
            self._failed(message, await own_error(exc))

    def _ask_and_take(self, message: BusMessage) -> None:
        assert self._accepts is not None
        try:
            if self._accepts(message):
                self._take(message)
        except BaseException as exc:  # noqa: BLE001 - logged and counted
            self._failed(message, own_error_of_call(exc))

    @property
    def _lanes(self) -> tuple[Lane[Any], ...]:
        intake = () if self._intake is None else self._intake.lanes
        return (*intake, self._system, self._data, self.calls)

    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        """Return None: a runner's lanes have no bound."""
        return None

    def open(self, host: TaskHost) -> None:
        """Do nothing: a runner's lanes run in the runner's own tasks and not in those of the bus; see `run_in`."""

    def run_in(self, host: TaskHost) -> None:
        """Run the lanes, in the runner's tasks."""
        for lane in self._lanes:
            lane.open(host)

    def close(self) -> None:
        """Handle nothing more."""
        self._closed = True
        for lane in self._lanes:
            lane.close()

    async def quiet(self) -> None:
        """Wait until nothing waits."""
        for lane in self._lanes:
            await lane.quiet()

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return sum(lane.waiting for lane in self._lanes)
