"""N6, N8: a worker class belongs to its user; documented names stand for what the documentation says."""

from collections.abc import Callable
from enum import Enum
from typing import Any, Generic, TypeVar

import pytest

from support.conditions import eventually
from support.workers import running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    JobError,
    MemoryBus,
    NotInitializedError,
    ReservedNameError,
    WorkerPool,
    WorkerReadyData,
    WorkerRunner,
    job,
    worker_ready,
)
from workerbus.pipeline import Frame, FrameDirection, FrameProcessor, Pipeline, PipelineWorker, TextFrame

FREE = [
    "active_changed",
    "asking",
    "became_ready",
    "check_running",
    "clean_up",
    "cleans_up_by_default",
    "could_not_be_added",
    "depart",
    "family",
    "finished",
    "graces",
    "handled_at_once",
    "handled_events",
    "hooks",
    "inbox",
    "job_client",
    "job_server",
    "life",
    "make_inbox",
    "report_error",
    "report_failure",
    "runner",
    "runs_by_default",
    "tasks",
    "tell_ready",
    "watch",
    "will_be_active",
    "EVENTS",
    "event_handlers",
    "has_event_handler",
    "_name",
    "_bus",
    "_registry",
    "_runner",
    "_inbox",
    "_life",
    "_desk",
    "_handlers",
    "_overridden",
    "_job_handlers",
    "_ready_handlers",
    "_told",
    "_core",
    "client",
    "config",
    "core",
    "data",
    "db",
    "events",
    "handlers",
    "id",
    "jobs",
    "lock",
    "log",
    "logger",
    "messages",
    "model",
    "options",
    "params",
    "phase",
    "pool",
    "queue",
    "result",
    "results",
    "session",
    "settings",
    "state",
    "status",
    "store",
    "stream",
    "task",
    "timeout",
    "tools",
    "tree",
    "url",
]


class Plain(BaseWorker):
    """A worker that uses what workers have: jobs, hooks, event handlers, a child, a hand-over."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.seen: list[str] = []

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self.seen.append("activated")

    async def on_deactivated(self) -> None:
        self.seen.append("deactivated")

    async def cleanup(self) -> None:
        await super().cleanup()
        self.seen.append("cleaned up")

    @job(name="double")
    async def double(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"doubled": 2 * (message.payload or {})["n"]}

    @job(name="ask")
    async def ask(self, message: BusJobRequestMessage) -> dict[str, Any]:
        async with self.job_group(self.name, "other", name="double", payload={"n": 4}, timeout=5) as group:
            pass
        return dict(group.responses)


async def lives_as_any_worker(worker: Plain) -> None:
    """Use all that a worker has, to its end."""
    heard: list[str] = []

    def hear(worker: BaseWorker, args: dict[str, Any] | None) -> None:
        heard.append(worker.name)

    worker.add_event_handler("on_activated", hear)
    async with running(worker, Plain("other")) as runner:
        child = BaseWorker(f"{worker.name}'s child")
        await worker.add_workers(child)
        assert (child.parent, worker.children) == ("mine", [child])
        answers = {"mine": {"doubled": 8}, "other": {"doubled": 8}}
        assert await runner.job("mine", name="ask", timeout=5) == answers
        assert worker.statistics().active_jobs == 0
        await worker.activate_worker("other", deactivate_self=True)
        assert not worker.active
    assert heard == ["mine"]
    assert worker.seen == ["activated", "deactivated", "cleaned up"]


def in_class(name: str, value: object) -> Plain:
    worker: Plain = type("Mine", (Plain,), {name: value})("mine")
    return worker


def in_mixin(name: str, value: object) -> Plain:
    worker: Plain = type("Mine", (type("Mixin", (), {name: value}), Plain), {})("mine")
    return worker


def in_decorator(name: str, value: object) -> Plain:
    kind = type("Mine", (Plain,), {})
    setattr(kind, name, value)
    worker: Plain = kind("mine")
    return worker


def on_object(name: str, value: object) -> Plain:
    worker = Plain("mine")
    setattr(worker, name, value)
    return worker


def on_object_before(name: str, value: object) -> Plain:
    class Mine(Plain):
        def __init__(self) -> None:
            setattr(self, name, value)
            super().__init__("mine")

    return Mine()


@pytest.mark.parametrize("place", [in_class, in_mixin, in_decorator, on_object, on_object_before])
@pytest.mark.parametrize("value", [None, False, lambda *args: 1 / 0], ids=["None", "False", "a function"])
async def test_names_that_are_not_documented_are_the_users(
    place: Callable[[str, object], Plain], value: object
) -> None:
    """N6: all of them on one worker, and whatever they stand for."""
    worker = place(FREE[0], value)
    for name in FREE[1:]:
        place_on = worker if place in (on_object, on_object_before) else type(worker)
        setattr(place_on, name, value)
    await lives_as_any_worker(worker)
    assert all(vars(worker).get(name, vars(type(worker)).get(name, value)) is value for name in FREE)


@pytest.mark.parametrize("name", FREE)
async def test_each_such_name_is_free_in_the_class_body(name: str) -> None:
    """N6: where it is seen by the library's checks."""
    await lives_as_any_worker(in_class(name, "mine"))


