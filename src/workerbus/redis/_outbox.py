"""What is to be written to the inboxes of peers: the line, the batches, and what is done when a write fails (X2, X3).

The line knows no server. The bus puts entries in, in the step in which a message is sent. The writer takes a batch,
writes it as a whole, and says what became of it.

1. An entry gets its number in the session when it is first taken for a batch, and keeps it. So one that its sender has
   given up before that leaves no gap.
2. A batch whose outcome is unknown is written again, with the same numbers: receivers drop what they have.
3. Only one batch is under way at a time, and whatever is put back stands before all that waits. So the order of the
   line is the order at each receiver.
4. A peer that is gone has no inbox. What is for it leaves the line.
5. A server that was started anew, or another one, may have lost what it had confirmed; if that was the last, no number
   shows that it is missing. So with each new connection all get a mark, which has a number and says nothing.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from anyio import Event

from workerbus._concurrency.waiting import Wait, waits
from workerbus._values import Peer
from workerbus.bus._peers import Receipt, Session
from workerbus.errors import BusUnavailable

MARK: Final = b"mark"
"""The kind of an entry that is there for its number alone."""
BATCH_ENTRIES: Final = 512
"""So many entries are written at once, at most."""
BATCH_BYTES: Final = 1 << 20
"""With so many bytes, a batch takes no further entry."""
HIGH_ENTRIES: Final = 20_000
"""While more than so many entries wait, senders of messages that are not confirmed wait, too."""
HIGH_BYTES: Final = 32 << 20
"""Or more than so many bytes."""

CUT_OFF: Final = "this process left the network, or was cut off from it"
"""Why what waits cannot be stored when a life ends; a broadcast neither, though nobody is left whom it is for."""


class SharedReceipt(Receipt):
    """The receipt of a message for one peer or several: settled when it is stored for all that are left.

    Args:
        copies: For how many peers the message is.
        target: Whether it has a target, which it does not reach where the peer is gone.
    """

    __slots__ = ("_copies", "target")

    def __init__(self, copies: int, *, target: bool) -> None:
        super().__init__()
        self._copies = copies
        self.target: bool = target

    def one_stored(self) -> None:
        """Note that the copy for one peer is stored, or has nowhere to go any more."""
        self._copies -= 1
        if not self._copies:
            self.settle()


class Entry:
    """A message for one peer, in the line.

    Attributes:
        peer: The peer.
        data: The message, as it goes over the wire; nothing, for a mark.
        receipt: What its sender may wait for.
        since: When it was put in line, on the event loop's clock.
        number: Its number in the session with the peer; 0 until it is first written.
        over: Whether its receipt has been told what became of it.
    """

    __slots__ = ("data", "number", "over", "peer", "receipt", "since")

    def __init__(self, peer: Peer, data: bytes, receipt: SharedReceipt, since: float) -> None:
        self.peer: Peer = peer
        self.data: bytes = data
        self.receipt: SharedReceipt = receipt
        self.since: float = since
        self.number: int = 0
        self.over: bool = False

    def stored(self) -> None:
        """Say that it is stored."""
        if not self.over:
            self.over = True
            self.receipt.one_stored()

    def undeliverable(self, bus: str, why: str = "") -> None:
        """Say that its peer is gone, or else why it cannot be stored for anybody."""
        if self.over:
            return
        self.over = True
        if self.receipt.target or why:
            why = why or f"the peer {self.peer.name!r}, where it was to go, is gone"
            self.receipt.settle(BusUnavailable(bus, why, maybe_stored=self.number > 0))
        else:
            self.receipt.one_stored()


class Outbox:
    """The line of one bus.

    Args:
        bus: The bus's name, for errors.
        session: Returns the session with the peer of an incarnation.

    Attributes:
        entries: How many entries are not stored.
        size: How many bytes they have.
    """

    def __init__(self, bus: str, session: Callable[[str], Session | None]) -> None:
        self._bus = bus
        self._session = session
        self._line: deque[Entry] = deque()
        self._batch: list[Entry] = []
        self._wake: Event | None = None
        self._changed: Event | None = None
        self._sweep_at = HIGH_ENTRIES
        self.entries: int = 0
        self.size: int = 0

    def put(self, data: bytes, peers: Iterable[Peer], receipt: SharedReceipt, now: float) -> None:
        """Put a message for some peers at the end of the line."""
        for peer in peers:
            self._line.append(Entry(peer, data, receipt, now))
            self.entries += 1
            self.size += len(data)
        if self.entries > self._sweep_at:
            self._sweep()
        if self._wake is not None:
            self._wake.set()

    def _sweep(self) -> None:
        """Let leave what its senders have given up meanwhile: without a server, it would stay."""
        waiting = [entry for entry in self._line if entry.number or not entry.receipt.withdrawn]
        if len(waiting) < len(self._line):
            for entry in self._line:
                if not entry.number and entry.receipt.withdrawn:
                    self._leave(entry)
            self._line = deque(waiting)
            self._tell_change()
        self._sweep_at = max(HIGH_ENTRIES, 2 * self.entries)

    def mark(self, peers: Iterable[Peer], now: float) -> None:
        """Put a mark in line for all peers who were sent something, so that they notice if that is lost.

        Whatever waits for a peer already does the same.
        """
        waiting = {entry.peer for entry in (*self._batch, *self._line)}
        sessions = ((peer, self._session(peer.incarnation)) for peer in peers if peer not in waiting)
        sent = [peer for peer, session in sessions if session is not None and session.sent]
        self.put(b"", sent, SharedReceipt(len(sent), target=False), now)

    # --- the writer

    def wake(self) -> None:
        """Let the writer look whether there is something else to write."""
        if self._wake is not None:
            self._wake.set()

    async def next_batch(self, also: Callable[[], bool] = lambda: False) -> Sequence[Entry]:
        """Wait for something to write, and return it: the same batch as before, until it is settled.

        Args:
            also: Returns whether there is something else to write, so that the batch may be empty; see `wake`.
        """
        while not self._batch:
            self._fill()
            if self._batch or also():
                break
            self._wake = Event()
            await self._wake.wait()
            self._wake = None
        return self._batch

    def _fill(self) -> None:
        size, line, before = 0, self._line, self.entries
        while line and len(self._batch) < BATCH_ENTRIES and size < BATCH_BYTES:
            entry = line.popleft()
            session = self._session(entry.peer.incarnation)
            if session is None:
                self._leave(entry)
                entry.undeliverable(self._bus)
            elif entry.number == 0 and entry.receipt.withdrawn:
                self._leave(entry)
            else:
                if entry.number == 0:
                    entry.number = session.next_number()
                    entry.receipt.written = True
                size += len(entry.data)
                self._batch.append(entry)
        if self.entries < before:
            self._tell_change()

    def settle(self, stored: Sequence[bool | None]) -> None:
        """Say what became of the batch.

        Args:
            stored: For each entry whether it is stored; None where the peer has no inbox, so that it never will be.
        """
        batch, self._batch = self._batch, []
        again: list[Entry] = []
        for entry, outcome in zip(batch, stored, strict=True):
            if outcome is False:
                again.append(entry)
                continue
            self._leave(entry)
            if outcome:
                entry.stored()
            else:
                entry.undeliverable(self._bus)
        self._line.extendleft(reversed(again))
        self._tell_change()

    def drop(self, peer: Peer, why: str = "") -> None:
        """Let all that is for a peer leave the line, since it is gone, or since this bus is, for the reason given."""
        mine = [entry for entry in (*self._batch, *self._line) if entry.peer == peer]
        if not mine:
            return
        # One that is being written stays in the batch, which is settled as a whole; its receipt is settled once.
        self._line = deque(entry for entry in self._line if entry.peer != peer)
        under_way = {id(entry) for entry in self._batch}
        for entry in mine:
            if id(entry) not in under_way:
                self._leave(entry)
            entry.undeliverable(self._bus, why)
        self._tell_change()

    def drop_all(self) -> None:
        """Let all leave the line, since this life is over."""
        for entry in (*self._batch, *self._line):
            self._leave(entry)
            entry.undeliverable(self._bus, CUT_OFF)
        self._batch.clear()
        self._line.clear()
        self._tell_change()

    def _leave(self, entry: Entry) -> None:
        self.entries -= 1
        self.size -= len(entry.data)

    # --- those who wait

    @property
    def crowded(self) -> bool:
        """Whether so much waits that senders are to wait, too."""
        return self.entries > HIGH_ENTRIES or self.size > HIGH_BYTES

    async def room(self) -> None:
        """Wait until the line is not crowded any more."""
        while self.crowded:
            await self._change()

    waits(room, lambda its: Wait(1, f"for the network to store some of the {its['self'].entries} messages that wait"))

    async def empty(self) -> None:
        """Wait until nothing waits."""
        while self.entries:
            await self._change()

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = Event()
        await self._changed.wait()

    def _tell_change(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
