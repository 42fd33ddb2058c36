"""X1, X8: which messages travel, and that they come back equal."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given

from support.wires import WIRE, Alert, Colour, Drawing, Point, asks, changed, refusal, there_and_back
from workerbus import (
    BusAddWorkerMessage,
    BusDataMessage,
    BusFrameMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerRegistryMessage,
    JobRequestOptions,
    JobStatus,
    WorkerGoneData,
    WorkerRegistryEntry,
    bus_message,
    messages,
    wire,
)
from workerbus._message_base import set_peer
from workerbus._values import Peer
from workerbus._wire_table import MESSAGES
from workerbus.testing.strategies import MESSAGES as BUILT_IN
from workerbus.testing.strategies import messages as any_messages
from workerbus.wire import VERSION
from workerbus.wire._built_in import TAGS

TRAVELLING = [kind for kind in BUILT_IN if not kind.local and kind is not BusFrameMessage]


def values(message: BusMessage) -> dict[str, Any]:
    """All fields, those included by which messages are not compared."""
    return {its.name: getattr(message, its.name) for its in type(message).__attrs_attrs__}  # type: ignore[attr-defined]  # it is of attrs


@given(any_messages(TRAVELLING))
def test_every_message_of_the_library_comes_back_equal(message: BusMessage) -> None:
    """X1, X8"""
    came = there_and_back(message)
    assert type(came) is type(message)
    assert values(came) == values(message)


@given(any_messages([Drawing, Alert]).filter(lambda message: not getattr(message, "price", Decimal(0)).is_nan()))
def test_messages_of_users_come_back_equal(message: BusMessage) -> None:
    """X1"""
    came = there_and_back(message)
    assert came == message
    assert values(came) == values(message)


def test_whatever_has_a_type_comes_back_as_it_was() -> None:
    """X1: what JSON has no form for is brought back by the type of its field."""
    drawing = Drawing(
        [Point(1, 2.5)],
        Colour.GREEN,
        pair=(3, "x"),
        tags=frozenset("ab"),
        blob=b"\x00\xff",
        when=datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=UTC),
        price=Decimal("1.10"),
        key=UUID(int=7),
        by_number={1: "one"},
        source="me",
    )
    came = there_and_back(drawing)
    assert came == drawing
    assert type(came.points[0]) is Point
    assert type(came.pair) is tuple
    assert type(came.tags) is frozenset
    assert type(came.price) is Decimal


def test_parts_of_messages_come_back_as_the_classes_that_they_were() -> None:
    """X1: statuses, options, and the entries of lists."""
    answer = there_and_back(BusJobResponseMessage("1-a", JobStatus.FAILED, {"n": 1}, source="me"))
    assert answer.status is JobStatus.FAILED
    request = there_and_back(changed(asks({}), options=JobRequestOptions(attempt=2, delay=1.5)))
    assert request.options == JobRequestOptions(attempt=2, delay=1.5)
    workers, failed = [WorkerRegistryEntry("w", active=True)], [WorkerGoneData("v", "r", "it broke")]
    registry = there_and_back(BusWorkerRegistryMessage("r", workers, "life", 3, failed, source="r"))
    assert (registry.workers, registry.failed) == (workers, failed)


def test_headers_travel_with_every_message() -> None:
    """X8"""
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tenant": "ö"}
    for message in (asks({}), BusJobCancelMessage("1-a", source="me"), Alert(source="me")):
        assert there_and_back(changed(message, headers=headers)).headers == headers
    assert there_and_back(changed(asks({}), headers=MappingProxyType(headers))).headers == headers


def test_a_header_that_is_no_text_is_refused() -> None:
    """X8"""
    error = refusal(BusJobCancelMessage("1-a", source="me", headers={"depth": 1}))  # type: ignore[dict-item]  # wrong on purpose
    assert (error.class_name, error.path) == ("BusJobCancelMessage", "headers.depth")
    assert str(error) == "BusJobCancelMessage cannot travel, for headers.depth: a header is a text, not int"
    assert refusal(changed(asks({}), headers={1: "x"})).path == "headers[1]"


def test_a_request_that_was_built_without_a_payload_travels() -> None:
    assert there_and_back(BusJobRequestMessage("1-a", source="me")).payload is None


def test_where_a_message_came_from_does_not_travel() -> None:
    """X1: what the bus notes on a message is for its own process."""
    message = asks({"n": 1})
    set_peer(message, Peer("other", "life"))
    assert WIRE.encode(message) == WIRE.encode(asks({"n": 1}))
    assert there_and_back(message).peer is None


# --- the table


def test_every_message_class_that_is_not_local_has_a_tag_and_no_local_one() -> None:
    """X1, B8: a class that is added to the library has to be added to the table."""
    public = {each for each in vars(messages).values() if isinstance(each, type) and issubclass(each, BusMessage)}
    public -= {messages.BusMessage, messages.BusDataMessage, messages.BusSystemMessage}
    assert set(TAGS.values()) == {each for each in public if not each.local}


def test_tags_are_short_and_say_what_they_stand_for() -> None:
    """X1"""
    for tag, kind in TAGS.items():
        name = kind.__name__.removeprefix("Bus").removesuffix("Message").replace("TTS", "Tts")
        assert tag == "bus" + re.sub("[A-Z]", lambda at: "_" + at.group().lower(), name).replace("_", ".", 1)
        assert MESSAGES.by_tag[tag] is kind


STORED = {
    b'{"v":1,"t":"bus.job_request","m":{"job_id":"1-a","job_name":"count","options":{"attempt":2,"delay":null,'
    b'"max_buffered_events":null,"priority":0},"payload":{"n":[1,2.5,true,null,"x"]},"seconds_left":3.5,'
    b'"headers":{"h":"v"},"source":"me","target":"you"}}': BusJobRequestMessage(
        "1-a",
        "count",
        {"n": [1, 2.5, True, None, "x"]},
        3.5,
        options=JobRequestOptions(attempt=2),
        source="me",
        target="you",
        headers={"h": "v"},
    ),
    b'{"v":1,"t":"bus.job_response","m":{"job_id":"1-a","status":"completed","response":{},"source":"w"}}': (
        BusJobResponseMessage("1-a", JobStatus.COMPLETED, {}, source="w")
    ),
    b'{"v":1,"t":"alert","m":{"level":3,"source":"me"}}': Alert(3, source="me"),
}


@pytest.mark.parametrize("data", STORED)
def test_what_an_earlier_release_has_written_can_be_read(data: bytes) -> None:
    """X1: the format of version 1 stays as it is."""
    assert WIRE.decode(data) == STORED[data]
    assert there_and_back(STORED[data]) == STORED[data]


def test_the_bytes_are_json_that_people_can_read() -> None:
    """X1: a version, a tag, and the message's fields."""
    assert json.loads(WIRE.encode(asks({"n": 1}))) == {
        "v": VERSION,
        "t": "bus.job_request",
        "m": {
            "source": "me",
            "target": "you",
            "headers": None,
            "job_id": "1-a",
            "job_name": "count",
            "payload": {"n": 1},
            "seconds_left": None,
            "options": None,
        },
    }


