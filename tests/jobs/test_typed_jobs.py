"""J17: handlers that take their payload, and give their answer, as a type of their own."""

import datetime
import enum
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Annotated, Any, Generic, Literal, Never, NewType, Protocol, TypedDict, TypeVar
from uuid import UUID

import anyio
import msgspec
import pytest
from attrs import field, frozen

from support.requesters import Raw
from support.workers import running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    HandlerTypeError,
    JobAnswer,
    JobContext,
    JobError,
    JobGroupError,
    JobStatus,
    JobStreamContext,
    MissingExtraError,
    NotRunningError,
    PayloadError,
    current_job,
    job,
)
from workerbus.jobs import _typing

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


@frozen
class Line:
    text: str
    at: int = 0


@frozen
class Words:
    lines: list[Line]
    times: int = 1


@dataclass
class Count:
    words: int
    by: str = ""


class Box(TypedDict):
    side: float


class Size(msgspec.Struct):
    volume: float


@frozen
class Rich:
    data: bytes
    when: datetime.datetime
    id: UUID
    colour: Colour
    maybe: Line | None = None


@frozen
class Page(Generic[T]):
    items: list[T]


class Typed(BaseWorker):
    """Has a handler of each kind."""

    @job(name="count")
    async def count(self, words: Words) -> Count:
        assert isinstance(words, Words)
        assert all(isinstance(line, Line) for line in words.lines)
        return Count(sum(len(line.text.split()) for line in words.lines) * words.times, self.name)

    @job(name="box")
    async def box(self, box: Box) -> Size:
        return Size(box["side"] ** 3)

    @job(name="size")
    async def size(self, size: Size) -> Box:
        return {"side": size.volume ** (1 / 3)}

    @job(name="rich")
    async def rich(self, rich: Rich) -> Rich:
        assert isinstance(rich.colour, Colour)
        return rich

    @job(name="page")
    async def page(self, page: Page[Line]) -> Page[Count]:
        return Page([Count(len(line.text)) for line in page.items])

    @job(name="plain")
    async def plain(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {"got": dict(payload)}

    @job(name="either")
    async def either(self, either: Line | None) -> dict[str, Any]:
        return {"got": str(either)}

    @job(name="message")
    async def message(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"got": message.payload}

    @job(name="untyped")
    async def untyped(self, message):  # type: ignore[no-untyped-def]  # as people write it
        return {"got": message.payload}

    @job(name="stream")
    async def stream(self, words: Words) -> AsyncIterator[Count]:
        for line in words.lines:
            yield Count(len(line.text.split()))

    @job(name="plain stream")
    async def plain_stream(self, words: Words):  # type: ignore[no-untyped-def]  # as people write it
        for line in words.lines:
            yield {"words": len(line.text.split())}

    @job(name="generator")
    async def generator(self, words: Words) -> AsyncGenerator[Count, None]:
        for line in words.lines:
            yield Count(len(line.text.split()))

    @job(name="wrong")
    async def wrong(self, words: Words) -> Count:
        return Count("three")  # type: ignore[arg-type]  # the mistake

    @job(name="wrong stream")
    async def wrong_stream(self, words: Words) -> AsyncIterator[Count]:
        yield Count(1)
        yield Count("three")  # type: ignore[arg-type]  # the mistake


WORDS = Words([Line("to be or not"), Line("to be")])


@pytest.mark.parametrize(
    ("handler", "payload", "answer"),
    [
        (Typed.count, WORDS, Count(6, "typed")),
        (Typed.box, Box(side=2), Size(8)),
        (Typed.size, Size(8), {"side": 2.0}),
        (Typed.page, Page([Line("abc")]), Page([Count(3)])),
        (Typed.plain, {"a": 1}, {"got": {"a": 1}}),
        (Typed.message, {"a": 1}, {"got": {"a": 1}}),
        (Typed.untyped, {"a": 1}, {"got": {"a": 1}}),
    ],
)
async def test_a_handler_gets_and_gives_what_its_annotations_say(handler: Any, payload: Any, answer: Any) -> None:
    """J17: attrs classes, dataclasses, `TypedDict`s, msgspec structs, generic ones, mappings, and the request."""
    async with running(Typed("typed")) as runner:
        assert await runner.job("typed", handler, payload=payload) == answer


async def test_what_json_has_not_stays_what_it_is() -> None:
    """J17: bytes, times, ids, enums, and what may be None."""
    rich = Rich(b"\0x", datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), UUID(int=3), Colour.RED, Line("a"))
    async with running(Typed("typed")) as runner:
        assert await runner.job("typed", Typed.rich, payload=rich) == rich


