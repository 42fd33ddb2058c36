"""Frames: what travels through a pipeline (P1-P3, P5).

A frame is mutable and equal to nothing but itself. Its class says how it travels: a `SystemFrame` overtakes, a
`DataFrame` or `ControlFrame` keeps its place, and an `UninterruptibleFrame` survives interruptions. What the lanes need
to know of a frame is a class variable here, set once per class, so that pushing looks nothing up.

A user's own frames with fields are declared with `frame_type` (or with ``attrs.define``). A class that has fields but
no constructor for them is refused when its first frame is made, with an error that names the decorator.
"""

import copy
from collections.abc import Callable
from enum import Enum
from itertools import count
from typing import Any, ClassVar, Final, Self, TypeVar, dataclass_transform

from attrs import define, field

from workerbus._message_base import own_fields
from workerbus._wire_table import FRAMES
from workerbus.errors import FrameTypeError

T = TypeVar("T")

_RESERVED: Final = frozenset(
    {"id", "name", "pts", "metadata", "marks", "is_system", "is_uninterruptible", "is_local", "is_joined"}
)
_LANES: Final[list[type[Any]]] = []
_next_id: Final = count(1).__next__
_INTERRUPTIBLE: Final = object()
"""The mark of a frame whose ``interruptible`` was set. Most are not, and a field would cost each frame something."""


class FrameDirection(Enum):
    """The way in which a frame travels: DOWNSTREAM to the sink, or UPSTREAM back to the source."""

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
    """A mixin for frames that an interruption neither drops while they wait nor cancels while they are handled.

    For a single frame, set its ``interruptible`` to False.
    """

    __slots__ = ()


@_frame
class Frame:
    """The base of all frames. Subclass `SystemFrame`, `DataFrame` or `ControlFrame` instead.

    Args:
        pts: The presentation timestamp, in nanoseconds.
        metadata: Whatever processors want to note on the frame.

    Attributes:
        interruptible: Whether an interruption drops the frame while it waits, and cancels its handling; may be set.
        id: The number of the frame, unique in this process.
        marks: Where the frame has been; used only by the library.
        is_system: Whether frames of this class go into the system lane.
        is_uninterruptible: Whether interruptions spare frames of this class.
        is_local: Whether frames of this class stay in their pipeline and never cross a bridge.
        is_joined: Whether frames of this class go on behind a fork only when they have left all branches.
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
        """Set how frames of the class travel, and refuse a class that could not work."""
        super().__init_subclass__()
        cls.is_uninterruptible = issubclass(cls, UninterruptibleFrame)
        if sum(issubclass(cls, lane) for lane in _LANES) > 1:
            raise FrameTypeError(f"{cls.__name__} is a SystemFrame and something else: choose one lane")
        fields = own_fields(cls)
        if taken := _RESERVED.intersection(fields):
            raise FrameTypeError(f"{cls.__name__} has a field {min(taken)!r}, which every frame has for itself")
        if fields and not {"__attrs_attrs__", "__init__"} & cls.__dict__.keys():
            cls.__new__ = _REFUSAL  # type: ignore[method-assign]  # taken back by frame_type

    @property
    def interruptible(self) -> bool:
        """Whether an interruption drops the frame while it waits, and cancels its handling.

        It may be set, until the frame is handled; so may a field of that name in a class of your own. System frames are
        never dropped.

        Guarantees: P1.
        """
        marks = self.marks
        return not self.is_uninterruptible if marks is None else marks.get(_INTERRUPTIBLE, not self.is_uninterruptible)

    @interruptible.setter
    def interruptible(self, value: bool) -> None:
        if self.marks is None:
            self.marks = {}
        self.marks[_INTERRUPTIBLE] = bool(value)

    def __copy__(self) -> Self:
        """Return another frame with the same content, with a number and metadata of its own, and without marks."""
        cls = type(self)
        twin = object.__new__(cls)
        for name in [its.name for its in getattr(cls, "__attrs_attrs__", ())]:
            setattr(twin, name, getattr(self, name))
        for name, value in getattr(self, "__dict__", {}).items():
            setattr(twin, name, value)
        twin.id, twin.metadata, twin.marks = _next_id(), dict(self.metadata), None
        if self.marks is not None and _INTERRUPTIBLE in self.marks:
            twin.marks = {_INTERRUPTIBLE: self.marks[_INTERRUPTIBLE]}
        return twin

    @property
    def name(self) -> str:
        """The class and the number of the frame, for logs: ``TextFrame#7``."""
        return f"{type(self).__name__}#{self.id}"

    def __repr__(self) -> str:
        own = [f.name for f in getattr(type(self), "__attrs_attrs__", ()) if f.init and f.name not in _RESERVED]
        return f"{self.name}({', '.join(f'{name}={getattr(self, name)!r}' for name in own)})"


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def frame_type(cls: type[T]) -> type[T]:
    """Make the annotated fields of a frame class arguments of its constructor, in their order.

    ::

        @frame_type
        class Reading(DataFrame):
            celsius: float


        await worker.queue_frame(Reading(21.5))

    Raises:
        FrameTypeError: The class is not a subclass of `SystemFrame`, `DataFrame` or `ControlFrame`; a `TypeError`.
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
    """A frame that overtakes data and control frames, and that no interruption drops.

    Guarantees: P1.
    """

    is_system: ClassVar[bool] = True


@_frame
class DataFrame(Frame):
    """A frame with content. It keeps its place among data and control frames; an interruption drops it.

    Guarantees: P1.
    """


@_frame
class ControlFrame(Frame):
    """A frame that says something about the data frames around it, in order with them; an interruption drops it.

    Guarantees: P1.
    """


_LANES.extend((SystemFrame, DataFrame, ControlFrame))


# --- the life of a pipeline


@_frame
class StartFrame(SystemFrame):
    """The first frame: it reaches the sink before any processor handles another one. The worker sends it.

    Guarantees: P2.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True


