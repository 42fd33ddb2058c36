"""W9: workers that fail to start are not announced, and whoever waits for a start hears what has kept it from it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.failures import Errors
from support.families import Parent
from support.messages import Note, note
from support.shared_buses import linked
from support.workers import Helper, running
from workerbus import (
    BusWorkerReadyMessage,
    NotRunningError,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
)
from workerbus.testing import RecordingBus


class Failing(Helper):
    """Is to fail to start in ``place``, after a while."""

    def __init__(self, name: str, place: str, error: BaseException | None = None) -> None:
        super().__init__(name)
        self.place = place
        self.error = error or OSError("no device")

    async def fail_in(self, *places: str) -> None:
        if self.place in places:
            await anyio.sleep(0.1)
            raise self.error


class Broken(Failing):
    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await self.fail_in("on_activated", "on_activated of an own run")


class StartAlone(Failing):
    async def start(self) -> None:
        await super().start()
        await self.fail_in("start without a hook")


class OwnStart(Broken):
    async def start(self) -> None:
        await self.fail_in("before start")
        await super().start()
        await self.fail_in("after start")


class OwnRun(Broken):
    async def run(self, params: WorkerParams) -> None:
        await self.fail_in("run")
        await super().run(params)


PLACES = {
    "start without a hook": StartAlone,
    "on_activated": Broken,
    "before start": OwnStart,
    "after start": OwnStart,
    "run": OwnRun,
    "on_activated of an own run": OwnRun,
}


def broken(place: str, name: str = "broken", error: BaseException | None = None) -> Failing:
    kind: type[Failing] = PLACES[place]
    return kind(name, place, error)


class Curious(Helper):
    """Writes down which workers it is told of."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.heard: list[str] = []

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.heard.append(f"{data.worker_name} is ready")

    async def on_worker_gone(self, data: Any) -> None:
        self.heard.append(f"{data.worker_name} is gone")


@pytest.mark.parametrize("place", PLACES)
async def test_a_worker_that_fails_to_start_is_not_announced(place: str) -> None:
    """W9: to its parent, to other roots, to those who watch, or on the bus, neither as ready nor as gone."""
    bus, curious, parent, seen = RecordingBus(), Curious("curious"), Parent(), list[str]()

    def see(data: WorkerReadyData) -> None:
        seen.append(data.worker_name)

    async with running(parent, curious, bus=bus) as runner:
        await Errors().of(runner)
        for name in ("root", "child"):
            await runner.registry.watch(name, see)
            await runner.registry.watch_departure(name, see)
            await curious.watch_workers(name)
        await anyio.wait_all_tasks_blocked()
        curious.heard.clear()
        parent.ready.clear()
        await runner.add_workers(broken(place, "root"))
        await parent.add_workers(broken(place, "child"))
        await eventually(lambda: runner.known_workers() == ["parent", "curious"])
        await anyio.wait_all_tasks_blocked()
    assert (curious.heard, seen, parent.ready) == ([], [], [])
    assert {message.source for message in bus.messages(BusWorkerReadyMessage)} == {"parent", "curious"}


@pytest.mark.parametrize("place", PLACES)
async def test_nor_is_it_announced_to_other_runners(place: str) -> None:
    """W9"""
    async with linked() as (here, there, errors):
        curious = Curious("curious")
        await there.add_workers(curious, wait=True)
        await curious.watch_workers("broken", "other")
        await here.add_workers(broken(place))
        await here.add_workers(Helper("other"))
        await eventually(lambda: bool(errors["A"]) and "other" in there.registry)
        late = Curious("late")
        await there.add_workers(late, wait=True)
        await anyio.wait_all_tasks_blocked()
        assert "broken" not in there.registry
        assert curious.heard == ["other is ready", "late is ready"]


@pytest.mark.parametrize("place", ["none", "none of an own start", "none of an own run"])
async def test_a_worker_is_announced_when_its_start_is_over(place: str) -> None:
    """W9, W2: others hear of it then, and requesters of its runner find it before."""
    go_on, bus = anyio.Event(), RecordingBus()
    base = {"none": Broken, "none of an own start": OwnStart, "none of an own run": OwnRun}[place]

    class Slow(base):  # type: ignore[valid-type, misc]  # a variable
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await go_on.wait()

    slow, curious, later = Slow("slow", place), Curious("curious"), Curious("later")
    async with running(curious, bus=bus) as runner:
        await runner.add_workers(slow)
        await anyio.wait_all_tasks_blocked()
        assert (await runner.job("slow", name="echo"))["worker"] == "slow"
        await runner.add_workers(later)
        await anyio.wait_all_tasks_blocked()
        assert runner.registry.local_workers == ["curious", "slow", "later"]
        assert curious.heard == ["later is ready"]
        assert later.heard == ["curious is ready"]
        assert bus.messages(BusWorkerReadyMessage, source="slow") == []
        go_on.set()
        await anyio.wait_all_tasks_blocked()
        assert curious.heard == ["later is ready", "slow is ready"]
        assert later.heard == ["curious is ready", "slow is ready"]
        assert len(bus.messages(BusWorkerReadyMessage, source="slow")) == 1