async def test_in_the_message_a_payload_is_a_mapping_of_plain_values() -> None:
    """J17: so a network changes nothing, and whoever watches can read it."""
    seen: list[Any] = []
    async with running(Typed("typed")) as runner:
        runner.bus.add_tap(seen.append)
        await runner.job("typed", Typed.count, payload=WORDS)
    requests = [message for message in seen if isinstance(message, BusJobRequestMessage)]
    assert [request.payload for request in requests] == [
        {"lines": [{"text": "to be or not", "at": 0}, {"text": "to be", "at": 0}], "times": 1}
    ]


async def test_a_handler_may_be_named_by_a_string_as_before() -> None:
    """J17: then nothing is converted at the requester."""
    async with running(Typed("typed")) as runner:
        payload = {"lines": [{"text": "a b"}]}
        assert await runner.job("typed", name="count", payload=payload) == {"words": 2, "by": "typed"}
        by_handler: Any = Typed.count  # for a type checker a mapping is no `Words`
        assert await runner.job("typed", by_handler, payload=payload) == Count(2, "typed")


async def test_without_a_payload_a_mapping_is_empty() -> None:
    """J17: a handler never gets None for it."""
    async with running(Typed("typed")) as runner:
        for name in ("plain", "message", "untyped"):
            assert await runner.job("typed", name=name) == {"got": {}}


async def test_a_request_that_was_built_without_a_payload_has_an_empty_mapping_for_the_handler() -> None:
    """J17: as the seeds build it, and as it may come over a network."""
    async with running(Typed("typed")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "typed", "plain", payload=None)
        assert await raw.answer("job") == (JobStatus.COMPLETED, {"got": {}})


async def test_a_payload_that_does_not_fit_is_refused_where_the_job_is_made() -> None:
    """J17: with the path of the field; nobody is asked."""
    async with running(Typed("typed")) as runner:
        with pytest.raises(PayloadError) as caught:
            runner.job("typed", Typed.count, payload=Words([Line("a"), Line(3)]))  # type: ignore[arg-type]  # on purpose
    error = caught.value
    assert str(error) == ("the payload of Typed.count does not fit at 'lines[1].text': expected `str`, got `int`")
    assert (error.handler, error.what, error.path) == ("Typed.count", "payload", "lines[1].text")
    assert isinstance(error, TypeError)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"times": 1}, "the payload of Typed.count does not fit: object missing required field `lines`"),
        ({"lines": [{"text": 1}]}, "does not fit at 'lines[0].text': expected `str`, got `int`"),
        (3, "the payload of Typed.count does not fit: expected an object with fields, got int"),
        ({"lines": [object()]}, "a object cannot travel: numbers, texts, bytes, times, lists and objects can"),
        (None, "the payload of Typed.count does not fit: object missing required field `lines`"),
    ],
)
async def test_whatever_does_not_fit_is_refused_in_words(payload: Any, text: str) -> None:
    """J17"""
    async with running(Typed("typed")) as runner:
        with pytest.raises(PayloadError) as caught:
            runner.job("typed", Typed.count, payload=payload)
    assert text in str(caught.value)


async def test_a_string_named_job_is_refused_by_its_handler() -> None:
    """J17: an ERROR that names the field."""
    async with running(Typed("typed")) as runner:
        with pytest.raises(JobError) as caught:
            await runner.job("typed", name="count", payload={"lines": [{"text": 1}]})
    assert caught.value.responses["typed"] == {
        "error": "the payload of Typed.count does not fit at 'lines[0].text': expected `str`, got `int`",
        "type": "PayloadError",
    }


async def test_an_answer_that_does_not_fit_is_an_error_that_names_the_field() -> None:
    """J17: whichever class it is of."""
    async with running(Typed("typed")) as runner:
        with pytest.raises(JobError, match=r"the answer of Typed\.wrong does not fit at 'words': expected `int`, got"):
            await runner.job("typed", Typed.wrong, payload=WORDS)


