"""What may happen to a message between two processes, and the draw that decides it (X2-X4).

A draw depends on the seed, on the two ends and on the number of the message among those that one has sent to the other,
and on nothing else: the order of tasks does not change it, and neither does another probability.
"""

from collections.abc import Callable
from random import Random

from attrs import field, frozen

from workerbus.messages import BusMessage
from workerbus.testing.buses._deciding import Decider
from workerbus.testing.buses._faults import is_predicate, is_probability, is_span, span, within


@frozen
class PeerFate:
    """What was drawn for one message to one peer.

    Args:
        lost: Whether it is stored and never arrives: a gap.
        delay: Seconds from its being stored to its arrival.
        again: Seconds until it arrives a second time, under the same number; None if it does not.
        late: Whether it comes once more when its sender's life is over.
    """

    lost: bool = False
    delay: float = 0.0
    again: float | None = None
    late: bool = False


@frozen
class StoringFate:
    """What was drawn for one message, whomever it is for.

    Args:
        delay: Seconds until it is stored.
        confirmed: Whether its sender learns that.
        split: Seconds for which its sender's end is cut off, beginning with this message; None if it is not.
        loses_lease: Whether its sender's end is declared lost with this message.
        killed: Whether its sender's process is gone behind this message.
    """

    delay: float = 0.0
    confirmed: bool = True
    split: float | None = None
    loses_lease: bool = False
    killed: bool = False


@frozen(kw_only=True)
class PeerFaults:
    """A plan of the faults of a `PeerNetwork`; by default there are none.

    What happens is drawn for each message. Whatever is drawn, the messages of one end to another arrive in the order in
    which they were sent.

    Args:
        store: Seconds until a message is stored, so that its `send` returns: between 0 and this, or a range (least,
            most). What is stored later than the sender's ``send_timeout`` is a `BusUnavailable`.
        unconfirmed: The probability that a message is stored, and its sender never learns that.
        delay: Seconds that a stored message is on its way to a peer, likewise.
        duplicate: The probability that a message arrives twice, as one does that was sent again since it was not known
            whether it was stored.
        lose: The probability that a stored message never arrives. The receiver finds that out with the next message, or
            within a beat, and begins another life.
        late: The probability that a message comes once more when its sender's life is over.
        split: The probability that a message begins a split, which cuts its sender's end off from all others.
        split_seconds: How many seconds such a split lasts, likewise. What meets it arrives when it is over.
        fence: The probability that the sender's end is declared lost with a message, though it lives.
        kill: The probability that a message is the last one of its sender's process, which is gone as with
            `PeerNetwork.kill`: once the message is stored, or before that if it is stored later.
        spare: Called with each message; if it returns something true, no fault is drawn for that one. It still waits
            behind those before it.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A probability is not from 0 to 1, or seconds are negative.

    Guarantees: X2, X3, X4.
    """

    store: tuple[float, float] = field(default=(0.0, 0.0), converter=span, validator=is_span)
    unconfirmed: float = field(default=0.0, validator=is_probability)
    delay: tuple[float, float] = field(default=(0.0, 0.0), converter=span, validator=is_span)
    duplicate: float = field(default=0.0, validator=is_probability)
    lose: float = field(default=0.0, validator=is_probability)
    late: float = field(default=0.0, validator=is_probability)
    split: float = field(default=0.0, validator=is_probability)
    split_seconds: tuple[float, float] = field(default=(0.0, 1.0), converter=span, validator=is_span)
    fence: float = field(default=0.0, validator=is_probability)
    kill: float = field(default=0.0, validator=is_probability)
    spare: Callable[[BusMessage], object] | None = field(default=None, validator=is_predicate)

    def _spares(self, message: BusMessage) -> bool:
        return self.spare is not None and bool(self.spare(message))

    def draw_storing(self, message: BusMessage, seed: object, end: str, number: int) -> StoringFate:
        """Draw what happens to a message before it is stored, and to its sender's end.

        Args:
            message: The message, for ``spare``.
            seed: The seed of all draws.
            end: The name of the sender's end.
            number: Which of the end's messages it is.
        """
        if self._spares(message):
            return StoringFate()
        random = Random(f"{seed}/{end}/{number}")  # noqa: S311 - to be drawn again, not to be secret
        delay, length, confirmed, splits, fenced, killed = (random.random() for _ in range(6))
        return StoringFate(
            delay=within(self.store, delay),
            confirmed=confirmed >= self.unconfirmed,
            split=within(self.split_seconds, length) if splits < self.split else None,
            loses_lease=fenced < self.fence,
            killed=killed < self.kill,
        )

    def draw(self, message: BusMessage, seed: object, way: str, number: int) -> PeerFate:
        """Draw what happens to a message on its way to one peer.

        Args:
            message: The message, for ``spare``.
            seed: The seed of all draws.
            way: The names of the two ends.
            number: Which of the messages on that way it is.
        """
        if self._spares(message):
            return PeerFate()
        random = Random(f"{seed}/{way}/{number}")  # noqa: S311 - to be drawn again, not to be secret
        delay, second, lost, twice, late = (random.random() for _ in range(5))
        return PeerFate(
            lost=lost < self.lose,
            delay=within(self.delay, delay),
            again=within(self.delay, second) if twice < self.duplicate else None,
            late=late < self.late,
        )

    def decide_storing(
        self, message: BusMessage, decider: Decider, point: str, words: Callable[[], str]
    ) -> StoringFate:
        """Have decided what happens to a message before it is stored: of what has a probability, one thing at most.

        Args:
            message: The message, for ``spare``.
            decider: Decides.
            point: Which message it is.
            words: Returns what the message is called.
        """
        if self._spares(message):
            return StoringFate()
        least, most = self.store
        kinds = {
            "stored-late": most - least,
            "unconfirmed": self.unconfirmed,
            "split": self.split,
            "fenced": self.fence,
            "killed": self.kill,
        }
        kind = decider.fault(point, [kind for kind, possible in kinds.items() if possible], words)
        return StoringFate(
            delay=most if kind == "stored-late" else least,
            confirmed=kind != "unconfirmed",
            split=self.split_seconds[1] if kind == "split" else None,
            loses_lease=kind == "fenced",
            killed=kind == "killed",
        )

    def decide(self, message: BusMessage, decider: Decider, point: str, words: Callable[[], str]) -> PeerFate:
        """Have decided what happens to a message on its way to one peer, likewise.

        Args:
            message: The message, for ``spare``.
            decider: Decides.
            point: Which message it is, to whom.
            words: Returns what the message is called.
        """
        if self._spares(message):
            return PeerFate()
        least, most = self.delay
        kinds = {"lost": self.lose, "twice": self.duplicate, "delayed": most - least, "once-more": self.late}
        kind = decider.fault(point, [kind for kind, possible in kinds.items() if possible], words)
        return PeerFate(
            lost=kind == "lost",
            delay=most if kind == "delayed" else least,
            again=most if kind == "twice" else None,
            late=kind == "once-more",
        )