ORDINARY = [
    "add", "buffer", "cache", "channel", "close", "connect", "connection", "context", "counter", "description",
    "disconnect", "emit", "execute", "filters", "frames", "get", "group", "groups", "handle", "history", "job_id",
    "listen", "load", "loop", "message", "notify", "observers", "on_connect", "on_error", "on_message", "open", "owner",
    "path", "payload", "ping", "poll", "process", "publish", "put", "receive", "register", "remove", "reply", "request",
    "reset", "respond", "retry", "save", "scope", "send", "setup", "shutdown", "subscribe", "title", "update", "users",
    "version", "visitors", "worker", "workers",
]  # fmt: skip
"""What users call their attributes and methods."""


async def method(*args: object) -> str:
    """Stands for a method of the user's own."""
    return "mine"


@pytest.mark.parametrize(("place", "value"), [(in_class, method), (in_mixin, method), (on_object, ["mine"])])
@pytest.mark.parametrize("name", ORDINARY)
async def test_ordinary_names_break_nothing(name: str, place: Callable[[str, object], Plain], value: object) -> None:
    """N6, N8: of attributes and methods, wherever they stand."""
    worker = place(name, value)
    await lives_as_any_worker(worker)
    found = getattr(worker, name)
    assert getattr(found, "__func__", found) is value


@pytest.mark.parametrize("value", [method, ["mine"], None], ids=["a method", "an attribute", "None"])
@pytest.mark.parametrize("place", ["class", "object"])
async def test_names_are_as_free_on_processors_and_their_workers(place: str, value: object) -> None:
    """N6, P1: all of them at once."""
    names = [*FREE, *ORDINARY]

    class Processor(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)

    class Piping(PipelineWorker):
        async def on_frame_reached_downstream(self, frame: Frame) -> None:
            reached.append(frame)

    reached: list[Frame] = []
    for kind in (Processor, Piping):
        for name in names:
            if place == "class" and not hasattr(kind, name):
                setattr(kind, name, value)
    processor = Processor()
    worker = Piping(Pipeline([processor]), name="piping")
    for each in (processor, worker):
        for name in names:
            if place == "object" and not hasattr(type(each), name):
                setattr(each, name, value)
    async with running(worker, Plain("other")):
        frame = TextFrame("one")
        await worker.queue_frame(frame)
        await eventually(lambda: frame in reached)


@pytest.mark.parametrize("name", ["bus", "active", "children", "parent", "registry", "send_bus_message", "job", "stop"])
@pytest.mark.parametrize("place", [in_class, in_mixin])
def test_a_documented_name_that_stands_for_something_else_is_refused(
    name: str, place: Callable[[str, object], Plain]
) -> None:
    """N6: where the class is made."""
    kind = "method" if name in ("send_bus_message", "job", "stop") else "property"
    with pytest.raises(ReservedNameError, match=f"Mine has an attribute '{name}', which is a {kind} that") as caught:
        place(name, [])
    assert (caught.value.class_name, caught.value.name) == ("Mine", name)


async def test_a_documented_method_that_the_object_uses_otherwise_is_refused_when_it_is_added() -> None:
    """N6: earlier, nothing of the library's is asked."""
    worker = on_object("send_bus_message", 5)
    async with WorkerRunner() as runner:
        with pytest.raises(ReservedNameError, match="Plain has an attribute 'send_bus_message', which is a method"):
            await runner.add_workers(worker)


def test_a_documented_property_cannot_be_assigned() -> None:
    """N6"""
    with pytest.raises(AttributeError, match="children"):
        on_object("children", [])