async def test_a_stream_has_what_the_handler_yields() -> None:
    """J17, J18"""
    async with running(Typed("typed")) as runner:
        async with runner.job("typed", Typed.stream, payload=WORDS) as asked:
            assert isinstance(asked, JobStreamContext)
            assert [chunk async for chunk in asked.stream()] == [Count(4), Count(2)]
        async with runner.job("typed", Typed.plain_stream, payload=WORDS) as plain:
            assert [chunk async for chunk in plain.stream()] == [{"words": 4}, {"words": 2}]
        async with runner.job("typed", Typed.generator, payload=WORDS) as generated:
            assert [chunk async for chunk in generated.stream()] == [Count(4), Count(2)]
        async with runner.job("typed", name="stream", payload={"lines": [{"text": "a"}]}) as loose:
            assert [chunk async for chunk in loose.stream()] == [{"words": 1, "by": ""}]
        assert type(loose) is JobContext
        async with runner.job_group("typed", handler=Typed.stream, payload=WORDS) as group:
            assert [pair async for pair in group.stream()] == [("typed", Count(4)), ("typed", Count(2))]


async def test_a_chunk_that_does_not_fit_ends_the_job() -> None:
    """J17, J18"""
    async with running(Typed("typed")) as runner:
        with pytest.raises(JobError, match=r"the chunk of Typed\.wrong_stream does not fit at 'words'"):
            await runner.job("typed", Typed.wrong_stream, payload=WORDS)


async def test_a_group_is_typed_as_a_job_is() -> None:
    """J17, J20: its responses, its first answers, and each worker's own payload."""
    async with running(Typed("a"), Typed("b")) as runner:
        payloads = {"a": Words([Line("x")]), "b": Words([Line("x y")])}
        assert await runner.job_group(handler=Typed.count, payloads=payloads) == {
            "a": Count(1, "a"),
            "b": Count(2, "b"),
        }
        mixed = runner.job_group("a", "b", handler=Typed.count, payload=WORDS, payloads={"a": Words([Line("x")])})
        assert await mixed == {"a": Count(1, "a"), "b": Count(6, "b")}
        group = runner.job_group("a", "b", handler=Typed.count, payload=WORDS)
        first = await group.first()
        assert first == JobAnswer(first.worker_name, JobStatus.COMPLETED, Count(6, first.worker_name))
        async with runner.job_group("a", "b", handler=Typed.count, payload=WORDS) as asked:
            counts = [answer.response async for answer in asked.as_completed()]
        assert {count.by for count in counts} == {"a", "b"}
        with pytest.raises(PayloadError, match="at 'times'"):
            runner.job_group(handler=Typed.count, payloads={"a": {"lines": [], "times": "x"}})  # type: ignore[arg-type]  # wrong


async def test_an_error_in_a_typed_group_is_not_converted() -> None:
    """J11, J17: it is no answer of the handler's."""
    async with running(Typed("a")) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("a", handler=Typed.wrong, payload=WORDS)
        assert caught.value.responses["a"]["type"] == "PayloadError"
        async with runner.job_group("a", handler=Typed.wrong, payload=WORDS, cancel_on_error=False) as group:
            pass
        answer: Any = group.responses["a"]
        assert answer["type"] == "PayloadError"


class Telling(BaseWorker):
    @job(name="tell")
    async def tell(self, line: Line) -> Count:
        await self.send_job_update(current_job().job_id, {"text": line.text})
        await anyio.sleep(line.at)
        return Count(line.at, current_job().job_id)

    @job(name="each")
    async def each(self, line: Line) -> AsyncIterator[Count]:
        yield Count(1, current_job().job_id)


async def waited_for(context: JobContext[Any]) -> None:
    await context


async def test_a_typed_handler_knows_its_job() -> None:
    """J17: each the one that it works on, however many run, and again in a task that is used again."""
    async with running(Telling("telling")) as runner:
        async with runner.job("telling", Telling.tell, payload=Line("x")) as asked:
            assert [event.data async for event in asked] == [{"text": "x"}]
        assert asked.response == Count(0, asked.job_id)
        contexts = [runner.job("telling", Telling.tell, payload=Line("y", at)) for at in (3, 1, 2)]
        async with anyio.create_task_group() as tasks:
            for context in contexts:
                tasks.start_soon(partial(waited_for, context))
        assert [context.response for context in contexts] == [
            Count(at, context.job_id) for at, context in zip((3, 1, 2), contexts, strict=True)
        ]
        async with runner.job("telling", Telling.each, payload=Line("z")) as each:
            assert [count.by async for count in each.stream()] == [each.job_id]
    with pytest.raises(NotRunningError, match="no typed job handler runs here"):
        current_job()


async def test_attempts_are_typed_too() -> None:
    """J17, J20"""
    async with running(Typed("typed")) as runner:
        assert await runner.job("typed", Typed.count, payload=WORDS, attempts=2) == Count(6, "typed")


