"""N8: what the decorators of handlers are put over that is no method: refused, with what it is and what to do."""

import functools
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from support.requesters import outcome_of
from support.workers import running
from workerbus import BaseWorker, BusJobRequestMessage, HandlerTypeError, JobStatus, every, job, worker_ready

Decorator = Callable[[Any], Any]
DECORATORS: list[Any] = [
    pytest.param(job(name="do"), "@job(name='do')", "self, message", id="job"),
    pytest.param(worker_ready(name="w"), "@worker_ready(name='w')", "self, data", id="worker_ready"),
    pytest.param(every(2), "@every(2)", "self", id="every"),
]
decorators = pytest.mark.parametrize(("decorator", "written", "head"), DECORATORS)


async def refresh(self: Any, message: Any = None) -> None: ...


class Called:
    """An object that can be called like a handler, and gets no ``self`` of a worker."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    async def __call__(self, *args: Any) -> dict[str, Any]:
        self.got.append(args)
        return {"by": "an object"}


def refused(decorator: Decorator, method: object) -> str:
    with pytest.raises(HandlerTypeError) as caught:
        decorator(method)
    return str(caught.value)


@decorators
@pytest.mark.parametrize("kind", [classmethod, staticmethod, property, functools.cached_property])
def test_what_another_decorator_has_made_of_a_method_is_named(
    decorator: Decorator, written: str, head: str, kind: Any
) -> None:
    """N8: and the decorator that is one too many."""
    assert refused(decorator, kind(refresh)) == (
        f"{written} goes over an async method, not over a {kind.__name__}: "
        f"take @{kind.__name__} away, and write 'async def refresh({head})'"
    )


@decorators
def test_other_kinds_of_callables_are_named_and_what_to_write_instead(
    decorator: Decorator, written: str, head: str
) -> None:
    """N8"""

    class Thing:
        async def method(self, message: Any = None) -> None: ...

    over = f"{written} goes over an async method, not over "
    write = f"write 'async def …({head})'"
    assert refused(decorator, lambda _self, _message=None: None) == f"{over}a lambda, which cannot be async: {write}"
    assert refused(decorator, Thing) == f"{over}the class Thing: {write} in the worker's class, and use that in it"
    assert refused(decorator, Thing().method).startswith(over)
    assert refused(decorator, Thing().method).endswith(
        "Thing.method, which has its self already: put it over the function, in the class"
    )
    for kind in functools.partial, functools.partialmethod, functools.singledispatchmethod:
        made: Any = kind(refresh)
        assert (
            refused(decorator, made) == f"{over}a functools.{kind.__name__}: {write} in the class, and call that in it"
        )
    assert refused(decorator, None) == f"{over}None"
    assert refused(decorator, 7) == f"{over}7"


@decorators
def test_a_function_that_is_not_async_is_told_to_be(decorator: Decorator, written: str, head: str) -> None:
    """N8"""

    def nested(self: Any, message: Any = None) -> None: ...

    assert refused(decorator, nested) == (
        f"{written} goes over an async method, not over {nested.__qualname__}, which is not async: write 'async def'"
    )


@decorators
@pytest.mark.parametrize("kind", [property, functools.cached_property])
def test_a_property_over_a_handler_does_not_hide_it(decorator: Decorator, written: str, head: str, kind: Any) -> None:
    """N8: the class is refused, where the handler would never be called."""

    def make() -> type[BaseWorker]:
        class Hiding(BaseWorker):
            at = kind(decorator(refresh))

        return Hiding

    with pytest.raises(HandlerTypeError) as caught:
        make()
    assert str(caught.value) == f"Hiding.at is a handler, and is called: take @{kind.__name__} away"


def test_a_staticmethod_over_a_handler_is_named() -> None:
    """N8: it gets the message, and no self."""

    def make() -> None:
        class Static(BaseWorker):
            @staticmethod
            @job(name="do")
            async def do(self: Any, message: Any) -> None: ...

    with pytest.raises(
        HandlerTypeError, match=r"^the staticmethod Static\.do\(.*\) -> None cannot be called: it gets one argument"
    ):
        make()


def test_what_takes_no_marks_cannot_be_a_handler() -> None:
    """N8: a builtin function, for instance."""
    assert refused(job(name="do"), len) == f"{len!r} cannot be made a handler: write a method that calls it"
    assert "it gets nothing, no self, and takes (" in refused(every(2), len)


def test_an_object_that_does_not_take_what_it_gets_is_told_so() -> None:
    """N8: it gets no self."""

    class Greedy:
        async def __call__(self, worker: Any, message: Any) -> None: ...

    greedy = Greedy()
    assert refused(job(name="do"), greedy).startswith(
        f"@job(name='do') goes over a method (self, message), not over {greedy!r}, which is no function: "
        "it gets (message) alone, no self, and takes (worker: "
    )


async def test_an_object_that_can_be_called_is_a_handler_and_gets_no_self() -> None:
    """N7: what attribute lookup gives is called."""
    done, ticked = Called(), Called()

    class Odd(BaseWorker):
        do = job(name="do")(done)
        tick = every(0.5, at_once=True)(ticked)

    async with running(Odd("odd")) as runner:
        assert await outcome_of(runner, "odd", name="do") == (JobStatus.COMPLETED, {"by": "an object"})
        await anyio.sleep(0.7)
    assert [type(args[0]) for args in done.got] == [BusJobRequestMessage]
    assert ticked.got == [(), ()]


def test_a_function_within_a_function_may_be_a_handler() -> None:
    """N7"""

    async def nested(self: Any, message: Any) -> None: ...

    made = type("Made", (BaseWorker,), {"do": job(name="do")(nested)})
    assert made("made").name == "made"
