"""X1: each field alone, and each beside each other one: what comes back, what is refused, and what is missing."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import combinations, product
from typing import Any
from uuid import UUID

import pytest
from attrs import Factory, define, field

from support.wires import WIRE, Colour, Drawing, Point, carries, changed, refusal, there_and_back
from workerbus import BusFrameMessage, BusJobRequestMessage, BusMessage, wire
from workerbus.errors import WireError
from workerbus.pipeline import DataFrame, Frame, FrameDirection, TextFrame, UninterruptibleFrame, frame_type
from workerbus.wire._codec import codecs
from workerbus.wire._frame_codec import frame_parts


@wire.register(tag="all-fields.odd")
@frame_type
class Odd(DataFrame):
    """A frame with a field of each kind."""

    text: str = "x"
    other: str = field(default="y", alias="another")
    number: int | None = 7
    share: float = 0.5
    points: list[Point] = Factory(list)
    extra: dict[str, Any] | None = None
    colour: Colour = Colour.RED
    seen: int = field(init=False, default=3)
    notes: list[str] = field(init=False, factory=list)


@wire.register(tag="all-fields.firm")
@frame_type
class Firm(DataFrame, UninterruptibleFrame):
    """Another one, which has some fields of the same names, and is not to be interrupted."""

    text: int = 0
    other: str | None = None
    seen: bool = field(init=False, default=False)


OF_ALL: Mapping[str, list[Any]] = {
    "pts": [0, 5, 2**70],
    "metadata": [{"a": [1, None]}, {"": {"b": ""}}],
    "interruptible": [True, False],
}
OF_ODD: Mapping[str, list[Any]] = {
    "text": ["", "line\nline", "ü"],
    "other": ["", "x"],
    "number": [None, 0, -(2**63)],
    "share": [0.0, -1.5],
    "points": [[Point(0)], [Point(1, 2.0, {"a": []})]],
    "extra": [{}, {"k": [0, False, ""]}],
    "colour": [Colour.GREEN],
    "seen": [0, 9],
    "notes": [["a"], ["", "b"]],
    **OF_ALL,
}
OF_FIRM: Mapping[str, list[Any]] = {"text": [5], "other": ["", "y"], "seen": [True], **OF_ALL}
OF_CARRIER: Mapping[str, list[Any]] = {
    "source": ["", "ü"],
    "target": ["", "you"],
    "headers": [{"a": ""}, {"a": "b", "c": "d"}],
    "direction": [FrameDirection.UPSTREAM],
    "bridge": ["", "b"],
    "late_since": [0, 8],
    "process": ["", "p"],
}
OF_DRAWING: Mapping[str, list[Any]] = {
    "points": [[], [Point(0, -0.5)]],
    "colour": [Colour.GREEN],
    "title": ["", "a\nb"],
    "extra": [{}, {"a": {"b": None}}],
    "anything": [0, "", [], {"a": 1}],
    "pair": [(5, "x")],
    "tags": [frozenset({"a", "b"})],
    "blob": [b"\x00\n\xff"],
    "when": [datetime(2026, 1, 2, tzinfo=UTC)],
    "price": [Decimal("1.50")],
    "key": [UUID(int=5)],
    "by_number": [{}, {0: "a"}],
    "share": [0.0, 1e300],
    "source": [""],
    "target": ["you"],
    "headers": [{"a": "b"}],
}


def frame_with(cls: type[Frame], values: Mapping[str, Any]) -> Frame:
    frame = cls()
    for name, value in values.items():
        setattr(frame, name, value)
    return frame


def content(frame: Frame) -> dict[str, Any]:
    """All that is said by a frame."""
    names = [its.name for its in type(frame).__attrs_attrs__ if its.name != "marks"]  # type: ignore[attr-defined]  # it is of attrs
    return {name: getattr(frame, name) for name in [*names, "interruptible"]}


def each_and_pairs(values: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Each value of each field alone, and beside each value of each other one; and nothing, and all."""
    alone = [{name: value} for name, its in values.items() for value in its]
    beside = [one | other for one, other in combinations(alone, 2) if one.keys() != other.keys()]
    return [{}, *alone, *beside, {name: its[-1] for name, its in values.items()}]


