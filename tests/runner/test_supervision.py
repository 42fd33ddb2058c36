"""Supervised workers: who is restarted, how often, and what becomes of their jobs."""

import gc
import logging
import weakref
from contextlib import suppress
from typing import Any

import anyio
import pytest

from support.hand_buses import HandBus
from support.messages import Note, note
from support.networks import network
from support.restarts import LATE, SOON, Fragile, count_anew, fail, fragile, which
from support.workers import Helper
from workerbus import (
    Backoff,
    BaseWorker,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    FactoryError,
    JobError,
    JobStatus,
    NameTakenError,
    RestartLimitError,
    RunCancelled,
    Supervision,
    WorkerErrorData,
    WorkerGoneData,
    WorkerRestartedData,
    WorkerRunner,
    job,
)
from workerbus.testing import settle
from workerbus.worker._core import core_of

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _count_anew() -> None:
    count_anew()


async def test_a_worker_that_fails_is_made_anew_and_a_job_for_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    """S1, J4, R8: the job that is under way fails at once; one that comes later gets the next worker."""
    told: list[WorkerRestartedData] = []
    with caplog.at_level(logging.INFO, "workerbus"):
        async with WorkerRunner(name="r") as runner:
            runner.add_event_handler("on_worker_restarted", lambda _, data: told.append(data))
            supervision = await runner.supervise(fragile(), backoff=SOON)
            assert await which(runner) == 1
            before = anyio.current_time()
            await fail(runner)
            assert anyio.current_time() == before
            assert supervision.states == {"w": "restarting"}
            assert await which(runner) == 2
            assert anyio.current_time() - before == pytest.approx(0.5)
            assert (supervision.names, supervision.restarts, supervision.states) == (("w",), {"w": 1}, {"w": "running"})
            assert runner.statistics().restarts == 1
    assert [(each.worker_name, each.runner, each.restarts) for each in told] == [("w", "r", 1)]
    assert "was restarted (restart 1)" in caplog.text


async def test_a_job_for_a_worker_that_is_being_restarted_waits_no_longer_than_its_timeout() -> None:
    """S1, J4."""
    async with WorkerRunner() as runner:
        await runner.supervise(fragile(), backoff=Backoff(initial=50, maximum=50, jitter=0))
        await fail(runner)
        with pytest.raises(TimeoutError):
            await runner.job("w", name="which", timeout=1)


async def test_beyond_the_limit_the_failure_goes_up() -> None:
    """S1, J4: the run raises it, and who asks later is told at once."""
    with pytest.raises(RestartLimitError) as caught:  # noqa: PT012 - what the block raises as it is left
        async with WorkerRunner() as runner:
            supervision = await runner.supervise(fragile(), max_restarts=2, within=60, backoff=SOON)
            for _ in range(3):
                await which(runner)
                await fail(runner)
            assert supervision.states == {"w": "failed"}
            with pytest.raises(JobError, match="RestartLimitError"):
                await runner.job("w", name="which")
    assert (caught.value.worker, caught.value.max_restarts, caught.value.within) == ("w", 2, 60)
    assert caught.value.__cause__ is not None


async def test_each_restart_is_told_of_with_what_the_life_before_has_failed_of() -> None:
    """S1: and none where it had ended."""

    class Various(Fragile):
        @job(name="go")
        async def go(self, message: BusJobRequestMessage) -> None:
            assert message.payload is not None
            if message.payload["error"]:
                raise Panic(message.payload["error"])
            await self.stop()

    class Panic(BaseException):
        """What finishes a worker."""

    told: list[WorkerRestartedData] = []
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_worker_restarted", lambda _, data: told.append(data))
        await runner.supervise(fragile(kind=Various), restart="always", backoff=SOON, max_restarts=9)
        for error in ("first", "second", None, "fourth"):
            with suppress(JobError):
                await runner.job("w", name="go", payload={"error": error})
            await which(runner)
    assert [(data.restarts, data.error) for data in told] == [
        (1, "Panic: first"),
        (2, "Panic: second"),
        (3, None),
        (4, "Panic: fourth"),
    ]


