"""X1: what may be registered, under which tags; what would lose something is refused there."""

import pickle
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Annotated, Any, Generic, TypeVar

import pytest
from attrs import Factory, define, field, frozen
from msgspec import Meta

from support.wires import Alert, Sound, carries, refusal, there_and_back
from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusFrameMessage,
    BusJobRequestMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    bus_message,
    wire,
)
from workerbus._wire_table import FRAMES, MESSAGES
from workerbus.errors import RegistrationError, TagTakenError, WireError
from workerbus.pipeline import ControlFrame, DataFrame, Frame, SystemFrame, TextFrame, frame_type

T = TypeVar("T")


def test_a_class_is_registered_under_its_name() -> None:
    """X1"""

    @wire.register
    @bus_message
    class Weighing(BusDataMessage):
        celsius: float

    assert MESSAGES.by_tag["Weighing"] is Weighing
    assert there_and_back(Weighing(21.5, source="me")) == Weighing(21.5, source="me")


def test_a_class_is_registered_under_a_tag_of_ones_choice() -> None:
    """X1: as a decorator, or by a call."""

    @wire.register(tag="weighing.v2")
    @bus_message
    class Weighing(BusDataMessage):
        celsius: float

    @frame_type
    class Noise(DataFrame):
        level: int

    assert wire.register(Noise, tag="noise") is Noise
    assert MESSAGES.by_tag["weighing.v2"] is Weighing
    assert FRAMES.by_tag["noise"] is Noise
    assert there_and_back(carries(Noise(3))).frame.level == 3


def test_messages_and_frames_have_tags_of_their_own() -> None:
    """X1"""

    @frame_type
    class Another(DataFrame):
        pass

    wire.register(Another, tag="alert")
    assert (MESSAGES.by_tag["alert"], FRAMES.by_tag["alert"]) == (Alert, Another)


def test_a_tag_that_is_taken_is_refused_and_the_error_names_both_classes() -> None:
    """X1"""

    @bus_message
    class Another(BusDataMessage):
        pass

    with pytest.raises(TagTakenError) as caught:
        wire.register(Another, tag="alert")
    error = caught.value
    assert error.tag == "alert"
    assert error.holder == "support.wires.Alert"
    assert error.class_name.endswith(
        "test_a_tag_that_is_taken_is_refused_and_the_error_names_both_classes.<locals>.Another"
    )
    assert error.holder in str(error)
    assert error.class_name in str(error)
    assert isinstance(error, ValueError)
    assert "never registered" in refusal(Another(source="me")).reason  # nothing is left of the attempt


def test_a_class_is_registered_once() -> None:
    """X1: the same again changes nothing; a second tag would leave open which one is written."""
    assert wire.register(Alert, tag="alert") is Alert
    with pytest.raises(RegistrationError, match=r"^Alert cannot be registered for the wire: it is registered already"):
        wire.register(Alert)
    assert there_and_back(Alert(3, source="me")) == Alert(3, source="me")


def test_a_class_that_is_defined_again_replaces_the_former_one() -> None:
    """X1: so a cell of a notebook can be run twice."""

    def define_it() -> type[Any]:
        @wire.register
        @bus_message
        class Weighing(BusDataMessage):
            celsius: float

        return Weighing

    former, latter = define_it(), define_it()
    assert type(there_and_back(latter(1.0, source="me"))) is latter
    assert there_and_back(Alert(3, source="me")) == Alert(3, source="me")
    assert "never registered" in refusal(former(1.0, source="me")).reason


@pytest.mark.parametrize("tag", ["", "bus.mine", "a\nb", "\ud800", 5])
def test_a_tag_is_a_text_that_can_be_read_and_is_not_one_of_the_librarys(tag: Any) -> None:
    """X1"""

    @bus_message
    class Mine(BusDataMessage):
        pass

    with pytest.raises(ValueError, match=r"a tag is a printable text that does not begin with 'bus\.'"):
        wire.register(Mine, tag=tag)


def refused(cls: Any) -> RegistrationError:
    before = [dict(table.by_tag) for table in (MESSAGES, FRAMES)]
    with pytest.raises(RegistrationError) as caught:
        wire.register(cls)
    assert [table.by_tag for table in (MESSAGES, FRAMES)] == before
    assert isinstance(caught.value, TypeError)
    assert caught.value.class_name == getattr(cls, "__name__", repr(cls))
    return caught.value


class Plain:
    pass


@pytest.mark.parametrize(
    "cls", [Plain, BaseWorker, Frame, BusMessage, int, "Alert", Alert(source="me"), BusLocalMessage]
)
def test_what_is_neither_a_class_of_messages_nor_of_frames_is_refused(cls: Any) -> None:
    """X1"""
    assert "it is neither a class of messages, which has a lane, nor one of frames" in str(refused(cls))


def test_local_messages_are_refused() -> None:
    """X1, B8"""

    @bus_message
    class Inside(BusDataMessage, BusLocalMessage):
        n: int

    assert "it is local, and never leaves its process" in str(refused(Inside))