@pytest.mark.parametrize(("cls", "fields"), [(Odd, OF_ODD), (Firm, OF_FIRM)], ids=["odd", "firm"])
def test_each_field_of_a_frame_comes_back_alone_and_beside_each_other_one(
    cls: type[Frame], fields: Mapping[str, list[Any]]
) -> None:
    """X1: a frame says nothing of another one that travels at the same time."""
    before: tuple[bytes, dict[str, Any]] | None = None
    for values in each_and_pairs(fields):
        frame = frame_with(cls, values)
        said = content(frame)
        data = WIRE.encode(carries(frame))
        assert b"\n" not in data  # several share an entry of an inbox, one in each line
        if before is not None:
            assert content(_frame_in(before[0])) == before[1]
        came = _frame_in(data)
        assert type(came) is cls
        assert content(came) == said == content(frame)
        came.metadata["spoilt"] = True
        if isinstance(came, Odd):
            came.points.append(Point(99))
            came.notes.append("spoilt")
        assert content(_frame_in(data)) == said
        before = data, said


def _frame_in(data: bytes) -> Frame:
    message: Any = WIRE.decode(data)
    assert isinstance(message, BusFrameMessage)
    assert isinstance(message.frame, Frame)
    return message.frame


def test_each_field_of_what_carries_a_frame_comes_back_alone_and_beside_each_other_one() -> None:
    """X1, X8"""
    for values in each_and_pairs(OF_CARRIER):
        message = changed(carries(Odd()), **values)
        came = there_and_back(message)
        for name in OF_CARRIER:
            assert getattr(came, name) == getattr(message, name), (name, values)
        assert content(came.frame) == content(message.frame)


def test_each_field_of_a_message_comes_back_alone_and_beside_each_other_one() -> None:
    """X1, X8"""
    for values in each_and_pairs(OF_DRAWING):
        message = changed(Drawing([Point(1)], source="me"), **values)
        assert b"\n" not in WIRE.encode(message)
        assert there_and_back(message) == message
        assert there_and_back(message).headers == message.headers


# --- what is refused

WRONG_IN_ODD: Mapping[str, tuple[Any, str]] = {
    "text": (5, ""),
    "other": (None, ""),
    "number": ("7", ""),
    "share": (float("nan"), ""),
    "points": ([Point(1), Point("x")], "[1].x"),  # type: ignore[arg-type]  # wrong on purpose
    "extra": ({"a": [0, {"b": (1,)}]}, ".a[1].b"),
    "colour": ("blue", ""),
    "seen": ("s", ""),
    "notes": (["a", 5], "[1]"),
    "pts": (1.5, ""),
    "metadata": ({"x": b""}, ".x"),
}
WRONG_IN_DRAWING: Mapping[str, tuple[Any, str]] = {
    "points": ([Point(0), Point("x")], "[1].x"),  # type: ignore[arg-type]  # wrong on purpose
    "colour": ("blue", ""),
    "title": (5, ""),
    "extra": ({"a": {"b": float("inf")}}, ".a.b"),
    "anything": ([0, [{1: 2}]], "[1][0][1]"),
    "pair": ((1, 2), "[1]"),
    "tags": (frozenset({"a", 5}), ""),
    "blob": ("no bytes", ""),
    "price": ("much", ""),
    "by_number": ({"x": "y"}, ""),
    "share": (float("nan"), ""),
    "source": (5, ""),
    "target": (b"x", ""),
    "headers": ({"a": 5}, ".a"),
}
WRONG_THOUGH_NOTHING: Mapping[str, tuple[Any, str]] = {
    "title": (0, ""),
    "extra": ({"a": ()}, ".a"),
    "anything": (b"", ""),
    "blob": (0, ""),
    "source": (0, ""),
    "headers": ({"a": "x", "b": None}, ".b"),
}
"""Values that are wrong, and false in a condition."""


def _refused(make: Callable[[dict[str, Any]], BusMessage], wrong: Mapping[str, tuple[Any, str]], prefix: str) -> None:
    """Whatever is wrong is refused, and the path leads to it, or to what else is wrong."""
    alone: dict[str, WireError] = {}
    for name, (value, step) in wrong.items():
        alone[name] = refusal(make({name: value}))
        assert alone[name].path.startswith(f"{prefix}{name}"), (name, alone[name])
        if step:
            assert alone[name].path == f"{prefix}{name}{step}"
    for one, other in combinations(wrong, 2):
        error = refusal(make({one: wrong[one][0], other: wrong[other][0]}))
        said = {(alone[each].path, alone[each].reason) for each in (one, other)}
        assert (error.path, error.reason) in said, (one, other)


