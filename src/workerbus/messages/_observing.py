"""The messages of those who look at other processes (O3, O7)."""

from typing import ClassVar

from workerbus._message_base import BusSystemMessage, bus_message


@bus_message
class BusObserveMessage(BusSystemMessage):
    """Asks the runners of a process, or the one that is its target, what they are doing. Each answers once.

    A runner tells nothing unless it is asked, and gathers nothing while nobody asks: see `workerbus.observing`.

    Args:
        number: The number of the question from this observer to this runner: 1 asks for everything, a later one for
            what has changed since the previous answer. 0 says that the observer has stopped.
        interval: How many seconds after the last answer the next one should come, at the earliest.
        messages: What to report of the messages that pass there: ``"none"``; sender, receiver and time of those of
            ``"jobs"``, or of ``"all"``; or also ``"payloads"``, if the runner allows it.

    Guarantees: O3, O7.
    """

    announcement: ClassVar[bool] = True

    number: int
    interval: float = 1.0
    messages: str = "jobs"


@bus_message
class BusObservationMessage(BusSystemMessage):
    """Tells the sender of a `BusObserveMessage` what a runner, the source, is doing.

    Args:
        number: The number of the question.
        report: The report, as JSON. Its format may change while the library's version is below 1.
        more: Whether this is a part and another one follows.

    Guarantees: O3, O7.
    """

    announcement: ClassVar[bool] = True

    number: int
    report: str
    more: bool = False
