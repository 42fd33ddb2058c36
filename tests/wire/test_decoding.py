"""X1: whatever arrives is a message, or one `WireError`."""

import json
import os
import random
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.wires import WIRE, Alert, Point, Siren, Sound, asks, carries, changed, there_and_back, unreadable
from workerbus import (
    BusActivateWorkerMessage,
    BusJobResponseMessage,
    BusMessage,
    BusWorkerRegistryMessage,
    JobRequestOptions,
    JobStatus,
    WorkerGoneData,
    WorkerRegistryEntry,
    wire,
)
from workerbus.errors import WireError
from workerbus.pipeline import TextFrame


def test_another_version_is_refused_and_the_error_says_which() -> None:
    """X1"""
    for data in (b'{"v":2,"t":"bus.job_request","m":{}}', b'{"v":2,"tag":["another","format"]}', b'{"m":5,"v":2}'):
        error = unreadable(data)
        assert str(error) == (
            "a message cannot be read: it is of version 2 of the format, and this program reads version 1"
        )


def test_of_a_version_no_more_is_shown_than_is_good() -> None:
    """X1"""
    said = "it is of version 12345678901234567890 of the format, and this program reads version 1"
    assert unreadable(b'{"v":"1234567890123456789012345"}').reason == said


def test_fields_that_are_not_known_are_ignored() -> None:
    """X1: a later release may have more."""
    data: Any = json.loads(WIRE.encode(asks({"n": 1})))
    data["more"] = {"of": ["it"]}
    data["m"]["priority_of_the_moon"] = 3
    data["m"]["options"] = {"attempt": 2, "colour": "red"}
    assert WIRE.decode(json.dumps(data).encode()) == changed(asks({"n": 1}), options=JobRequestOptions(attempt=2))


def test_fields_that_are_missing_have_their_defaults() -> None:
    """X1: an earlier release may have fewer."""
    came = WIRE.decode(b'{"v":1,"t":"bus.job_response","m":{"source":"w","job_id":"1-a","status":"error"}}')
    assert came == BusJobResponseMessage("1-a", JobStatus.ERROR, source="w")


BAD = {
    b"": "truncated",
    b"\x00": "malformed",
    b"null": "expected object, got null",
    b"{}": "object missing required field v",
    b'{"v":1,"t":"bus.end"}': "object missing required field m",
    b'{"v":1,"t":7,"m":{}}': "for t: expected str, got int",
    b'{"v":1,"t":"bus.end","m":[]}': "BusEndMessage cannot be read: expected object, got array",
    b'{"v":1,"t":"bus.end","m":{}}': "BusEndMessage cannot be read: object missing required field source",
    b'{"v":1,"t":"bus.end","m":{"source":5}}': "BusEndMessage cannot be read, for source: expected str, got int",
    b'{"v":1,"t":"bus.end","m":{"source":"x"}': "truncated",
    b'{"v":1,"t":"bus.end","m":{"source":"\xff"}}': "cannot be read",
    b'{"v":1,"t":"bus.end","m":{"source":"\\ud800"}}': "cannot be read",
    b'{"v":1,"t":"bus.end","m":{"source":"x","headers":{"a":1}}}': "for headers[...]: expected str, got int",
    b'{"v":1,"t":"bus.job_response","m":{"source":"x","job_id":"1","status":"good"}}': "for status: invalid enum value",
    b'{"v":1,"t":"bus.job_response","m":{"source":"x","job_id":"1","status":"%s"}}' % (b"x" * 9_999): "for status: inv",
    b'{"v":1,"t":"%s","m":{}}' % (b"x" * 9_999): "there is no class 'xxx",
    b'{"v":1,"t":"bus.job_request","m":{"source":"x","job_id":"1","options":{"attempt":0}}}': "for options: attempt is",
    b'{"v":1,"t":"bus.job_request","m":{"source":"x","job_id":"1","seconds_left":"1"}}': "for seconds_left: expected",
    b'{"v":1,"t":"bus.add_worker","m":{"source":"x","worker":{}}}': "there is no class 'bus.add_worker' here",
    b'{"v":1,"t":"os.system","m":{"source":"x"}}': "there is no class 'os.system' here",
    b'{"v":1,"t":"workerbus.messages.BusEndMessage","m":{"source":"x"}}': "there is no class",
    b'{"v":1,"t":"BusAddWorkerMessage","m":{"source":"x"}}': "there is no class",
    b'{"v":1,"t":"bus.job_request","m":{"source":"x","job_id":"1","payload":{"n":'
    + b"1" * 5000
    + b"}}}": "out of range",
    b"[" * 100_000: "cannot be read",
    b'{"v":1,"t":"bus.job_request","m":{"source":"x","job_id":"1","payload":{"n":' + b"[" * 100_000: "cannot be read",
    b'{"v":1,"t":"bus.job_request","m":{"source":"x","job_id":"1","payload":{"n":%s}}}'
    % (b"[" * 100_000 + b"]" * 100_000): "RecursionError",
}