def test_each_field_of_a_frame_is_refused_alone_and_beside_each_other_one() -> None:
    """X1: where it is sent; the path leads to what is wrong."""
    _refused(lambda values: carries(frame_with(Odd, values)), WRONG_IN_ODD, "frame.")


def test_each_field_of_a_message_is_refused_alone_and_beside_each_other_one() -> None:
    """X1"""
    for wrong in (WRONG_IN_DRAWING, WRONG_THOUGH_NOTHING):
        _refused(lambda values: changed(Drawing([], source="me"), **values), wrong, "")


def test_a_frame_is_refused_for_what_carries_it_alone_and_together() -> None:
    """X1, X8"""
    wrong: dict[str, Any] = {
        "source": 5,
        "target": 5,
        "headers": {"a": 5},
        "bridge": 5,
        "late_since": "x",
        "process": 5,
    }
    for one, other in product(wrong, wrong):
        message = changed(carries(Odd()), **{one: wrong[one], other: wrong[other]})
        assert refusal(message).path.partition(".")[0] in (one, other)
        spoilt = changed(carries(frame_with(Odd, {"text": 5})), **{one: wrong[one]})
        assert refusal(spoilt).path.partition(".a")[0] in (one, "frame.text")


@wire.register(tag="all-fields.loose")
@define(slots=False, eq=False)
class Loose(DataFrame):
    n: int = 0


@pytest.mark.parametrize("value", [None, 0, "", [], False, 5, {"a": 1}], ids=str)
def test_what_is_put_on_a_frame_beside_its_fields_is_refused_whatever_it_is(value: Any) -> None:
    """X1: alone, and of several."""
    frame: Any = Loose()
    frame.metadata, frame.interruptible = {"a": 1}, False
    assert content(there_and_back(carries(frame)).frame) == content(frame)
    frame.more = value
    assert refusal(carries(frame)).path == "frame.more"
    frame.also = 1
    assert refusal(carries(frame)).path == "frame.also"


# --- what is missing, or more than is known


def test_fields_that_are_missing_have_their_defaults_alone_and_together() -> None:
    """X1: programs of several versions understand each other; what is more than they know is ignored."""
    values = {name: its[-1] for name, its in OF_ODD.items()}
    frame = frame_with(Odd, values)
    whole = json.loads(WIRE.encode(carries(frame)))
    own = [name for name in OF_ODD if name not in OF_ALL]
    for missing in [[], *([each] for each in own), *combinations(own, 2), own]:
        data = json.loads(json.dumps(whole))
        for name in missing:
            del data["m"]["frame"]["f"][name]
        data["m"]["frame"]["f"]["more"] = data["m"]["more"] = data["more"] = 1
        came = _frame_in(json.dumps(data).encode())
        expected = frame_with(Odd, {name: value for name, value in values.items() if name not in missing})
        assert {**content(came), "id": 0} == {**content(expected), "id": 0}, missing


def test_two_messages_and_two_frames_of_one_class_do_not_mix() -> None:
    """X1: whichever is encoded or read first."""
    frames = [frame_with(Odd, {"text": "a", "metadata": {"n": 1}}), frame_with(Odd, {"other": "b", "seen": 1}), Firm()]
    messages: list[BusMessage] = [carries(each) for each in frames]
    messages.append(BusJobRequestMessage("1", "count", {"a": 1}, source="me", target="you"))
    messages.append(BusJobRequestMessage("2", "count", {}, source="me", target="you"))
    datas = [WIRE.encode(each) for each in messages]
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        came = {each: WIRE.decode(datas[each]) for each in order}
        for each in order:
            assert WIRE.encode(came[each]) == datas[each] == WIRE.encode(messages[each])


def test_two_classes_of_one_name_are_two() -> None:
    """X1: whichever was looked at first, and where the library has a frame of that name, too."""
    codecs.pop(BusFrameMessage, None)
    frame_parts.pop(TextFrame, None)
    mine, other = _frame_named("TextFrame", "all-fields.mine"), _frame_named("TextFrame", "all-fields.other")
    for frame in (TextFrame("x"), mine(1), other(2), TextFrame("y"), mine(3)):
        came = there_and_back(carries(frame)).frame
        assert type(came) is type(frame)
        assert content(came) == content(frame)


def _frame_named(name: str, tag: str) -> Any:
    cls = type(name, (DataFrame,), {"__annotations__": {"number": int}, "__module__": tag})
    return wire.register(frame_type(cls), tag=tag)
