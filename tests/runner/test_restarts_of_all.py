"""Workers that are restarted together: ``all_for_one``."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from support.restarts import LATE, SOON, Fragile, Lingering, begin_to_fail, count_anew, fail, fragile, which
from workerbus import (
    BaseWorker,
    JobError,
    JobStatus,
    RestartLimitError,
    WorkerErrorData,
    WorkerParams,
    WorkerRestartedData,
    WorkerRunner,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _count_anew() -> None:
    count_anew()
    Noting.log.clear()


class Noting(Fragile):
    """Notes how its lives begin and end."""

    log: list[str] = []  # noqa: RUF012 - one for all, as a factory makes many

    async def attach(self, **kwargs: Any) -> None:
        self.log.append(f"{self.name} comes")
        await super().attach(**kwargs)

    async def stop(self) -> None:
        self.log.append(f"{self.name} stops")
        await super().stop()

    async def cleanup(self) -> None:
        await super().cleanup()
        self.log.append(f"{self.name} goes")


class Slow(Noting):
    """Takes a second to clean up."""

    lingers = 1.0


def log_of(*names: str) -> list[str]:
    return [each for each in Noting.log if each[0] in names]


def noting(*names: str, kind: type[Fragile] = Noting) -> list[Callable[[], Fragile]]:
    return [fragile(name, kind) for name in names]


async def test_all_are_made_anew_where_one_stands_for_all() -> None:
    """S1, N7: the others are stopped at once, the last first; then comes the wait, and then all come, in order."""
    async with WorkerRunner() as runner:
        told: list[WorkerRestartedData] = []
        runner.add_event_handler("on_worker_restarted", lambda _, data: told.append(data))
        supervision = await runner.supervise(*noting("a", "b", "c"), strategy="all_for_one", backoff=SOON)
        await which(runner, "c")
        assert Noting.log == ["a comes", "b comes", "c comes"]
        Noting.log.clear()
        before = anyio.current_time()
        await fail(runner, "b")
        await anyio.sleep(0.25)  # half of the wait
        assert log_of("a", "c") == ["c stops", "c goes", "a stops", "a goes"]
        assert log_of("a", "b") == ["b stops", "b goes", "a stops", "a goes"]
        assert supervision.states == dict.fromkeys("abc", "restarting")
        assert runner.known_workers() == []
        Noting.log.clear()
        assert await which(runner, "a") == 4
        assert anyio.current_time() - before == pytest.approx(0.5)
        assert [await which(runner, "b"), await which(runner, "c")] == [5, 6]
        assert Noting.log == ["a comes", "b comes", "c comes"]
        assert supervision.restarts == {"a": 1, "b": 1, "c": 1}
        assert [(each.worker_name, each.error) for each in told] == [
            ("a", None),
            ("b", "ValueError: broken"),
            ("c", None),
        ]


async def test_one_after_the_other_is_stopped() -> None:
    """S1: the next one when the one before has finished. The one that failed goes meanwhile; then comes the wait."""
    async with WorkerRunner() as runner:
        await runner.supervise(*noting("a", "b", "c", kind=Slow), strategy="all_for_one", backoff=SOON)
        await which(runner, "c")
        Noting.log.clear()
        before = anyio.current_time()
        await begin_to_fail(runner, "b")
        await which(runner, "c")
        assert log_of("a", "c") == ["c stops", "c goes", "a stops", "a goes", "a comes", "c comes"]
        assert log_of("a", "b") == ["b stops", "b goes", "a stops", "a goes", "a comes", "b comes"]
        assert anyio.current_time() - before == pytest.approx(2.5)


async def test_jobs_of_the_others_are_cancelled_and_say_why() -> None:
    """S1, J4: those under way; one that comes later waits."""
    async with WorkerRunner() as runner, anyio.create_task_group() as group:
        await runner.supervise(fragile("a"), fragile("b"), strategy="all_for_one", backoff=SOON)
        caught: list[JobError] = []

        async def ask() -> None:
            with pytest.raises(JobError, match="restarted with the others") as error:
                await runner.job("a", name="wait")
            caught.append(error.value)

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await fail(runner, "b")
        assert await which(runner, "a") == 3
    assert [each.statuses for each in caught] == [{"a": JobStatus.CANCELLED}]


async def test_all_that_fail_before_the_restart_are_one_restart() -> None:
    """S1: whoever fails while the others go, and in the wait, does not count again."""
    async with WorkerRunner() as runner:
        supervision = await runner.supervise(
            *(fragile(name, Lingering) for name in "abc"),
            strategy="all_for_one",
            max_restarts=1,
            within=1000,
            backoff=SOON,
        )
        await which(runner, "c")
        others = [runner.get_worker(name) for name in "bc"]
        await begin_to_fail(runner, "a")
        for other in others:
            assert isinstance(other, Fragile)
            other.broken.set()
        assert await which(runner, "c") == 6
        assert set(supervision.states.values()) == {"running"}


@pytest.mark.parametrize("restart", ["on_failure", "always"])
async def test_one_that_had_ended_is_made_anew_with_the_others(restart: Any) -> None:
    """S1: all are made anew, whatever has become of them."""
    async with WorkerRunner() as runner:
        supervision = await runner.supervise(
            fragile("a"), fragile("b"), strategy="all_for_one", restart=restart, backoff=SOON
        )
        await runner.job("a", name="stop")
        await anyio.sleep(1)
        assert supervision.states["a"] == ("running" if restart == "always" else "ended")
        await fail(runner, "b")
        assert await which(runner, "a") > 2
        assert await which(runner, "b") > 2


async def test_the_end_of_one_concerns_the_others_only_where_it_is_made_anew() -> None:
    """S1: with ``always``, an end is as good as a failure."""
    async with WorkerRunner() as runner:
        await runner.supervise(fragile("a"), fragile("b"), strategy="all_for_one", backoff=SOON)
        await runner.supervise(fragile("c"), fragile("d"), strategy="all_for_one", restart="always", backoff=SOON)
        await which(runner, "d")
        await runner.job("a", name="stop")
        await runner.job("c", name="stop")
        await anyio.sleep(1)
        assert [await which(runner, "b"), await which(runner, "c"), await which(runner, "d")] == [2, 5, 6]


async def test_beyond_the_limit_the_others_are_stopped_and_the_failure_goes_up() -> None:
    """S1, J4: the last first; who asks for one of them is told why it is not there, and the run raises the failure."""
    with pytest.raises(RestartLimitError) as caught:  # noqa: PT012 - what the block raises as it is left
        async with WorkerRunner() as runner:
            supervision = await runner.supervise(*noting("a", "b", "c"), strategy="all_for_one", max_restarts=0)
            await which(runner, "c")
            others = [runner.get_worker(name) for name in "ac"]
            await fail(runner, "b")
            for other in others:
                assert other is not None
                await other.wait()
            assert runner.known_workers() == []
            for name in "abc":
                with pytest.raises(JobError, match="has failed: RestartLimitError: worker 'b' has gone"):
                    await runner.job(name, name="which")
    assert caught.value.worker == "b"
    assert isinstance(caught.value.__cause__, ValueError)
    assert log_of("a", "c")[2:] == ["c stops", "c goes", "a stops", "a goes"]
    assert supervision.states == {"a": "ended", "b": "failed", "c": "ended"}
    assert supervision.is_over


async def test_a_factory_that_fails_too_often_takes_the_others_with_it() -> None:
    """S1, J4: those that were made anew before it are stopped again each time, and at last for good."""
    calls = 0

    def factory() -> Fragile:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError("no device")
        return Fragile("b")

    errors: list[WorkerErrorData] = []
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        supervision = await runner.supervise(
            fragile("a", Noting), factory, fragile("c"), strategy="all_for_one", max_restarts=2, backoff=SOON
        )
        await which(runner, "c")
        await fail(runner, "c")
        with pytest.raises(JobError, match="RestartLimitError"):
            await which(runner, "c")
        await anyio.sleep(10)
        assert Noting.log == ["a comes", "a stops", "a goes"] * 3
        assert supervision.states == {"a": "ended", "b": "failed", "c": "failed"}
        assert [each.worker_name for each in errors] == ["b"]
        assert runner.known_workers() == []


@pytest.mark.parametrize("cancels", [False, True])
async def test_the_end_of_the_runner_comes_through_at_once(cancels: bool) -> None:
    """S1, R2: in the wait, and while the others are being stopped."""

    class Hanging(Fragile):
        async def stop(self) -> None:
            await anyio.sleep(1.5)
            await super().stop()

    for kind in (Fragile, Hanging):
        runner = WorkerRunner()
        supervision = await runner.supervise(
            fragile("a"), fragile("b", kind), fragile("c"), strategy="all_for_one", backoff=LATE
        )
        before = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(runner.run)
            await runner.registry.wait_for("c")
            await fail(runner, "c")
            await anyio.wait_all_tasks_blocked()
            await (runner.cancel() if cancels else runner.end())
        assert anyio.current_time() - before <= 2
        assert set(supervision.states.values()) == {"ended"}
        assert set(supervision.restarts.values()) == {0}


async def test_an_overridden_stop_that_fails_is_reported_and_stops_nothing_else() -> None:
    """S1, N7, W7: neither the restart nor the runner."""

    class Failing(Fragile):
        async def stop(self) -> None:
            raise KeyError("no such thing")

    errors: list[WorkerErrorData] = []
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        supervision = await runner.supervise(
            fragile("a"), fragile("b", Failing), fragile("c"), strategy="all_for_one", backoff=SOON
        )
        await fail(runner, "a")
        assert await which(runner, "c") == 6
        await supervision.stop()
        assert runner.known_workers() == []
    assert [(each.worker_name, each.origin) for each in errors] == [("b", "stop")] * 2


async def test_the_first_of_them_may_fail_before_the_last_was_added() -> None:
    """S1: the restart begins when all have been added."""

    class Early(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            lives.append(self.name)
            if len(lives) == 1:
                raise ValueError("too early")
            await super().run(params)

    class Later(Fragile):
        async def attach(self, **kwargs: Any) -> None:
            await anyio.sleep(1)
            await super().attach(**kwargs)

    lives: list[str] = []
    async with WorkerRunner() as runner:
        supervision = await runner.supervise(
            lambda: Early("a"), fragile("b", Later), fragile("c"), strategy="all_for_one", backoff=SOON
        )
        assert [await which(runner, "b"), await which(runner, "c")] == [3, 4]
        assert supervision.restarts == {"a": 1, "b": 1, "c": 1}
        assert lives == ["a", "a"]


async def test_a_stop_of_the_supervision_stops_the_last_first() -> None:
    """S1, N7: whatever they were doing."""
    async with WorkerRunner() as runner:
        supervision = await runner.supervise(*noting("a", "b", "c", kind=Slow), backoff=LATE)
        await which(runner, "c")
        await begin_to_fail(runner, "b")
        Noting.log.clear()
        await supervision.stop()
        assert log_of("a", "c") == ["c stops", "c goes", "a stops", "a goes"]
        assert runner.known_workers() == []
        with pytest.raises(JobError, match="worker 'b' has failed: ValueError: broken"):
            await runner.job("b", name="which")


async def test_one_that_fails_while_another_is_added_is_part_of_the_same_restart() -> None:
    """S1: when that cannot be added then, it does not count again."""

    class Short(Fragile):
        async def on_activated(self, args: Any) -> None:
            if self.number == 3:
                self.broken.set()

    class Unattachable(Fragile):
        async def attach(self, **kwargs: Any) -> None:
            if self.number == 4:
                await anyio.sleep(0.2)
                raise OSError("no device")
            await super().attach(**kwargs)

    async with WorkerRunner() as runner:
        supervision = await runner.supervise(
            fragile("a", Short), fragile("b", Unattachable), strategy="all_for_one", max_restarts=2, backoff=SOON
        )
        await which(runner, "b")
        await fail(runner, "b")
        await anyio.sleep(3)
        assert set(supervision.states.values()) == {"running"}
        assert [await which(runner, "a"), await which(runner, "b")] == [5, 6]


@pytest.mark.parametrize("fails", [True, False])
async def test_one_that_is_added_when_another_is_given_up_is_given_up_with_it_and_no_more_are_made(fails: bool) -> None:
    """S1, J4: it is one failure, which is reported once."""

    class Short(Fragile):
        async def on_activated(self, args: Any) -> None:
            if self.number == 4:
                self.broken.set()

    class Late(Fragile):
        async def attach(self, **kwargs: Any) -> None:
            if self.number == 5:
                await anyio.sleep(0.2)
                if fails:
                    raise OSError("no device")
            await super().attach(**kwargs)

    errors: list[WorkerErrorData] = []
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        factories = fragile("a", Short), fragile("b", Late), fragile("c")
        supervision = await runner.supervise(*factories, strategy="all_for_one", max_restarts=1, backoff=SOON)
        await which(runner, "b")
        await fail(runner, "b")
        await anyio.sleep(1)
        for name in supervision.names:
            with pytest.raises(JobError, match=f"worker '{name}' has failed: RestartLimitError: worker 'a'"):
                await runner.job(name, name="which", timeout=100)
        assert supervision.states == {"a": "failed", "b": "failed" if fails else "ended", "c": "failed"}
        assert [each.worker_name for each in errors] == ["a"]
        assert Fragile.made == 5
