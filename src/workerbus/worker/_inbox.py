"""A worker's inbox: what the library does with a message at once, and what waits (B1, B6, B9, J1, J9, N4, W2, W4).

The built-in handling of a message is synchronous and needs no task of the worker, so it is done in the step of whoever
sent it. Three things make a message wait instead:

* the worker is handling another one (an answer that comes of a request, say): then it is next;
* it is a data message and the worker has not started (W2): then it waits for the start;
* the class overrides ``accepts_bus_message``: that is the user's code, which has no place in a sender's step (B1), so
  such a worker's messages go through an `Intake` first.

A job's cancel can overtake its request wherever data messages wait: a cancel is a system message, a request is not. An
early cancel is remembered until the data messages are handled that waited when it came, since its request is one of
them or will never come (J9). That is kept with numbers:

1. Data messages are counted as they are handled (``data_seen``). With those that wait, that gives the number of the
   last one that waits.
2. A cancel for a job that is not open is remembered with that number, or not at all if no data message waits.
3. When that many have been handled, it is forgotten. Later cancels never have a smaller number, so only the oldest one
   need be looked at.
4. Where ``accepts_bus_message`` is overridden, the cancel itself waits in a lane, and other data messages may come
   meanwhile. So its number is taken when it arrives, and kept until it is handled.
"""

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from workerbus._concurrency.failures import is_panic, own_error_of_call
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus._concurrency.room import Room
from workerbus._log import about
from workerbus.bus._inbox import Inbox, Receives, SubscriberStatistics, counts, refuse_own_lane
from workerbus.bus._intake import Intake
from workerbus.messages import BusEndWorkerMessage, BusJobCancelMessage, BusJobRequestMessage, BusMessage

logger = logging.getLogger("workerbus.worker")


