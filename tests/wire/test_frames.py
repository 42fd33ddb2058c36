"""X1, P3: frames travel inside messages, by a table of their own."""

from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from support.wires import WIRE, Point, Receipt, Siren, Sound, carries, refusal, there_and_back, unreadable
from workerbus import BusFrameMessage, wire
from workerbus._wire_table import FRAMES
from workerbus.errors import RegistrationError
from workerbus.pipeline import (
    DataFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    InterruptionFrame,
    StartFrame,
    SystemFrame,
    TextFrame,
    TTSSpeakFrame,
    frame_type,
)
from workerbus.pipeline import _frames as frames_module
from workerbus.pipeline._frames import BUS, came_by, received
from workerbus.testing.strategies import payloads
from workerbus.wire._codec import FrameCodec, codecs
from workerbus.wire._frame_codec import frame_parts

metadata = st.fixed_dictionaries({}, optional={"pts": st.integers(0, 2**70) | st.none(), "metadata": payloads()})
points = st.lists(st.builds(Point, st.integers(), st.floats(allow_nan=False, allow_infinity=False)), max_size=3)
frames = metadata.flatmap(
    lambda given: st.one_of(
        st.builds(TextFrame, st.text(), **{name: st.just(value) for name, value in given.items()}),
        st.builds(TTSSpeakFrame, st.text(), st.none() | st.booleans()),
        st.builds(InterruptionFrame),
        st.builds(Sound, st.binary(), st.integers(), st.none() | payloads()),
        st.builds(Receipt, st.integers()),
        st.builds(Siren, points),
    )
)


def content(frame: Frame) -> dict[str, Any]:
    """All that is said by a frame."""
    names = [its.name for its in type(frame).__attrs_attrs__ if its.name != "marks"]  # type: ignore[attr-defined]  # it is of attrs
    return {name: getattr(frame, name) for name in [*names, "interruptible"]}


@given(frames, st.sampled_from(FrameDirection), st.none() | st.text(max_size=3), st.none() | st.booleans())
def test_every_frame_comes_back_with_the_same_content(
    frame: Frame, direction: FrameDirection, bridge: str | None, interruptible: bool | None
) -> None:
    """X1"""
    if interruptible is not None:
        frame.interruptible = interruptible
    message = BusFrameMessage(frame, direction, bridge, 7, "process", source="me", target="you", headers={"a": "b"})
    came = there_and_back(message)
    assert type(came.frame) is type(frame)
    assert content(came.frame) == content(frame)
    assert came.direction is direction
    assert (came.bridge, came.late_since, came.process) == (bridge, 7, "process")
    assert (came.source, came.target, came.headers) == ("me", "you", {"a": "b"})


def test_sound_travels() -> None:
    """X1: bytes have no form in JSON, but the type of a field says what they are."""
    assert there_and_back(carries(Sound(b"\x00\xff" * 100))).frame.audio == b"\x00\xff" * 100


def test_where_a_frame_has_been_does_not_travel() -> None:
    """X1, P3: or a frame that has come in by one bus could not go on over it elsewhere."""
    frame = received(TextFrame("x"), by="me")
    frame.interruptible = False
    came = there_and_back(carries(frame)).frame
    assert came_by(frame, BUS)
    assert not came_by(came, BUS)
    assert not came_by(came, "me")
    assert not came.interruptible


def test_the_number_of_a_frame_travels_so_that_copies_over_several_bridges_are_known() -> None:
    """P3"""
    frame = TextFrame("x")
    assert there_and_back(carries(frame)).frame.id == frame.id
    assert there_and_back(carries(frame)).frame.id == frame.id


def test_metadata_is_a_payload() -> None:
    """X1"""
    assert refusal(carries(TextFrame("x", metadata={"at": [{1}]}))).path == "frame.metadata.at[0]"
    assert there_and_back(carries(TextFrame("x", metadata={"at": [1]}))).frame.metadata == {"at": [1]}


