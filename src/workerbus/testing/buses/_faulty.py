"""A bus on which messages are late, doubled, lost or held back, as a seed decides (B8, B9, R6).

A `FaultyBus` is one end of a network, and the network is another bus: what is published at an end goes out over that
bus, sooner or later (`Carrier`), and from there everything arrives at every end (`Arrivals`). What happens to a message
on its way out is drawn here; splits stop it where it arrives. What the ends share is in `Network`.
"""

import math
from collections.abc import Collection
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from anyio import current_time

from workerbus.bus._bus import WorkerBus
from workerbus.errors import NotRunningError
from workerbus.messages import BusMessage
from workerbus.testing.buses._arrivals import Arrivals
from workerbus.testing.buses._carrier import Carrier
from workerbus.testing.buses._faults import Faults
from workerbus.testing.buses._network import Network, Split
from workerbus.testing.buses._story import Fault
from workerbus.testing.buses._telling import counted, in_seconds


class FaultyBus(WorkerBus):
    """One end of a network with faults, which are drawn from a seed according to a plan (`Faults`).

    It wraps any bus and is itself one. A runner on an end sends even messages to its own workers over the network. In a
    test with several runners each has its own end, and sees the others' workers as remote::

        async with FaultyBus(MemoryBus(), seed=7, faults=Faults(delay=0.2, lose=0.01)) as left:
            right = left.end("right")
            ...  # WorkerRunner(bus=left), WorkerRunner(bus=right)
            left.split("left", "right", seconds=2.0)
        print(left)

    The same seed and the same program in virtual time give the same story. What happens to a message depends on its
    sender's name, so give names to runners and workers: made-up ones are numbered as they are met.

    An end opens the wrapped bus, if nobody else has, and closes it. A wrapped bus that a runner has opened, with its
    own end, is that runner's alone; to share it, open it, or an end, around all runners. An end that closes sends what
    is still delayed at once, in order; what a split held back from it never arrives. Both are in the story.

    Local messages stay at their end. What is sent on the wrapped bus itself arrives at all ends, untouched. A sender is
    at the end where it sent last.

    Args:
        bus: The bus that everything goes over.
        seed: The seed that faults are drawn from.
        faults: The plan of faults; by default there are none.
        name: The end's name, in the story and in logs.
        max_buffer_size: How many messages may wait in each data lane of a subscriber at this end. Further messages wait
            at the end, in line; their senders, who are elsewhere, do not.

    Raises:
        TypeError: ``bus`` is not a bus, or a `FaultyBus` itself, or ``faults`` is not a `Faults`.

    Guarantees: B8, B9, R6.
    """

    _network: Network

    def __init__(
        self,
        bus: WorkerBus,
        *,
        seed: int | str = 0,
        faults: Faults | None = None,
        name: str = "left",
        max_buffer_size: float = math.inf,
    ) -> None:
        if not isinstance(bus, WorkerBus):
            raise TypeError(f"a FaultyBus wraps a WorkerBus, not {bus!r}")
        if isinstance(bus, FaultyBus):
            raise TypeError(f"bus {bus.name!r} is a FaultyBus already: for another end of its network, use its end()")
        self._join(Network(bus, seed, _checked(faults if faults is not None else Faults())), name, max_buffer_size)

    def end(self, name: str, *, max_buffer_size: float = math.inf) -> "FaultyBus":
        """Return another end of the network; it shares seed, plan and story with the first.

        Args:
            name: The name of the new end.
            max_buffer_size: How many messages may wait in each data lane of a subscriber there.

        Raises:
            NameTakenError: There is an end of that name; a `ValueError`.

        Guarantees: B9.
        """
        other = FaultyBus.__new__(FaultyBus)
        other._join(self._network, name, max_buffer_size)  # noqa: SLF001 - another of this very class
        return other

    def _join(self, network: Network, name: str, max_buffer_size: float) -> None:
        super().__init__(max_buffer_size=max_buffer_size, name=name)
        self._network = network
        self._carrier = Carrier(name, network.bus, lambda: self.tasks)
        self._arrivals = Arrivals(self, network, self._concerns_somebody)
        self._closing: AsyncExitStack | None = None
        network.add(self)

    # --- what it is

    @property
    def seed(self) -> int | str:
        """The seed that the network's faults are drawn from."""
        return self._network.seed

    @property
    def faults(self) -> Faults:
        """The network's plan; it may be set at any time, at any end, and applies to messages sent from then on."""
        return self._network.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._network.faults = _checked(faults)

    @property
    def records(self) -> list[Fault]:
        """Every fault of the network so far, in the order in which they happened."""
        return list(self._network.records)

    def story(self) -> str:
        """Return a line for each fault of the network so far: seconds since its first end opened, and what happened."""
        return self._network.tell()

    def __str__(self) -> str:
        return self.story()

    # --- splits

    def split(self, *sides: str | Collection[str], seconds: float | None = None, loses: bool | None = None) -> None:
        """Cut ends off from each other, from now on.

        Args:
            sides: For each side the name of an end, or several names. One side alone is cut off from all other ends;
                without any, each end is cut off from each other. An end that comes later is on no side.
            seconds: How many seconds the split lasts; None until `heal` is called.
            loses: Whether messages that meet the split are lost; otherwise they arrive, in order, when it is over. By
                default as the plan says.

        Raises:
            ValueError: There is no end of a name, a name comes twice, there are no two sides, or the seconds are
                negative.
        """
        if seconds is not None and not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be a number, finite and not less than 0, or None, not {seconds!r}")
        self._network.split(sides, for_seconds=seconds, loses=loses)

    def heal(self) -> None:
        """End every split of the network."""
        for split in list(self._network.splits):
            self._network.heal(split)

    def watch(self, split: Split) -> None:
        """End a split when its time is over; called by the network."""
        if split.until is not None:
            self.tasks.start(self._network.heal_in_time, split, name=f"{self.name} split")

    def release(self) -> int:
        """Let in what no split holds back any more; called by the network."""
        return self._arrivals.release()

    # --- lifetime

    async def __aenter__(self) -> Self:
        """Open the end, and the wrapped bus if nobody has.

        Raises:
            NotRunningError: The end is open already, or the wrapped bus is a runner's own; a `RuntimeError`.

        Guarantees: R6.
        """
        async with AsyncExitStack() as stack:
            await self._open_wrapped(stack)
            await super().__aenter__()
            stack.push_async_exit(super().__aexit__)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Close the end, and the wrapped bus if the end has opened it."""
        closing, self._closing = self._closing, None
        if closing is None:
            raise NotRunningError(f"bus {self.name!r} is not open")
        return await closing.__aexit__(exc_type, exc, traceback)

    async def _open_wrapped(self, stack: AsyncExitStack) -> None:
        bus = self._network.bus
        if bus.opened_by is not None:
            raise NotRunningError(
                f"bus {bus.name!r}, which {self.name!r} is an end of, is open for runner {bus.opened_by!r} alone: "
                "to share it, open it, or one of its ends, around all runners, with 'async with bus:'"
            )
        if bus.is_open:
            return
        if self.opened_by is not None:
            bus.opened_by, bus.clean_up = self.opened_by, self.clean_up
            stack.callback(self._give_back)
        await stack.enter_async_context(bus)

    def _give_back(self) -> None:
        self._network.bus.opened_by = None

    async def start(self) -> None:
        """Let messages arrive from the wrapped bus."""
        await super().start()
        self._network.begin()
        self._carrier.open()
        await self._arrivals.open()
        for split in self._network.splits:
            self.watch(split)

    async def stop(self) -> None:
        """Send what is still delayed, and let nothing arrive any more."""
        # This may be cancelled while messages are sent: whatever is left then is dropped, the story says so, and the
        # end leaves the wrapped bus in any case.
        try:
            delayed = await self._carrier.hurry()
            if delayed:
                goes = counted(delayed, "delayed message goes", "delayed messages go")
                self._network.note("hurried", f"{self.name} closes; {goes} out at once")
            await self._carrier.send_the_rest()
        finally:
            dropped = self._carrier.drop()
            if dropped:
                text = f"{self.name} closes; {counted(dropped, 'delayed message')} did not go out in time"
                self._network.note("dropped", text)
            held = await self._arrivals.close()
            if held:
                text = f"{self.name} closes; {counted(held, 'message')} held back from it will never arrive"
                self._network.note("dropped", text)
        await super().stop()

    # --- messages

    async def publish(self, message: BusMessage) -> None:
        """Send a message over the wrapped bus, when and as often as was drawn for it."""
        network = self._network
        fate = network.fate(self.name, message)
        if fate.lost:
            network.befalls("lost", message, "is lost")
            return
        if len(fate.delays) > 1:
            network.befalls("duplicated", message, "goes out twice")
        for delay in fate.delays:
            due = self._carrier.due(message.source, delay)
            wait = due - current_time()
            if wait > 0:
                network.befalls("delayed", message, f"is delayed by {in_seconds(wait)}", seconds=wait)
            await self._carrier.send(message, due)

    def _concerns_somebody(self, message: BusMessage) -> bool:
        return message.target is None or bool(self._everything) or self.has_subscriber(message.target)


def _checked(faults: Faults) -> Faults:
    if not isinstance(faults, Faults):
        raise TypeError(f"faults is a Faults, not {faults!r}")
    return faults
