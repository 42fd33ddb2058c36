"""What a message is: a frozen class that says how it travels (B2, B8, N5, X8).

A class chooses its lane by its base: `BusSystemMessage` overtakes `BusDataMessage`. What the bus must know to route a
message is a class variable here, set once per class, so that sending looks nothing up.

Own messages are declared with `bus_message`. A subclass with fields of its own but without the decorator would get no
constructor for them, so building one is refused with an error that names the decorator.
"""

from collections.abc import Callable, Mapping
from inspect import get_annotations
from typing import Any, ClassVar, TypeVar, dataclass_transform

from attrs import field

from workerbus._values import IF_SET, Peer, Value, value
from workerbus.errors._base import MessageTypeError

T = TypeVar("T")


def _refuse_undecorated(self: Any, *_args: Any, **_kwargs: Any) -> None:
    _check_decorated(type(self))


def _check_decorated(cls: type[Any]) -> None:
    for name in (base.__name__ for base in cls.__mro__ if base.__dict__.get("__init__") is _refuse_undecorated):
        raise MessageTypeError(
            f"{name} has fields of its own but no constructor for them: put @bus_message over class {name}"
        )


def own_fields(cls: type[Any]) -> list[str]:
    """Return the names of the fields that a class declares itself."""
    return [name for name, kind in get_annotations(cls).items() if "ClassVar" not in str(kind)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def _keywords_only(cls: type[T]) -> type[T]:
    return value(cls, kw_only=True)


class _FromSomewhere(Value):
    """What a bus notes on a message that has arrived; no field, and set on no other message."""

    __slots__ = ("_origin",)

    @property
    def peer(self) -> Peer | None:
        """The peer that the message has come from; None for a message of this process.

        Guarantees: X3.
        """
        return peer_of(self)


def peer_of(message: _FromSomewhere) -> Peer | None:
    """Return which peer a message has come from; a class of the user's may have a field of the property's name."""
    return getattr(message, "_origin", None)


def set_peer(message: _FromSomewhere, peer: Peer) -> None:
    """Note which peer a message has come from."""
    object.__setattr__(message, "_origin", peer)  # past a class that is frozen


@_keywords_only
class BusMessage(_FromSomewhere):
    """The base of all messages. Send a `BusDataMessage` or a `BusSystemMessage`, which say how it travels.

    Args:
        source: The name of the sender.
        target: The name of the receiver; None for everybody.
        headers: Text that travels along, a dict of str to str: the ids of a trace, for example. The library does not
            read it. Every message of a job carries the headers of its request. It is shared: treat it as read-only.

    Attributes:
        system: Whether it goes into the system lane, past waiting data messages; None for a class that has no lane.
        local: Whether it stays on this bus, and never reaches a network.
        announcement: Whether its broadcasts are meant for runners and observers, and not for workers.
        bounded: Whether it takes room in a bounded data lane.
        of_a_job: Whether it belongs to a job that its target asked for, so that it is never held up.
        confirmed: Whether `send` waits until a network has stored it.

    Guarantees: N5, X8.
    """

    system: ClassVar[bool | None] = None
    local: ClassVar[bool] = False
    announcement: ClassVar[bool] = False
    bounded: ClassVar[bool] = True
    of_a_job: ClassVar[bool] = False
    confirmed: ClassVar[bool] = True
    _init: ClassVar[Callable[..., None] | None] = None

    source: str
    target: str | None = None
    headers: Mapping[str, str] | None = field(default=None, metadata={IF_SET: True})

    def __init_subclass__(cls) -> None:
        """Settle how the class travels, and refuse fields that nothing would set."""
        super().__init_subclass__()
        cls.local = issubclass(cls, BusLocalMessage)
        if "__attrs_attrs__" not in cls.__dict__ and own_fields(cls):
            cls._init = cls.__dict__.get("__init__")
            type.__setattr__(cls, "__init__", _refuse_undecorated)  # taken back by bus_message


class BusLocalMessage:
    """A mixin: the message stays on this bus and never reaches a network.

    Guarantees: B8.
    """

    __slots__ = ()


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def bus_message(cls: type[T]) -> type[T]:
    """Turn a class with annotated fields into a message class: frozen, with a constructor.

    The constructor takes the fields positionally, in their order, and ``source``, ``target`` and ``headers`` by
    keyword::

        @bus_message
        class Reading(BusDataMessage):
            celsius: float


        await worker.send_bus_message(Reading(21.5, source=worker.name))

    Raises:
        MessageTypeError: The class derives from neither or both of `BusDataMessage` and `BusSystemMessage`, or from a
            class with fields that lacks the decorator. A `TypeError`.

    Guarantees: N5.
    """
    if not (isinstance(cls, type) and issubclass(cls, BusMessage)) or cls.system is None:
        raise MessageTypeError(
            f"@bus_message is for subclasses of BusDataMessage or BusSystemMessage, which say the lane, not for {cls!r}"
        )
    if issubclass(cls, BusDataMessage) and issubclass(cls, BusSystemMessage):
        raise MessageTypeError(f"{cls.__name__} derives from both BusDataMessage and BusSystemMessage: choose one lane")
    if cls.__dict__.get("__init__") is _refuse_undecorated:
        del cls.__init__
        if cls._init is not None:
            cls.__init__ = cls._init  # type: ignore[method-assign]  # the class's own
    _check_decorated(cls)
    return value(cls)


@_keywords_only
class BusDataMessage(BusMessage):
    """A message of normal priority; those of one sender are handled in the order in which they were sent.

    Guarantees: B2.
    """

    system: ClassVar[bool | None] = False


@_keywords_only
class BusSystemMessage(BusMessage):
    """A message that is handled before waiting data messages.

    Guarantees: B2.
    """

    system: ClassVar[bool | None] = True
