"""Messages of the user's own, with what attrs lets fields say."""

from functools import cached_property
from typing import Any

from attrs import field

from workerbus import BusDataMessage, bus_message


@bus_message
class Login(BusDataMessage):
    user: str
    token: str = field(default="secret", repr=False)
    tries: list[int] = field(factory=list, eq=False)


def test_a_field_that_is_not_to_be_shown_is_not_shown() -> None:
    """N5: messages are attrs classes; the library logs them."""
    assert repr(Login("me", source="a")) == "Login(source='a', target=None, user='me', tries=[])"


def test_a_field_that_does_not_count_is_not_compared_and_not_hashed() -> None:
    """N5."""
    one, other = Login("me", tries=[1], source="a"), Login("me", tries=[2], source="a")
    assert one == other
    assert hash(one) == hash(other)


def test_what_a_message_has_worked_out_is_no_part_of_it() -> None:
    """N5: the same object reaches every subscriber, so none can make it another by looking at it."""

    @bus_message
    class Square(BusDataMessage):
        side: int

        @cached_property
        def area(self) -> int:
            return self.side**2

    looked_at: Any = Square(2, source="a")
    before = hash(looked_at)
    assert looked_at.area == 4
    assert looked_at == Square(2, source="a")
    assert hash(looked_at) == before
    assert "area" not in repr(looked_at)