async def test_a_documented_name_can_be_overridden_by_what_can_take_its_place() -> None:
    """N6, N7: a method by a method, a property by a property."""

    class Mine(Plain):
        @property
        def bridged(self) -> bool:
            return False

        async def send_bus_error_message(self, error: str) -> None:
            self.seen.append(error)

    await lives_as_any_worker(Mine("mine"))


async def test_a_name_in_the_class_body_is_the_workers_name() -> None:
    """N6: everywhere."""

    class Mine(Plain):
        name = "mine"

        def __init__(self) -> None:
            BaseWorker.__init__(self)
            self.seen = []

    worker = Mine()
    assert (worker.name, str(worker)) == ("mine", "mine")
    await lives_as_any_worker(worker)


class Name(str, Enum):  # noqa: UP042 - one whose members are put into sentences as 'Name.MINE'
    MINE = "mine"
    TELL = "tell"


class Telling(BaseWorker):
    @job(name=Name.TELL)
    async def tell(self, message: BusJobRequestMessage) -> dict[str, str]:
        return {"name": f"{self.name}"}


async def test_a_name_that_is_a_member_of_an_enum_is_a_plain_name() -> None:
    """N6, J17, S2: of a worker, of a pool and its members, and of a job that is asked for by its handler."""
    runner = WorkerRunner(name=Name.MINE, bus=MemoryBus(name=Name.MINE))
    assert (f"{runner.name}", f"{runner.bus.name}") == ("mine", "mine")
    async with running(Telling(Name.MINE)) as runner:
        assert await runner.job("mine", Telling.tell) == {"name": "mine"}
        with pytest.raises(JobError, match=r"^job 'nothing' at 'mine' raised LookupError: .*it has: 'tell'$"):
            await runner.job("mine", name="nothing")
        await runner.get_worker("mine").stop()  # type: ignore[union-attr]  # it is there
        pool = WorkerPool(Name.MINE, Telling, size=1)
        await runner.add_workers(pool)
        assert await pool.job(Telling.tell) == {"name": "mine/1"}


def test_a_name_that_the_class_body_contradicts_is_refused() -> None:
    """N6"""

    class Mine(BaseWorker):
        name = "mine"

    assert Mine("mine").name == "mine"
    with pytest.raises(ValueError, match="workers of class Mine are called 'mine' by the class, not 'yours'"):
        Mine("yours")


@pytest.mark.parametrize("value", ["", 5, property(lambda self: "mine")], ids=["empty", "a number", "computed"])
def test_a_name_in_the_class_body_that_is_no_name_is_refused(value: object) -> None:
    """N6"""
    with pytest.raises(ReservedNameError, match="Mine has an attribute 'name', which is a property"):
        in_class("name", value)


def test_a_worker_is_shown_by_its_name() -> None:
    """N6"""
    assert str(BaseWorker("mine")) == "mine"


def test_a_forgotten_super_is_named() -> None:
    """N8"""

    class Mine(BaseWorker):
        def __init__(self) -> None:
            pass

    with pytest.raises(NotInitializedError, match=r"Mine was not initialized: its __init__\(\) has to call super"):
        _ = Mine().name


def test_a_watch_takes_no_name_of_a_method() -> None:
    """N1: as no job handler does."""
    with pytest.raises(ReservedNameError, match="Starts has an attribute 'start', which is a method"):

        class Starts(BaseWorker):
            @worker_ready(name="other")
            async def start(self, data: WorkerReadyData) -> None:  # type: ignore[override]  # on purpose
                pass


T = TypeVar("T")


def test_a_worker_class_may_have_other_bases_with_wishes_of_their_own() -> None:
    """N1: a subclass is a class like any other."""
    made: list[str] = []

    class Labelled:
        def __init_subclass__(cls, *, label: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            made.append(label)

    class Labels(BaseWorker, Labelled, label="here"):
        pass

    class Typed(BaseWorker, Generic[T]):
        pass

    assert made == ["here"]
    assert Typed[int]("typed").name == "typed"
    with pytest.raises(TypeError, match="takes no keyword arguments"):
        type("Wrong", (BaseWorker,), {}, colour="red")


def test_a_job_handler_takes_no_name_of_the_librarys() -> None:
    """N6"""
    with pytest.raises(ReservedNameError, match="Starts has an attribute 'start', which is a method"):

        class Starts(BaseWorker):
            @job(name="start")
            async def start(self, message: BusJobRequestMessage) -> None:  # type: ignore[override]  # on purpose
                pass
