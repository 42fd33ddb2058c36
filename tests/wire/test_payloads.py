"""X1: payloads travel as JSON, and what would not come back equal is refused where it is sent, by its path."""

import datetime
import sys
import uuid
from collections import ChainMap, OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from math import inf, nan
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from attrs import define, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from support.wires import WIRE, Alert, Drawing, asks, carries, refusal, there_and_back
from workerbus import (
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobStreamDataMessage,
    BusJobUpdateMessage,
    JobStatus,
    bus_message,
    wire,
)
from workerbus.pipeline import DataFrame, TextFrame, frame_type
from workerbus.testing.strategies import payloads


@given(payloads())
def test_any_json_comes_back_equal(payload: dict[str, Any]) -> None:
    """X1"""
    assert there_and_back(asks(payload)).payload == payload


@given(payloads(), st.sampled_from(["response", "update", "data"]))
def test_any_json_comes_back_equal_in_all_that_is_sent_for_a_job(payload: dict[str, Any], field: str) -> None:
    """X1"""
    kinds = {
        "response": BusJobResponseMessage("1-a", JobStatus.COMPLETED, payload, source="me"),
        "update": BusJobUpdateMessage("1-a", payload, source="me"),
        "data": BusJobStreamDataMessage("1-a", payload, source="me"),
    }
    assert getattr(there_and_back(kinds[field]), field) == payload


@pytest.mark.parametrize("number", [0, -0.0, 1e308, 5e-324, 2**53 + 1, -(2**63), 2**64, 10**300, 0.1])
def test_numbers_keep_their_value_and_their_type(number: float) -> None:
    """X1"""
    came = there_and_back(asks({"n": number})).payload["n"]
    assert (repr(came), type(came)) == (repr(number), type(number))


def test_true_is_not_one() -> None:
    """X1: though the two are equal."""
    came = there_and_back(asks({"a": True, "b": 1, "c": 1.0})).payload
    assert [type(value) for value in came.values()] == [bool, int, float]


class Word(StrEnum):
    A = "a"


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "value",
    [
        Word.A,
        Number.ONE,
        {Word.A: 1},
        OrderedDict(b=1, a=2),
        defaultdict(list, a=[1]),
        MappingProxyType({"a": [1]}),
        ChainMap({"a": 1}, {"b": 2}),
        UserDict({"a": 1}),
    ],
    ids=repr,
)
def test_what_is_equal_to_plain_json_comes_back_as_plain_json(value: Any) -> None:
    """X1: equal is what counts, and not the class."""
    came = there_and_back(asks({"value": value})).payload["value"]
    assert came == value
    assert type(came) in (str, int, dict)


class Suit(Enum):
    HEARTS = "hearts"


class Text(str):
    __slots__ = ()


class Quarrelsome:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]  # as for any class with an own __eq__


@define(eq=False)
class QuarrelsomePair:
    a: int = 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]  # as for any class with an own __eq__


@frozen
class Pair:
    a: int
    b: int


Both = namedtuple("Both", "a b")  # noqa: PYI024 - any class of tuples
LOST = {
    "set": {1},
    "frozenset": frozenset("a"),
    "tuple": (1, 2),
    "empty tuple": (),
    "named tuple": Both(1, 2),
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "nan": nan,
    "inf": inf,
    "-inf": -inf,
    "object": object(),
    "module": sys,
    "class": int,
    "function": print,
    "exception": ValueError("x"),
    "generator": (n for n in range(3)),
    "range": range(3),
    "datetime": datetime.datetime(2026, 1, 1),
    "date": datetime.date(2026, 1, 1),
    "timedelta": datetime.timedelta(1),
    "decimal": Decimal("1.5"),
    "uuid": uuid.UUID(int=1),
    "complex": 1j,
    "enum": Suit.HEARTS,
    "subclass of str": Text("x"),
    "attrs object": Pair(1, 2),
    "message": Alert(source="me"),
    "what cannot be compared": Quarrelsome(),
    "what can be encoded and not compared": QuarrelsomePair(),
    "what is no JSON but says so": msgspec.Raw(b"{"),
    "surrogate": "\ud800",
    "too many digits": 10**5000,
}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
def test_what_would_not_come_back_equal_is_refused_by_its_path(lost: Any) -> None:
    """X1"""
    payload = {"before": [1, {"a": 2}], "items": [0, "x", None, {"when": lost, "after": {3}}], "later": {4}}
    error = refusal(asks(payload))
    assert error.path == "payload.items[3].when"
    assert error.class_name == "BusJobRequestMessage"
    assert str(error) == f"BusJobRequestMessage cannot travel, for payload.items[3].when: {error.reason}"


