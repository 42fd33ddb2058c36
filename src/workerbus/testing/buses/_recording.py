"""A bus that keeps what was sent over it (O1).

It is a `MemoryBus` with a tap, which keeps each message in its sender's step, just before it is handed out. Nothing of
B1 to B9 changes. `RecordingBus.wait_for` checks its conditions in the task that waits, not in the sender's step.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from anyio import Event, current_time
from attrs import frozen

from workerbus._concurrency.waiting import Wait, waits
from workerbus.bus._memory import MemoryBus
from workerbus.messages import BusMessage
from workerbus.testing.buses._telling import Teller

M = TypeVar("M", bound=BusMessage)


@frozen
class RecordedMessage:
    """A message that was sent.

    Args:
        number: Which message of its bus it was, from 1; `RecordingBus.clear` does not begin again.
        time: When it was sent, in seconds, by the clock of `anyio.current_time`.
        message: The message itself.
    """

    number: int
    time: float
    message: BusMessage


class _Waiting:
    """What has been sent since somebody began to wait, and was not looked at yet."""

    __slots__ = ("came", "news")

    def __init__(self) -> None:
        self.came: list[BusMessage] = []
        self.news = Event()

    def put(self, message: BusMessage) -> None:
        self.came.append(message)
        self.news.set()


class RecordingBus(MemoryBus):
    """A `MemoryBus` that keeps every message that was sent over it, the library's own and local ones included.

    ::

        bus = RecordingBus()
        async with WorkerRunner(bus=bus) as runner:
            ...
            request = await bus.wait_for(BusJobRequestMessage, target="tts")
        print(bus)

    A message whose `send` raised, because it was no message or met the sender's own full lane, is not kept. A message
    whose `send` was cancelled while it waited for room is kept: some subscribers may have got it.

    Args:
        max_buffer_size: How many messages may wait in each data lane; see `WorkerBus`.
        name: The name of the bus, for logs; made up by default.

    Guarantees: O1.
    """

    def __init__(self, *, max_buffer_size: float = math.inf, name: str | None = None) -> None:
        super().__init__(max_buffer_size=max_buffer_size, name=name)
        self._kept: list[tuple[float, BusMessage]] = []
        self._forgotten = 0
        self._begun: float | None = None
        self._waiting: set[_Waiting] = set()
        self.add_tap(self._keep)

    # --- keeping

    async def start(self) -> None:
        """Begin the story, whose times count from here."""
        await super().start()
        if self._begun is None:
            self._begun = current_time()

    def _keep(self, message: BusMessage) -> None:
        now = current_time()
        if self._begun is None:
            self._begun = now
        self._kept.append((now, message))
        for waiting in self._waiting:
            waiting.put(message)

    # --- asking

    @property
    def records(self) -> list[RecordedMessage]:
        """The messages that were sent, in the order of sending."""
        numbered = enumerate(self._kept, self._forgotten + 1)
        return [RecordedMessage(number, time, message) for number, (time, message) in numbered]

    @overload
    def messages(
        self,
        kind: type[M],
        *,
        source: str | None = None,
        target: str | None = None,
        job_id: str | None = None,
        matching: Callable[[M], object] | None = None,
    ) -> list[M]: ...

    @overload
    def messages(
        self,
        *,
        source: str | None = None,
        target: str | None = None,
        job_id: str | None = None,
        matching: Callable[[BusMessage], object] | None = None,
    ) -> list[BusMessage]: ...

    def messages(
        self,
        kind: type[Any] = BusMessage,
        *,
        source: str | None = None,
        target: str | None = None,
        job_id: str | None = None,
        matching: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """Return the messages that were sent, in the order of sending.

        Args:
            kind: Only messages of this class.
            source: Only messages of this sender.
            target: Only messages for this subscriber.
            job_id: Only messages about this job.
            matching: Only messages for which this returns something true.
        """
        wanted = _condition(kind, source, target, job_id, matching)
        return [message for _, each in self._kept if (message := wanted(each)) is not None]

    @overload
    async def wait_for(
        self,
        kind: type[M],
        *,
        source: str | None = None,
        target: str | None = None,
        job_id: str | None = None,
        matching: Callable[[M], object] | None = None,
    ) -> M: ...

    @overload
    async def wait_for(
        self,
        *,
        source: str | None = None,
        target: str | None = None,
        job_id: str | None = None,
        matching: Callable[[BusMessage], object] | None = None,
    ) -> BusMessage: ...

    async def wait_for(
        self,
        kind: type[Any] = BusMessage,
        *,
        source: str | None = None,
        target: str | None = None,
        job_id: str | None = None,
        matching: Callable[[Any], object] | None = None,
    ) -> Any:
        """Wait for a message to be sent; one that was sent already counts.

        Args:
            kind: The class of the message.
            source: The sender; by default, any.
            target: The subscriber that it is for; by default, any.
            job_id: The job that it is about; by default, any.
            matching: Called with each message that is as the others say; the first for which it returns something true
                is the one.

        Returns:
            The first such message.
        """
        wanted = _condition(kind, source, target, job_id, matching)
        waiting = _Waiting()
        waiting.came = [message for _, message in self._kept]
        self._waiting.add(waiting)
        try:
            while True:
                came, waiting.came, waiting.news = waiting.came, [], Event()
                for each in came:
                    message = wanted(each)
                    if message is not None:
                        return message
                await waiting.news.wait()
        finally:
            self._waiting.discard(waiting)

    waits(wait_for, lambda its: Wait(0, _wanted_in_words(its)))

    def clear(self) -> None:
        """Forget the messages that were sent so far."""
        self._forgotten += len(self._kept)
        self._kept.clear()

    # --- telling

    def story(self) -> str:
        """Return a line for each message: when (in seconds since the bus was opened), from whom to whom, and what."""
        teller = Teller()
        begun = self._begun or 0.0
        lines = [(f"{time - begun:.2f} s", teller.way(message), teller.says(message)) for time, message in self._kept]
        ago, way = (max((len(line[column]) for line in lines), default=0) for column in (0, 1))
        return "\n".join(f"{line[0]:>{ago}}  {line[1]:<{way}}   {line[2]}" for line in lines)

    def __str__(self) -> str:
        return self.story()


def _wanted_in_words(its: Mapping[str, Any]) -> str:
    given = (("from", its["source"]), ("to", its["target"]), ("about job", its["job_id"]))
    way = "".join(f" {preposition} {name!r}" for preposition, name in given if name is not None)
    which = "" if its["matching"] is None else " that matches"
    return f"for a {its['kind'].__name__}{way}{which} to be sent over bus {its['self'].name!r}"


def _condition(
    kind: type[M],
    source: str | None,
    target: str | None,
    job_id: str | None,
    matching: Callable[[M], object] | None,
) -> Callable[[BusMessage], M | None]:
    if not isinstance(kind, type):
        raise TypeError(f"kind is a class of messages, not {kind!r}")

    def wanted(message: BusMessage) -> M | None:
        if (
            isinstance(message, kind)
            and (source is None or message.source == source)
            and (target is None or message.target == target)
            and (job_id is None or getattr(message, "job_id", None) == job_id)
            and (matching is None or matching(message))
        ):
            return message
        return None

    return wanted