@pytest.mark.parametrize("data", BAD, ids=lambda data: ascii(data[:60]))
def test_what_is_no_message_is_a_wire_error_that_says_why(data: bytes) -> None:
    """X1"""
    assert BAD[data] in str(unreadable(data))
    assert len(str(unreadable(data))) < 500


def _kind(data: object) -> str:
    return type(data).__name__  # what a plain object shows differs from process to process


@pytest.mark.parametrize("data", [None, 5, "text", [], {}, object(), Alert(source="me")], ids=_kind)
def test_what_is_not_even_bytes_is_a_wire_error(data: Any) -> None:
    assert unreadable(data).class_name == ""


# --- the size


def test_a_message_is_measured_where_it_is_sent() -> None:
    """X1: in bytes, all of them counted."""
    size = len(WIRE.encode(asks({"text": "ö" * 100})))
    assert len(wire.Wire(size).encode(asks({"text": "ö" * 100}))) == size
    with pytest.raises(WireError) as caught:
        wire.Wire(size - 1).encode(asks({"text": "ö" * 100}))
    assert str(caught.value) == (
        f"BusJobRequestMessage cannot travel: it has {size} bytes, and max_message_size is {size - 1}"
    )


def test_a_message_is_measured_where_it_arrives_before_anybody_looks_into_it() -> None:
    """X1"""
    data = WIRE.encode(asks({"text": "x"}))
    assert wire.Wire(len(data)).decode(data) == asks({"text": "x"})
    error = unreadable(data, wire.Wire(len(data) - 1))
    assert error.reason == f"it has {len(data)} bytes, and max_message_size is {len(data) - 1}"
    assert "max_message_size" in unreadable(b"\x00" * len(data), wire.Wire(10)).reason


def test_by_default_a_message_may_have_a_mebibyte() -> None:
    """X1"""
    empty = len(WIRE.encode(asks({"text": ""})))
    assert there_and_back(asks({"text": "x" * (2**20 - empty)})).payload["text"].endswith("x")
    with pytest.raises(WireError, match="it has 1,048,577 bytes, and max_message_size is 1,048,576"):
        WIRE.encode(asks({"text": "x" * (2**20 - empty + 1)}))


def test_a_message_of_just_the_size_that_it_may_have_is_looked_at_like_all_others() -> None:
    """X1: what would not come back equal is refused."""
    lost = asks({"text": (1,), "a": "b"})
    size = len(WIRE.encode(asks({"text": [1], "a": "b"})))
    with pytest.raises(WireError, match=r"tuple would come back as list"):
        wire.Wire(size).encode(lost)


def test_a_message_of_one_byte_may_be_all_that_is_allowed() -> None:
    assert unreadable(b"12", wire.Wire(1)).reason == "it has 2 bytes, and max_message_size is 1"


def test_a_message_that_is_too_large_where_it_is_sent_has_not_arrived() -> None:
    """X1"""
    with pytest.raises(WireError) as caught:
        wire.Wire(1).encode(asks({}))
    assert caught.value.arrived is False


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_is_at_least_one(size: int) -> None:
    with pytest.raises(ValueError, match="max_message_size must be at least 1"):
        wire.Wire(size)


# --- anything at all