@pytest.mark.parametrize("at_a_parent", [False, True])
async def test_who_waits_for_a_worker_hears_that_it_is_given_up_since_it_cannot_be_attached(at_a_parent: bool) -> None:
    """S1, J4: when it was tried as often as it may be, and who asks later hears it, too."""

    class Unattachable(Fragile):
        async def attach(self, **kwargs: Any) -> None:
            if self.number > 1:
                raise OSError("no device")
            await super().attach(**kwargs)

    class Parent(Helper):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            failed.append(data)

    failed: list[WorkerErrorData] = []
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda _, data: failed.append(data))
        parent = Parent("parent")
        await runner.add_workers(parent, wait=True)
        await (parent if at_a_parent else runner).supervise(fragile(kind=Unattachable), max_restarts=2, backoff=SOON)
        await which(runner)
        await fail(runner)
        for _ in range(2):
            with pytest.raises(JobError, match="worker 'w' has failed: RestartLimitError"), anyio.fail_after(3):
                await runner.job("w", name="which")
        await settle()
        assert [(data.worker_name, type(data.exception)) for data in failed] == [("w", RestartLimitError)]


async def test_restarts_that_are_long_ago_do_not_count() -> None:
    """S1: the limit is for so many seconds."""
    async with WorkerRunner() as runner:
        supervision = await runner.supervise(fragile(), max_restarts=1, within=1, backoff=SOON)
        for _ in range(4):
            await which(runner)
            await fail(runner)
            await anyio.sleep(2)
        assert supervision.restarts == {"w": 4}
        assert runner.statistics().restarts == 4


@pytest.mark.parametrize(("restart", "state"), [("never", "ended"), ("on_failure", "ended"), ("always", "running")])
async def test_a_worker_that_ends_is_made_anew_only_where_that_is_asked_for(restart: Any, state: str) -> None:
    """S1."""
    async with WorkerRunner() as runner:
        supervision = await runner.supervise(fragile(), restart=restart, backoff=SOON)
        await runner.job("w", name="stop")
        await anyio.sleep(1)
        assert supervision.states == {"w": state}


async def test_the_others_live_on_where_each_stands_for_itself() -> None:
    """S1."""
    async with WorkerRunner() as runner:
        await runner.supervise(fragile("a"), fragile("b"), backoff=SOON)
        await fail(runner, "b")
        assert [await which(runner, "a"), await which(runner, "b")] == [1, 3]


@pytest.mark.parametrize("cancels", [False, True])
async def test_an_end_of_the_runner_ends_a_backoff_at_once(cancels: bool) -> None:
    """S1, R2."""
    before = anyio.current_time()
    runner = WorkerRunner()
    runner.add_event_handler("on_worker_restarted", lambda *_: pytest.fail("it was restarted"))
    async with anyio.create_task_group() as group:
        supervision = await runner.supervise(fragile(), backoff=Backoff(initial=1000, maximum=1000))
        group.start_soon(runner.run)
        await runner.registry.wait_for("w")
        await fail(runner)
        await (runner.cancel() if cancels else runner.end())
    assert anyio.current_time() == before
    assert supervision.states == {"w": "ended"}


