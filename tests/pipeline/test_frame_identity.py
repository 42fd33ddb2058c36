"""Frames that come twice, and copies of frames."""

import copy

from support.pipelines import DOWN, UP
from workerbus import BusFrameMessage
from workerbus.pipeline import DataFrame, FrameDirection, TextFrame
from workerbus.pipeline._crossing import SENDERS, Twice


def crossing(frame: TextFrame, direction: FrameDirection, bridge: str, source: str = "w") -> BusFrameMessage:
    return BusFrameMessage(frame, direction, bridge, source=source)


def test_a_frame_that_goes_both_ways_is_seen_twice() -> None:
    """P3: a second copy is one that goes the same way over another bridge."""
    twice, frame = Twice(), TextFrame("a")
    assert not twice.seen(crossing(frame, DOWN, "one"))
    assert not twice.seen(crossing(frame, UP, "two"))
    assert twice.seen(crossing(frame, DOWN, "two"))


def test_of_many_senders_the_last_ones_are_kept_apart() -> None:
    """P3: a sender that comes pushes out the one that came first, and no other."""
    twice, frame = Twice(), TextFrame("a")
    for number in range(SENDERS + 1):
        assert not twice.seen(crossing(frame, DOWN, "one", f"sender {number}"))
    for number in range(1, SENDERS + 1):
        assert twice.seen(crossing(frame, DOWN, "two", f"sender {number}"))


class Plain(DataFrame):
    """A frame whose attribute nobody declared."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word


def test_a_copy_of_a_frame_has_all_that_was_set_on_it() -> None:
    """P3: a receiver gets a copy of its own."""
    twin = copy.copy(Plain("word"))
    assert twin.word == "word"
