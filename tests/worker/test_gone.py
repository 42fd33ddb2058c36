"""W9: who is told that a worker has gone; and what is told of one that has failed."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.failures import Crashing, Errors, crash
from support.messages import note
from support.runners import quiet_runner
from support.shared_buses import linked
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusMessage,
    BusSubscriber,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    MemoryBus,
    WorkerErrorData,
    WorkerGoneData,
    WorkerReadyData,
    WorkerRunner,
    worker_ready,
)
from workerbus.testing import settle

Heard = list[tuple[str, Any]]


def listener(name: str, heard: Heard, form: str) -> Helper:
    """A worker that writes down what it hears of others, by methods or by event handlers."""

    async def note_it(worker: BaseWorker, data: Any) -> None:
        heard.append((worker.name, data))

    hooks = ("on_worker_gone", "on_worker_failed")
    if form == "method":
        made: Helper = type("Listening", (Helper,), dict.fromkeys(hooks, note_it))(name)
        return made
    worker = Helper(name)
    for hook in hooks:
        worker.add_event_handler(hook, note_it)
    return worker


FORMS = ["method", "event"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("crashes", [False, True])
async def test_a_parent_hears_when_a_child_has_gone(form: str, crashes: bool) -> None:
    """W9, N3: once, behind the report of its error; not of one that it does not watch"""
    heard: Heard = []
    parent, child, unwatched = listener("parent", heard, form), Crashing("child"), Helper("unwatched")
    async with running(parent) as runner:
        await Errors().of(runner)
        await parent.add_workers(child, wait=True)
        await parent.add_workers(unwatched, watch=False, wait=True)
        await unwatched.stop()
        if crashes:
            await crash(child, runner)
        else:
            await child.stop()
        await anyio.wait_all_tasks_blocked()
    error = "ValueError: boom" if crashes else None
    told = [data for _, data in heard]
    assert told[-1] == WorkerGoneData("child", runner.name, error)
    assert told[:-1] == ([WorkerErrorData("child", "ValueError: boom")] if crashes else [])


@pytest.mark.parametrize("form", FORMS)
async def test_root_workers_hear_when_another_root_has_gone(form: str) -> None:
    """W9: not of themselves, and not of children"""
    heard: Heard = []
    one, two, parent = listener("one", heard, form), listener("two", heard, form), Helper("parent")
    leaver, child = Helper("leaver"), Helper("child")
    async with running(one, two, parent, leaver) as runner:
        await parent.add_workers(child, wait=True)
        await child.stop()
        await leaver.stop()
        await two.stop()
        await anyio.wait_all_tasks_blocked()
        gone = [(name, data.worker_name) for name, data in heard]
        assert gone == [("one", "leaver"), ("two", "leaver"), ("one", "two")]
        assert heard[0][1] == WorkerGoneData("leaver", runner.name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["here", "there"])
async def test_who_watches_a_worker_hears_once_when_it_has_gone(form: str, where: str) -> None:
    """W9: each time that it goes, under this runner or another one, and whatever it is to who watches"""
    heard: Heard = []
    async with linked() as (here, there, _):
        host, watching = here if where == "here" else there, listener("watching", heard, form)
        await here.add_workers(watching, wait=True)
        await watching.watch_workers("leaver", "leaver")
        for error in (None, "ValueError: boom"):
            worker = Crashing("leaver")
            await host.add_workers(worker, wait=True)
            await anyio.wait_all_tasks_blocked()
            if error is None:
                await worker.stop()
            else:
                await crash(worker, host)
            await anyio.wait_all_tasks_blocked()
            assert heard.pop() == ("watching", WorkerGoneData("leaver", host.name, error))
            assert heard == []


async def test_a_watch_of_a_worker_ready_method_is_one_for_its_departure() -> None:
    """W9"""
    heard: Heard = []

    class Watching(Helper):
        @worker_ready(name="child")
        async def child_is_ready(self, data: WorkerReadyData) -> None:
            heard.append(("ready", data.worker_name))

        async def on_worker_gone(self, data: WorkerGoneData) -> None:
            heard.append(("gone", data.worker_name))

    watching, parent, child = Watching("watching"), Helper("parent"), Helper("child")
    async with running(watching, parent):
        await parent.add_workers(child, wait=True)
        await child.stop()
        await anyio.wait_all_tasks_blocked()
        assert heard == [("ready", "child"), ("gone", "child")]


@pytest.mark.parametrize("hook", ["on_worker_gone", "on_worker_failed"])
@pytest.mark.parametrize("root", [False, True])
async def test_the_name_of_a_worker_that_has_gone_is_free_in_the_hook(hook: str, root: bool) -> None:
    """W9, W6: a supervisor starts another one there."""
    started: list[str] = []

    class Supervisor(Helper):
        async def again(self, data: Any) -> None:
            adds: Any = self.worker_runner if root else self
            await adds.add_workers(Helper("child"), wait=True)
            started.append(data.worker_name)

    supervisor: Helper = type("Own", (Supervisor,), {hook: Supervisor.again})("supervisor")
    async with running(supervisor) as runner:
        if root and hook == "on_worker_failed":
            runner.add_event_handler("on_error", lambda _, data: supervisor.again(data))  # type: ignore[attr-defined]  # of its class
        else:
            await Errors().of(runner)
        child = Crashing("child")
        await (runner if root else supervisor).add_workers(child, wait=True)
        await crash(child, runner)
        await eventually(lambda: started == ["child"])
        assert (await runner.job("child", name="echo"))["worker"] == "child"


async def test_nothing_is_kept_of_those_who_have_watched() -> None:
    """R9, L1"""
    async with running(Helper("other")) as runner:
        watching = listener("watching", [], "method")
        await runner.add_workers(watching, wait=True)
        await watching.watch_workers("a", "b")
        await watching.stop()
        assert runner.registry._gone_watchers == {}


# --- what is told of an error

Fail = Callable[[Any, BaseException, WorkerRunner], Awaitable[None]]


class Failing(Crashing):
    """Fails in a hook, or in `run`."""

    async def on_bus_message(self, message: BusMessage) -> None:
        await super().on_bus_message(message)
        if self.how == "hook" and isinstance(message, type(note(0))):
            raise self.error


@pytest.mark.parametrize("how", ["hook", "run", "task"])
@pytest.mark.parametrize("root", [False, True])
async def test_who_is_told_of_an_error_gets_the_exception_its_origin_and_whether_the_worker_lives(
    root: bool, how: str
) -> None:
    """W9"""
    told: list[WorkerErrorData] = []

    class Hearing(Helper):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            told.append(data)

    parent, worker = Hearing("parent"), Failing("w", how=how)
    async with running(parent) as runner:
        if root:
            runner.add_event_handler("on_error", lambda _, data: told.append(data))
        await (runner if root else parent).add_workers(worker, wait=True)
        await runner.bus.send(note(0, "w"))
        await eventually(lambda: told)
        [data] = told
        assert data.worker_name == "w"
        assert data.exception is worker.error
        assert data.fatal == (how != "hook")
        assert data.origin == ("on_bus_message" if how == "hook" else "run")
        assert runner.bus.has_subscriber("w") == (not data.fatal)
        assert (
            repr(data)
            == f"WorkerErrorData(worker_name='w', error={data.error!r}, origin={data.origin!r}, fatal={data.fatal})"
        )


async def test_an_error_that_is_told_in_words_has_no_exception() -> None:
    """W9, W7"""
    async with running(Helper("w")) as runner:
        errors = await Errors().of(runner)
        worker = runner.get_worker("w")
        assert worker is not None
        await worker.send_bus_error_message("out of paper")
        await eventually(lambda: errors.told)
    data = errors.told[0]
    assert (data.error, data.exception, data.origin, data.fatal) == ("out of paper", None, None, False)


async def test_all_who_watch_for_a_worker_hear_that_it_has_gone() -> None:
    """W9"""
    heard: list[tuple[str, str]] = []

    class Watching(BaseWorker):
        async def on_worker_gone(self, data: WorkerGoneData) -> None:
            heard.append((self.name, data.worker_name))

    watching, parent = [Watching(name) for name in "abc"], Helper("parent")
    async with running(*watching, parent) as runner:
        child = Helper("child")
        await parent.add_workers(child, wait=True)
        for each in watching:
            await runner.registry.wait_for(each.name)
            await each.watch_workers("child")
        await child.stop()
        await eventually(lambda: len(heard) == 3)
    assert sorted(heard) == [(name, "child") for name in "abc"]


class SlowToLeave(MemoryBus):
    """A bus that a worker takes a while to leave."""

    def __init__(self) -> None:
        super().__init__()
        self.leaving = anyio.Event()

    async def unsubscribe(self, subscriber: BusSubscriber) -> None:
        await super().unsubscribe(subscriber)
        if subscriber.name == "slow":
            self.leaving.set()
            await anyio.sleep(0.5)


async def test_a_worker_that_says_something_for_the_first_time_while_it_leaves_is_said_to_be_gone() -> None:
    """W9, G2: it was to be announced when its start was over, and is announced before it says anything."""

    class Slow(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await anyio.sleep_forever()

    bus, slow, seen = SlowToLeave(), Slow("slow"), Plain("seen")
    async with bus, anyio.create_task_group() as group:
        await bus.subscribe(seen)
        async with quiet_runner(bus=bus) as runner:
            await runner.add_workers(slow)
            await settle()
            group.start_soon(slow.stop)
            await bus.leaving.wait()
            await slow.send_bus_message(note(1))
            await slow.wait()
            await settle()
            assert "slow" not in runner.registry
    kinds = BusWorkerReadyMessage, BusWorkerGoneMessage
    told = [message for message in seen.got if isinstance(message, kinds) and message.source == "slow"]
    assert [type(message) for message in told] == [*kinds]