async def test_an_override_decides_what_it_takes() -> None:
    """J17, N7: the method that is called counts, and not the one that has the decorator."""

    class Plain(Typed):
        async def count(self, message: BusJobRequestMessage) -> Any:  # type: ignore[override]  # on purpose
            return {"words": -1, "by": str(sorted(message.payload))}

    async with running(Plain("typed")) as runner:
        assert await runner.job("typed", Typed.count, payload=WORDS) == Count(-1, "['lines', 'times']")


async def test_a_handler_that_is_put_on_the_object_gets_what_the_class_takes() -> None:
    """J17, N7: as a test's patch does."""
    typed = Typed("typed")

    async def count(words: Words) -> Count:
        assert isinstance(words, Words)
        return Count(7)

    async with running(typed) as runner:
        before = await runner.job("typed", Typed.count, payload=WORDS)
        typed.count = count  # type: ignore[method-assign]  # on purpose
        assert await runner.job("typed", Typed.count, payload=WORDS) == Count(7) != before
        del typed.count
        assert await runner.job("typed", Typed.count, payload=WORDS) == before


async def test_what_names_no_handler_is_refused() -> None:
    """N8: where the job is made."""

    class Two(BaseWorker):
        @job(name="a")
        @job(name="b")
        async def both(self, message: BusJobRequestMessage) -> None: ...

        async def none(self, message: BusJobRequestMessage) -> None: ...

    async with running(Two("two")) as runner:
        with pytest.raises(TypeError, match=r"a method with @job over it, or by name=, not by .*Two\.none"):
            runner.job("two", Two.none)
        with pytest.raises(TypeError, match=r"Two\.both does several jobs, 'a', 'b': say which by name="):
            runner.job("two", Two.both)
        with pytest.raises(TypeError, match="pass either the handler or name='a', not both"):
            runner.job("two", Two.both, name="a")  # type: ignore[call-overload]  # on purpose
        with pytest.raises(TypeError, match=r"or by name=, not by 'a'"):
            runner.job("two", "a")  # type: ignore[call-overload]  # on purpose


def made(annotation: Any) -> BaseWorker:
    class Mine(BaseWorker):
        @job(name="fine")
        async def fine(self, message: BusJobRequestMessage) -> None: ...

        @job(name="do")
        async def do(self, it: annotation) -> None: ...

    return Mine("mine")


@frozen
class Private:
    _hidden: int = field(default=1)


@frozen
class Holder:
    inside: list[Private]


@frozen
class Keyed:
    inside: dict[str, Private]


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "Mine.do takes int, which no payload can be: annotate it with an attrs class, a dataclass"),
        (list[int], "Mine.do takes list[int], which no payload can be"),
        ("Nowhere", "an annotation of Mine.do cannot be resolved: name 'Nowhere' is not defined. Import what it names"),
        (Line | Words, "Mine.do: "),
        (Line | int, "Mine.do takes "),
        (Private, "Mine.do: field '_hidden' of Private is private, and would not travel: give it a public name"),
        (Holder, "Mine.do: field '_hidden' of Private is private, and would not travel: give it a public name"),
        (Keyed, "Mine.do: field '_hidden' of Private is private, and would not travel: give it a public name"),
    ],
)
def test_an_annotation_that_no_payload_can_be_is_refused_when_a_worker_is_made(annotation: Any, text: str) -> None:
    """J17, N8: by then all that it may name is there."""
    with pytest.raises(HandlerTypeError) as caught:
        made(annotation)
    assert str(caught.value).startswith(text)


Kilometres = NewType("Kilometres", int)
Reading = NewType("Reading", Count)


def giving(annotation: Any, *, stream: bool = False, typed: bool = True) -> BaseWorker:
    takes = Line if typed else BusJobRequestMessage

    class Gives(BaseWorker):
        @job(name="do")
        async def do(self, it: takes) -> annotation: ...  # type: ignore[valid-type]  # a variable, on purpose

    class Yields(BaseWorker):
        @job(name="do")
        async def do(self, it: takes) -> annotation:  # type: ignore[valid-type]  # a variable, on purpose
            yield {}

    return (Yields if stream else Gives)("mine")


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (int, "int"),
        (Colour, "Colour"),
        (BaseWorker, "BaseWorker"),
        (int | None, "int | None"),
        (list[Count], f"list[{__name__}.Count]"),
        (Kilometres, "Kilometres"),
        (Literal["red"], "typing.Literal['red']"),
        (Annotated[int, "in metres"], "typing.Annotated[int, 'in metres']"),
        (Count | dict[str, Any], f"{__name__}.Count | dict[str, typing.Any]"),
    ],
)
def test_what_no_answer_can_be_is_refused_when_a_worker_is_made(annotation: Any, shown: str, typed: bool) -> None:
    """J17, N8: and not at the first answer; whatever the handler takes."""
    with pytest.raises(HandlerTypeError) as caught:
        giving(annotation, typed=typed)
    assert str(caught.value) == (
        f"Gives.do returns {shown}, which no answer can be: annotate it with an attrs class, a dataclass, a TypedDict, "
        "a msgspec.Struct, a dict, or None"
    )