@pytest.mark.parametrize("says", ["a message", "a job"])
async def test_a_worker_that_says_something_while_it_starts_is_announced_before_that(says: str) -> None:
    """W2, W8: who hears of it can ask back, under another runner, too."""
    asked, told = list[str](), list[str]()

    class Asking(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            if says == "a message":
                await self.send_bus_message(note(0, source=self.name))
            else:
                await self.job("back", name="ask back", timeout=5)

    class Back(Helper):
        async def on_job_request(self, message: Any) -> dict[str, Any]:
            asked.append((await self.job(message.source, name="echo"))["worker"])
            return {}

        async def on_bus_message(self, message: Any) -> None:
            if isinstance(message, Note | BusWorkerReadyMessage) and message.source == "asking":
                told.append(type(message).__name__)

    async with linked() as (here, there, errors):
        back = Back("back")
        back.receives = "all"
        await there.add_workers(back, wait=True)
        await here.registry.wait_for("back")
        told.clear()
        await here.registry.watch("asking", lambda data: asked.append(f"{data.worker_name} is ready"))
        await here.add_workers(Asking("asking"), wait=True)
        await anyio.wait_all_tasks_blocked()
        assert errors == {"A": [], "B": []}
    assert told[0] == "BusWorkerReadyMessage"
    assert told.count("BusWorkerReadyMessage") == 1
    assert sorted(asked) == (["asking", "asking is ready"] if says == "a job" else ["asking is ready"])


# --- waiting for a start


@asynccontextmanager
async def adder(where: str) -> AsyncIterator[tuple[Any, WorkerRunner]]:
    """Run a parent, and return who is to add workers: it, or the runner."""
    parent = Parent()
    async with running(parent) as runner:
        yield (runner if where == "runner" else parent), runner


@pytest.mark.parametrize("where", ["runner", "parent"])
async def test_add_workers_can_wait_until_all_have_started(where: str) -> None:
    """W9: their first `on_activated` included; one that has started already is no matter."""
    begun: list[str] = []

    class Slow(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await anyio.sleep(1)
            begun.append(self.name)

    async with adder(where) as (adds, _):
        first = Slow("first")
        await adds.add_workers(first)
        assert begun == []
        await adds.add_workers(first, Slow("second"), Helper("third"), wait=True)
        assert sorted(begun) == ["first", "second"]
        await adds.add_workers(first, wait=True)
        await adds.add_workers(wait=True)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["runner", "parent"])
async def test_add_workers_raises_what_has_kept_a_worker_from_starting(where: str, place: str) -> None:
    """W9, R4: itself; it is reported as ever, and the run does not raise it again."""
    worker = broken(place)
    async with adder(where) as (adds, runner):
        with pytest.raises(OSError, match="no device") as caught:
            await adds.add_workers(worker, Helper("fine"), wait=True)
        assert caught.value is worker.error
        assert (await runner.job("fine", name="echo"))["worker"] == "fine"
        fresh = Helper("broken")
        await adds.add_workers(fresh, wait=True)
        if where == "parent":
            await eventually(lambda: adds.failed)
            assert (adds.failed[0].exception, adds.failed[0].fatal) == (worker.error, True)


@pytest.mark.parametrize("where", ["runner", "parent"])
async def test_what_has_kept_several_from_starting_comes_in_a_group(where: str) -> None:
    """W9, L6"""
    first, second = broken("on_activated", "one"), broken("run", "two", ValueError("no key"))
    async with adder(where) as (adds, _):
        with pytest.raises(ExceptionGroup) as caught:
            await adds.add_workers(first, Helper("fine"), second, wait=True)
        assert set(caught.value.exceptions) == {first.error, second.error}


@pytest.mark.parametrize("where", ["runner", "parent"])
async def test_a_worker_that_is_stopped_while_it_starts_has_not_started(where: str) -> None:
    """W9"""

    class Slow(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.begun.set()
            await anyio.sleep_forever()

    slow = Slow("slow")
    async with adder(where) as (adds, runner), anyio.create_task_group() as group:

        async def stop() -> None:
            await slow.begun.wait()
            await slow.stop()

        group.start_soon(stop)
        with pytest.raises(NotRunningError, match="'slow' was stopped before it had started"):
            await adds.add_workers(slow, wait=True)
        assert runner.registry.failure_of("slow") is None


async def test_who_would_wait_for_ever_is_refused() -> None:
    """W9: nothing was added."""
    runner, parent = WorkerRunner(handle_sigint=False), Helper("parent")
    with pytest.raises(NotRunningError, match="is not running yet"):
        await runner.add_workers(parent, wait=True)
    with pytest.raises(NotRunningError, match="'parent' has not started"):
        await parent.add_workers(Helper("child"), wait=True)
    assert runner.known_workers() == []
    assert parent.children == []


async def test_a_wait_that_is_cancelled_leaves_the_error_to_the_run() -> None:
    """W9, R4"""
    worker, caught = broken("on_activated"), None
    try:
        async with running(Helper("other")) as runner:
            with anyio.move_on_after(0.05):
                await runner.add_workers(Helper("first"), worker, wait=True)
            await worker.wait()
    except OSError as exc:
        caught = exc
    assert caught is worker.error


async def test_of_two_who_wait_for_a_start_one_that_is_cancelled_leaves_the_error_to_the_other() -> None:
    """W9, R4: the run does not raise it again."""
    worker = broken("on_activated")
    async with running(Helper("other")) as runner, anyio.create_task_group() as group:

        async def give_up() -> None:
            with anyio.move_on_after(0.05):
                await runner.add_workers(worker, wait=True)

        await runner.add_workers(worker)
        group.start_soon(give_up)
        with pytest.raises(OSError, match="no device"):
            await runner.add_workers(worker, wait=True)
