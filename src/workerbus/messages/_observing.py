"""The messages of those who look at other processes (O3, O7)."""

from typing import ClassVar

from workerbus._message_base import BusSystemMessage, bus_message


@bus_message
class BusObserveMessage(BusSystemMessage):
    """Asks the runners of a process, or the one that is its target, what they do. Each has one answer to it.

    A runner tells nothing unless it is asked, and gathers nothing while nobody asks: see `workerbus.observing`.

    Args:
        number: The how manieth question of this observer to this runner: 1 asks for everything, a later one for what
            has changed since the answer to the one before. 0 says that the observer looks no more.
        interval: How many seconds after the last answer the next one is wanted, at the earliest.
        messages: What of the messages that pass there is wanted: ``"none"``; of ``"jobs"``, who, to whom and when; the
            same of ``"all"``; or ``"payloads"``, where the runner allows that.

    Guarantees: O3, O7.
    """

    announcement: ClassVar[bool] = True

    number: int
    interval: float = 1.0
    messages: str = "jobs"


@bus_message
class BusObservationMessage(BusSystemMessage):
    """Tells somebody who has asked by a `BusObserveMessage` what a runner, the source, does.

    Args:
        number: The number of the question.
        report: What there is to tell, as JSON. Its form may change while the library's version is below 1.
        more: Whether this is a part, and another one follows.

    Guarantees: O3, O7.
    """

    announcement: ClassVar[bool] = True

    number: int
    report: str
    more: bool = False