async def test_a_run_waits_for_a_worker_that_is_being_restarted() -> None:
    """S1, R1: it does not end because no worker is there for a moment."""

    class Once(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            lives.append(self.name)
            if len(lives) < 3:
                raise ValueError("not yet")

    lives: list[str] = []
    runner = WorkerRunner()
    await runner.supervise(lambda: Once("w"), backoff=SOON)
    await runner.run()
    assert lives == ["w"] * 3


async def test_a_factory_that_raises_counts_as_a_failure() -> None:
    """S1: it is tried again, up to the limit."""
    calls = 0

    def factory() -> Fragile:
        nonlocal calls
        calls += 1
        if calls == 1:
            return Fragile("w")
        raise KeyError("none left")

    errors: list[WorkerErrorData] = []
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        supervision = await runner.supervise(factory, max_restarts=2, within=60, backoff=SOON)
        await which(runner)
        await fail(runner)
        await anyio.sleep(10)
        assert supervision.states == {"w": "failed"}
        assert isinstance(errors[-1].exception, RestartLimitError)
        assert isinstance(errors[-1].exception.__cause__, KeyError)
        with pytest.raises(JobError, match="RestartLimitError"):
            await runner.job("w", name="which")
    assert calls == 3


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("no worker", "a factory returns a worker, not 7"),
        ("other name", "has made one called 'v': its name stays"),
        ("used", "was used before: a worker object runs once, so make a new one in each call"),
    ],
)
async def test_a_factory_that_cannot_deliver_is_given_up_at_once(fault: str, text: str) -> None:
    """S1: it would do no better the next time, so the restarts are not used up, and the error says what to do."""
    first = Fragile("w")
    made: list[Any] = []

    def factory() -> Any:
        made.append(first if not made else {"no worker": 7, "other name": Fragile("v"), "used": first}[fault])
        return made[-1]

    errors: list[WorkerErrorData] = []
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        supervision = await runner.supervise(factory, max_restarts=5, backoff=SOON)
        await which(runner)
        await fail(runner)
        with pytest.raises(JobError, match="FactoryError"):
            await runner.job("w", name="which", timeout=60)
        assert (supervision.states, supervision.restarts) == ({"w": "failed"}, {"w": 0})
        error = errors[-1].exception
        assert isinstance(error, FactoryError)
        assert error.worker == "w"
        assert text in str(error)
        assert isinstance(error.__cause__, ValueError)
    assert len(made) == 2


async def test_a_first_worker_that_was_used_before_is_refused() -> None:
    """S1: one that the runner has already is none that could be made anew."""
    worker = Fragile("w")
    async with WorkerRunner() as runner:
        await runner.add_workers(worker)
        with pytest.raises(FactoryError, match="was used before"):
            await runner.supervise(lambda: worker)


@pytest.mark.parametrize("how", ["end", "stop", "crash"])
async def test_who_waits_for_children_that_are_restarted_is_told_when_their_parent_goes(how: str) -> None:
    """S1, J4: of each of its supervisions, at once, and of what they had failed."""

    class Parent(Fragile):
        async def on_activated(self, args: Any) -> None:
            for name in names:
                await self.supervise(fragile(name), backoff=LATE)

    async def ask(name: str) -> None:
        with pytest.raises(JobError, match=f"worker '{name}' has failed: ValueError: broken"):
            await runner.job(name, name="which")
        told.append(name)

    names, told = ["one", "two"], list[str]()
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        parent = Parent("parent")
        await runner.add_workers(parent, wait=True)
        async with anyio.create_task_group() as tasks:
            for name in names:
                await fail(runner, name)
                tasks.start_soon(ask, name)
            await settle()
            assert told == []
            if how == "end":
                await runner.bus.send(BusEndWorkerMessage(source="me", target="parent"))
            elif how == "stop":
                await parent.stop()
            else:
                parent.broken.set()
            await settle()
            assert sorted(told) == names
            assert dict(runner.registry.restarting) == {}
            tasks.cancel_scope.cancel()


async def test_a_supervised_worker_that_is_stopped_before_the_run_has_ended() -> None:
    """S1, R1: nobody could make it anew then, and the run waits for nobody."""
    runner = WorkerRunner()
    supervision = await runner.supervise(fragile(), restart="always")
    worker = runner.get_worker("w")
    assert worker is not None
    await worker.stop()
    assert supervision.states == {"w": "ended"}
    await runner.run()


