"""Frames: what travels through a pipeline.

A frame is mutable and equal to nothing but itself. Its class says how it travels: a `SystemFrame` overtakes, a
`DataFrame` or `ControlFrame` keeps its place, and an `UninterruptibleFrame` survives interruptions. What the lanes need
to know of a frame is a class variable here, set once per class, so that pushing looks nothing up.

Own frames with fields are declared with `frame_type` (or with ``attrs.define``). A class that nothing would build a
constructor for is refused when the first one is made, with an error that names the decorator.
"""

import copy
from collections.abc import Callable
from enum import Enum
from itertools import count
from typing import Any, ClassVar, Final, Self, TypeVar, dataclass_transform

from attrs import define, field

from workerbus._message_base import own_fields
from workerbus.errors import FrameTypeError

T = TypeVar("T")

_RESERVED: Final = frozenset(
    {"id", "name", "pts", "metadata", "marks", "is_system", "is_uninterruptible", "is_local", "is_joined"}
)
_LANES: Final[list[type[Any]]] = []
_next_id: Final = count(1).__next__


class FrameDirection(Enum):
    """The way in which a frame travels: towards the sink, or back towards the source."""

    DOWNSTREAM = 1
    UPSTREAM = 2


def _refuse_undecorated(cls: type[Any], *_args: Any, **_kwargs: Any) -> Any:
    owner = next(base for base in cls.__mro__ if base.__dict__.get("__new__") is _REFUSAL)
    if "__attrs_attrs__" in owner.__dict__:
        return object.__new__(cls)  # declared with attrs.define
    raise FrameTypeError(
        f"{owner.__name__} has fields of its own but no constructor for them: put @frame_type over class "
        f"{owner.__name__}"
    )


_REFUSAL: Final = staticmethod(_refuse_undecorated)


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def _frame(cls: type[T]) -> type[T]:
    return define(eq=False, repr=False)(cls)


class UninterruptibleFrame:
    """A mixin: an interruption neither drops the frame where it waits nor cancels its handling."""

    __slots__ = ()


@_frame
class Frame:
    """The base of all frames. Subclass `SystemFrame`, `DataFrame` or `ControlFrame`.

    Args:
        pts: Its presentation timestamp, in nanoseconds.
        metadata: Whatever processors want to note on it.

    Attributes:
        id: Its number, unique in this process.
        marks: Where it has been; the library's own.
    """

    is_system: ClassVar[bool] = False
    is_uninterruptible: ClassVar[bool] = False
    is_local: ClassVar[bool] = False
    is_joined: ClassVar[bool] = False

    id: int = field(init=False, factory=_next_id)
    pts: int | None = field(default=None, kw_only=True)
    metadata: dict[str, Any] = field(factory=dict, kw_only=True)
    marks: dict[object, Any] | None = field(init=False, default=None)

    def __init_subclass__(cls) -> None:
        """Settle how the class travels, and refuse what could not work."""
        super().__init_subclass__()
        cls.is_uninterruptible = issubclass(cls, UninterruptibleFrame)
        if sum(issubclass(cls, lane) for lane in _LANES) > 1:
            raise FrameTypeError(f"{cls.__name__} is a SystemFrame and something else: choose one lane")
        fields = own_fields(cls)
        if taken := _RESERVED.intersection(fields):
            raise FrameTypeError(f"{cls.__name__} has a field {min(taken)!r}, which every frame has for itself")
        if fields and not {"__attrs_attrs__", "__init__"} & cls.__dict__.keys():
            cls.__new__ = _REFUSAL  # type: ignore[method-assign]  # taken back by frame_type

    def __copy__(self) -> Self:
        """Another frame, with a number and metadata of its own: it has been nowhere yet."""
        cls = type(self)
        twin = object.__new__(cls)
        for name in [its.name for its in getattr(cls, "__attrs_attrs__", ())]:
            setattr(twin, name, getattr(self, name))
        for name, value in getattr(self, "__dict__", {}).items():
            setattr(twin, name, value)
        twin.id, twin.metadata, twin.marks = _next_id(), dict(self.metadata), None
        return twin

    @property
    def name(self) -> str:
        """Its class and number, for logs."""
        return f"{type(self).__name__}#{self.id}"

    def __repr__(self) -> str:
        own = [f.name for f in getattr(type(self), "__attrs_attrs__", ()) if f.init and f.name not in _RESERVED]
        return f"{self.name}({', '.join(f'{name}={getattr(self, name)!r}' for name in own)})"


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def frame_type(cls: type[T]) -> type[T]:
    """Make a frame of a class with annotated fields: they become arguments, in their order.

    ::

        @frame_type
        class Reading(DataFrame):
            celsius: float


        await worker.queue_frame(Reading(21.5))

    Raises:
        FrameTypeError: It is no subclass of `SystemFrame`, `DataFrame` or `ControlFrame`; a `TypeError`.
    """
    if not (isinstance(cls, type) and issubclass(cls, tuple(_LANES))):
        raise FrameTypeError(
            f"@frame_type is for subclasses of SystemFrame, DataFrame or ControlFrame, which say the lane, not {cls!r}"
        )
    if "__new__" in cls.__dict__:
        del cls.__new__
    return _frame(cls)


