"""R2, W7, W9: what children report while their parent ends is heard, in whatever order the tasks run."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.runners import quiet_runner
from support.wind_downs import refuse
from workerbus import (
    BaseWorker,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    WorkerErrorData,
    WorkerGoneData,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus.testing import run

Schedules = list[tuple[int, int]]
SCHEDULES = [(steps, seed) for seed in range(6) for steps in range(7)]
"""How many passes of the loop the end comes after the error, and in which order the tasks run."""
FEW, MORE = SCHEDULES[:14], SCHEDULES[14:]


class Hearing(BaseWorker):
    """Hears of its children's errors alone."""

    def __init__(self, name: str = "parent") -> None:
        super().__init__(name)
        self.told: list[str] = []

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        self.told.append(f"failed {data.worker_name} {data.origin}")
        await checkpoint()


class HearingOfEnds(Hearing):
    """Hears of their ends, too."""

    async def on_worker_gone(self, data: WorkerGoneData) -> None:
        self.told.append(f"gone {data.worker_name}")
        await checkpoint()


class Busy(HearingOfEnds):
    """Its hooks of messages take some time."""

    async def on_bus_message(self, message: BusMessage) -> None:
        await checkpoint()


class Picky(HearingOfEnds):
    """Is asked about each message first."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


class PickyAboutErrors(Hearing):
    """Is asked, too, and hears of nothing else."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


class Watching(HearingOfEnds):
    """Watches its child by name as well."""

    async def on_activated(self, args: object) -> None:
        await self.watch_workers("child")


class Child(BaseWorker):
    def __init__(self, name: str = "child") -> None:
        super().__init__(name)
        self.go = anyio.Event()


class FailingNow(Child):
    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await self.go.wait()
        raise ValueError("broken")


class FailingAtTheEnd(Child):
    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await params.wait_for_end()
        raise ValueError("broken")


class FailingWhenCancelled(Child):
    async def run(self, params: WorkerParams) -> None:
        await self.start()
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("broken")


class FailingHook(Child):
    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusEndWorkerMessage):
            raise ValueError("broken")


class WatchingLater(HearingOfEnds):
    """Watches it, too, from when it is its child."""


PARENTS = (Hearing, HearingOfEnds, Busy, Picky, Watching)


async def heard(parent: Hearing, end: str, steps: int, *children: Child) -> list[str]:
    async with quiet_runner(grace_period=1) as runner:
        runner.add_event_handler("on_error", lambda _, data: parent.told.append(f"on_error {data.worker_name}"))
        await runner.add_workers(parent, wait=True)
        await parent.add_workers(*children, wait=True)
        if isinstance(parent, WatchingLater):
            await parent.watch_workers("child")
        for child in children:
            child.go.set()
        for _ in range(steps):
            await checkpoint()
        await {"end": runner.end, "cancel": runner.cancel, "stop": parent.stop}[end]()
    return parent.told


@pytest.mark.parametrize("schedules", [FEW, pytest.param(MORE, marks=pytest.mark.slow)], ids=["few", "more"])
@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize(
    ("child", "end"),
    [
        (FailingNow, "end"),
        (FailingAtTheEnd, "end"),
        (FailingHook, "end"),
        (FailingWhenCancelled, "end"),
        (FailingNow, "cancel"),
        (FailingWhenCancelled, "cancel"),
    ],
)
def test_a_parent_that_ends_hears_of_each_error_and_end_of_its_children(
    backend: str, parent: type[Hearing], child: Callable[[], Child], end: str, schedules: Schedules
) -> None:
    """W7, W9: whether the error or the end comes first"""
    origin = "on_bus_message" if child is FailingHook else "run"
    expected = {f"failed child {origin}"} | ({"gone child"} if parent is not Hearing else set())
    for steps, seed in schedules:
        told = run(heard, parent(), end, steps, child(), backend=backend, seed=seed)
        assert sorted(told) == sorted(expected), (steps, seed)


def test_a_child_that_is_watched_by_name_as_well_stays_a_child(backend: str) -> None:
    """W7, W9: its end reaches the parent when that ends, too"""
    for steps, seed in SCHEDULES:
        told = run(heard, WatchingLater(), "cancel", steps, FailingNow(), backend=backend, seed=seed)
        assert sorted(told) == ["failed child run", "gone child"], (steps, seed)


