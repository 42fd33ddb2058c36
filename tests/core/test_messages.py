"""N5, B9: messages: what a class of them is like, what is refused while one is declared, and how each kind travels."""

import pickle
from functools import cached_property
from typing import Any, ClassVar, Final, cast

import attrs
import pytest
from attrs import field

from support.messages import Note, note
from support.subscribers import Plain
from workerbus import (
    BusDataMessage,
    BusEndMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusSystemMessage,
    JobRequestOptions,
    JobStatus,
    MemoryBus,
    MessageTypeError,
    WorkerBusError,
    WorkerRegistryEntry,
    bus_message,
    messages,
)
from workerbus.messages import BUILT_IN


def test_messages_with_the_same_content_are_equal() -> None:
    assert note(1, "it") == note(1, "it")
    assert note(1, "it") != note(2, "it")
    assert note(1, "it") != note(1)


def test_a_message_shows_its_fields() -> None:
    assert repr(Note(1, source="me", target="it")) == "Note(source='me', target='it', n=1)"


def test_a_changed_copy_is_another_message() -> None:
    """N5: frozen attrs classes, so that forwarding is `attrs.evolve`."""
    message: Any = note(1, "it")
    assert attrs.evolve(message, target="other") == note(1, "other")
    assert message.target == "it"


@pytest.mark.parametrize(
    "message",
    [
        note(1),
        BusJobRequestMessage("id", "name", {"a": [1]}, source="me"),
        BusJobRequestMessage("id", options=JobRequestOptions(3, 16, 0.5), source="me"),
        BusDataMessage(source="me"),
    ],
)
def test_a_message_survives_pickling(message: BusMessage) -> None:
    assert pickle.loads(pickle.dumps(message)) == message


def test_a_request_shows_and_compares_what_only_some_requests_say() -> None:
    """J20: and tells the attempt whether it says anything or not."""
    plain: Any = BusJobRequestMessage("id", source="me")
    again = attrs.evolve(plain, options=JobRequestOptions(attempt=2, delay=1.5))
    assert (plain.attempt, again.attempt) == (1, 2)
    assert plain != again
    assert again == BusJobRequestMessage("id", options=JobRequestOptions(2, delay=1.5), source="me")
    assert "options" not in repr(plain)
    assert "options=JobRequestOptions(attempt=2, delay=1.5)" in repr(again)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"attempt": 0}, ValueError),
        ({"attempt": True}, TypeError),
        ({"attempt": "1"}, TypeError),
        ({"max_buffered_events": 0}, ValueError),
        ({"max_buffered_events": 1.5}, TypeError),
        ({"delay": -1}, ValueError),
        ({"delay": float("nan")}, ValueError),
        ({"delay": "1"}, TypeError),
    ],
)
def test_what_a_request_cannot_say_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """N8: where it is said, and by its name."""
    with pytest.raises(error, match=f"^{next(iter(options))} is "):
        JobRequestOptions(**options)


def test_a_default_can_come_from_a_factory() -> None:
    @bus_message
    class Basket(BusDataMessage):
        items: list[int] = attrs.field(factory=list)

    assert Basket(source="me").items == []
    assert Basket(source="me").items is not Basket(source="me").items


def test_a_decorated_class_may_derive_from_a_decorated_one() -> None:
    @bus_message
    class First(BusSystemMessage):
        one: int

    @bus_message
    class Second(First):
        two: int = 2

    message = Second(1, source="me")
    assert (message.one, message.two, message.source) == (1, 2, "me")
    assert isinstance(message, First)


def test_a_class_without_fields_of_its_own_needs_no_decorator() -> None:
    class Ping(BusSystemMessage):
        """Only a name."""

        kind: ClassVar[str] = "ping"

        def shout(self) -> str:
            return self.source.upper()

    assert Ping(source="me", target="it").shout() == "ME"
    assert Ping.kind == "ping"


def test_a_decorated_class_may_use_super_in_its_methods() -> None:
    class Base(BusDataMessage):
        def text(self) -> str:
            return f"from {self.source}"

    @bus_message
    class Letter(Base):
        body: str

        def text(self) -> str:
            return f"{self.body} {super().text()}"

    assert Letter("hello", source="me").text() == "hello from me"


def test_a_class_variable_is_no_field() -> None:
    @bus_message
    class Versioned(BusDataMessage):
        VERSION: ClassVar[int] = 3
        n: int = 0

    assert Versioned(1, source="me").n == 1
    assert "VERSION" not in {field.name for field in attrs.fields(cast(Any, Versioned))}