def test_what_a_frame_cannot_hold_is_refused_by_its_path() -> None:
    """X1"""
    assert refusal(carries(Sound(b"", extra={"raw": b""}))).path == "frame.extra.raw"
    wrong: Any = 5
    wrong_too: Any = "y"
    error = refusal(carries(TextFrame(wrong)))
    assert (error.class_name, error.path) == ("BusFrameMessage", "frame.text")
    assert error.reason == "expected str, got int, in a TextFrame"
    assert refusal(carries(Siren([Point(1), Point(1, wrong_too)]))).path == "frame.points[1].y"
    assert refusal(carries(Sound(wrong))).path == "frame.audio"
    assert refusal(carries(TextFrame("x", pts=1.5))).path == "frame.pts"  # type: ignore[arg-type]  # wrong on purpose


def test_what_is_no_frame_or_has_no_direction_is_refused() -> None:
    """X1"""
    assert refusal(BusFrameMessage("text", FrameDirection.UPSTREAM, source="me")).path == "frame"
    assert refusal(BusFrameMessage(TextFrame("x"), 1, source="me")).path == "direction"


def test_frames_of_one_pipelines_own_are_refused() -> None:
    """P3, X1: lifecycle frames never cross."""
    for frame in (StartFrame(), EndFrame(), ErrorFrame("it broke")):
        assert refusal(carries(frame)).reason == f"a {type(frame).__name__} is local, and never leaves its pipeline"


def test_the_librarys_frames_that_may_cross_are_in_the_table_and_no_others() -> None:
    """X1: one that is added has to be added to the table."""
    ours = {each for each in vars(frames_module).values() if isinstance(each, type) and issubclass(each, Frame)}
    lanes = set(Frame.__subclasses__()) | {Frame, SystemFrame, DataFrame, frames_module.ControlFrame}
    travelling = {kind for tag, kind in FRAMES.by_tag.items() if tag.startswith("bus.")}
    assert travelling == {each for each in ours - lanes if not each.is_local}


@frame_type
class Unregistered(DataFrame):
    n: int = 0


def test_a_frame_that_was_never_registered_is_refused_and_the_error_says_what_to_do() -> None:
    """X1"""
    for frame in (Unregistered(), DataFrame()):
        error = refusal(carries(frame))
        assert error.path == "frame"
        assert f"{type(frame).__name__} was never registered: put @workerbus.wire.register over it" in error.reason


def test_what_is_put_on_a_frame_beside_its_fields_is_refused() -> None:
    """X1: it would be lost without a word."""

    @wire.register
    @define(slots=False, eq=False)
    class Loose(DataFrame):
        n: int = 0

    frame = Loose(3)
    assert there_and_back(carries(frame)).frame.n == 3
    frame.more = {"a": 1}  # type: ignore[attr-defined]  # no field
    error = refusal(carries(frame))
    assert (error.path, error.reason) == ("frame.more", "Loose has no such field, so it would be lost")


def test_fields_that_the_constructor_does_not_take_and_fields_of_another_name_there_travel() -> None:
    """X1"""

    @wire.register
    @frame_type
    class Counted(DataFrame):
        times: int = field(alias="how_often")
        seen: int = field(init=False, default=0)
        interruptible: bool = field(default=True)

    frame = Counted(how_often=2)
    frame.seen, frame.interruptible = 5, False
    came = there_and_back(carries(frame)).frame
    assert (came.times, came.seen, came.interruptible) == (2, 5, False)


def test_a_frame_that_its_constructor_would_change_is_refused() -> None:
    """X1"""

    @wire.register
    @frame_type
    class Louder(DataFrame):
        text: str = field(converter=lambda text: text + "!")

    assert refusal(carries(Louder("help"))).path == "frame.text"


def test_a_field_that_has_been_added_since_gets_its_default() -> None:
    """X1: programs of several versions understand each other."""
    frame = b'{"t":"Sound","id":3,"f":{"audio":"eA==","colour":"red"},"louder":true}'
    message = b'{"v":1,"t":"bus.frame","m":{"source":"me","direction":1,"frame":%s}}'
    assert WIRE.decode(message % frame).frame.rate == 16_000  # type: ignore[attr-defined]  # a message of a frame
    assert WIRE.decode(message % frame).frame.metadata == {}  # type: ignore[attr-defined]  # a message of a frame