def test_local_frames_are_refused() -> None:
    """X1"""

    @frame_type
    class Inside(DataFrame):
        is_local = True

    assert "it is local" in str(refused(Inside))


def test_undecorated_classes_are_refused() -> None:
    """X1, N5"""

    class Bare(BusDataMessage):
        pass

    class WithFields(BusSystemMessage):
        n: int

    class BareFrame(DataFrame):
        pass

    for cls in (Bare, WithFields):
        assert "put @bus_message over the class, below @register" in str(refused(cls))
    assert "put @frame_type over the class, below @register" in str(refused(BareFrame))


def test_private_fields_are_refused() -> None:
    """X1: they would be left out."""

    @bus_message
    class Secret(BusDataMessage):
        n: int
        _key: str = ""

    @frame_type
    class SecretFrame(ControlFrame):
        _key: str = ""

    for cls in (Secret, SecretFrame):
        error = refused(cls)
        assert error.field_name == "_key"
        assert "the field '_key' begins with an underscore, and would be left out: give it a public name" in str(error)


def test_constructors_of_ones_own_are_refused() -> None:
    """X1: they would be passed by."""

    @bus_message
    class Counted(BusDataMessage):
        n: int

        def __init__(self, n: int, **names: Any) -> None:
            self.__attrs_init__(n + 1, **names)  # type: ignore[attr-defined]  # attrs makes it

    @frame_type
    class CountedFrame(SystemFrame):
        n: int

        def __init__(self, n: int) -> None:
            self.__attrs_init__(n + 1)  # type: ignore[attr-defined]  # attrs makes it

    for cls in (Counted, CountedFrame):
        assert "the constructor is its own, and would not be called where it arrives" in str(refused(cls))


@frozen
class Key:
    _key: str = ""


@dataclass
class Card:
    number: int
    _pin: int = 0


@define
class Own:
    n: int

    def __init__(self) -> None:
        self.n = 3


@dataclass
class Holder:
    keys: list[Key] = dataclass_field(default_factory=list)


class Custom:
    pass


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Key, "'_key' of Key begins with an underscore"),
        (list[Key | None], "'_key' of Key begins with an underscore"),
        (dict[str, tuple[int, Holder]], "'_key' of Key begins with an underscore"),
        (Card, "'_pin' of Card begins with an underscore"),
        (Own, "the constructor of Own is its own"),
        (object, "JSON has no form for object"),
        (Custom, "JSON has no form for Custom"),
        (list[Custom] | None, "JSON has no form for Custom"),
        (Callable[[], None], "JSON has no form for Callable"),
        (Iterable[int], "JSON has no form for Iterable"),
        (Exception, "JSON has no form for Exception"),
        (complex, "JSON has no form for complex"),
        (dict[Custom, int], "JSON has no form for Custom"),
        (str | bytes, "more than one str-like type"),
        (int | Custom, "custom type"),
        ("Nowhere", "an annotation cannot be resolved: name 'Nowhere' is not defined"),
    ],
    ids=repr,
)
def test_fields_that_json_cannot_bring_back_are_refused(kind: Any, said: str) -> None:
    """X1"""
    message: Any = bus_message(
        type("Mine", (BusDataMessage,), {"__annotations__": {"held": kind}, "__module__": __name__})
    )
    frame: Any = frame_type(type("Mine", (DataFrame,), {"__annotations__": {"held": kind}, "__module__": __name__}))
    for cls in (message, frame):
        error = refused(cls)
        assert said in str(error)
        assert error.field_name == (None if kind == "Nowhere" else "held")


def test_a_type_that_holds_itself_can_be_registered() -> None:
    """X1"""
    wire.register(Tree)
    tree = Tree(Node([Node(), Node([Node()])]), source="me")
    assert there_and_back(tree) == tree


@pytest.mark.parametrize("levels", [250, 20_000])
def test_objects_that_are_nested_too_deeply_are_refused(levels: int) -> None:
    """X1: those that Python cannot encode, and those that it can."""
    wire.register(Tree)
    node = Node()
    for _ in range(levels):
        node = Node([node])
    error = refusal(Tree(node, source="me"))
    assert (error.path, error.reason) == ("root", "it is nested in more than 500 levels")


@frozen
class Node:
    below: "list[Node]" = field(factory=list)


@bus_message
class Tree(BusDataMessage):
    root: Node


def test_generic_messages_travel() -> None:
    """X1"""

    @wire.register
    @bus_message
    class Box(BusDataMessage, Generic[T]):
        content: T

    assert there_and_back(Box({"a": [1]}, source="me")).content == {"a": [1]}
    assert refusal(Box([{1}], source="me")).path == "content[0]"


