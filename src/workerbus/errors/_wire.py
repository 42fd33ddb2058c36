"""What is wrong with what leaves the process, for others or for a file (X1, X2)."""

from workerbus.errors._base import WorkerBusError


class BusUnavailable(WorkerBusError, ConnectionError):  # noqa: N818 - says what the bus is, as the contract names it
    """A message could not be stored in time, or could not be sent at all now; or a bus could not be opened.

    Attributes:
        bus: The name of the bus.
        maybe_stored: Whether the message may have been stored all the same; if False, it certainly was not.

    Guarantees: X2.
    """

    def __init__(self, bus: str, why: str, *, maybe_stored: bool, doing: str | None = None) -> None:
        may = "it may have been stored all the same" if maybe_stored else "it was not stored, and may be sent again"
        text = f"could not send the message: {why}; {may}" if doing is None else f"could not {doing}: {why}"
        super().__init__(f"bus {bus!r} {text}")
        self.bus = bus
        self.maybe_stored = maybe_stored


class WireError(WorkerBusError, ValueError):
    """A message cannot travel to another process, or one from another process cannot be read.

    Attributes:
        class_name: The name of the message's class; empty if not known.
        path: Where in the message, as in ``payload.items[3].when``; empty if it is the whole message.
        reason: Why, in words.
        arrived: Whether it is an incoming message that cannot be read.
        unknown_tag: The tag of a class that is not registered in this program; empty if that is not the reason.

    Guarantees: X1.
    """

    def __init__(
        self, reason: str, *, class_name: str = "", path: str = "", arrived: bool = False, unknown_tag: str = ""
    ) -> None:
        what = class_name or "a message"
        verb = "be read" if arrived else "travel"
        super().__init__(f"{what} cannot {verb}{f', for {path}' if path else ''}: {reason}")
        self.class_name: str = class_name
        self.path: str = path
        self.reason: str = reason
        self.arrived: bool = arrived
        self.unknown_tag: str = unknown_tag


class RegistrationError(WorkerBusError, TypeError):
    """A class of messages or frames cannot be registered for the wire, since something of it would be lost.

    Attributes:
        class_name: The name of the class.
        field_name: The name of the field that is the reason; None if it is the class itself.

    Guarantees: X1.
    """

    def __init__(self, class_name: str, why: str, *, field_name: str | None = None) -> None:
        where = "" if field_name is None else f", for its field {field_name!r}"
        super().__init__(f"{class_name} cannot be registered for the wire{where}: {why}")
        self.class_name: str = class_name
        self.field_name: str | None = field_name


class TagTakenError(WorkerBusError, ValueError):
    """A class was registered for the wire under the tag of another class.

    Attributes:
        tag: The tag.
        holder: The class that has it, with its module.
        class_name: The class that was registered, with its module.

    Guarantees: X1.
    """

    def __init__(self, tag: str, holder: str, class_name: str) -> None:
        super().__init__(f"the tag {tag!r} of {class_name} is that of {holder}: give one of them another, tag='…'")
        self.tag: str = tag
        self.holder: str = holder
        self.class_name: str = class_name


class RecordingError(WorkerBusError, ValueError):
    """A file is not a recording, or cannot be read.

    Attributes:
        path: The path of the file.
        reason: Why, in words.
        line: The number of the line, from 1; None if it is the whole file.
    """

    def __init__(self, path: str, reason: str, line: int | None = None) -> None:
        where = "" if line is None else f", line {line}"
        super().__init__(f"{path}{where}: this is no recording that can be read: {reason}")
        self.path: str = path
        self.reason: str = reason
        self.line: int | None = line
