"""Numbered messages for either lane, which may travel."""

from workerbus import BusDataMessage, BusSystemMessage, bus_message
from workerbus.wire import register


@register(tag="tests.note")
@bus_message
class Note(BusDataMessage):
    """A numbered data message."""

    n: int = 0


@register(tag="tests.alarm")
@bus_message
class Alarm(BusSystemMessage):
    """A numbered system message."""

    n: int = 0


def note(n: int, target: str | None = None, source: str = "me") -> Note:
    return Note(n, source=source, target=target)


def alarm(n: int, target: str | None = None, source: str = "me") -> Alarm:
    return Alarm(n, source=source, target=target)