VALID = [
    WIRE.encode(message)
    for message in (
        asks({"a": [1, 2.5, None, True, "ö\\"], "b": {"c": {}}}),
        BusJobResponseMessage("1-a", JobStatus.FAILED, {"error": "x", "type": "ValueError"}, source="w", target="me"),
        BusWorkerRegistryMessage(
            "r",
            [WorkerRegistryEntry("w", "p", True, False, 1.5)],
            "life",
            3,
            [WorkerGoneData("v", "r", "x")],
            source="r",
        ),
        BusActivateWorkerMessage({"metadata": None}, {"process": 3}, source="me", headers={"a": "b"}),
        Alert(3, source="me"),
        carries(TextFrame("hello", pts=5, metadata={"a": 1}), headers={"a": "b"}),
        carries(Sound(b"abc", 8_000, {"a": []})),
        carries(Siren([Point(1, 2.0)])),
    )
]
SPLICES = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"-", b"1e999", b"9" * 30, b"\\ud800"),
    *(b"\xff", b"\x00", b"\xed\xa0\x80", b'"v":2', b'"t":"os.system",', b'"__class__":"os.system",', b"[" * 2000),
]


def any_bytes(seed: int) -> Iterator[bytes]:
    """Valid messages with something wrong in them, and things that never were messages."""
    draw = random.Random(seed)
    while True:
        data = bytearray(draw.choice(VALID))
        kind = draw.random()
        if kind < 0.03:
            yield draw.randbytes(draw.randrange(40))
            continue
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            at = draw.randrange(len(data) + 1)
            if kind < 0.3:
                data[at : at + 1] = draw.randbytes(1)
            elif kind < 0.5:
                data[at : at + draw.randrange(8)] = draw.choice(SPLICES)
            elif kind < 0.7:
                other = draw.choice(VALID)
                start = draw.randrange(len(other))
                data[at : at + draw.randrange(30)] = other[start : start + draw.randrange(30)]
            elif kind < 0.85:
                del data[at : at + draw.randrange(20)]
            else:
                data[at:at] = data[draw.randrange(len(data) + 1) :][: draw.randrange(60)]
        yield bytes(data)


def try_all(count: int, seed: int) -> int:
    """Decode so many inputs; returns how many were messages after all."""
    modules, good = set(sys.modules), 0
    inputs = any_bytes(seed)
    for _ in range(count):
        try:
            message = WIRE.decode(next(inputs))
        except WireError as error:
            assert error.arrived  # noqa: PT017 - of a million, few are worth a context of their own
        else:
            assert isinstance(message, BusMessage)
            good += 1
    assert set(sys.modules) == modules
    return good


def test_no_bytes_do_anything_but_raise_a_wire_error() -> None:
    """X1: nor is anything imported because of them."""
    assert 1_000 < try_all(30_000, seed=1) < 29_000


@pytest.mark.slow
@pytest.mark.skipif("WORKERBUS_SOAK" not in os.environ, reason="takes half a minute: set WORKERBUS_SOAK to seconds")
def test_none_of_a_million_inputs_does_anything_but_raise_a_wire_error() -> None:
    """X1: nor is anything imported because of them."""
    assert 10_000 < try_all(1_000_000, seed=int(os.environ.get("WORKERBUS_SEED", "2"))) < 990_000


@given(st.binary(max_size=200))
def test_random_bytes_are_wire_errors(data: bytes) -> None:
    """X1"""
    unreadable(data)


def json_values() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


TAGS = re.findall(r'"t":"([\w.]+)"', b" ".join(VALID).decode())


@given(
    st.sampled_from(TAGS),
    st.dictionaries(st.sampled_from(["source", "job_id", "frame", "workers", "n"]), json_values()),
)
def test_any_json_in_an_envelope_is_a_message_or_a_wire_error(tag: str, fields: dict[str, Any]) -> None:
    """X1"""
    try:
        assert isinstance(WIRE.decode(json.dumps({"v": 1, "t": tag, "m": fields}).encode()), BusMessage)
    except WireError as error:
        assert error.arrived  # noqa: PT017 - either will do