def test_what_the_class_checks_is_checked_where_it_arrives() -> None:
    """X1"""

    def positive(_message: object, _attribute: object, value: int) -> None:
        if value <= 0:
            raise ValueError("a level is more than 0")

    @wire.register
    @bus_message
    class Level(BusDataMessage):
        n: int = field(validator=positive)

    assert there_and_back(Level(1, source="me")) == Level(1, source="me")
    with pytest.raises(ValueError, match="Level cannot be read: a level is more than 0"):
        wire.Wire().decode(b'{"v":1,"t":"Level","m":{"source":"me","n":0}}')


def test_a_class_whose_checks_fail_in_their_own_way_is_refused_where_it_is_sent() -> None:
    """X1"""
    fails: list[int] = []

    @wire.register
    @bus_message
    class Moody(BusDataMessage):
        n: int = 0

        def __attrs_post_init__(self) -> None:
            if fails:
                raise KeyError("no")

    message = Moody(source="me")
    data = wire.Wire().encode(message)
    fails.append(1)
    assert refusal(message).reason == "KeyError: 'no'"
    with pytest.raises(WireError, match="Moody cannot be read: KeyError: 'no'"):
        wire.Wire().decode(data)


@frozen
class Doubled:
    n: int = 1
    twice: int = Factory(lambda self: 2 * self.n, takes_self=True)


def test_what_the_encoder_has_not_implemented_is_refused() -> None:
    """X1"""

    @bus_message
    class Twice(BusDataMessage):
        n: int
        twice: int = Factory(lambda self: 2 * self.n, takes_self=True)

    @bus_message
    class Holds(BusDataMessage):
        doubled: Doubled

    assert "takes_self" in str(refused(Twice))
    assert "takes_self" in str(refused(Holds))

    @wire.register
    @frame_type
    class TwiceFrame(DataFrame):
        n: int
        twice: int = Factory(lambda self: 2 * self.n, takes_self=True)

    assert there_and_back(carries(TwiceFrame(3))).frame.twice == 6


def test_the_librarys_own_tags_cannot_be_taken() -> None:
    """X1"""
    for cls in (BusJobRequestMessage, BusFrameMessage, TextFrame):
        with pytest.raises((RegistrationError, ValueError)):
            wire.register(cls)
    assert MESSAGES.by_class[BusJobRequestMessage] == "bus.job_request"
    assert FRAMES.by_class[TextFrame] == "bus.text"


def test_the_errors_can_be_pickled() -> None:
    """N9"""
    for error in (refused(Plain), refusal(Alert("x", source="me")), refusal(carries(Sound(b"", extra={"a": 1j})))):  # type: ignore[arg-type]  # wrong on purpose
        copied = pickle.loads(pickle.dumps(error))
        assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))


@define
class Hidden:
    _key: str = ""


@define
class Around(Generic[T]):
    inner: T


@define
class Sealed(Generic[T]):
    _key: T


@define
class Empty:
    """It has no fields."""


@pytest.mark.parametrize(
    "hint",
    [
        Hidden, list[Hidden], tuple[Hidden, int], tuple[int, Hidden], dict[str, Hidden], Hidden | None, Around[Hidden],
        Sealed[int], list[dict[str, Around[Hidden] | None]],
    ],
    ids=str,
)  # fmt: skip
def test_what_would_be_left_out_is_found_wherever_it_is_in_the_type_of_a_field(hint: Any) -> None:
    """X1"""
    kinds: list[Any] = [BusDataMessage, DataFrame]
    for base in kinds:
        made = type("Holding", (base,), {"__annotations__": {"held": hint}, "__module__": __name__})
        error = refused(bus_message(made) if base is BusDataMessage else frame_type(made))
        assert error.field_name == "held"
        assert re.search("the field '_key' of (Hidden|Sealed) begins with an underscore", str(error))


def test_what_has_no_fields_at_all_travels() -> None:
    """X1"""

    @wire.register
    @bus_message
    class Holding(BusDataMessage):
        empty: Empty

    assert there_and_back(Holding(Empty(), source="me")) == Holding(Empty(), source="me")


def test_a_refusal_is_a_whole_sentence() -> None:
    """X1"""

    @bus_message
    class Inside(BusDataMessage, BusLocalMessage):
        n: int

    start = "cannot be registered for the wire: it is"
    assert str(refused(Plain)) == f"Plain {start} neither a class of messages, which has a lane, nor one of frames"
    assert str(refused(Inside)) == f"Inside {start} local, and never leaves its process"


def test_what_its_annotations_demand_of_a_value_holds_for_frames_and_messages() -> None:
    """X1"""

    @wire.register
    @frame_type
    class Level(DataFrame):
        level: Annotated[int, Meta(ge=0)]

    @wire.register
    @bus_message
    class Levels(BusDataMessage):
        level: Annotated[int, Meta(ge=0)]

    assert there_and_back(carries(Level(0))).frame.level == 0
    assert refusal(carries(Level(-1))).path == "frame.level"
    assert refusal(Levels(-1, source="me")).path == "level"