async def test_a_supervised_child_goes_and_comes_before_its_parents_eyes() -> None:
    """S1, W9: the parent hears of each step, and of a failure as such only beyond the limit."""

    class Parent(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            await self.supervise(fragile("child"), max_restarts=1, within=60, backoff=SOON)

        async def on_worker_ready(self, data: Any) -> None:
            said.append("ready")

        async def on_worker_gone(self, data: WorkerGoneData) -> None:
            said.append("gone" if data.error else "ended")

        async def on_worker_restarted(self, data: WorkerRestartedData) -> None:
            said.append(f"restarted {data.restarts}")

        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            said.append(type(data.exception).__name__)

    said: list[str] = []
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_worker_restarted", lambda _, data: said.append(f"the runner: {data.worker_name}"))
        await runner.add_workers(Parent("parent"), wait=True)
        await which(runner, "child")
        await fail(runner, "child")
        await which(runner, "child")
        child = runner.get_worker("child")
        assert child is not None
        assert child.parent == "parent"
        await fail(runner, "child")
        await anyio.sleep(1)
        assert runner.statistics().restarts == 1
    expected = ["ready", "gone", "restarted 1", "the runner: child", "ready", "gone", "RestartLimitError"]
    assert sorted(said) == sorted(expected)


async def test_a_supervised_parent_goes_and_comes_with_its_children() -> None:
    """S1, W5."""

    class Parent(Fragile):
        async def on_activated(self, args: Any) -> None:
            await self.add_workers(Fragile("child"))

    async with WorkerRunner() as runner:
        await runner.supervise(lambda: Parent("parent"), backoff=SOON)
        first = await which(runner, "child")
        await fail(runner, "parent")
        assert await which(runner, "child") > first


async def test_the_end_of_a_parent_ends_the_restarts_of_its_children() -> None:
    """S1, W5."""

    class Parent(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            await self.supervise(fragile("child"), restart="always", backoff=Backoff(initial=1000, maximum=1000))

    async with WorkerRunner() as runner:
        parent = Parent("parent")
        await runner.add_workers(parent, wait=True)
        await fail(runner, "child")
        before = anyio.current_time()
        await parent.stop()
        assert anyio.current_time() == before
        assert runner.known_workers() == []


@pytest.mark.parametrize("takes", [0.0, 1.5])
async def test_a_child_that_fails_while_its_parent_ends_is_not_made_anew(takes: float) -> None:
    """S1: its restarts end when the parent is told to end, though its hooks run yet, and another child is added yet."""

    class Late(Fragile):
        async def attach(self, **kwargs: Any) -> None:
            await anyio.sleep(takes)
            await super().attach(**kwargs)

    class Parent(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            self.create_task(self.supervise_both)

        async def supervise_both(self) -> None:
            backoff = Backoff(initial=0.1, jitter=0)
            supervisions.append(await self.supervise(fragile("child"), fragile("another", Late), backoff=backoff))

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await anyio.sleep(2)

    supervisions: list[Supervision] = []
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        parent = Parent("parent")
        await runner.add_workers(parent, wait=True)
        await runner.registry.wait_for("child" if takes else "another")
        await runner.bus.send(note(0, "parent"))
        await runner.bus.send(BusEndWorkerMessage(source="me", target="parent"))
        await fail(runner, "child")
        await anyio.sleep(1)
        assert runner.get_worker("child") is None
        await parent.wait()
        assert supervisions[0].restarts == {"child": 0, "another": 0}


async def test_nobody_is_made_anew_once_the_runner_ends_however_far_the_end_has_come() -> None:
    """S1, R2: the parent has not heard of it yet, since a hook of its own parent takes its time."""

    class Top(BaseWorker):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await anyio.sleep(2)

    class Parent(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            supervisions.append(await self.supervise(fragile("child"), backoff=Backoff(initial=0.1, jitter=0)))

    supervisions: list[Supervision] = []
    async with WorkerRunner(handle_sigint=False) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        top = Top("top")
        await runner.add_workers(top, wait=True)
        await top.add_workers(Parent("parent"), wait=True)
        await runner.bus.send(note(0, "top"))
        await settle()
        await runner.end()
        await fail(runner, "child")
        await anyio.sleep(1)
        assert runner.get_worker("child") is None
        assert runner.get_worker("parent") is not None
    assert supervisions[0].restarts == {"child": 0}


async def test_where_one_cannot_be_added_the_others_are_stopped_and_not_made_anew() -> None:
    """S1: also where those that end are."""

    class Unattachable(Fragile):
        async def attach(self, **kwargs: Any) -> None:
            raise OSError("no device")

    async with WorkerRunner() as runner:
        with pytest.raises(OSError, match="no device"):
            await runner.supervise(fragile("a"), lambda: Unattachable("b"), restart="always", backoff=SOON)
        await anyio.sleep(2)
        assert runner.known_workers() == []


@pytest.mark.parametrize("restarts", [0, 1])
async def test_a_worker_that_fails_when_its_supervision_is_stopped_is_told_of(restarts: int) -> None:
    """S1, R4: that is no failure that a restart makes good, in a later life either."""

    class Sore(Fragile):
        async def run(self, params: Any) -> None:
            try:
                await super().run(params)
            finally:
                if stopping:
                    raise OSError("it hurts")

    stopping: list[bool] = []
    errors: list[str] = []
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data.error))
        supervision = await runner.supervise(fragile(kind=Sore), backoff=SOON)
        await which(runner)
        for _ in range(restarts):
            await fail(runner)
            await which(runner)
        stopping.append(True)
        await supervision.stop()
    assert errors == ["OSError: it hurts"]


async def test_a_supervision_that_is_stopped_stops_its_workers_and_makes_none_anew() -> None:
    """S1."""
    async with WorkerRunner() as runner:
        supervision = await runner.supervise(fragile("a"), fragile("b"), restart="always", backoff=SOON)
        await which(runner, "a")
        await supervision.stop()
        await anyio.sleep(1)
        assert runner.known_workers() == []
        assert set(supervision.states.values()) == {"ended"}


@pytest.mark.parametrize("how", ["end", "cancel"])
@pytest.mark.parametrize("parent", [False, True])
@pytest.mark.parametrize("seconds", [0.0, 1.0])
@pytest.mark.parametrize("before", [False, True])
async def test_a_supervision_can_be_stopped_while_its_host_ends_and_afterwards(
    how: str, parent: bool, seconds: float, before: bool
) -> None:
    """S1: though it was about to restart a worker, or was adding one that takes long to be given up."""

    class Slow(Fragile):
        async def attach(self, **kwargs: Any) -> None:
            if self.number > 1:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(10)
            await super().attach(**kwargs)

    with suppress(RunCancelled):
        async with anyio.create_task_group() as tasks, WorkerRunner(handle_sigint=False) as runner:
            host: Any = runner
            if parent:
                host = Helper("host")
                await runner.add_workers(host, wait=True)
            supervision = await host.supervise(fragile(kind=Slow), backoff=SOON)
            await fail(runner)
            await anyio.sleep(seconds)
            if before:
                tasks.start_soon(supervision.stop)
                await anyio.wait_all_tasks_blocked()
            await (runner.end() if how == "end" else runner.cancel())
    with anyio.fail_after(0):
        await supervision.stop()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"strategy": "rest_for_one"}, ValueError),
        ({"restart": "sometimes"}, ValueError),
        ({"max_restarts": -1}, ValueError),
        ({"max_restarts": 1.5}, TypeError),
        ({"within": 0}, ValueError),
        ({"backoff": 1}, TypeError),
    ],
)
async def test_wrong_arguments_are_refused_at_once(wrong: dict[str, Any], error: type[Exception]) -> None:
    """S1."""
    with pytest.raises(error):
        await WorkerRunner().supervise(fragile(), **wrong)
    with pytest.raises(TypeError):
        await WorkerRunner().supervise()
    with pytest.raises(TypeError, match="a factory is a function that returns a new worker, not 'w'"):
        await WorkerRunner().supervise(fragile(), "w")  # type: ignore[arg-type]  # on purpose


