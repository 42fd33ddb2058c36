"""The bus: when it is open, and how messages get in and out (B1-B4, B8, B9, L4, L6, L7, R6).

Three methods take messages: `send`, which may wait; `post`, for what the library itself sends, which never does; and
`deliver` for what arrives, with `on_message_received` as its sync form. All of them end in `_hand_out` of `_routing`.

The bus does not know workers, runners or jobs. A transport subclasses it, overrides `publish`, `start` and `stop`, and
calls `deliver` (or `on_message_received`) for what arrives from the network. The order in which a sender's messages go
out is kept between `send` or `post` and `publish`, by `_publish_in_turn` and two lanes, and nowhere else.
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from anyio import Event, create_task_group, current_time, get_cancelled_exc_class, get_current_task
from anyio.abc import TaskGroup
from anyio.lowlevel import cancel_shielded_checkpoint

from workerbus._concurrency.failures import unwrap_group
from workerbus._concurrency.home import Home
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.left_open import LEFT_OPEN, Entry, close_left_open, entered_here, is_here, leave_open
from workerbus._concurrency.lifetime import CLEANUP_SECONDS, CleanUp, TaskHost
from workerbus._concurrency.turns import Turns
from workerbus._concurrency.waiting import Wait, enumerated, waits
from workerbus._log import about
from workerbus._order import id_source
from workerbus._values import BATCH, check_number, name_of
from workerbus.bus._inbox import Inbox
from workerbus.bus._routing import Routing
from workerbus.errors import MessageTypeError, NotRunningError, WireError, WrongTaskError
from workerbus.messages import Answer, BusMessage, error_instead_of

logger = logging.getLogger("workerbus.bus")
_NOT_SENT: Final = "bus %r could not send %s"
_new_id = id_source()

DELIVERIES: Final = 1_600
"""After so many deliveries of broadcasts a sender lets other tasks run, however few sends they took.

