"""How frames travel, inside the messages that carry them (X1).

A frame travels by what it is made of: its own fields, its number, its timestamp and its metadata, and whether it may be
interrupted, if that was set. Where it has been, its marks, belongs to the process where that was. At the other end the
class's constructor makes it, with what has come; fields that are not in what has come get their defaults.

Knows frames by the table alone, which pipelines fill. So a program without pipelines knows no frames.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from workerbus._wire_table import FRAMES
from workerbus.errors import WireError
from workerbus.messages import BusFrameMessage
from workerbus.wire._checks import open_fields, types_of
from workerbus.wire._payloads import LONGEST, Field, encode, path_in


class _Frame(Struct, omit_defaults=True):
    t: str
    id: int
    f: Any
    pts: int | None = None
    metadata: dict[str, Any] = {}
    interruptible: bool | None = None


class _Arrived(_Frame):
    f: Raw


class _Message(Struct, omit_defaults=True, kw_only=True):
    source: str
    frame: _Frame
    direction: int
    target: str | None = None
    headers: dict[str, str] | None = None
    bridge: str | None = None
    late_since: int | None = None
    process: str | None = None


class _ArrivedMessage(_Message, kw_only=True):
    frame: _Arrived


_decode: Final = msgspec.json.Decoder(_ArrivedMessage).decode
_GIVEN: Final = ("id", "pts", "metadata", "marks")
"""The fields that every frame has."""
_TOLD: Final = ("id", "pts", "metadata", "interruptible")
"""What travels of every frame."""
_PLAIN: Final = ("source", "target", "headers", "direction", "bridge", "late_since", "process")
"""The fields of a message that carries a frame, but for the frame."""
_plain: Final = attrgetter(*_PLAIN)


class FrameParts:
    """Takes frames of one class apart, and puts them together.

    Args:
        cls: The class.
        tag: Its tag.

    Raises:
        RegistrationError: A field's type is none that JSON can bring back; a `TypeError`.
    """

    def __init__(self, cls: type[Any], tag: str) -> None:
        self.cls = cls
        self._tag = tag
        fields = [each for each in cls.__attrs_attrs__ if each.name not in _GIVEN]
        self._names = [each.name for each in fields]
        self._arguments = {each.name: each.alias for each in fields if each.init}
        self._has_dict = cls.__dictoffset__ != 0
        self.values: Callable[[Any], tuple[Any, ...]] = attrgetter(*_TOLD, *self._names)
        types = types_of(cls, self._names)
        self._open = {"metadata": True, **open_fields(cls, types)}
        self._own: Callable[..., Any] = msgspec.defstruct(
            cls.__name__, [(name, hint | UnsetType, UNSET) for name, hint in types.items()]
        )
        self._decode = msgspec.json.Decoder(self._own).decode

    def apart(self, frame: Any) -> _Frame:
        """Return what a frame is made of, to be encoded."""
        if self._has_dict and (more := vars(frame).keys() - set(self._names) - set(_GIVEN)):
            why = f"{self.cls.__name__} has no such field, so it would be lost"
            raise WireError(why, class_name="BusFrameMessage", path=f"frame.{min(more)}")
        own = self._own(*[getattr(frame, name) for name in self._names])
        was_set = frame.interruptible is frame.is_uninterruptible
        return _Frame(self._tag, frame.id, own, frame.pts, frame.metadata, frame.interruptible if was_set else None)

    def together(self, parts: _Arrived) -> Any:
        """Return the frame that is made of what has come."""
        try:
            own = self._decode(parts.f)
        except msgspec.ValidationError as exc:
            path, why = path_in(exc)
            why = f"{why}, in a {self.cls.__name__}"
            raise WireError(why, class_name="BusFrameMessage", path=f"frame.{path}", arrived=True) from exc
        came = {name: value for name in self._names if (value := getattr(own, name)) is not UNSET}
        arguments = {argument: came.pop(name) for name, argument in self._arguments.items() if name in came}
        frame = self.cls(**arguments, pts=parts.pts, metadata=parts.metadata)
        for name, value in came.items():
            setattr(frame, name, value)
        frame.id = parts.id
        if parts.interruptible is not None:
            frame.interruptible = parts.interruptible
        return frame

    def fields(self, frame: Any) -> list[Field]:
        """Return what has to come back equal, and where it stands in a message."""
        names = [*_TOLD, *self._names]
        return [(f"frame.{name}", getattr(frame, name), self._open.get(name, False)) for name in names]


frame_parts: Final[dict[type[Any], FrameParts]] = {}
"""Those of the classes in the table that have been made so far."""


def _parts_of(cls: type[Any]) -> FrameParts:
    tag = FRAMES.by_class.get(cls)
    if tag is None:
        raise WireError(_why_not(cls), class_name="BusFrameMessage", path="frame")
    parts = frame_parts.get(cls)
    if parts is None:
        parts = frame_parts[cls] = FrameParts(cls, tag)
    return parts


def _why_not(cls: type[Any]) -> str:
    if FRAMES.base is None or not issubclass(cls, FRAMES.base):
        return "it is no frame"
    if cls.is_local:
        return f"a {cls.__name__} is local, and never leaves its pipeline"
    return (
        f"the class {cls.__name__} was never registered: put @workerbus.wire.register over it, in each program that "
        "has to know it"
    )


def encode_frame(message: BusFrameMessage) -> bytes:
    """Encode a message that carries a frame."""
    frame = message.frame
    if FRAMES.directions is None or not isinstance(message.direction, FRAMES.directions):
        raise WireError("it is no FrameDirection", class_name="BusFrameMessage", path="direction")
    return encode(
        _Message(
            source=message.source,
            frame=_parts_of(type(frame)).apart(frame),
            direction=message.direction.value,
            target=message.target,
            headers=message.headers,  # type: ignore[arg-type]  # any mapping is encoded
            bridge=message.bridge,
            late_since=message.late_since,
            process=message.process,
        )
    )


def decode_frame(data: bytes | Raw) -> BusFrameMessage:
    """Decode a message that carries a frame."""
    came = _decode(data)
    cls = FRAMES.by_tag.get(came.frame.t)
    if cls is None or FRAMES.directions is None:
        tag = came.frame.t[:LONGEST]
        modules = "workerbus.pipeline, and the module that registers it"
        why = f"there is no frame {tag!r} here: import {modules}, in this program, too"
        raise WireError(why, class_name="BusFrameMessage", path="frame", arrived=True, unknown_tag=tag)
    return BusFrameMessage(
        _parts_of(cls).together(came.frame),
        FRAMES.directions(came.direction),
        came.bridge,
        came.late_since,
        came.process,
        source=came.source,
        target=came.target,
        headers=came.headers,
    )


def frame_values(message: BusFrameMessage) -> tuple[Any, ...]:
    """Return what of such a message has to come back equal."""
    return (*_plain(message), *_parts_of(type(message.frame)).values(message.frame))


def frame_fields(message: BusFrameMessage) -> list[Field]:
    """Return the same with names, to look for a fault in."""
    plain: list[Field] = [(name, getattr(message, name), False) for name in _PLAIN]
    return [*plain, *_parts_of(type(message.frame)).fields(message.frame)]