async def test_a_supervise_that_is_cancelled_leaves_nobody() -> None:
    """S1: what it has added is stopped again."""

    class Slow(Fragile):
        async def attach(self, **kwargs: Any) -> None:
            await anyio.sleep(10)
            await super().attach(**kwargs)

    async with WorkerRunner(handle_sigint=False) as runner:
        with anyio.move_on_after(1) as scope:
            await runner.supervise(fragile("a"), fragile("b"), lambda: Slow("c"))
        assert scope.cancelled_caught
        assert runner.known_workers() == []


async def test_a_job_is_told_at_once_when_the_worker_that_it_waits_for_is_not_restarted_after_all() -> None:
    """J4, S1: the supervision was stopped in the backoff; it is told of what the worker had failed."""
    async with WorkerRunner(handle_sigint=False) as runner:
        supervision = await runner.supervise(fragile(), backoff=Backoff(initial=100, maximum=100, jitter=0))
        await fail(runner)
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                await anyio.sleep(1)
                await supervision.stop()

            tasks.start_soon(stop)
            with pytest.raises(JobError, match="worker 'w' has failed: ValueError: broken"):
                await runner.job("w", name="which")


@pytest.mark.parametrize("how", ["end of the runner", "stop of the supervision"])
@pytest.mark.parametrize("restarts", [0, 2])
async def test_a_worker_that_was_restarted_ends_like_any_other(how: str, restarts: int) -> None:
    """J4, R2, S1: no other runner takes it for one that has failed, and what it is asked for has its grace."""
    async with network("here", "there") as (here, there):
        host = WorkerRunner(name="host", bus=here, job_grace=10, handle_sigint=False)
        asker = WorkerRunner(name="asker", bus=there, handle_sigint=False)
        async with asker, host:
            supervision = await host.supervise(fragile(), backoff=SOON)
            for number in range(restarts + 1):
                assert await asker.job("w", name="which", timeout=5) == {"number": number + 1}
                if number < restarts:
                    await fail(host)

            async def ask() -> None:
                if how == "end of the runner":
                    assert await asker.job("w", name="take a second") == {"number": restarts + 1}
                else:
                    with pytest.raises(JobError) as caught:
                        await asker.job("w", name="take a second")
                    assert caught.value.statuses == {"w": JobStatus.CANCELLED}

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await anyio.sleep(0.5)
                await (host.end() if how == "end of the runner" else supervision.stop())
            await settle()
            assert asker.registry.failure_of("w") is None