# --- what has no tag


def test_local_messages_are_refused() -> None:
    """B8, X1"""
    for message in (BusAddWorkerMessage(object(), source="me"), BusWorkerLocalErrorMessage("it broke", source="me")):
        error = refusal(message)
        assert error.class_name == type(message).__name__
        assert error.reason == "it is local, and never leaves its process"


@bus_message
class Unregistered(BusDataMessage):
    n: int = 0


class AlsoUnregistered(Alert):
    """A subclass of a registered class is another class."""


def test_a_class_that_was_never_registered_is_refused_and_the_error_says_what_to_do() -> None:
    """X1"""
    for message in (Unregistered(source="me"), AlsoUnregistered(source="me"), BusDataMessage(source="me")):
        assert refusal(message).class_name == type(message).__name__
        assert "was never registered: put @workerbus.wire.register over it" in str(refusal(message))


def test_the_reason_of_a_class_that_was_never_registered_is_a_whole_sentence() -> None:
    """X1"""
    assert refusal(Unregistered(source="me")).reason == (
        "its class was never registered: put @workerbus.wire.register over it, in each program that has to know it"
    )


def test_the_path_has_the_whole_name_of_a_field() -> None:
    """X1"""

    @wire.register
    @bus_message
    class Axes(BusDataMessage):
        axisX: int  # noqa: N815 - the last letter is the point

    wrong: Any = "far"
    assert refusal(Axes(wrong, source="me")).path == "axisX"


def test_what_is_no_message_is_refused() -> None:
    assert str(refusal({"job_id": "1-a"})) == "dict cannot travel: it is no message"


def test_a_field_that_holds_something_else_than_its_type_says_is_refused_where_it_is_sent() -> None:
    """X1: and not only where it arrives, where nobody could tell the sender."""
    error = refusal(Drawing([Point(1), Point("x")], source="me"))  # type: ignore[arg-type]  # wrong on purpose
    assert (error.path, error.reason) == ("points[1].x", "expected int, got str")
    assert refusal(Drawing([], title=object(), source="me")).path == "title"  # type: ignore[arg-type]  # wrong on purpose
    assert refusal(Drawing([], share=float("nan"), source="me")).path == "share"
    assert refusal(Drawing([Point(1, note={1, 2})], source="me")).path == "points"
    assert refusal(BusJobCancelMessage(7, source="me")).path == "job_id"  # type: ignore[arg-type]  # wrong on purpose
