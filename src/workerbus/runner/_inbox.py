"""A runner's inbox: what is done with a message at once, and what goes through two lanes (B7, N4, R7).

Answers to jobs that the runner has asked for, workers that are sent to it, and what other runners announce are handled
at once; all else, in the lanes. Who watches for a worker elsewhere is told in a lane of its own, so that it holds up
nothing else. The runner knows its own workers without their announcements, so those are dropped here: starting N
workers costs the runner one look at each message and no more.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from workerbus._concurrency.failures import own_error
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus._log import about
from workerbus.bus._inbox import Inbox
from workerbus.jobs._client import JobClient
from workerbus.messages import BusAddWorkerMessage, BusMessage, BusWorkerGoneMessage
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
        watched: Whether ``handle`` is to get the announcements, too: the runner's class overrides it.
        accepts: The runner's ``accepts_bus_message``, if its class overrides that. Then nothing is handled at once.

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
        self._watched = watched or accepts is not None
        self.of_runner: bool = not self._watched
        self._handle = handle
        self._accepts = accepts
        take_next: Callable[[Any], Awaitable[None]] = self._handle_rest if accepts is None else self._handle_next
        self._system: Lane[Any] = Lane(f"{name} system", take_next)
        self._data: Lane[Any] = Lane(f"{name} data", take_next, first=(self._system,))
        self.calls: Lane[Call] = Lane(f"{name} calls", self._call)
        self._closed = False

    def take(self, message: BusMessage) -> None:
        """Handle what can be handled at once; leave the rest to the lanes."""
        if self._closed:
            return
        handle = JobClient.HANDLERS.get(type(message))
        if handle is not None and self._accepts is None:
            self.delivered += 1
            if message.target == self.name:
                handle(self._client, message)
            return
        if message.announcement and isinstance(message, Announcement):
            if self._watched and not self._discovery.is_own(message):
                self._data.put(message)  # all in one lane: lists are system messages, and would overtake
            else:
                self._take_announcement(message)
            return
        if self._accepts is not None or not self._handled_at_once(message):
            (self._system if message.system else self._data).put(message)

    def _take_announcement(self, message: Announcement) -> None:
        if self._discovery.is_own(message):
            if isinstance(message, BusWorkerGoneMessage):
                self._departed(message.source)
            return
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

    def _handled_at_once(self, message: BusMessage) -> bool:
        if isinstance(message, BusAddWorkerMessage):
            if message.target in (None, self.name):
                self._add(message)
        elif type(message) in JobClient.HANDLERS:
            if message.target == self.name:
                self._client.handle(message)
        else:
            return False
        self.delivered += 1
        return True

    def call_behind(self, function: Callable[[], None]) -> None:
        """Call a function behind the answers that have come: at once, unless they wait to be accepted."""
        if self._accepts is None:
            function()
        else:
            self._call_behind(function, self._system, self._data)

    def _call_behind(self, function: Callable[[], None], *lanes: Lane[Any]) -> None:
        # One lane after the other: the data lane does not wait for a system message's hook.
        for number, lane in enumerate(lanes, 1):
            if lane.waiting:
                lane.put(partial(self._call_behind, function, *lanes[number:]))
                return
        function()

    async def _handle_rest(self, message: BusMessage) -> None:
        # What `take` could not handle at once. A runner sees every broadcast: so this is short.
        self.delivered += 1
        try:
            await self._handle(message)
        except BaseException as exc:  # noqa: BLE001 - logged and counted
            self._failed(message, await own_error(exc))

    async def _handle_next(self, item: BusMessage | Callable[[], None]) -> None:
        if isinstance(item, BusMessage):
            await self._ask_and_handle(item)
        else:
            item()

    async def _ask_and_handle(self, message: BusMessage) -> None:
        try:
            if self._accepts is None or not self._accepts(message):
                return
            if not self._handled_at_once(message):
                self.delivered += 1
                await self._handle(message)
        except BaseException as exc:  # noqa: BLE001 - logged and counted
            self._failed(message, await own_error(exc))

    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        """Return None: a runner's lanes have no bound."""
        return None

    def open(self, host: TaskHost) -> None:
        """Do nothing: a runner's lanes run in the runner's own tasks and not in those of the bus; see `run_in`."""

    def run_in(self, host: TaskHost) -> None:
        """Run the lanes, in the runner's tasks."""
        self._system.open(host)
        self._data.open(host)
        self.calls.open(host)

    def close(self) -> None:
        """Handle nothing more."""
        self._closed = True
        self._system.close()
        self._data.close()
        self.calls.close()

    async def quiet(self) -> None:
        """Wait until nothing waits."""
        await self._system.quiet()
        await self._data.quiet()
        await self.calls.quiet()

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return self._system.waiting + self._data.waiting + self.calls.waiting