KEYS = {
    "[1]": 1,
    "[None]": None,
    "[True]": True,
    "[1.5]": 1.5,
    "[<tuple>]": (1, 2),
    "[<bytes>]": b"x",
    "[<Suit>]": Suit.HEARTS,
    "[1] of an enum": Number.ONE,
    "['\\ud800']": "\ud800",
}


@pytest.mark.parametrize("step", KEYS)
def test_a_key_that_is_no_text_is_refused(step: str) -> None:
    """X1"""
    error = refusal(asks({"a": {"ok": 1, KEYS[step]: 2}}))
    if KEYS[step] is not Number.ONE:
        assert error.path == f"payload.a{step}"
    assert error.path.startswith("payload.a[")


def test_two_keys_that_would_become_one_are_refused() -> None:
    """X1"""
    assert refusal(asks({"1": "a", 1: "b"})).path == "payload[1]"


def test_the_reasons_name_types_and_show_no_values() -> None:
    """X1, O3"""
    reasons = {name: refusal(asks({"x": lost})).reason for name, lost in LOST.items()}
    assert reasons["set"] == "set would come back as list"
    assert reasons["nan"] == "nan would come back as None"
    assert reasons["datetime"] == "datetime would come back as str"
    assert reasons["object"] == "object has no form in JSON"
    assert reasons["surrogate"] == "it has a lone surrogate, which is no text"
    assert reasons["too many digits"] == "it has too many digits"
    assert refusal(asks({"password": {("secret",): 1}})).reason == "a key is a text, not tuple"
    assert "secret" not in str(refusal(asks({"password": [("secret",)]})))


@pytest.mark.parametrize("key", ["a b", "", "ä", "0", "a.b", "class", "x" * 100, "x y" * 30])
def test_a_path_says_which_key(key: str) -> None:
    """X1"""
    path = refusal(asks({key: {1}})).path
    assert path == (f"payload.{key}" if key.isidentifier() else f"payload[{key[:40]!r}]")


def test_a_payload_in_itself_is_refused() -> None:
    """X1"""
    payload: dict[str, Any] = {"a": [1]}
    payload["a"].append({"again": payload})
    error = refusal(asks(payload))
    assert (error.path, error.reason) == ("payload.a[1].again", "it is in itself")


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = {"[": value} if level % 2 else [value]
    return value


@pytest.mark.parametrize("levels", [499, 500, 1_000, 5_000, 100_000])
def test_what_is_nested_too_deeply_is_refused(levels: int) -> None:
    """X1: by the same measure everywhere, though Python's own differs between its versions."""
    error = refusal(asks({"a": ["]" * 2_000], "b": nested(levels)}))
    assert error.reason == "it is nested in more than 500 levels"
    assert error.path.startswith("payload.b[")
    assert (len(error.path), error.path[-1]) == (101, "…")


def test_metadata_that_is_nested_too_deeply_is_refused() -> None:
    """X1: the frame counts, too."""
    assert there_and_back(carries(TextFrame("x", metadata={"a": nested(497)}))).frame.metadata == {"a": nested(497)}
    for levels in (498, 499, 5_000):
        frame = TextFrame("x", metadata={"a": nested(levels)})
        assert refusal(carries(frame)).reason == "it is nested in more than 500 levels"


