"""What may happen to a message, and the draw that decides it.

A draw depends on the seed, on the sender and on the number of the message among those of its sender, and on nothing
else: the order of tasks does not change it, and neither does another probability.
"""

import math
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import Attribute, field, frozen

from workerbus.messages import BusMessage
from workerbus.testing.buses._deciding import Decider

Seconds = float | tuple[float, float]


def span(value: Seconds) -> tuple[float, float]:
    # A number is a range that begins at 0; the validator sees to what is neither.
    return (0.0, value) if isinstance(value, int | float) and not isinstance(value, bool) else value  # type: ignore[return-value]  # a bool is refused there, too


def is_span(_faults: object, attribute: "Attribute[Any]", value: Any) -> None:
    is_pair = isinstance(value, tuple) and len(value) == 2
    if not is_pair or not all(isinstance(each, int | float) and not isinstance(each, bool) for each in value):
        raise TypeError(f"{attribute.name} is a number of seconds, or a range (least, most) of them, not {value!r}")
    if not 0 <= value[0] <= value[1] < math.inf:
        shown = repr(value[1]) if value[0] == 0 else repr(value)
        raise ValueError(f"{attribute.name} must be seconds, finite, not less than 0, and the least first, not {shown}")


def is_probability(_faults: object, attribute: "Attribute[Any]", value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{attribute.name} is a probability, a number from 0 to 1, not {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} is a probability, from 0 to 1, not {value!r}")


def is_predicate(_faults: object, attribute: "Attribute[Any]", value: Any) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{attribute.name} is a function of a message, or None, not {value!r}")


@frozen
class Fate:
    """What was drawn for one message.

    Args:
        lost: Whether the message goes nowhere.
        delays: Seconds before the message goes out, one number for each time that it does.
        split: Seconds for which the sender's end is cut off, beginning with this message; None if it is not.
    """

    lost: bool = False
    delays: tuple[float, ...] = (0.0,)
    split: float | None = None


UNTOUCHED = Fate()


@frozen(kw_only=True)
class Faults:
    """A plan of the faults of a `FaultyBus`; by default there are none.

    What happens to a message is drawn for each one. Whatever is drawn, the messages of one sender go out in the order
    in which they were sent.

    Args:
        delay: Seconds that a message is kept before it goes out: between 0 and this, or a range (least, most).
        duplicate: The probability that a message goes out twice, each time with a delay of its own.
        lose: The probability that a message never goes out.
        split: The probability that a message begins a split, which cuts its sender's end off from all others.
        split_seconds: How many seconds such a split lasts: between 0 and this, or a range (least, most).
        split_loses: Whether messages that meet a split are lost; otherwise they arrive when it is over.
        spare: Called with each message; if it returns something true, no fault is drawn for that one. The message still
            waits behind delayed ones of its sender, and splits stop it.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A probability is not from 0 to 1, or seconds are negative.
    """

    delay: tuple[float, float] = field(default=(0.0, 0.0), converter=span, validator=is_span)
    duplicate: float = field(default=0.0, validator=is_probability)
    lose: float = field(default=0.0, validator=is_probability)
    split: float = field(default=0.0, validator=is_probability)
    split_seconds: tuple[float, float] = field(default=(0.0, 1.0), converter=span, validator=is_span)
    split_loses: bool = False
    spare: Callable[[BusMessage], object] | None = field(default=None, validator=is_predicate)

    @property
    def draws(self) -> bool:
        """Whether anything can happen to any message."""
        return bool(self.delay[1] or self.duplicate or self.lose or self.split)

    def draw(self, message: BusMessage, seed: object, sender: str, number: int) -> Fate:
        """Draw what happens to a message.

        Args:
            message: The message, for ``spare``.
            seed: The seed of all draws.
            sender: The name of the sender.
            number: Which of the sender's messages it is.

        Returns:
            What was drawn; always the same for the same seed, sender and number.
        """
        if not self.draws or (self.spare is not None and self.spare(message)):
            return UNTOUCHED
        random = Random(f"{seed}/{sender}/{number}")  # noqa: S311 - to be drawn again, not to be secret
        lost, twice, splits = (random.random() for _ in range(3))
        delay, second, length = (random.random() for _ in range(3))
        return Fate(
            lost=lost < self.lose,
            delays=tuple(within(self.delay, part) for part in ([delay, second] if twice < self.duplicate else [delay])),
            split=within(self.split_seconds, length) if splits < self.split else None,
        )

    def decide(self, message: BusMessage, decider: Decider, point: str, words: Callable[[], str]) -> Fate:
        """Have decided what happens to a message: of what has a probability, one thing at most, for as long as can be.

        Args:
            message: The message, for ``spare``.
            decider: Decides.
            point: Which message it is.
            words: Returns what the message is called.
        """
        if not self.draws or (self.spare is not None and self.spare(message)):
            return UNTOUCHED
        least, most = self.delay
        kinds = {"lost": self.lose, "twice": self.duplicate, "delayed": most - least, "split": self.split}
        kind = decider.fault(point, [kind for kind, possible in kinds.items() if possible], words)
        return Fate(
            lost=kind == "lost",
            delays=(least, most) if kind == "twice" else (most if kind == "delayed" else least,),
            split=self.split_seconds[1] if kind == "split" else None,
        )


def within(span: tuple[float, float], part: float) -> float:
    return span[0] + (span[1] - span[0]) * part