class WorkerInbox(Inbox):
    """Where the bus leaves a worker's messages.

    Args:
        name: The worker's name.
        receives: Whether the worker gets all messages, or broadcasts and its own.
        handle: The built-in handling of a message.
        accepts: The worker's ``accepts_bus_message``, if its class overrides that.
        hooks: The data lane and the system lane in which its hooks wait.
        hears: Returns whether a hook is run for each message.
        failed_hooks: Returns how many hooks have raised.
        max_buffer_size: How many data messages the bus lets wait for a hook.
        early: Cancels that came before their requests: job id to the reason, and to the number of the data message
            with which the cancel is forgotten.
        refuse: Answers a request that is not accepted.
        end_waits: Called with an end that has come before the start.
        panicked: Called with an exception of ``accepts`` that is no `Exception`, and with the method's name.

    Attributes:
        delivered: How many messages were handled.
        failed: How many times the handling of one has raised.
    """

    claims = True

    def __init__(
        self,
        name: str,
        *,
        receives: Receives,
        handle: Callable[[BusMessage], None],
        accepts: Callable[[BusMessage], bool] | None,
        hooks: tuple[Lane[Any], Lane[Any]],
        hears: Callable[[], bool],
        failed_hooks: Callable[[], int],
        max_buffer_size: float,
        early: OrderedDict[str, tuple[str | None, int]],
        refuse: Callable[[BusJobRequestMessage], None],
        end_waits: Callable[[BusEndWorkerMessage], None],
        panicked: Callable[[BaseException, str], None],
    ) -> None:
        super().__init__(name, receives=receives, announcements=receives == "all")
        self.delivered: int = 0
        self.failed: int = 0
        self._handle = handle
        self._accepts = accepts
        self._refuse = refuse
        self._end_waits = end_waits
        self._panicked = panicked
        self._hook_data, self._hook_system = hooks
        self._hears = hears
        self._failed_hooks = failed_hooks
        self._room: Room[BusMessage] | None = None if max_buffer_size == math.inf else Room(max_buffer_size)
        if self._room is not None:
            self._room.coming = lambda: self.waiting_data
        self._hook_data.room = self._room
        self._early = early
        self._marks: dict[str, int | None] = {}
        self._system: deque[BusMessage] | None = None
        self._data: deque[BusMessage] | None = None
        self._intake: Intake | None = None
        if accepts is not None:
            self._intake = Intake(name, self._ask_now, self._call_counted)
            self._hook_data.first = (self._intake.system, *self._hook_data.first)
        self._started = False
        self._at_once = False  # started, open, and without an intake: a message need not wait
        self._handling = False
        self._closed = False
        self.data_seen: int = 0
        """How many data messages were handled or refused, with the one that is being handled."""

    # --- from the bus

    def take(self, message: BusMessage) -> None:
        """Handle a message now, or as soon as that is possible."""
        # `_take_later` would do the same; without the call, a message to one worker is 1.04 to 1.1 times as fast.
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
        # An end is a data message, and waits for the start like the others. But a start that hangs must not hold it up
        # for ever: its grace period begins when it comes.
        if not self._started and isinstance(message, BusEndWorkerMessage) and message.target == self.name:
            self._end_waits(message)
        if self._intake is not None:
            if type(message) is BusJobCancelMessage:
                self._marks[message.job_id] = self.last_waiting(message)
            self._intake.put(message, system=bool(message.system))
        elif self._handling or not (self._started or message.system):
            self._keep(message)
        else:
            self._handle_now(message)

    def _keep(self, message: BusMessage) -> None:
        if message.system:
            self._system = deque() if self._system is None else self._system
            self._system.append(message)
        else:
            self._data = deque() if self._data is None else self._data
            self._data.append(message)

    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        """Return the data lane, if the message would wait for a hook of the worker and there is no room."""
        room = self._room
        if room is None or not counts(message, self.name) or not self._hears():
            return None
        lane = self._hook_data
        if lane.closed or room.taken + self.waiting_data < room.limit:
            return None
        refuse_own_lane(lane)
        return lane

    def last_waiting(self, cancel: BusJobCancelMessage) -> int | None:
        """Return the number of the last data message that waited when a cancel came; None if none did."""
        if cancel.job_id in self._marks:
            return self._marks.pop(cancel.job_id)
        waiting = self.waiting_data
        return self.data_seen + waiting if waiting else None

    @property
    def waiting_data(self) -> int:
        """How many data messages wait for their built-in handling."""
        return len(self._data or ()) if self._intake is None else self._intake.data.waiting

    def holds_work(self) -> bool:
        """Whether a data message waits that the worker would do something with; its end is none."""
        waiting = [*(self._data or ())] if self._intake is None else self._intake.data.look()
        mine = [each for each in waiting if isinstance(each, BusMessage) and not isinstance(each, BusEndWorkerMessage)]
        return any(self._hears() or message.target == self.name for message in mine)

    @property
    def depth(self) -> int:
        """How many messages wait, for their handling or for a hook."""
        return sum(self.depths.values())

    @property
    def room(self) -> Room[BusMessage] | None:
        """The room in the data lane; None where that has no bound."""
        return self._room

    @property
    def depths(self) -> dict[str, int]:
        """How many messages and hooks wait, by lane."""
        system = len(self._system or ()) + self._hook_system.waiting
        data = len(self._data or ()) + self._hook_data.waiting
        if self._intake is not None:
            system, data = system + self._intake.system.waiting, data + self._intake.data.waiting
        return {"system": system, "data": data}

    def statistics(self) -> SubscriberStatistics:
        """Return a snapshot of the counts; hooks that raised are counted as failed."""
        return SubscriberStatistics(self.depth, self.delivered, self.failed + self._failed_hooks())

    # --- from the worker's life

    def open(self, host: TaskHost) -> None:
        """Do nothing: a worker's messages are handled in its own tasks and not in those of the bus; see `run_in`."""

    def run_in(self, host: TaskHost) -> None:
        """Begin to handle system messages where ``accepts_bus_message`` is asked first: the worker's task has begun."""
        if self._intake is not None:
            self._intake.system.open(host)

    def start(self, host: TaskHost) -> None:
        """Handle the data messages that came before the start, in their order, and from now on all others."""
        self._started = True
        self._at_once = self._intake is None and not self._closed
        if self._intake is not None:
            self._intake.data.open(host)
        elif not self._handling:  # else whoever handles one now goes on with the others
            self._handle_now()

    def catch_up(self) -> None:
        """Handle the system messages that wait for ``accepts_bus_message``: what children have reported is there."""
        for message in () if self._intake is None else self._intake.system.take_all():
            self._ask_now(message)

    def refuse_the_rest(self) -> None:
        """Handle the requests that still wait: the worker is stopping, so each is answered at once."""
        waiting: list[BusMessage | Callable[[], None]] = [*(self._data or ())]
        self._data = None
        if self._intake is not None:
            waiting += self._intake.data.close()
        for item in waiting:
            if isinstance(item, BusJobRequestMessage):
                self._step(item)
            elif not isinstance(item, BusMessage):
                item()

    def close(self) -> None:
        """Handle nothing more."""
        self._closed, self._at_once = True, False
        self._system = self._data = None
        for lane in () if self._intake is None else self._intake.lanes:
            lane.close()
        self._hook_system.close()
        self._hook_data.close()

    # --- handling

    def _handle_now(self, *messages: BusMessage) -> None:
        self._handling = True
        try:
            for message in messages:
                self._step(message)
            self._catch_up()
        finally:
            self._handling = False

    def _catch_up(self) -> None:
        # In a loop, and not by calling `take` again, since each message may bring others: a request that is refused,
        # an answer, that another request, and so on without an end to the stack. Before each one it is decided anew:
        # 1. A message may have stopped the worker, and then nothing more is handled.
        # 2. System messages go first, those too that came while a data message was handled.
        # 3. Data messages wait for the start.
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
            logger.exception(
                "worker %r failed to handle %s", self.name, type(message).__name__, extra=about(worker=self.name)
            )
        if data and (self._early or self._room is not None):
            self._note_data()

    def _note_data(self) -> None:
        if self._room is not None:
            self._room.admit()
        if self._early:
            # Each cancel that waited for this message or an earlier one: its request has not been among them.
            early = self._early
            while early and next(iter(early.values()))[1] <= self.data_seen:
                early.popitem(last=False)

    def call_behind(self, function: Callable[[], None]) -> None:
        """Call a function behind the answers that have come: at once, unless messages wait to be accepted."""
        if self._intake is None or not self._intake.holds_back(function):
            function()

    def _call_counted(self, function: Callable[[], None]) -> None:
        self.data_seen += 1  # it was counted among the data messages that wait
        function()
        self._note_data()

    def _ask_now(self, message: BusMessage) -> None:
        assert self._accepts is not None
        try:
            accepted = self._accepts(message)
        except BaseException as exc:
            error, accepted = own_error_of_call(exc), True
            self.failed += 1
            text = "accepts_bus_message of worker %r failed; the message is accepted"
            logger.error(text, self.name, exc_info=error, extra=about(worker=self.name))
            if is_panic(error):
                self._panicked(error, "accepts_bus_message")
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