async def test_what_fails_of_all_while_they_are_made_anew_is_one_failure() -> None:
    """S1: one that is there already, and one that cannot be added then; the second is not one too many."""
    lives: list[str] = []

    class Late(Fragile):
        async def attach(self, **kwargs: Any) -> None:
            lives.append(self.name)
            if lives.count("b") == 2:
                await anyio.sleep(0.2)
                raise OSError("not yet")
            await super().attach(**kwargs)

    class Early(Fragile):
        async def run(self, params: Any) -> None:
            if lives.count("a") == 2:
                await self.start()
                await anyio.sleep(0.1)
                raise ValueError("broken again")
            await super().run(params)

        async def attach(self, **kwargs: Any) -> None:
            lives.append(self.name)
            await super().attach(**kwargs)

    async with WorkerRunner(handle_sigint=False) as runner:
        supervision = await runner.supervise(
            fragile("a", Early), fragile("b", Late), strategy="all_for_one", max_restarts=2, within=60, backoff=SOON
        )
        await fail(runner, "b")
        await anyio.sleep(5)
        assert lives == ["a", "b", "a", "b", "a", "b"]
        assert supervision.states == {"a": "running", "b": "running"}


@pytest.mark.parametrize("of", ["runner", "parent"])
@pytest.mark.parametrize("place", ["run", "attach", "on_activated"])
async def test_a_worker_that_fails_as_soon_as_it_comes_is_made_anew_again(of: str, place: str) -> None:
    """S1: wherever it fails, and perhaps in the very step in which it was added."""

    class Weak(Fragile):
        def break_in(self, where: str) -> None:
            if self.number == 2 and where == place:
                raise ValueError("broken at once")

        async def attach(self, **kwargs: Any) -> None:
            self.break_in("attach")
            await super().attach(**kwargs)

        async def run(self, params: Any) -> None:
            self.break_in("run")
            await super().run(params)

        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.break_in("on_activated")

    async with WorkerRunner(handle_sigint=False) as runner:
        parent = BaseWorker("parent")
        await runner.add_workers(parent, wait=True)
        supervision = await (runner if of == "runner" else parent).supervise(fragile("w", Weak), backoff=SOON)
        assert await which(runner) == 1
        await fail(runner)
        await anyio.sleep(1)
        with pytest.raises(NameTakenError):
            await runner.add_workers(BaseWorker("w"))
        await anyio.sleep(4)
        assert supervision.states == {"w": "running"}
        assert await which(runner) == 3


