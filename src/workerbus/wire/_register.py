"""`register`: which classes of users may travel (X1)."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from workerbus._wire_table import FRAMES, MESSAGES
from workerbus.errors import RegistrationError
from workerbus.wire._built_in import PREFIX
from workerbus.wire._checks import check_class, is_message_class
from workerbus.wire._codec import codecs, make_codec
from workerbus.wire._frame_codec import FrameParts, frame_parts

T = TypeVar("T", bound=type[Any])
M = TypeVar("M")


@overload
def register(cls: T, *, tag: str | None = None) -> T: ...


@overload
def register(cls: None = None, *, tag: str | None = None) -> Callable[[T], T]: ...


def register(cls: T | None = None, *, tag: str | None = None) -> T | Callable[[T], T]:
    """Let messages or frames of a class travel to other processes.

    Each program that sends or receives them has to register the class under the same tag, by importing its module::

        @wire.register
        @bus_message
        class Reading(BusDataMessage):
            celsius: float


        @wire.register(tag="question.v2")
        @frame_type
        class Question(DataFrame):
            text: str

    A class that is defined again in the same place, as when a module is reloaded, replaces the former one.

    Args:
        cls: The class.
        tag: The tag of the class on the wire; by default its name. Messages and frames have separate tags. Tags that
            begin with ``bus.`` are the library's.

    Returns:
        The class.

    Raises:
        RegistrationError: Something of its objects would be lost on the way, because of private fields, a constructor
            of its own, or types that JSON cannot restore; or it is local, or not decorated. A `TypeError`.
        TagTakenError: Another class has the tag; a `ValueError`.
        ValueError: The tag is not a valid one.

    Guarantees: X1.
    """
    if cls is None:
        return lambda cls: _register(cls, tag)
    return _register(cls, tag)


def _register(cls: T, tag: str | None) -> T:
    check_class(cls)
    tag = cls.__name__ if tag is None else tag
    if not isinstance(tag, str) or not tag.isprintable() or not tag or tag.startswith(PREFIX):
        raise ValueError(f"a tag is a printable text that does not begin with {PREFIX!r}, not {tag!r}")
    # The table comes last but one: what cannot be made, or has no place in it, leaves nothing behind.
    if is_message_class(cls):
        codec = _made(make_codec, cls, tag)
        MESSAGES.add(tag, cls)
        codecs[cls] = codec
    else:
        parts = _made(FrameParts, cls, tag)
        FRAMES.add(tag, cls)
        frame_parts[cls] = parts
    return cls


def _made(make: Callable[[type[Any], str], M], cls: type[Any], tag: str) -> M:
    try:
        return make(cls, tag)
    except RegistrationError:
        raise
    except Exception as exc:  # what msgspec finds only when it sees the whole, or has not implemented
        raise RegistrationError(cls.__name__, str(exc)) from exc