@pytest.mark.parametrize("end", ["end", "cancel", "stop"])
@pytest.mark.parametrize("parent", [HearingOfEnds, Picky, PickyAboutErrors])
def test_a_parent_that_ends_hears_of_all_children_that_fail_in_one_step(
    backend: str, parent: type[Hearing], end: str
) -> None:
    """W7, W9: also where what they report waits in one place."""
    names = ("a", "b", "c")
    for steps, seed in FEW:
        told = run(heard, parent(), end, steps, *map(FailingNow, names), backend=backend, seed=seed)
        ends = [] if parent is PickyAboutErrors else [f"gone {name}" for name in names]
        expected = [*(f"failed {name} run" for name in names), *ends]
        assert sorted(told) == expected, (steps, seed)


async def test_what_children_report_behind_a_hook_that_the_end_cuts_off_is_heard_in_its_order() -> None:
    """W7, W9, B2"""

    class Slow(HearingOfEnds):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            await super().on_worker_failed(data)
            if data.worker_name == "1":
                await anyio.sleep_forever()

    class Timed(Child):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(float(self.name) / 8)
            raise ValueError("broken")

    parent, names = Slow(), ["1", "2", "3", "4", "5"]
    async with quiet_runner() as runner:
        await runner.add_workers(parent, wait=True)
        await parent.add_workers(*map(Timed, names), wait=True)
        await runner.cancel()
    for what in ("failed", "gone"):
        assert [each.split()[1] for each in parent.told if each.startswith(what)] == names


def test_an_end_runs_a_system_hook_that_was_queued_before_it(backend: str) -> None:
    """R2: also where there is nothing else to wait for"""

    class Failing(Hearing):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            await anyio.sleep(0.5)
            await super().on_worker_failed(data)

    for steps, seed in SCHEDULES:
        told = run(heard, Failing(), "end", steps, FailingNow(), backend=backend, seed=seed)
        assert told == ["failed child run"], (steps, seed)


