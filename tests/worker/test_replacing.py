"""N7: what counts is what attribute lookup gives when a hook or handler is due, whoever has put it there and when."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import AsyncMock, patch

import attrs
import pytest

from support.conditions import eventually
from support.hooks import HOOKS, Peer, provoke
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    BusSubscriber,
    WorkerReadyData,
    WorkerRunner,
    job,
    worker_ready,
)
from workerbus.pipeline import Frame, FrameDirection, FrameProcessor, Pipeline, PipelineWorker, TextFrame

Seen = list[tuple[Any, ...]]


def recorder(seen: Seen, hook: str) -> Callable[..., Awaitable[None]]:
    """An async function that notes what it gets, but for what the hook gets that no test has caused."""

    async def record(*args: Any) -> None:
        if hook != "on_worker_ready" or args[-1].worker_name.startswith("newcomer"):
            seen.append(args)

    return record


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_is_put_on_a_running_worker_is_called(hook: str) -> None:
    """N7: with what the method gets, and without the worker."""
    seen: Seen = []
    subject, peer = Helper("subject", active=hook != "on_activated"), Peer("peer")
    if hook == "on_worker_ready":  # whether a root worker hears of the others is settled when it starts
        setattr(subject, hook, recorder(seen, hook))
    async with running(subject, peer) as runner:
        setattr(subject, hook, recorder(seen, hook))
        await provoke(hook, subject, peer, runner)
        await eventually(lambda: bool(seen))
        subject.release.set()
    assert all(args[:1] != (subject,) for args in seen)


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_is_patched_on_the_class_is_called(hook: str) -> None:
    """N7: of workers that exist already; and no more when the patch is gone."""

    class Subject(Helper):
        pass

    seen: Seen = []
    subject, peer = Subject("subject", active=hook != "on_activated"), Peer("peer")
    with patch.object(Subject, hook, recorder(seen, hook)):
        async with running(subject, peer) as runner:
            await provoke(hook, subject, peer, runner)
            await eventually(lambda: bool(seen))
            subject.release.set()
    assert seen[0][0] is subject


async def test_a_hook_is_patched_for_as_long_as_the_patch_lasts() -> None:
    """N7: looked up each time."""
    subject, peer = Helper("subject"), Peer("peer")
    async with running(subject, peer) as runner:
        with patch.object(Helper, "on_job_update") as inside:
            assert isinstance(inside, AsyncMock)
            await provoke("on_job_update", subject, peer, runner)
            await eventually(lambda: bool(inside.await_count))
        await subject.job("peer", name="talk")
        assert inside.await_count == 1


async def test_a_hook_may_be_a_mock() -> None:
    """N7: an `AsyncMock` on the object, from before the start on."""
    subject = BaseWorker("subject")
    subject.on_activated = AsyncMock()  # type: ignore[method-assign]  # on purpose
    async with running(subject):
        await eventually(lambda: bool(subject.on_activated.await_count))  # type: ignore[attr-defined]  # a mock
    subject.on_activated.assert_awaited_once_with(None)


async def test_a_worker_may_have_another_dict_than_it_was_made_with() -> None:
    """N7: as objects have that share their state."""

    class Sharing(BaseWorker):
        def __init__(self) -> None:
            super().__init__("sharing")
            self.__dict__ = dict(self.__dict__)

    worker, seen = Sharing(), AsyncMock()
    async with running(worker, other := Helper("other")):
        worker.on_deactivated = seen  # type: ignore[method-assign]  # on purpose
        await worker.activate_worker(other.name, deactivate_self=True)
        await eventually(lambda: bool(seen.await_count))


async def test_a_root_worker_hears_of_others_by_what_is_there_when_it_starts() -> None:
    """N7: put there after it was added."""
    worker, seen = BaseWorker("worker"), AsyncMock()
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    worker.on_worker_ready = seen  # type: ignore[method-assign]  # on purpose
    async with runner:
        await runner.add_workers(Helper("other"))
        await eventually(lambda: bool(seen.await_count))


async def test_a_hook_of_all_workers_can_be_patched() -> None:
    """N7: on `BaseWorker` itself."""
    with patch.object(BaseWorker, "on_activated", AsyncMock()) as activated:
        async with running(BaseWorker("one"), BaseWorker("two")):
            await eventually(lambda: activated.await_count == 2)


@pytest.mark.parametrize("method", ["run", "start", "cleanup"])
async def test_what_a_worker_runs_can_be_put_on_the_object(method: str) -> None:
    """N7"""
    worker = BaseWorker("worker")
    original, calls = getattr(worker, method), []

    async def instead(*args: Any) -> None:
        calls.append(args)
        await original(*args)

    setattr(worker, method, instead)
    async with running(worker):
        pass
    assert len(calls) == 1


@pytest.mark.parametrize("method", ["run", "start", "cleanup"])
async def test_what_a_worker_runs_can_be_patched_on_the_base_class(method: str) -> None:
    """N7"""
    original, calls = getattr(BaseWorker, method), []

    async def instead(*args: Any) -> None:
        calls.append(args)
        await original(*args)

    worker = BaseWorker("worker")
    with patch.object(BaseWorker, method, instead):
        async with running(worker):
            pass
    assert [args[0] for args in calls] == [worker]


class Listener(BusSubscriber):
    """A subscriber that is no worker."""

    def __init__(self) -> None:
        self.heard: list[BusMessage] = []

    @property
    def name(self) -> str:
        return "listener"

    async def on_bus_message(self, message: BusMessage) -> None:
        self.heard.append(message)


@pytest.mark.parametrize("kind", [Listener, Helper])
async def test_what_is_asked_for_acceptance_can_be_put_on_the_object(kind: type[Listener | Helper]) -> None:
    """N7, N4"""
    asked: list[BusMessage] = []

    def refuses(message: BusMessage) -> bool:
        asked.append(message)
        return False

    subscriber = kind()
    subscriber.accepts_bus_message = refuses  # type: ignore[method-assign]  # on purpose
    async with running(Helper("other")) as runner:
        await runner.bus.subscribe(subscriber)
        await runner.bus.send(BusJobRequestMessage("id", "echo", {}, source="x", target=subscriber.name))
        if isinstance(subscriber, Listener):
            await eventually(lambda: bool(asked))
            assert subscriber.heard == []
        await runner.bus.unsubscribe(subscriber)


# --- handlers of jobs, and of workers that get ready


class Base(BaseWorker):
    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"by": "base"}


async def test_an_override_without_the_decorator_stays_the_handler() -> None:
    """N7"""

    class Derived(Base):
        async def do(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"by": "derived", "and": (await super().do(message))["by"]}

    async with running(Derived("derived"), Base("base")) as runner:
        assert await runner.job("derived", name="do") == {"by": "derived", "and": "base"}
        assert await runner.job("base", name="do") == {"by": "base"}


async def test_an_override_keeps_the_options_of_the_decorator() -> None:
    """N7, J13: a sequential one stays sequential."""
    running_now, most = 0, 0

    class One(BaseWorker):
        @job(name="do", sequential=True)
        async def do(self, message: BusJobRequestMessage) -> None: ...

    class Derived(One):
        async def do(self, message: BusJobRequestMessage) -> None:
            nonlocal running_now, most
            running_now += 1
            most = max(most, running_now)
            await self.job("other", name="echo")
            running_now -= 1

    async with running(Derived("derived"), Helper("other"), asker := Helper("asker")):
        ids = [await asker.request_job("derived", name="do") for _ in range(3)]
        await eventually(lambda: not asker.job_groups)
    assert (len(ids), most) == (3, 1)


async def test_a_handler_can_be_taken_away() -> None:
    """N7: by what Python takes for that, None."""

    class Without(Base):
        do = None  # type: ignore[assignment]  # on purpose

        async def on_job_request(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"by": "hook"}

    async with running(Without("without")) as runner:
        assert await runner.job("without", name="do") == {"by": "hook"}


async def test_stacked_decorators_all_count() -> None:
    """N7"""
    seen: list[str] = []

    class Many(BaseWorker):
        @job(name="get")
        @job(name="fetch", sequential=True)
        @job(name="load")
        async def get(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"got": message.job_name}

        @worker_ready(name="left")
        @worker_ready(name="right")
        @worker_ready(name="right")
        async def ready(self, data: WorkerReadyData) -> None:
            seen.append(data.worker_name)

    async with running(Many("many"), Helper("left"), Helper("right")) as runner:
        for name in ("get", "fetch", "load"):
            assert await runner.job("many", name=name) == {"got": name}
        await eventually(lambda: len(seen) == 2)
    assert sorted(seen) == ["left", "right"]


async def test_one_function_is_a_handler_in_several_classes_and_under_several_names() -> None:
    """N7: each class has the names that it gives, and no others."""

    async def shared(self: BaseWorker, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"by": self.name, "as": message.job_name}

    class One(BaseWorker):
        first = job(name="first")(shared)
        second = job(name="second")(shared)

    class Other(BaseWorker):
        third = job(name="third")(shared)

        async def on_job_request(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"by": "hook"}

    async with running(One("one"), Other("other")) as runner:
        for name in ("first", "second"):
            assert await runner.job("one", name=name) == {"by": "one", "as": name}
        assert await runner.job("other", name="third") == {"by": "other", "as": "third"}
        assert await runner.job("other", name="first") == {"by": "hook"}


def loudly(cls: Any) -> Any:
    """A class decorator that wraps all methods, as those for logging and tracing do."""
    for name, method in list(vars(cls).items()):
        if callable(method) and not name.startswith("__"):
            setattr(cls, name, _loud(method))
    return cls


def _loud(method: Any) -> Any:
    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs)

    return wrapper


def barely(cls: Any) -> Any:
    """A class decorator that puts functions in place of the methods that know nothing of them."""
    do, ready = cls.do, cls.ready
    cls.do = lambda self, message: do(self, message)
    cls.ready = lambda self, data: ready(self, data)
    return cls


DECORATORS: dict[str, Callable[[Any], Any]] = {
    "wraps": loudly,
    "barely": barely,
    "attrs": attrs.define(slots=True),
    "attrs, frozen": attrs.frozen(slots=True),
    "dataclass": dataclass,
    "dataclass with slots": dataclass(slots=True),
    "both": lambda cls: attrs.define(slots=True)(loudly(cls)),
}


@pytest.mark.parametrize("decorate", DECORATORS.values(), ids=DECORATORS)
async def test_class_decorators_lose_no_handlers(decorate: Callable[[Any], Any]) -> None:
    """N7: whether they wrap the methods or make a new class."""
    ready: list[str] = []

    @decorate
    class Decorated(BaseWorker):
        def __init__(self) -> None:
            BaseWorker.__init__(self, "decorated")  # super() is that of the old class, where a dataclass has slots

        @job(name="do")
        async def do(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"by": self.name}

        @worker_ready(name="other")
        async def ready(self, data: WorkerReadyData) -> None:
            ready.append(data.worker_name)

        async def on_activated(self, args: dict[str, Any] | None) -> None:
            ready.append("activated")

    async with running(Decorated(), Helper("other")) as runner:
        assert await runner.job("decorated", name="do") == {"by": "decorated"}
        await eventually(lambda: sorted(ready) == ["activated", "other"])


@pytest.mark.parametrize("where", ["object", "class"])
async def test_a_handler_can_be_replaced_between_two_jobs(where: str) -> None:
    """N7: looked up for each job; the library keeps no method."""

    class Mine(Base):
        pass

    worker = Mine("worker")
    async with running(worker) as runner:
        assert await runner.job("worker", name="do") == {"by": "base"}
        with patch.object(worker if where == "object" else Mine, "do", AsyncMock(return_value={"by": "mock"})):
            assert await runner.job("worker", name="do") == {"by": "mock"}
        assert await runner.job("worker", name="do") == {"by": "base"}


async def test_a_handler_that_was_mocked_before_the_first_worker_stays_one() -> None:
    """N7: as tests do it that patch a class and then make a worker of it."""

    class Mine(BaseWorker):
        @job(name="do")
        async def do(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"by": "mine"}

    with patch.object(Mine, "do", AsyncMock(return_value={"by": "mock"})):
        async with running(Mine("worker")) as runner:
            assert await runner.job("worker", name="do") == {"by": "mock"}


async def test_a_worker_ready_method_can_be_replaced_on_the_object() -> None:
    """N7"""

    class Watcher(BaseWorker):
        @worker_ready(name="other")
        async def ready(self, data: WorkerReadyData) -> None:
            raise AssertionError("it was replaced")

    watcher = Watcher("watcher")
    watcher.ready = AsyncMock()  # type: ignore[method-assign]  # on purpose
    async with running(watcher, Helper("other")):
        await eventually(lambda: bool(watcher.ready.await_count))  # type: ignore[attr-defined]  # a mock


def test_a_decorated_method_is_still_that_method() -> None:
    """N7: its names, its text, its defaults; and the function that was decorated is as it was."""

    async def plain(self: Any, message: Any, *, more: int = 3) -> int:
        """Do it."""
        return more

    plain.extra = 5  # type: ignore[attr-defined]  # on purpose
    marked: Any = job(name="plain")(plain)
    assert (marked.__name__, marked.__doc__, marked.__qualname__) == (plain.__name__, "Do it.", plain.__qualname__)
    assert (marked.__kwdefaults__, marked.__annotations__, marked.extra) == ({"more": 3}, plain.__annotations__, 5)
    assert set(vars(plain)) == {"extra"}


def test_attributes_that_stand_for_something_else_are_not_asked_for_it() -> None:
    """N7: looking for handlers asks nothing of them."""

    class StandIn:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("nobody is here yet")

    class Mine(Base):
        current = StandIn()

    assert Mine("mine").name == "mine"


# --- pipelines


class Passing(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


@pytest.mark.parametrize("kind", [FrameProcessor, Passing])
async def test_a_processor_can_be_replaced_on_the_object(kind: type[FrameProcessor]) -> None:
    """N7: while its pipeline runs, and whether its class has a method of its own or not."""
    processor, frames = kind(), []
    worker = PipelineWorker(Pipeline([processor]), name="worker")

    async def instead(frame: Frame, direction: FrameDirection) -> None:
        frames.append(frame)
        await processor.push_frame(frame, direction)

    async with running(worker):
        processor.process_frame = instead  # type: ignore[method-assign]  # on purpose
        await worker.queue_frame(TextFrame("one"))
        await eventually(lambda: any(isinstance(frame, TextFrame) for frame in frames))


async def test_a_hook_of_a_pipeline_may_be_a_mock() -> None:
    """N7"""
    worker = PipelineWorker(Pipeline([FrameProcessor()]), name="worker")
    worker.on_pipeline_started = AsyncMock()  # type: ignore[method-assign]  # on purpose
    async with running(worker):
        await eventually(lambda: bool(worker.on_pipeline_started.await_count))  # type: ignore[attr-defined]  # a mock