@_frame
class SystemFrame(Frame):
    """A frame that overtakes data and control frames, and that no interruption drops."""

    is_system: ClassVar[bool] = True


@_frame
class DataFrame(Frame):
    """A frame with content, in the order in which it was pushed. An interruption drops it."""


@_frame
class ControlFrame(Frame):
    """A frame that says something about those around it, in order with them. An interruption drops it."""


_LANES.extend((SystemFrame, DataFrame, ControlFrame))


# --- the life of a pipeline


@_frame
class StartFrame(SystemFrame):
    """The first frame: it has reached the sink before any processor handles another one (P2)."""

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True


@_frame
class CancelFrame(SystemFrame):
    """Ends the pipeline at once; what waits is dropped, and what is being handled is cancelled (P2).

    Args:
        reason: Why, in words.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    reason: str | None = None


@_frame
class EndFrame(ControlFrame, UninterruptibleFrame):
    """Ends the pipeline when it has reached the sink, behind all that was queued before it (P2).

    What is on its way upstream then, and system frames, are let arrive, too.

    Args:
        reason: Why, in words.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    reason: str | None = None


@_frame
class StopFrame(ControlFrame, UninterruptibleFrame):
    """Ends the pipeline like an `EndFrame`, but leaves its processors as they are.

    Their ``cleanup()`` is not called, so what they hold stays open, and they may be put into another `Pipeline`. Their
    tasks end all the same: none outlives its pipeline (L1).
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True


@_frame
class ErrorFrame(SystemFrame):
    """Something has gone wrong; travels upstream to the worker (P1).

    Args:
        error: What, in words.
        fatal: Whether the worker is to be cancelled.
        processor: The name of the processor where it happened.
        exception: What was raised, if anything.
    """

    is_local: ClassVar[bool] = True

    error: str
    fatal: bool = False
    processor: str | None = None
    exception: BaseException | None = None


@_frame
class InterruptionFrame(SystemFrame):
    """Interrupts: each processor that it gets to drops what waits and cancels what it does (P1).

    `UninterruptibleFrame`s are spared, and frames that come behind it are. It crosses bridges, since those who work for
    a pipeline have to be interrupted with it.
    """


# --- content


@_frame
class TextFrame(DataFrame):
    """A piece of text.

    Args:
        text: The text.
    """

    text: str


@_frame
class TTSSpeakFrame(DataFrame):
    """Something to be spoken.

    Args:
        text: What to say.
        append_to_context: Whether it becomes part of the conversation.
    """

    text: str
    append_to_context: bool | None = None


# --- the library's own


@_frame
class Marker(ControlFrame, UninterruptibleFrame):
    """Goes through a pipeline behind everything that is in it, system frames included; no processor sees it.

    Args:
        arrived: Called where it leaves the pipeline.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    arrived: Callable[[], None]


BUS: Final = object()
"""The mark of a frame that came in over a bus (P3)."""


def received(frame: Frame, by: object) -> Frame:
    """Return a receiver's own copy of a frame that a bus has brought: a bus hands the same one to everybody."""
    twin = copy.copy(frame)
    twin.id, twin.marks = frame.id, {BUS: True, by: True}
    return twin


def came_by(frame: Frame, mark: object) -> bool:
    """Whether the frame bears a mark."""
    return frame.marks is not None and mark in frame.marks