def test_what_is_small_may_be_nested_too_deeply_all_the_same() -> None:
    """X1"""
    lists: list[Any] = []
    for _ in range(497):
        lists = [lists]
    assert there_and_back(asks({"a": lists})).payload == {"a": lists}
    assert refusal(asks({"a": [lists]})).reason == "it is nested in more than 500 levels"


@pytest.mark.parametrize("levels", [1, 100, 498])
@pytest.mark.parametrize("text", ["", "]" * 2_000, "[" * 2_000, '\\"[' * 1_000, "ö" * 2_000])
def test_what_is_nested_less_deeply_travels_whatever_is_in_its_texts(levels: int, text: str) -> None:
    """X1"""
    payload = {"a": [text, {text: text}], "b": nested(levels), "c": [[{"d": []}]] * 1_000}
    assert there_and_back(asks(payload)).payload == payload


def test_the_same_list_twice_is_not_in_itself() -> None:
    once = [1]
    assert there_and_back(asks({"a": once, "b": [once, once]})).payload == {"a": [1], "b": [[1], [1]]}


def test_the_same_list_twice_is_not_to_blame_for_what_else_is_wrong() -> None:
    """X1"""
    same: list[Any] = []
    error = refusal(asks({"a": same, "b": [same, {"c": same}], "d": {1}}))
    assert error.path == "payload.d"
    assert "set would come back as list" in error.reason


def test_a_payload_of_another_shape_is_refused() -> None:
    """X1"""
    assert (refusal(asks("text")).path, refusal(asks([1])).path) == ("payload", "payload")
    assert refusal(BusJobResponseMessage("1-a", JobStatus.ERROR, [1], source="me")).path == "response"  # type: ignore[arg-type]  # wrong on purpose


@wire.register
@bus_message
class Rows(BusDataMessage):
    rows: list[Any]


def test_open_fields_of_users_messages_are_payloads_too() -> None:
    """X1"""
    assert refusal(Drawing([], extra={"a": {1}}, source="me")).path == "extra.a"
    assert refusal(Drawing([], anything=[{"a": (1,)}], source="me")).path == "anything[0].a"
    assert refusal(Rows([1, {"a": {1}}], source="me")).path == "rows[1].a"
    assert there_and_back(Drawing([], anything=[{"a": 1}], source="me")).anything == [{"a": 1}]


def not_json() -> st.SearchStrategy[Any]:
    """What has a place in a payload in Python, and none in JSON."""
    return st.one_of(
        st.binary(),
        st.sets(st.integers()),
        st.tuples(st.integers()),
        st.decimals(),
        st.datetimes(),
        st.uuids(),
        st.complex_numbers(),
        st.sampled_from([nan, inf, -inf, Suit.HEARTS, object()]),
    )


def places(value: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    """Each place in a payload where something else can be put, with its path."""
    for key, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
        below = f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!r}]"
        yield value, key, below
        if isinstance(each, dict | list):
            yield from places(each, below)


@given(payloads(4), not_json(), st.data())
def test_any_payload_with_something_else_in_it_is_refused_by_its_path(
    payload: dict[str, Any], lost: Any, data: st.DataObject
) -> None:
    """X1"""
    payload["here"] = [{}]
    holder, key, path = data.draw(st.sampled_from(list(places(payload, "payload"))))
    holder[key] = lost
    assert refusal(asks(payload)).path == path


def mixed() -> st.SearchStrategy[Any]:
    inner = not_json() | payloads(2)
    return st.recursive(
        inner,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    )