def test_a_bare_class_that_defines_fields_is_only_refused_when_it_is_built() -> None:
    """N5: it may serve as a base whose decorated subclass lists the fields itself."""

    class Bare(BusDataMessage):
        n: int

    for arguments in ({"n": 1, "source": "me"}, {"source": "me"}, {}):
        with pytest.raises(MessageTypeError, match="@bus_message"):
            Bare(**arguments)


def test_a_refused_declaration_is_an_error_of_the_library_and_a_type_error() -> None:
    assert issubclass(MessageTypeError, WorkerBusError)
    assert issubclass(MessageTypeError, TypeError)


@pytest.mark.parametrize("thing", [int, object, 3, None, BusMessage])
def test_only_messages_with_a_lane_can_be_decorated(thing: Any) -> None:
    with pytest.raises(MessageTypeError, match="BusSystemMessage"):
        bus_message(thing)


def test_the_base_decides_the_lane_however_deep() -> None:
    class Deeper(Note):
        """Still a data message."""

    assert issubclass(Deeper, BusDataMessage)
    assert Deeper(1, source="me").n == 1


def test_a_job_status_compares_as_its_text() -> None:
    message = BusJobResponseMessage("id", JobStatus.COMPLETED, source="me")
    assert message.status == "completed"
    assert {status.value for status in JobStatus} == {"completed", "cancelled", "failed", "error"}


def test_a_registry_entry_is_frozen() -> None:
    entry = WorkerRegistryEntry("name")
    assert (entry.parent, entry.active, entry.bridged, entry.started_at) == (None, False, False, None)
    with pytest.raises(AttributeError):
        entry.active = True  # type: ignore[misc]  # on purpose


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


@bus_message
class Letter(BusDataMessage):
    """An own message."""

    text: str
    copies: int = 1


class Greeting(Letter):
    """An own message without fields of its own."""


async def test_the_same_object_reaches_every_subscriber() -> None:
    """N5: one object for all."""
    first, second = Plain("first"), Plain("second")
    message = Letter("hello", source="me")
    async with MemoryBus() as bus:
        await bus.subscribe(first)
        await bus.subscribe(second)
        await bus.send(message)
        await first.until(1)
        await second.until(1)
    assert first.got[0] is second.got[0] is message


@pytest.mark.parametrize(
    "message",
    [
        Letter("hello", source="me"),
        Greeting("hello", source="me"),
        BusEndMessage(source="me"),
        BusJobRequestMessage("1", source="me"),
    ],
)
def test_a_message_cannot_be_changed(message: BusMessage) -> None:
    """N5: nobody can change it for another, neither a field nor by adding one."""
    for name in ("source", "target", "anything"):
        with pytest.raises(AttributeError):
            setattr(message, name, "else")
    with pytest.raises(AttributeError):
        del message.source
    assert message.source == "me"


def test_an_own_message_has_its_fields_by_position_and_the_addresses_by_keyword() -> None:
    """N5: as the library's own messages."""
    letter = Letter("hello", 2, source="me", target="you")
    assert (letter.text, letter.copies, letter.source, letter.target) == ("hello", 2, "me", "you")
    with pytest.raises(TypeError):
        Letter("hello")  # type: ignore[call-arg]  # no source


async def test_an_own_message_chooses_its_lane_by_its_base() -> None:
    """N5: a subclass of `BusSystemMessage` goes before one of `BusDataMessage`."""

    @bus_message
    class Urgent(BusSystemMessage):
        text: str

    plain = Plain("plain")
    bus = MemoryBus()
    await bus.subscribe(plain)
    await bus.send(Letter("slow", source="me"))
    await bus.send(Urgent("fast", source="me"))
    async with bus:
        await plain.until(2)
    assert [type(message) for message in plain.got] == [Urgent, Letter]


def test_own_fields_without_the_decorator_are_refused_by_its_name() -> None:
    """N5: a `TypeError` that names the decorator."""

    class Bare(BusDataMessage):
        text: str

    class Deeper(Letter):
        extra: int = 0

    with pytest.raises(TypeError, match="bus_message"):
        Bare(source="me")
    with pytest.raises(TypeError, match="bus_message"):
        Deeper("hello", source="me")


def test_the_refusal_names_the_class_that_lacks_the_decorator() -> None:
    """N5: also where a class derives from it; a decorated one is refused where it is declared."""

    class Bare(BusDataMessage):
        text: str

    class Heir(Bare):
        pass

    with pytest.raises(TypeError, match="class Bare"):
        Heir(source="w")
    with pytest.raises(TypeError, match="class Bare"):

        @bus_message
        class Decorated(Bare):
            extra: int = 0


