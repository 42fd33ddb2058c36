"""Commands to bytes and bytes to replies, in however many pieces they come."""

from typing import Any

import hiredis
from hypothesis import given, settings
from hypothesis import strategies as st

from workerbus.redis import RedisReplyError
from workerbus.redis._protocol import ProtocolError, ReplyParser, pack

errors = st.sampled_from(["ERR no", "NOSCRIPT No matching script.", "READONLY You can't write.", "MISCONF x y"])
plain = st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=5) | st.builds(RedisReplyError, errors)
replies = st.lists(st.recursive(plain, lambda inner: st.lists(inner, max_size=3), max_leaves=8), min_size=1, max_size=4)


def _bytes(reply: Any) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case RedisReplyError():
            return b"-%s\r\n" % str(reply).encode()
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(reply), reply)
    return b"*%d\r\n" % len(reply) + b"".join(map(_bytes, reply))


def _shown(reply: Any) -> Any:
    """A reply, so that errors with the same text and code are equal."""
    if isinstance(reply, list):
        return [_shown(each) for each in reply]
    return (reply.code, str(reply)) if isinstance(reply, RedisReplyError) else reply


@settings(max_examples=40)
@given(replies, st.data())
def test_replies_come_whole_and_in_order_in_however_many_pieces(sent: list[Any], data: st.DataObject) -> None:
    """X2: of two connections each has its own, whichever piece comes first."""
    whole = b"".join(map(_bytes, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    parsers = ReplyParser(), ReplyParser()
    got: tuple[list[Any], list[Any]] = [], []
    for piece in pieces:
        parsers[0].feed(piece, got[0], len(sent))
        for byte in piece:
            parsers[1].feed(bytes([byte]), got[1], len(sent))
    assert _shown(got[0]) == _shown(got[1]) == _shown(sent)
    for parser in parsers:  # and there is nothing left
        again: list[Any] = []
        parser.feed(whole, again, len(sent))
        assert _shown(again) == _shown(sent)


@settings(max_examples=30)
@given(replies, st.data())
def test_more_replies_than_commands_are_noticed_wherever_they_are_cut(sent: list[Any], data: st.DataObject) -> None:
    whole = b"".join(map(_bytes, [*sent, b"more"]))
    cut = data.draw(st.integers(0, len(whole)))
    parser, got = ReplyParser(), list[Any]()
    noticed = 0
    for piece in (whole[:cut], whole[cut:]):
        try:
            parser.feed(piece, got, len(sent))
        except ProtocolError:
            noticed += 1
    assert noticed


@settings(max_examples=20)
@given(st.lists(st.lists(st.text(max_size=3) | st.binary(max_size=3) | st.integers(), min_size=1, max_size=3)))
def test_commands_come_out_as_they_were_put_in(commands: list[list[Any]]) -> None:
    reader = hiredis.Reader()
    reader.feed(pack(commands))
    for command in commands:
        assert reader.gets() == [each if isinstance(each, bytes) else str(each).encode() for each in command]
    assert not reader.has_data()
