"""Messages: what a class of them is like, and what is refused while one is declared."""

import pickle
from typing import Any, ClassVar, cast

import attrs
import pytest

from support.messages import Note, note
from workerbus import (
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusSystemMessage,
    JobStatus,
    MessageTypeError,
    WorkerBusError,
    WorkerRegistryEntry,
    bus_message,
)


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
    [note(1), BusJobRequestMessage("id", "name", {"a": [1]}, source="me"), BusDataMessage(source="me")],
)
def test_a_message_survives_pickling(message: BusMessage) -> None:
    assert pickle.loads(pickle.dumps(message)) == message


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