def test_a_message_class_may_have_a_constructor_of_its_own() -> None:
    """N5: it calls the one that attrs has made."""

    @bus_message
    class Warm(BusDataMessage):
        celsius: float

        def __init__(self, fahrenheit: float, *, source: str) -> None:
            self.__attrs_init__((fahrenheit - 32) / 1.8, source=source)  # type: ignore[attr-defined]  # attrs makes it

    @bus_message
    class Weather(Warm):
        wind: str

    assert Warm(212, source="w").celsius == 100
    assert (Weather(100, wind="north", source="w").celsius, Weather(1, wind="north", source="w").wind) == (100, "north")


def test_a_message_needs_a_lane() -> None:
    """N5: an own message is a subclass of `BusDataMessage` or of `BusSystemMessage`, and of one of them."""

    class Laneless(BusMessage):
        text: str

    class Both(BusDataMessage, BusSystemMessage):
        text: str

    class Neither:
        text: str

    for cls in (Laneless, Both, Neither):
        with pytest.raises(TypeError, match="BusDataMessage"):
            bus_message(cls)


SYSTEM, LOCAL, ANNOUNCED, UNBOUNDED, OF_A_JOB = "system", "local", "announced", "unbounded", "of a job"


TRAVELS: Final[dict[str, set[str]]] = {
    "BusActivateWorkerMessage": {UNBOUNDED},
    "BusDeactivateWorkerMessage": {UNBOUNDED},
    "BusEndMessage": {UNBOUNDED, ANNOUNCED},
    "BusEndWorkerMessage": {UNBOUNDED},
    "BusCancelMessage": {SYSTEM, ANNOUNCED},
    "BusCancelWorkerMessage": {SYSTEM},
    "BusAddWorkerMessage": {SYSTEM, LOCAL, ANNOUNCED},
    "BusWorkerErrorMessage": {SYSTEM},
    "BusWorkerLocalErrorMessage": {SYSTEM, LOCAL},
    "BusWorkerRegistryMessage": {SYSTEM, ANNOUNCED},
    "BusWorkerReadyMessage": {UNBOUNDED, ANNOUNCED},
    "BusWorkerGoneMessage": {UNBOUNDED, ANNOUNCED},
    "BusWorkerRestartingMessage": {UNBOUNDED, ANNOUNCED},
    "BusPoolLoadMessage": {UNBOUNDED, ANNOUNCED},
    "BusJobRequestMessage": set(),
    "BusJobResponseMessage": {UNBOUNDED, OF_A_JOB},
    "BusJobResponseUrgentMessage": {SYSTEM},
    "BusJobUpdateMessage": {OF_A_JOB},
    "BusJobUpdateUrgentMessage": {SYSTEM},
    "BusJobUpdateRequestMessage": {UNBOUNDED},
    "BusJobCancelMessage": {SYSTEM},
    "BusJobStreamStartMessage": {OF_A_JOB},
    "BusJobStreamDataMessage": {OF_A_JOB},
    "BusJobStreamEndMessage": {UNBOUNDED, OF_A_JOB},
    "BusJobStreamWaitingMessage": {UNBOUNDED, OF_A_JOB},
    "BusJobStreamWindowMessage": {SYSTEM},
    "BusFrameMessage": set(),
    "BusTTSSpeakMessage": set(),
    "BusObserveMessage": {SYSTEM, ANNOUNCED},
    "BusObservationMessage": {SYSTEM, ANNOUNCED},
}
"""B2, B7, B8, B9: which overtake, stay here, are for runners and observers, wait for no room, and are of a job."""


@pytest.mark.parametrize("name", TRAVELS)
def test_each_message_travels_as_its_purpose_demands(name: str) -> None:
    """B2, B7, B8, B9"""
    kind: type[BusMessage] = getattr(messages, name)
    flags = {SYSTEM: kind.system, LOCAL: kind.local, ANNOUNCED: kind.announcement, OF_A_JOB: kind.of_a_job}
    assert {flag for flag, is_set in {**flags, UNBOUNDED: not kind.bounded}.items() if is_set} == TRAVELS[name]


def test_all_but_frames_and_what_is_to_be_spoken_is_the_librarys_own_business() -> None:
    """W4: an inactive worker takes no frames, and nothing to speak."""
    assert {kind.__name__ for kind in BUILT_IN} == TRAVELS.keys() - {"BusFrameMessage", "BusTTSSpeakMessage"}


class Special(Note):
    """Another kind of note."""


def test_messages_of_two_kinds_are_two() -> None:
    """N5: whichever is asked."""
    special = Special(1, source="me")
    assert special != note(1)
    assert note(1) != special
    assert len({special, note(1)}) == 2