@pytest.mark.parametrize(
    ("direction", "frame", "said"),
    [
        (b"1", b'{"t":"Sound","id":3,"f":{"audio":5}}', "for frame.audio: expected bytes, got int, in a Sound"),
        (b"1", b'{"t":"Sound","id":3,"f":{}}', "missing 1 required positional argument: 'audio'"),
        (b"1", b'{"t":"Sound","id":"x","f":{"audio":""}}', "for frame.id: expected int, got str"),
        (b"3", b'{"t":"Sound","id":3,"f":{"audio":""}}', "3 is not a valid FrameDirection"),
        (b"1", b'{"t":"os.system","id":3,"f":{}}', "for frame: there is no frame 'os.system' here"),
        (b"1", b'{"t":"%s","id":3,"f":{}}' % (b"x" * 9_999), "there is no frame 'xxx"),
        (b"1", b"null", "for frame: expected object, got null"),
    ],
)
def test_a_frame_that_cannot_be_read_is_a_wire_error(direction: bytes, frame: bytes, said: str) -> None:
    """X1"""
    data = b'{"v":1,"t":"bus.frame","m":{"source":"me","direction":%s,"frame":%s}}' % (direction, frame)
    assert said in str(unreadable(data))
    assert len(str(unreadable(data))) < 500
    assert unreadable(data).class_name == "BusFrameMessage"


def test_local_frames_cannot_be_registered() -> None:
    """X1"""
    for kind in (StartFrame, EndFrame):
        with pytest.raises(RegistrationError, match="it is local"):
            wire.register(kind)


def test_the_error_has_the_tag_that_is_unknown() -> None:
    """X1: so that somebody can tell which program has to register it."""
    frame = b'{"t":"nobody\'s","id":3,"f":{}}'
    error = unreadable(b'{"v":1,"t":"bus.frame","m":{"source":"me","direction":1,"frame":%s}}' % frame)
    assert (error.unknown_tag, error.path) == ("nobody's", "frame")


def test_the_reasons_are_whole_sentences() -> None:
    """X1"""
    assert refusal(BusFrameMessage("text", FrameDirection.UPSTREAM, source="me")).reason == "it is no frame"
    assert refusal(BusFrameMessage(TextFrame("x"), 1, source="me")).reason == "it is no FrameDirection"
    assert refusal(carries(Unregistered())).reason == (
        "the class Unregistered was never registered: put @workerbus.wire.register over it, in each program that has "
        "to know it"
    )


def test_what_was_not_looked_at_before_is_looked_at_when_it_first_travels() -> None:
    """X1: the library's own frames, and the messages that carry them."""
    frame_parts.pop(TextFrame, None)
    codecs.pop(BusFrameMessage, None)
    frame = TextFrame("x", metadata={"a": [1]})
    for _ in range(2):
        assert content(there_and_back(carries(frame)).frame) == content(frame)
        assert refusal(carries(TextFrame("x", metadata={"a": {1}}))).path == "frame.metadata.a"
    assert set(frame_parts) >= {TextFrame}
    assert type(codecs[BusFrameMessage]) is FrameCodec
    parts = frame_parts[TextFrame]
    there_and_back(carries(frame))
    assert frame_parts[TextFrame] is parts


def test_whether_a_frame_may_be_interrupted_travels_only_where_that_was_set() -> None:
    """X1: else it is what the class says where the frame arrives."""
    frame = TextFrame("x")
    assert b"interruptible" not in WIRE.encode(carries(frame))
    frame.interruptible = False
    assert b"interruptible" in WIRE.encode(carries(frame))


def test_what_a_constructor_raises_where_a_frame_arrives_has_no_path() -> None:
    """X1: the fault is in no field, or in several."""

    @wire.register
    @define(slots=False, eq=False, on_setattr=[])
    class Between(DataFrame):
        low: int
        high: int

        def __attrs_post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is higher than high")

    frame = Between(1, 2)
    frame.low = 3
    error = refusal(carries(frame))
    assert (error.path, error.reason) == ("", "ValueError: low is higher than high")