async def test_a_supervision_that_is_stopped_waits_for_no_backoff_of_any() -> None:
    """S1: each of them ends at once."""
    async with WorkerRunner(handle_sigint=False) as runner:
        supervision = await runner.supervise(*map(fragile, "abc"), backoff=LATE)
        for name in "abc":
            await fail(runner, name)
        before = anyio.current_time()
        await supervision.stop()
        assert anyio.current_time() == before
        assert set(supervision.states.values()) == {"ended"}


async def test_a_worker_keeps_its_name_while_it_is_restarted() -> None:
    """R3, S1: nobody else gets it meanwhile."""
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.supervise(fragile(), backoff=SOON)
        await fail(runner)
        with pytest.raises(NameTakenError):
            await runner.add_workers(Fragile("w"))  # the second that was made
        assert (await runner.job("w", name="which", timeout=5))["number"] == 3


async def test_each_worker_that_stands_for_itself_has_restarts_of_its_own() -> None:
    """S1: the failures of its neighbours count for them."""
    async with WorkerRunner(handle_sigint=False) as runner:
        names = ["a", "b", "c", "d"]
        supervision = await runner.supervise(*map(fragile, names), max_restarts=1, backoff=SOON)
        for name in names:
            await fail(runner, name)
        await anyio.sleep(2)
        assert set(supervision.states.values()) == {"running"}
        assert supervision.restarts == dict.fromkeys(names, 1)


async def test_who_waits_for_a_worker_that_is_restarted_reads_so() -> None:
    """J4, J8: and not that it was never there."""
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.supervise(fragile(), backoff=Backoff(initial=100, maximum=100, jitter=0))
        await fail(runner)
        with pytest.raises(JobError, match=r"timeout after 1 seconds \(worker 'w' is being restarted\)$"):
            await runner.job("w", name="which", timeout=1)


@pytest.mark.filterwarnings("error")
async def test_an_async_factory_is_refused_in_words() -> None:
    """N8: it is called, and not awaited."""

    async def factory() -> Fragile:
        return Fragile("w")

    async with WorkerRunner(handle_sigint=False) as runner:
        with pytest.raises(TypeError, match="a factory is a plain function that returns a new worker"):
            await runner.supervise(factory)  # type: ignore[arg-type]  # the mistake


async def test_supervisions_that_are_over_leave_nothing_behind() -> None:
    """R9, S1: at a runner and at a parent."""
    parent = BaseWorker("parent")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(parent, wait=True)
        for host in (runner, parent):
            for _ in range(20):
                supervision = await host.supervise(fragile())
                await supervision.stop()
        kept = [runner._hosted.supervisions, core_of(parent).state.supervises]
        assert [each is not None and len(each.all) for each in kept] == [1, 1]


@pytest.mark.parametrize("place", ["runner", "parent"])
async def test_nothing_is_kept_of_supervised_workers_that_have_left(place: str) -> None:
    """R9, S1: while others of the same supervision go on, and in the wait for the next life."""
    made: list[weakref.ref[Fragile]] = []

    def make(name: str) -> Fragile:
        worker = Fragile(name)
        made.append(weakref.ref(worker))
        return worker

    parent = BaseWorker("parent")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(parent, wait=True)
        host = runner if place == "runner" else parent
        ending = await host.supervise(lambda: make("ends"), lambda: make("stays"))
        again = await host.supervise(lambda: make("again"), restart="always", backoff=LATE)
        for name in ("ends", "stays", "again"):
            await which(runner, name)
        for name in ("ends", "again"):
            worker = runner.get_worker(name)
            assert worker is not None
            await worker.stop()
        del worker
        await settle()
        gc.collect()
        assert [each() is None for each in made] == [True, False, True]
        assert {**ending.states, **again.states} == {"ends": "ended", "stays": "running", "again": "restarting"}
        for supervision in (ending, again):
            await supervision.stop()