def test_a_hook_for_a_child_that_fails_at_its_end_may_still_ask_for_a_job(backend: str) -> None:
    """R2, W5, W8: the parent waits for its children, and still works meanwhile"""

    class Asking(HearingOfEnds):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            response = await self.job(self.name, name="note", payload={"of": data.worker_name})
            self.told.append(f"noted {response}")

        @job(name="note")
        async def note(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return dict(message.payload or {})

    for steps, seed in SCHEDULES:
        told = run(heard, Asking(), "end", steps, FailingAtTheEnd(), backend=backend, seed=seed)
        assert sorted(told) == ["gone child", "noted {'of': 'child'}"], (steps, seed)


class Refusing(Child):
    """Refuses cancellation past the bound, and fails then."""

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        try:
            await refuse([])
        finally:
            raise ValueError("broken")


def test_an_error_that_comes_when_nobody_waits_for_it_any_more_is_raised(backend: str) -> None:
    """W7, R4, L4: of a child whose parent has left, and of a root when the time of the whole run is over"""

    async def main(root: bool) -> None:
        told: list[str] = []
        parent, late = HearingOfEnds(), Refusing()

        async def whole() -> None:
            async with quiet_runner() as runner:
                runner.add_event_handler("on_error", lambda _, data: told.append(data.worker_name))
                await runner.add_workers(parent, wait=True)
                await (runner if root else parent).add_workers(late, wait=True)
                await runner.cancel()

        with pytest.raises(ValueError, match="broken") as caught:
            await whole()
        assert caught.value.__notes__ == ["raised by worker 'child'"]
        assert parent.told == told == []

    for root in (False, True):
        for seed in range(10):
            run(main, root, backend=backend, seed=seed)


async def test_an_error_whose_handler_was_not_reached_in_time_is_raised() -> None:
    """R4, L4"""
    told: list[str] = []

    async def hang(_: WorkerRunner, data: WorkerErrorData) -> None:
        told.append(data.error)
        await anyio.sleep_forever()

    class Named(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await params.wait_for_end()
            raise ValueError(self.name)

    async def whole(names: str) -> None:
        async with quiet_runner() as runner:
            runner.add_event_handler("on_error", hang)
            await runner.add_workers(*map(Named, names), wait=True)
            await runner.end()

    with pytest.raises(ValueError, match=r"a|b") as caught:
        await whole("ab")
    assert sorted([*told, f"ValueError: {caught.value}"]) == ["ValueError: a", "ValueError: b"]
    told.clear()
    with pytest.raises(ExceptionGroup) as several:
        await whole("abc")
    raised = [f"ValueError: {each}" for each in several.value.exceptions]
    assert sorted([*told, *raised]) == [f"ValueError: {name}" for name in "abc"]


def test_the_runner_hears_of_a_root_that_fails_at_its_end(backend: str) -> None:
    """W7, W9"""

    async def main(root: Child, steps: int) -> list[WorkerErrorData]:
        told: list[WorkerErrorData] = []
        async with quiet_runner() as runner:
            runner.add_event_handler("on_error", lambda _, data: told.append(data))
            await runner.add_workers(root, Hearing("other"), wait=True)
            root.go.set()
            for _ in range(steps):
                await checkpoint()
            await runner.end()
        return told

    for kind in (FailingNow, FailingAtTheEnd, FailingHook):
        for steps, seed in SCHEDULES:
            [data] = run(main, kind(), steps, backend=backend, seed=seed)
            assert str(data.exception) == "broken", (kind, steps, seed)


class Broken(BaseWorker):
    """One of its two ends raises."""

    def __init__(self, name: str, which: str) -> None:
        super().__init__(name)
        self.which = which

    async def stop(self) -> None:
        if self.which == "stop":
            raise ValueError("broken")
        await super().stop()

    async def cleanup(self) -> None:
        if self.which == "cleanup":
            raise ValueError("broken")


@pytest.mark.parametrize("which", ["stop", "cleanup"])
@pytest.mark.parametrize("how", ["end", "cancel"])
@pytest.mark.parametrize("root", [True, False])
async def test_what_an_overridden_end_raises_is_reported(which: str, how: str, root: bool) -> None:
    """W7, W9: a root's to the runner, a child's to its parent; the worker has not failed of it"""
    told: list[WorkerErrorData] = []

    class Parent(BaseWorker):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            told.append(data)

    parent, broken = Parent("parent"), Broken("broken", which)
    async with quiet_runner() as runner:
        if root:
            runner.add_event_handler("on_error", lambda _, data: told.append(data))
        await runner.add_workers(parent, wait=True)
        await (runner if root else parent).add_workers(broken, wait=True)
        await (runner.end() if how == "end" else runner.cancel())
    [data] = told
    assert (data.worker_name, data.error, data.origin) == ("broken", f"{which}: ValueError: broken", which)
    assert str(data.exception) == "broken"
    assert not data.fatal


@pytest.mark.parametrize("alone", [True, False])
async def test_an_error_that_a_parent_has_no_time_to_hear_of_goes_to_the_runner(alone: bool) -> None:
    """W7, R4, L4: to its `on_error`, or, where its own time is over, too, perhaps out of its `run()`

    One hook takes all the grace, the next one all the time to clean up; several are left.
    """
    told: list[str] = []
    names = ["a", "b", "c", "d"]

    class Slow(BaseWorker):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            told.append(data.worker_name)
            await anyio.sleep_forever()

    class Named(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await params.wait_for_end()
            raise ValueError(self.name)

    async def whole() -> None:
        parent = Slow("parent")
        async with quiet_runner(grace_period=1) as runner:
            runner.add_event_handler("on_error", lambda _, data: told.append(data.worker_name))
            await runner.add_workers(parent, wait=True)
            await parent.add_workers(*map(Named, names), wait=True)
            if alone:
                await runner.bus.send(BusEndWorkerMessage(source="test", target="parent"))
                await parent.wait()
                await eventually(lambda: len(told) == len(names))
            else:
                await runner.end()

    try:
        await whole()
    except ValueError as exc:
        assert not alone
        told.append(str(exc))
    except ExceptionGroup as several:
        assert not alone
        told += map(str, several.exceptions)
    assert sorted(told) == names


async def test_a_report_waits_for_the_hook_before_it_also_where_that_unwinds_slowly() -> None:
    """W8: hooks run one at a time"""
    told: list[str] = []

    class Slow(BaseWorker):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            told.append(f"begin {data.worker_name}")
            try:
                await anyio.sleep(1)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.1)
                told.append(f"over {data.worker_name}")

    parent, first, second = Slow("parent"), FailingNow(), FailingWhenCancelled("second")
    async with quiet_runner(grace_period=1) as runner:
        await runner.add_workers(parent, wait=True)
        await parent.add_workers(first, second, wait=True)
        first.go.set()
        await eventually(lambda: told == ["begin child"])
        await runner.cancel()
    assert told == ["begin child", "over child", "begin second", "over second"]
