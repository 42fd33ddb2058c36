"""A worker's inbox: what the library does with a message, at once, and what it leaves for hooks (B1, B6, J9, W2, W4).

The built-in handling of a message is synchronous and needs no task of the worker, so it is done in the step of whoever
sent it. Three things make a message wait instead:

* the worker is handling another one (an answer that comes of a request, say): then it is next;
* it is a data message and the worker has not started (W2): then it waits for the start;
* the class overrides ``accepts_bus_message``: that is the user's code, which has no place in a sender's step (B1), so
  such a worker's messages go through two lanes of their own.

A job's cancel can overtake its request wherever data messages wait. It is remembered until those are handled (J9).
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any

from workerbus._hooks import HookQueue
from workerbus._lifetime import TaskHost
from workerbus._room import Room
from workerbus.bus._lanes import Lane
from workerbus.bus._subscriber import Inbox, Receives, SubscriberStatistics, counts, refuse_own_lane
from workerbus.messages import BusEndWorkerMessage, BusJobCancelMessage, BusJobRequestMessage, BusMessage

logger = logging.getLogger("workerbus")


class WorkerInbox(Inbox):
    """Where the bus leaves a worker's messages.

    Args:
        name: The worker's name.
        receives: What it receives (B6).
        handle: The built-in handling.
        accepts: Asked before the handling, where the class overrides it (N4).
        hooks: Where hooks wait.
        max_buffer_size: The bus's bound.
        refuse: Answers a request that is not accepted.
        end_waits: Told of an end that has come before the start.
        early: Cancels that came before their requests: job id to what they said, and the data message to keep them to.
    """

    def __init__(
        self,
        name: str,
        *,
        receives: Receives,
        handle: Callable[[BusMessage], None],
        accepts: Callable[[BusMessage], bool] | None,
        hooks: HookQueue,
        max_buffer_size: float,
        early: dict[str, tuple[str | None, int]],
        refuse: Callable[[BusJobRequestMessage], None],
        end_waits: Callable[[BusEndWorkerMessage], None],
    ) -> None:
        super().__init__(name, receives=receives, announcements=receives == "all")
        self.delivered: int = 0
        self.failed: int = 0
        self._handle = handle
        self._accepts = accepts
        self._refuse = refuse
        self._end_waits = end_waits
        self._hooks = hooks
        self._room: Room[BusMessage] | None = None if max_buffer_size == math.inf else Room(max_buffer_size)
        if self._room is not None:
            self._room.coming = lambda: self.waiting_data
        hooks.data.room = self._room
        self._early = early
        self._marks: dict[str, int | None] = {}
        self._system: deque[BusMessage] | None = None
        self._data: deque[BusMessage] | None = None
        self._intake: tuple[Lane[BusMessage], Lane[BusMessage]] | None = None
        if accepts is not None:
            system: Lane[BusMessage] = Lane(f"{name} system intake", self._ask_and_handle)
            data: Lane[BusMessage] = Lane(f"{name} data intake", self._ask_and_handle, first=(system,))
            self._intake = system, data
            hooks.data.first = (system, *hooks.data.first)
        self._started = False
        self._at_once = False  # started, open, and without an intake: a message need not wait
        self._handling = False
        self._closed = False
        self.data_seen: int = 0
        """How many data messages were handled, or are being handled."""

    # --- from the bus

    def take(self, message: BusMessage) -> None:
        """Handle a message now, or when it can be."""
        if self._at_once and not self._handling:
            self._handling = True
            try:
                self._step(message)
                if self._system or self._data:
                    self._catch_up()
            finally:
                self._handling = False
        elif not self._closed:
            self._take_later(message)

    def _take_later(self, message: BusMessage) -> None:
        if not self._started and isinstance(message, BusEndWorkerMessage) and message.target == self.name:
            self._end_waits(message)
        if self._intake is not None:
            if type(message) is BusJobCancelMessage:
                self._marks[message.job_id] = self.last_waiting(message)
            self._intake[0 if message.system else 1].put(message)
        elif self._handling or not (self._started or message.system):
            self._keep(message)
        else:
            self._handling = True
            try:
                self._step(message)
                if self._system or self._data:
                    self._catch_up()
            finally:
                self._handling = False

    def _keep(self, message: BusMessage) -> None:
        if message.system:
            self._system = deque() if self._system is None else self._system
            self._system.append(message)
        else:
            self._data = deque() if self._data is None else self._data
            self._data.append(message)

    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        """Return the data lane, if the message waits for a hook of the worker's and there is no room (B9)."""
        room = self._room
        if room is None or not counts(message, self.name) or not self._hooks.wants("on_bus_message"):
            return None
        lane = self._hooks.data
        if lane.closed or room.taken + self.waiting_data < room.limit:
            return None
        refuse_own_lane(lane, self._hooks.system)
        return lane

    def last_waiting(self, cancel: BusJobCancelMessage) -> int | None:
        """Return the number of the last data message that waited when a cancel came; None if none did (J9)."""
        if cancel.job_id in self._marks:
            return self._marks.pop(cancel.job_id)
        waiting = self.waiting_data
        return self.data_seen + waiting if waiting else None

    @property
    def waiting_data(self) -> int:
        """How many data messages wait for their built-in handling."""
        return len(self._data or ()) if self._intake is None else self._intake[1].waiting

    @property
    def depth(self) -> int:
        """How many messages wait, for their handling or for a hook."""
        return sum(self.depths.values())

    @property
    def depths(self) -> dict[str, int]:
        """The same, by lane."""
        system = len(self._system or ()) + self._hooks.system.waiting
        data = len(self._data or ()) + self._hooks.data.waiting
        if self._intake is not None:
            system, data = system + self._intake[0].waiting, data + self._intake[1].waiting
        return {"system": system, "data": data}

    def statistics(self) -> SubscriberStatistics:
        """Return a snapshot of the counts; hooks that raised are among the failed."""
        return SubscriberStatistics(self.depth, self.delivered, self.failed + self._hooks.failed)

    # --- from the worker's life

    def open(self, host: TaskHost) -> None:
        """The bus has started. A worker's messages run in the worker's own tasks; see `run_in`."""

    def run_in(self, host: TaskHost) -> None:
        """The worker's task has begun: system messages are handled from now on, those of overridden classes too."""
        if self._intake is not None:
            self._intake[0].open(host)

    def start(self, host: TaskHost) -> None:
        """The worker has started: handle the data messages that came before, in their order (W2)."""
        self._started = True
        self._at_once = self._intake is None and not self._closed
        if self._intake is not None:
            self._intake[1].open(host)
        elif not self._handling:
            self._handling = True
            try:
                self._catch_up()
            finally:
                self._handling = False

    def refuse_the_rest(self) -> None:
        """Handle the requests that still wait: the worker is stopping, so each is answered at once (J1)."""
        waiting = [*(self._data or ())]
        self._data = None
        if self._intake is not None:
            waiting += self._intake[1].close()
        for message in waiting:
            if isinstance(message, BusJobRequestMessage):
                self._step(message)

    def close(self) -> None:
        """Handle nothing more."""
        self._closed, self._at_once = True, False
        self._system = self._data = None
        for lane in self._intake or ():
            lane.close()
        self._hooks.close(cancel=False)

    # --- handling

    def _catch_up(self) -> None:
        while not self._closed:
            if self._system:
                self._step(self._system.popleft())
            elif self._data and self._started:
                self._step(self._data.popleft())
            else:
                return

    def _step(self, message: BusMessage) -> None:
        self.delivered += 1
        data = not message.system
        if data:
            self.data_seen += 1
        try:
            self._handle(message)
        except Exception:
            self.failed += 1
            logger.exception("worker %r failed to handle %s", self.name, type(message).__name__)
        if data and (self._early or self._room is not None):
            self._note_data()

    def _note_data(self) -> None:
        if self._room is not None:
            self._room.admit()
        if self._early:
            for job_id, (_, last) in list(self._early.items()):
                if last <= self.data_seen:
                    del self._early[job_id]

    async def _ask_and_handle(self, message: BusMessage) -> None:
        assert self._accepts is not None
        try:
            accepted = self._accepts(message)
        except Exception:
            self.failed += 1
            logger.exception("accepts_bus_message of worker %r failed; the message is accepted", self.name)
            accepted = True
        if accepted:
            self._step(message)
        else:
            if isinstance(message, BusJobRequestMessage) and message.target == self.name:
                self._refuse(message)
            if not message.system:
                self.data_seen += 1
                self._note_data()
        if type(message) is BusJobCancelMessage:
            self._marks.pop(message.job_id, None)  # it was refused, or for somebody else