@pytest.mark.parametrize("stream", [AsyncIterator, AsyncGenerator])
def test_what_no_chunk_can_be_is_refused_when_a_worker_is_made(stream: Any) -> None:
    """J17, N8"""
    with pytest.raises(HandlerTypeError, match=r"Yields\.do yields int, which no chunk can be"):
        giving(stream[int] if stream is AsyncIterator else stream[int, None], stream=True)


class Colours(dict[str, Colour]):
    """A dict of its own class."""


class Sized(Protocol):
    def __len__(self) -> int: ...


@pytest.mark.parametrize(
    "annotation",
    [
        None,
        Any,
        object,
        dict,
        dict[str, int] | None,
        Mapping[str, Any],
        Count | None,
        T,
        Reading,
        Sized,
        Colours,
        Never,
    ],
)
def test_what_an_answer_may_be_is_accepted(annotation: Any) -> None:
    """J17"""
    assert giving(annotation).name == giving(annotation, typed=False).name == "mine"


@pytest.mark.parametrize(
    "annotation", [AsyncIterator, AsyncIterator[Any], AsyncIterator[Count], AsyncIterator[dict[str, int]]]
)
def test_what_a_chunk_may_be_is_accepted(annotation: Any) -> None:
    """J17, J18"""
    assert giving(annotation, stream=True).name == "mine"


async def test_what_stands_behind_an_annotation_or_a_new_type_is_converted() -> None:
    """J17"""

    class Renamed(BaseWorker):
        @job(name="do")
        async def do(self, line: Annotated[Line, "of a text"]) -> Annotated[Reading, "of a meter"]:
            return Reading(Count(line.at))

    async with running(Renamed("renamed")) as runner:
        assert await runner.job("renamed", Renamed.do, payload=Line("x", 3)) == Count(3)


async def test_a_decorator_may_make_an_answer_of_what_its_handler_gives() -> None:
    """J17, N7"""

    def as_answer(function: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[dict[str, int]]]:
        @wraps(function)
        async def wrapper(*args: Any) -> dict[str, int]:
            return {"answer": await function(*args)}

        return wrapper

    class Decorated(BaseWorker):
        @job(name="do")
        @as_answer
        async def do(self, message: BusJobRequestMessage) -> int:
            return 3

    async with running(Decorated("decorated")) as runner:
        assert await runner.job("decorated", name="do") == {"answer": 3}


@pytest.mark.parametrize("annotation", ["BusJobRequestMessage", "workerbus.BusJobRequestMessage", Any, object, T])
def test_the_request_may_be_named_in_any_way(annotation: Any) -> None:
    """J17: also where it is imported for type checkers alone."""
    assert made(annotation).name == "mine"


async def test_annotations_may_come_later_than_what_they_are_of() -> None:
    """J17: they are looked up when the first worker is made."""

    class Early(BaseWorker):
        @job(name="do")
        async def do(self, later: "Later") -> "Later":
            return later

    async with running(Early("early")) as runner:
        assert await runner.job("early", Early.do, payload=Later("x")) == Later("x")


async def test_annotations_may_name_what_stands_around_the_class() -> None:
    """J17: in the function that makes it, as far as the handler uses it."""

    @frozen
    class One:
        text: str

    @frozen
    class Two:
        text: str

    class Local(BaseWorker):
        @job(name="do")
        async def do(self, one: "One") -> "Two":
            assert isinstance(one, One)
            return Two(one.text)

    async with running(Local("local")) as runner:
        assert await runner.job("local", Local.do, payload=One("x")) == Two("x")


@frozen
class Later:
    text: str


def test_without_msgspec_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """J17: the plain forms work without it."""
    monkeypatch.setitem(sys.modules, "msgspec", None)
    monkeypatch.setattr(_typing, "_signatures", {})
    made(Mapping[str, Any])
    made(BusJobRequestMessage)
    with pytest.raises(
        MissingExtraError, match=r"^the types of Mine\.do need msgspec: pip install 'workerbus\[typed\]'$"
    ):
        made(Line)
