"""What frames have, and how own ones are declared."""

import copy
from dataclasses import dataclass
from typing import Any

import attrs
import pytest

from support.pipelines import DOWN, UP
from workerbus import BusFrameMessage
from workerbus.errors import FrameTypeError
from workerbus.pipeline import (
    CancelFrame,
    ControlFrame,
    DataFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    InterruptionFrame,
    StartFrame,
    StopFrame,
    SystemFrame,
    TextFrame,
    TTSSpeakFrame,
    UninterruptibleFrame,
    frame_type,
)
from workerbus.pipeline._bus_edge import SENDERS, Deduplicator


def test_a_frame_has_an_id_a_name_a_timestamp_and_metadata() -> None:
    frame, other = TextFrame("x"), TextFrame("x", pts=3, metadata={"a": 1})
    assert frame.id != other.id
    assert frame.name == f"TextFrame#{frame.id}"
    assert (frame.pts, frame.metadata) == (None, {})
    assert (other.pts, other.metadata) == (3, {"a": 1})


def test_a_frame_equals_nothing_but_itself() -> None:
    frame, other = TextFrame("x"), TextFrame("x")
    assert frame != other
    assert len({frame, other}) == 2


def test_a_frame_can_be_changed() -> None:
    frame = TextFrame("x")
    frame.text, frame.pts = "y", 5
    assert (frame.text, frame.pts) == ("y", 5)


def test_metadata_is_not_shared() -> None:
    frame = TextFrame("x")
    frame.metadata["seen"] = True
    assert TextFrame("x").metadata == {}


def test_a_copy_has_a_number_and_metadata_of_its_own() -> None:
    frame = TextFrame("y", pts=3, metadata={"a": 1})
    twin = copy.copy(frame)
    twin.metadata["b"] = 2
    assert (twin.text, twin.pts, frame.metadata) == ("y", 3, {"a": 1})
    assert twin.id != frame.id


@pytest.mark.parametrize(
    ("kind", "system", "uninterruptible"),
    [
        (StartFrame, True, False),
        (CancelFrame, True, False),
        (ErrorFrame, True, False),
        (InterruptionFrame, True, False),
        (EndFrame, False, True),
        (StopFrame, False, True),
        (TextFrame, False, False),
        (TTSSpeakFrame, False, False),
    ],
)
def test_a_class_says_how_its_frames_travel(kind: type[Frame], system: bool, uninterruptible: bool) -> None:
    assert issubclass(kind, SystemFrame) is kind.is_system is system
    assert issubclass(kind, UninterruptibleFrame) is kind.is_uninterruptible is uninterruptible


def test_what_frames_say() -> None:
    assert (TTSSpeakFrame("x").text, TTSSpeakFrame("x").append_to_context) == ("x", None)
    assert TTSSpeakFrame("x", True).append_to_context is True
    error = ErrorFrame("oh")
    assert (error.error, error.fatal, error.processor, error.exception) == ("oh", False, None, None)
    assert (EndFrame("why").reason, CancelFrame().reason) == ("why", None)
    assert [way.name for way in FrameDirection] == ["DOWNSTREAM", "UPSTREAM"]


@frame_type
class Reading(DataFrame):
    celsius: float
    place: str = "here"


def test_own_frames_have_their_fields_as_arguments() -> None:
    reading = Reading(21.5, place="there", pts=7)
    assert (reading.celsius, reading.place, reading.pts) == (21.5, "there", 7)
    assert repr(reading) == f"Reading#{reading.id}(celsius=21.5, place='there')"


def test_a_subclass_without_fields_needs_no_decorator() -> None:
    class Shout(TextFrame):
        pass

    shout = Shout("x")
    assert (shout.text, shout.name) == ("x", f"Shout#{shout.id}")


def test_a_subclass_may_have_a_constructor_of_its_own() -> None:
    class Counted(DataFrame):
        size: int

        def __init__(self, content: str) -> None:
            super().__init__()
            self.size = len(content)

    assert Counted("abc").size == 3
    assert Counted("abc").metadata == {}


@pytest.mark.parametrize("define", [attrs.define(eq=False), attrs.define(slots=False)])
def test_attrs_may_declare_frames_too(define: Any) -> None:
    @define
    class Sized(ControlFrame):
        size: int

    make: Any = Sized
    assert [make(3).size, make(size=4, pts=1).size] == [3, 4]
    assert not Sized.is_system


def test_fields_without_the_decorator_are_refused_with_its_name() -> None:
    class Forgotten(DataFrame):
        size: int

    @dataclass
    class Data(DataFrame):
        size: int

    with pytest.raises(FrameTypeError, match="put @frame_type over class Forgotten"):
        Forgotten(3)  # type: ignore[call-arg]  # as it is refused
    with pytest.raises(TypeError, match="put @frame_type over class Data"):
        Data(3)


@pytest.mark.parametrize("name", ["id", "name", "pts", "metadata", "is_system"])
def test_a_field_that_every_frame_has_is_refused(name: str) -> None:
    with pytest.raises(FrameTypeError, match=f"Taken has a field '{name}'"):
        type("Taken", (DataFrame,), {"__annotations__": {name: str}})


def test_a_frame_of_two_lanes_is_refused() -> None:
    with pytest.raises(FrameTypeError, match="choose one lane"):

        class Both(SystemFrame, DataFrame):
            pass


@pytest.mark.parametrize("what", [Frame, dict, 3])
def test_the_decorator_refuses_what_has_no_lane(what: Any) -> None:
    with pytest.raises(FrameTypeError, match="which say the lane"):
        frame_type(what)


def bus_edge(frame: TextFrame, direction: FrameDirection, bridge: str, source: str = "w") -> BusFrameMessage:
    return BusFrameMessage(frame, direction, bridge, source=source)


def test_a_frame_that_goes_both_ways_is_seen_twice() -> None:
    """P3: a second copy is one that goes the same way over another bridge."""
    twice, frame = Deduplicator(), TextFrame("a")
    assert not twice.seen(bus_edge(frame, DOWN, "one"))
    assert not twice.seen(bus_edge(frame, UP, "two"))
    assert twice.seen(bus_edge(frame, DOWN, "two"))


def test_of_many_senders_the_last_ones_are_kept_apart() -> None:
    """P3: a sender that comes pushes out the one that came first, and no other."""
    twice, frame = Deduplicator(), TextFrame("a")
    for number in range(SENDERS + 1):
        assert not twice.seen(bus_edge(frame, DOWN, "one", f"sender {number}"))
    for number in range(1, SENDERS + 1):
        assert twice.seen(bus_edge(frame, DOWN, "two", f"sender {number}"))


class Plain(DataFrame):
    """A frame whose attribute nobody declared."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word


def test_a_copy_of_a_frame_has_all_that_was_set_on_it() -> None:
    """P3: a receiver gets a copy of its own."""
    twin = copy.copy(Plain("word"))
    assert twin.word == "word"