@settings(max_examples=60)
@given(mixed())
def test_whatever_is_in_a_payload_comes_back_equal_or_is_refused(value: Any) -> None:
    """X1"""
    message = asks({"value": value})
    try:
        data = WIRE.encode(message)
    except ValueError:
        assert refusal(message).path.startswith("payload.value")
    else:
        assert WIRE.decode(data) == message


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (Any, {"a": {1}}, ".a"),
        (dict[str, Any], {"a": {1}}, ".a"),
        (dict[str, Any] | None, {"a": {1}}, ".a"),
        (list[Any], [0, {1}], "[1]"),
        (dict[str, list[Any]], {"a": [{1}]}, ".a[0]"),
        (dict[int, Any], {5: {1}}, ""),
        (dict[str, int], {"a": "b"}, "[...]"),
    ],
    ids=str,
)
def test_the_path_goes_as_deep_as_the_type_leaves_open_what_is_there(hint: Any, value: Any, path: str) -> None:
    """X1: in messages and in frames."""
    message_class: Any = bus_message(
        type("Open", (BusDataMessage,), {"__annotations__": {"held": hint}, "__module__": __name__})
    )
    frame_class: Any = frame_type(
        type("Open", (DataFrame,), {"__annotations__": {"held": hint}, "__module__": __name__})
    )
    wire.register(message_class)
    wire.register(frame_class)
    assert refusal(message_class(value, source="me")).path == f"held{path}"
    assert refusal(carries(frame_class(value))).path == f"frame.held{path}"


def test_metadata_of_a_users_frame_is_a_payload() -> None:
    """X1"""

    @wire.register
    @frame_type
    class Marked(DataFrame):
        n: int = 0

    assert refusal(carries(Marked(metadata={"at": [{1}]}))).path == "frame.metadata.at[0]"


@pytest.mark.parametrize("key", [5, 1.5, True, None, ("a",)], ids=str)
def test_the_reason_says_of_what_type_a_key_is(key: object) -> None:
    """X1"""
    kind = "None" if key is None else type(key).__name__
    assert refusal(asks({key: 1})).reason == f"a key is a text, not {kind}"


class Pairs:
    """What a dict can be made of, and is none."""

    def __iter__(self) -> Iterator[tuple[str, int]]:
        yield "a", 1


def test_what_could_be_a_dict_and_is_none_has_no_form() -> None:
    """X1"""
    assert refusal(asks({"a": Pairs()})).reason == "Pairs has no form in JSON"


@pytest.mark.parametrize("text", ["[", "]", "{" * 2_000])
def test_what_is_nested_too_deeply_is_refused_whatever_is_in_its_texts(text: str) -> None:
    """X1"""
    inner: Any = text
    for _ in range(600):
        inner = [inner]
    assert refusal(asks({"a": inner})).reason == "it is nested in more than 500 levels"


def test_what_is_wrong_in_the_deepest_level_is_not_its_depth() -> None:
    """X1"""
    inner: Any = [{1}]
    for _ in range(497):
        inner = [inner]
    error = refusal(asks({"a": inner}))
    assert error.reason == "set would come back as list"


def test_headers_that_are_texts_are_not_to_blame() -> None:
    """X1, X8"""
    message = BusJobRequestMessage("1-a", "count", {"a": {1}}, source="me", target="you", headers={"trace": "1"})
    assert refusal(message).path == "payload.a"


class Moody(Mapping[str, int]):
    """It fails when it is first looked into."""

    def __init__(self) -> None:
        self.looks = 0

    def __getitem__(self, key: str) -> int:
        return {"a": 1}[key]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        self.looks += 1
        if self.looks == 1:
            raise RuntimeError("not now, " + "and not later" * 100)
        return iter({"a": 1})


@define(eq=False)
class Shy:
    """It is like no other when it is first compared."""

    looks = 0

    def __eq__(self, other: object) -> bool:
        Shy.looks += 1
        return Shy.looks > 1

    __hash__ = None  # type: ignore[assignment]  # as where attrs makes the comparison


def test_where_no_fault_can_be_found_what_was_raised_is_told() -> None:
    """X1: by somebody's own classes, which are different the next time."""

    @wire.register
    @bus_message
    class Holding(BusDataMessage):
        held: Shy

    Shy.looks = 0
    moody = refusal(asks(Moody()))
    assert moody.path == ""
    assert moody.reason.startswith("RuntimeError: not now, and not later")
    assert len(moody.reason) == 200
    error = refusal(Holding(Shy(), source="me"))
    assert (error.path, error.reason) == ("", "what would come back is not equal to it")