async def test_a_worker_that_is_told_to_end_and_will_come_again_has_its_grace() -> None:
    """S1, R2: the restart waits for its end, and cuts nothing short."""

    class Busy(Fragile):
        @job(name="take time")
        async def take_time(self, message: BusJobRequestMessage) -> dict[str, Any]:
            await anyio.sleep(1)
            return {"number": self.number}

    async with WorkerRunner(job_grace=5) as runner, anyio.create_task_group() as group:
        await runner.supervise(fragile(kind=Busy), restart="always", backoff=SOON)
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await runner.job("w", name="take time"))

        group.start_soon(ask)
        await anyio.sleep(0.1)
        await runner.bus.send(BusEndWorkerMessage(source="me", target="w"))
        assert await which(runner) == 2
        assert answers == [{"number": 1}]


async def test_who_gives_up_to_supervise_waits_for_a_worker_that_is_just_being_attached_and_no_longer() -> None:
    """S1, L4: it cannot be attached, and so never ends."""

    class Late(Helper):
        async def attach(self, **kwargs: Any) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            raise OSError("no device")

    class Parent(Helper):
        async def on_activated(self, args: Any) -> None:
            begun = anyio.current_time()
            with anyio.move_on_after(0.25):
                await self.supervise(lambda: Late("child"))
            took.append(anyio.current_time() - begun)

    took: list[float] = []
    async with WorkerRunner() as runner:
        await runner.add_workers(Parent("parent"), wait=True)
        await runner.add_workers(Helper("child"), wait=True)
    assert took == [0.5]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_stop_of_the_supervision_waits_for_a_worker_that_is_just_being_added(fails: bool) -> None:
    """S1, J4: it is added or not when that returns, and nobody comes afterwards; who waits for it is told so."""

    class Late(Fragile):
        async def attach(self, **kwargs: Any) -> None:
            try:
                if again:
                    await anyio.sleep(1)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.5)
            if fails and again:
                raise OSError("no device")
            await super().attach(**kwargs)

    class Parent(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            supervisions.append(await self.supervise(fragile("another child"), fragile("child", Late), backoff=SOON))

    async def ask(name: str) -> None:
        with pytest.raises(JobError, match=f"worker '{name}' has failed: ValueError: broken"):
            await runner.job(name, name="which")
        told.append(name)

    told: list[str] = []
    again: list[str] = []
    supervisions: list[Supervision] = []
    async with WorkerRunner() as runner:
        await runner.add_workers(Parent("parent"), wait=True)
        supervisions.append(await runner.supervise(fragile("another root"), fragile("root", Late), backoff=SOON))
        for supervision, name in zip(supervisions, ("child", "root"), strict=True):
            await which(runner, name)
            again.append(name)
            await fail(runner, name)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, name)
                await anyio.sleep(0.8)
                await supervision.stop()
                assert runner.get_worker(name) is None
            await anyio.sleep(3)
            assert set(supervision.states.values()) == {"ended"}
            assert runner.get_worker(name) is None
            again.clear()
    assert told == ["child", "root"]


async def test_a_supervision_that_is_cancelled_as_it_begins_waits_for_no_worker_that_is_not_attached() -> None:
    """S1, L4: the runner goes on attaching it for its parent, and in the end it cannot."""
    bus, parent, scope, over = HandBus(), Helper("parent"), anyio.CancelScope(), list[float]()

    async def supervise() -> None:
        with scope:
            await parent.supervise(lambda: Helper("child"))
        over.append(anyio.current_time())

    async with WorkerRunner(bus=bus, handle_sigint=False) as runner, anyio.create_task_group() as group:
        await runner.add_workers(parent, wait=True)
        bus.answers = anyio.Event()
        group.start_soon(supervise)
        await settle()
        scope.cancel()
        await anyio.sleep(0.5)
        assert over == []
        bus.owners["child"] = "another process"
        bus.answers.set()
        begun = anyio.current_time()
        await settle()
        assert over == [begun]