But not after each single one: then every lane would be woken for one message, which costs several times what the
message does. Of two in a row, a lane handles the second one without being woken, and goes on collecting in its line.
"""


class WorkerBus(Routing):
    """What workers, runners and observers talk over.

    A runner opens the bus that it is given for its own run; a program that has several runners on one bus opens it
    around them::

        async with MemoryBus() as bus:
            ...

    Args:
        max_buffer_size: How many messages may wait in each subscriber's data lane before `send` waits.
        name: The name of the bus in logs; made up by default.

    Attributes:
        never_waits: Whether `send` waits neither for room nor for a network, and so does no more than `post`.
        opened_by: The name of the runner that has opened the bus for its own run, if one has.
        clean_up: The clock of the wind-down that closes the bus.
        neighbourhood: What its runners share if all of them are in this process; None before the first runner.
        job_groups: The open job groups of this process, by job id; maintained by requesters. None if nobody waits for
            room.

    Guarantees: B1, B2, B3, B6, B9, R6.
    """

    # Whether all who are on the bus are in this process: publishing is delivering.
    _in_process: ClassVar[bool] = False
    # Whether somebody has replaced, on a bus of this process, what messages pass: then even local ones are not posted.
    _replaced: bool = False
    _direct: bool = False

    def __init__(self, *, max_buffer_size: float = math.inf, name: str | None = None) -> None:
        check_number("max_buffer_size", max_buffer_size, "a number of messages")
        if not (max_buffer_size >= 1):
            raise ValueError(f"max_buffer_size must be at least 1, not {max_buffer_size!r}")
        own_name = f"{type(self).__name__}-{_new_id()}" if name is None else name_of("a bus's name", name)
        super().__init__(own_name, max_buffer_size)
        self.in_process: bool = self._in_process
        # Whether what is sent or posted goes past `publish`, `deliver` and the outbox. That makes a message 2 times as
        # fast, and a job 1.2 to 1.35 times.
        self._direct = self._in_process
        self.never_waits: bool = self._direct and max_buffer_size == math.inf
        self.opened_by: str | None = None
        self._task_group: TaskGroup | None = None
        self._entry: Entry = (None, 0)
        self.clean_up: CleanUp = CleanUp()
        self.neighbourhood: Any = None
        self.job_groups: dict[str, Any] | None = None if max_buffer_size == math.inf else {}
        # What the library itself sends on a bus whose publishing may wait goes out in order behind one task.
        self._outbox = self._new_lane("outbox", self._send_posted)
        # What users send before it is open goes out in order too, but holds up nothing of the library's.
        self._early = self._new_lane("early", self._publish_early)
        self._early_senders: dict[str, int] = {}
        self._early_gone = Event()

    def _new_lane(self, name: str, handle: Callable[[BusMessage], Awaitable[None]]) -> Lane[BusMessage]:
        return Lane(f"{self.name} {name}", handle)

    @property
    def accepts_at_once(self) -> bool:
        """Whether a job's messages are accepted in the step in which they are sent."""
        return self.never_waits

    # --- lifetime

    @property
    def is_open(self) -> bool:
        """Whether the bus is open, so that messages are being handled."""
        return self._tasks is not None

    @property
    def connection(self) -> str:
        """The state in one word, for `WorkerRunner.health`: ``"connected"`` if all is well, else ``"closed"``.

        Override it for a network that may be away for a while.
        """
        return "connected" if self.is_open else "closed"

    def in_words(self) -> str:
        """Describe the bus in one line, for `workerbus.dump`: its name, and its connection where that is not up.

        Override it for a network where messages may be waiting, and say how many.
        """
        return f"bus {self.name!r}" + ("" if self.connection == "connected" else f", which is {self.connection}")

    @property
    def delivers_at_once(self) -> bool:
        """Whether what was posted for somebody of this process has arrived."""
        return self.in_process

    @property
    def tasks(self) -> TaskHost:
        """The host of a transport's tasks: ``bus.tasks.start(function, name="reader")``.

        Raises:
            NotRunningError: The bus is not open; a `RuntimeError`.
        """
        if self._tasks is None:
            raise NotRunningError(f"bus {self.name!r} is not open: use 'async with bus:', or give it to a runner")
        return self._tasks

    async def start(self) -> None:
        """Connect. A hook for network buses, called when the bus is opened; override it and call ``super()``."""

    async def stop(self) -> None:
        """Disconnect. A hook for network buses, called before the bus is closed; override it and call ``super()``."""

    async def __aenter__(self) -> Self:
        """Open the bus: its tasks run from here to the end of the block.

        Raises:
            NotRunningError: The bus is open already; a `RuntimeError`.
            WrongLoopError: It is open in another thread, or another event loop; a `RuntimeError`.

        Guarantees: L7, R6.
        """
        self.check_loop()
        if self._task_group is not None:
            by = f" by runner {self.opened_by!r}" if self.opened_by else ""
            raise NotRunningError(
                f"bus {self.name!r} is open already{by}: open it once, around everything that uses it"
            )
        if self.opened_by is None:
            self.clean_up = CleanUp()  # that of an earlier run may have begun
        self._look_at_doors()
        group = self._task_group = create_task_group()
        await group.__aenter__()
        self._home = Home()
        self._thread = self._home.thread
        self._entry = entered_here()
        try:
            self._tasks = TaskHost(group, self.clean_up)
            self._tasks.turns = Turns()
            await self.start()
        except BaseException as exc:
            self._tasks = None
            await self._close_group(exc)
            raise
        self._early.open(self._tasks)
        self._outbox.open(self._tasks)
        for inbox in list(self._inboxes.values()):
            inbox.open(self._tasks)
        return self

    waits(__aenter__, lambda its: Wait(1, f"for bus {its['self'].name!r} to open"))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Close the bus: what was sent before it was open and what the library has posted goes out first.

        Raises:
            WrongLoopError: It is open in another thread, or another event loop; a `RuntimeError`.
            WrongTaskError: It was opened in another task; a `RuntimeError`. It is closed all the same.

        Guarantees: B4, L4, L7.
        """
        self.check_loop()
        tasks = self.tasks
        late: BaseException | None = None
        try:
            deadline = self.clean_up.deadline(exc)
            try:
                with self.clean_up.shield(deadline):  # 1. what waits goes out, while the transport is connected
                    await self._early.quiet()
                    await self._outbox.quiet()
            finally:
                with self.clean_up.shield(deadline):
                    await self.stop()  # 2. past the deadline, too: what it does before it first waits is still done
        except Exception as error:
            logger.exception("bus %r failed to stop", self.name, extra=about(runner=self.opened_by))
            exc = exc or error
        except BaseException as ending:  # noqa: BLE001 - raised again below, when all is closed
            late = exc = ending
        closing: list[Inbox] = []
        for name, inbox in list(self._inboxes.items()):  # 3. closed and made anew: the bus may be opened again
            if inbox.hosted_by_bus:
                inbox.close()
                closing.append(inbox)
                self._renew(name, inbox)
        self._outbox.close()
        self._early.close()
        self._outbox = self._new_lane("outbox", self._send_posted)
        self._early = self._new_lane("early", self._publish_early)
        self._early_senders.clear()
        self._early_gone.set()  # who waits finds the bus closed, and leaves the message for the next time
        self._early_gone = Event()
        self._tasks = None
        try:
            if not is_here(self._entry):
                await self._close_elsewhere(tasks, closing)
            if LEFT_OPEN:
                await close_left_open(self._entry[1])
            swallowed = await self._close_group(exc, closing)  # 4. handlers are cancelled and waited for
        finally:
            tasks.raise_fatal()
        if late is not None and not swallowed:
            raise late
        return swallowed

    async def _close_elsewhere(self, tasks: TaskHost, closing: Sequence[Inbox]) -> None:
        # The group can be left only where it was entered. Its scope is that task's, too; it is cancelled only if
        # something of a transport's runs on.
        group, self._task_group = self._task_group, None
        self._home = self._thread = None
        assert group is not None
        leave_open(self._entry, partial(group.__aexit__, None, None, None))
        for inbox in closing:
            inbox.cancel()
        with self.clean_up.shield():
            await tasks.gone()
        if tasks.running:
            group.cancel_scope.cancel()
            with self.clean_up.shield(current_time() + CLEANUP_SECONDS):
                await tasks.gone()
        raise WrongTaskError(f"bus {self.name!r}")

    async def _close_group(self, exc: BaseException | None, closing: Sequence[Inbox] = ()) -> bool | None:
        group, self._task_group = self._task_group, None
        assert group is not None
        self._home = self._thread = None
        group.cancel_scope.cancel()
        with self.clean_up.shield(self.clean_up.deadline(exc)) as shield:
            for inbox in closing:
                await inbox.quiet()
        if shield.cancelled_caught:
            late = enumerated([repr(inbox.name) for inbox in closing if inbox.busy])
            text = "bus %r waits for subscribers that refuse cancellation: %s"
            logger.warning(text, self.name, late, extra=about(runner=self.opened_by))
        if not isinstance(exc, get_cancelled_exc_class()):
            # Left without its error, so that it goes on as itself and not in an exception group.
            try:
                await group.__aexit__(None, None, None)
            except BaseExceptionGroup as several:
                raise unwrap_group(several) from None
            return False
        try:
            return await group.__aexit__(type(exc), exc, exc.__traceback__)
        except BaseExceptionGroup as several:
            raise unwrap_group(several) from None

    # --- messages

    async def send(self, message: BusMessage) -> None:
        """Send a message.

        Waits for room in a bounded lane, and for the transport if the bus has one. Every 64th call lets other tasks
        run, after the message is in; with broadcasts to many, more calls do.

        Raises:
            MessageTypeError: It is not a message, or its class has no lane; a `TypeError`.
            anyio.WouldBlock: A subscriber's own code sends to its own full lane, or the handler of a job that this code
                awaits does.
            WrongLoopError: The bus is open in another thread; a `RuntimeError`.

        Guarantees: B2, B4, B9, L7.
        """
        if not isinstance(message, BusMessage) or message.system is None:
            raise MessageTypeError(
                f"cannot send {message!r}: a message is an instance of a subclass of BusDataMessage or BusSystemMessage"
            )
        counts = self._counts
        counts.sent += 1
        if self.never_waits:
            self._hand_out(message)
        elif not self._direct and not message.local:
            await self._publish_in_turn(message)
        else:
            await self._hand_out_in_line(message)
        if not counts.sent % BATCH or (counts.handed_out >= DELIVERIES and counts.sent > counts.paused + 1):
            await self._pause()

    async def _pause(self) -> None:
        counts = self._counts
        # Others may have delivered more meanwhile.
        deliveries, counts.handed_out, counts.paused = min(counts.handed_out, DELIVERIES), 0, counts.sent
        await cancel_shielded_checkpoint()
        if self._tasks is not None and self._tasks.turns is not None:
            await self._tasks.turns.catch_up(deliveries)

    async def _publish_in_turn(self, message: BusMessage) -> None:
        self.check_loop()
        while self.is_open and message.source in self._early_senders:  # 1. behind this sender's own early messages
            await self._early_gone.wait()
        if not self.is_open:  # 2. early itself, perhaps since the bus was closed during the wait
            self._early_senders[message.source] = self._early_senders.get(message.source, 0) + 1
            self._early.put(message)
            return
        outbox = self._outbox
        if (outbox.waiting or outbox.busy) and get_current_task().id != outbox.task_id:
            await outbox.quiet()  # 3. behind what was posted, unless it is posted itself: it would wait for itself
        await self.publish(message)

    def post(self, message: BusMessage) -> None:
        """Send a message of the library's own without waiting, past every bound."""
        if self._direct or (message.local and not self._replaced):
            self._counts.posted += 1
            self._hand_out(message)
        else:
            self.check_loop()
            self._outbox.put(message)

    def post_here(self, message: BusMessage) -> None:
        """Post a message to a subscriber of this process, never to one elsewhere that gets its name later."""
        if message.target in self._inboxes:
            self.post(message)

    async def _publish_early(self, message: BusMessage) -> None:
        try:
            await self.publish(message)
        except Exception:
            logger.exception(_NOT_SENT, self.name, type(message).__name__, extra=self._about(message))
        left = self._early_senders.get(message.source, 1) - 1
        if left:
            self._early_senders[message.source] = left
        else:
            self._early_senders.pop(message.source, None)
            self._early_gone.set()
            self._early_gone = Event()

    async def _send_posted(self, message: BusMessage) -> None:
        try:
            await self.send(message)
        except Exception as error:
            logger.exception(_NOT_SENT, self.name, type(message).__name__, extra=self._about(message))
            if isinstance(error, WireError) and isinstance(message, Answer):
                self.post(error_instead_of(message, error))

    @abstractmethod
    async def publish(self, message: BusMessage) -> None:
        """Bring a message to all connected buses, this one included. Never called for a local message."""

    async def deliver(self, message: BusMessage) -> None:
        """Deliver an incoming message to the subscribers here.

        Those that have room get it first. Then this waits until the others have room, so a transport that awaits it
        reads no faster than they handle messages. A local message is refused: it cannot have come over a network.

        Raises:
            anyio.WouldBlock: A subscriber's own code sends to its own full lane; then nobody got the message.

        Guarantees: B8, B9.
        """
        if not self._arrives(message):
            return
        if self.max_buffer_size == math.inf:
            self._hand_out(message)
        else:
            await self._hand_out_in_line(message)

    def on_message_received(self, message: BusMessage) -> None:
        """Deliver an incoming message, as `deliver` does, but ignore bounds instead of waiting for room."""
        if self._arrives(message):
            self._hand_out(message)

    def keep_name(self, name: str) -> None:
        """Reserve the name of a worker that is about to leave and will be back, until `free_name`."""

    def free_name(self, name: str) -> None:
        """Give a reserved name back, unless a worker here has it."""

    def check_travels(self, message: BusMessage) -> None:
        """Raise `WireError` if a message cannot travel to its target; a hook for transports that can tell.

        Args:
            message: The message, which is not sent.
        """

    def is_late(self, message: BusMessage) -> bool:
        """Whether a message came from another process that has gone since; False if none is known."""
        return False

    def _about(self, message: BusMessage) -> dict[str, str]:
        return about(runner=self.opened_by, job=getattr(message, "job_id", None))

    def _arrives(self, message: BusMessage) -> bool:
        if message.local:
            self._counts.refused += 1
            name = type(message).__name__
            logger.warning("bus %r refused a local %s from the network", self.name, name, extra=self._about(message))
            return False
        self._counts.posted += self._direct  # no network leads here: it was sent, by the short way
        return True