@_frame
class CancelFrame(SystemFrame):
    """Ends the pipeline at once: frames that wait are dropped, and handlers are cancelled.

    Args:
        reason: Why, in words.

    Guarantees: P2.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    reason: str | None = None


@_frame
class EndFrame(ControlFrame, UninterruptibleFrame):
    """Ends the pipeline when it reaches the sink, behind all frames that were queued before it.

    System frames, and frames that are on their way upstream at that moment, still arrive.

    Args:
        reason: Why, in words.

    Guarantees: P2.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    reason: str | None = None


@_frame
class StopFrame(ControlFrame, UninterruptibleFrame):
    """Ends the pipeline like an `EndFrame`, but leaves its processors as they are.

    Their ``cleanup()`` is not called, so what they hold stays open, and they may be put into another `Pipeline`. Their
    tasks end all the same: no task outlives its pipeline.

    Guarantees: L1, P2.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True


@_frame
class HeartbeatFrame(ControlFrame, UninterruptibleFrame):
    """Goes through a pipeline again and again to show that it moves; see `PipelineParams`.

    Args:
        timestamp: When it was sent, in nanoseconds, by the event loop's clock.

    Guarantees: P6.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    timestamp: int


@_frame
class ErrorFrame(SystemFrame):
    """Tells the worker, upstream, that something has gone wrong.

    Args:
        error: What has gone wrong, in words.
        fatal: Whether the worker is to be cancelled.
        processor: The name of the processor where it happened.
        exception: What was raised, if anything.

    Guarantees: P1.
    """

    is_local: ClassVar[bool] = True

    error: str
    fatal: bool = False
    processor: str | None = None
    exception: BaseException | None = None


@_frame
class InterruptionFrame(SystemFrame):
    """Interrupts each processor that it reaches: frames that wait there are dropped, and the handler is cancelled.

    `SystemFrame`s and `UninterruptibleFrame`s are spared, and so are frames behind it. It crosses bridges, since
    workers that work for a pipeline have to be interrupted with it.
    """


# --- pauses


@_frame
class FrameProcessorPauseFrame(ControlFrame, UninterruptibleFrame):
    """Pauses a processor when it reaches it, and travels on; see `FrameProcessor.pause_processing_frames`.

    Args:
        processor: The processor.

    Guarantees: P1.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    processor: Any


@_frame
class FrameProcessorResumeFrame(ControlFrame, UninterruptibleFrame):
    """Ends the pause of a processor further on; at that processor itself it waits like other frames.

    Args:
        processor: The processor.

    Guarantees: P1.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    processor: Any


@_frame
class FrameProcessorPauseUrgentFrame(SystemFrame):
    """The same as a `FrameProcessorPauseFrame`, ahead of all data and control frames.

    Args:
        processor: The processor.

    Guarantees: P1.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    processor: Any


@_frame
class FrameProcessorResumeUrgentFrame(SystemFrame):
    """Ends the pause of a processor when it reaches it, ahead of all data and control frames.

    Args:
        processor: The processor.

    Guarantees: P1.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    processor: Any


ENDS: Final = (EndFrame, StopFrame)
PAUSES: Final = (FrameProcessorPauseFrame, FrameProcessorPauseUrgentFrame)
RESUMES: Final = (FrameProcessorResumeFrame, FrameProcessorResumeUrgentFrame)


# --- content


@_frame
class TextFrame(DataFrame):
    """A piece of text.

    Args:
        text: The text, of any length.
    """

    text: str


@_frame
class TTSSpeakFrame(DataFrame):
    """A text to be spoken.

    Args:
        text: What to say.
        append_to_context: Whether it becomes part of the conversation; None if the sender does not say.

    Guarantees: P5.
    """

    text: str
    append_to_context: bool | None = None


# --- the library's own


@_frame
class Marker(ControlFrame, UninterruptibleFrame):
    """Goes through a pipeline behind everything that is in it, system frames included; no processor sees it.

    Args:
        arrived: Called when the marker leaves the pipeline.
    """

    is_local: ClassVar[bool] = True
    is_joined: ClassVar[bool] = True

    arrived: Callable[[], None]


@_frame
class FlushMarker(Marker):
    """A marker that waits at bridges for what has gone over them.

    Args:
        arrived: Called when the marker leaves the pipeline.
        seen: The names of the workers that the flush has been to.
    """

    seen: frozenset[str]


BUS: Final = object()
"""The mark of a frame that came in over a bus."""


def received(frame: Frame, by: object) -> Frame:
    """Return a receiver's own copy of a frame from the bus, which hands the same object to everybody."""
    twin = copy.copy(frame)
    twin.id, twin.marks = frame.id, {**(twin.marks or {}), BUS: True, by: True}
    return twin


def came_by(frame: Frame, mark: object) -> bool:
    """Whether the frame bears a mark."""
    return frame.marks is not None and mark in frame.marks


# --- what may travel to other processes

FRAMES.base, FRAMES.directions = Frame, FrameDirection
for _tag, _cls in {
    "bus.interruption": InterruptionFrame,
    "bus.text": TextFrame,
    "bus.tts_speak": TTSSpeakFrame,
}.items():
    FRAMES.add(_tag, _cls)
