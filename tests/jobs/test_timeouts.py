"""J6, J8: what requesters and their hooks are told when time is up."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from support.buses import PoliteBus
from support.contexts import answer_at_once, ghost
from support.deadlines import EarlyBus, Waiting
from support.job_handlers import at_once, never, slow_to_leave, too_slow_to_leave
from support.requesters import Listener
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobUpdateMessage,
    BusMessage,
    JobError,
    JobGroupError,
    JobStatus,
    JobTimeoutError,
    MemoryBus,
    WorkerRunner,
    job,
)
from workerbus.jobs._group_table import CLOCK_SKEW
from workerbus.testing import Behaviour, EchoWorker, ScriptedWorker, run


@pytest.mark.parametrize("make_bus", [MemoryBus, EarlyBus], ids=["requester first", "worker first"])
async def test_the_timeout_of_a_job_without_a_context_is_told_by_a_hook(
    backend: str, make_bus: Callable[[], MemoryBus]
) -> None:
    """J6: `on_job_error`, once, whichever end sees it first."""
    asker, waiting = Listener("asker"), Waiting()
    async with running(asker, waiting, bus=make_bus()):
        job_id = await asker.request_job("waiting", name="do", timeout=1)
        await waiting.until("cancelled")
        await anyio.wait_all_tasks_blocked()
        assert asker.job_groups == {}
        errors = [message for hook, message in asker.heard if hook == "error"]
        assert [message.job_id for message in errors] == [job_id]
        assert "completed" not in [hook for hook, _ in asker.heard]


async def test_a_group_without_a_context_runs_out_of_time(backend: str) -> None:
    """J6: who waits for it is told."""
    asker, waiting = Listener("asker"), Waiting()
    async with running(asker, waiting, Helper("helper")):
        group = await asker.create_job_group_and_request_job(["waiting", "helper"], name="wait", timeout=1)
        with pytest.raises(TimeoutError) as caught:
            await group.wait()
        assert isinstance(caught.value, JobGroupError)


async def test_a_timeout_tells_of_the_time_and_not_of_the_answer_that_came_too_late(backend: str) -> None:
    """J6: a handler that answers while it unwinds has been too late."""

    async def answers_late(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await worker.send_job_response(message.job_id, {"late": True})

    async with running(Doing("doing", answers_late)) as runner:
        with pytest.raises(TimeoutError) as caught:
            await runner.job("doing", name="do", timeout=1)
        assert isinstance(caught.value, JobError)
        assert caught.value.statuses == {"doing": JobStatus.CANCELLED}


async def test_a_timeout_is_told_in_the_name_of_who_is_late() -> None:
    """J6, J8: the hook for a timeout gets an answer of the library's making, from the worker that has not answered."""
    listener = Listener()
    async with running(Doing("a", at_once), Doing("b", never), listener):
        job_id = await listener.request_job_group("a", "b", name="do", timeout=3)
        message = await listener.until("error")
    assert message == BusJobResponseMessage(
        job_id, JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"}, source="b", target="listener"
    )


async def test_a_timeout_that_the_worker_sees_first_is_told_in_its_name() -> None:
    """J6, J8: whichever end sees the time run out first; the one that had answered is not late."""

    async def a_moment_early(worker: Doing, message: BusJobRequestMessage) -> None:
        assert message.seconds_left is not None
        await anyio.sleep(message.seconds_left - CLOCK_SKEW / 2)
        await worker.send_job_response(message.job_id, {"error": "timeout"}, status=JobStatus.CANCELLED)

    listener = Listener()
    async with running(Doing("a", at_once), Doing("b", a_moment_early), listener):
        await listener.request_job_group("a", "b", name="do", timeout=3)
        message = await listener.until("error")
    assert (message.source, message.status, message.response["error"]) == ("b", JobStatus.CANCELLED, "timeout")


async def test_a_failing_hook_for_a_timeout_is_logged_with_the_job(caplog: pytest.LogCaptureFixture) -> None:
    """W7: with the job's id where there is one."""

    class Failing(BaseWorker):
        failed = anyio.Event()

        async def on_job_error(self, message: BusMessage) -> None:
            self.failed.set()
            raise ValueError("oh")

    failing = Failing("failing")
    failing.failed = anyio.Event()
    async with running(Doing("b", never), failing):
        job_id = await failing.request_job("b", name="do", timeout=3)
        await failing.failed.wait()
    assert f"on_job_error of worker 'failing' failed (job {job_id})" in caplog.messages


async def test_a_timeout_names_those_that_have_not_answered() -> None:
    """J8: the first five of them; those that were asked were there."""
    names = [f"w{n}" for n in range(7)]
    workers = [Doing(name, at_once if name == "w3" else slow_to_leave) for name in names]
    async with running(*workers) as runner:
        with pytest.raises(JobGroupError) as caught:
            async with runner.job_group(*reversed(names), name="do", timeout=3) as group:
                pass
    six, slow = "'w6', 'w5', 'w4', 'w3', 'w2' and 2 more", "'w6', 'w5', 'w4', 'w2', 'w1' and 1 more"
    assert group.job_id == caught.value.job_id
    assert str(caught.value) == f"job group 'do' of {six}: timeout after 3 seconds (still at work: {slow})"


async def test_a_timeout_names_the_first_that_was_not_there() -> None:
    """J8: with the names that look like it."""
    async with running(Doing("doing", never)) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("doing", "dong", "gone", name="do", timeout=3)
    group, text = "job group 'do' of 'doing', 'dong', 'gone'", "worker 'dong' was not ready; did you mean 'doing'?"
    assert str(caught.value) == f"{group}: timeout after 3 seconds ({text})"


async def test_a_timeout_names_who_has_left_and_who_is_silent() -> None:
    """J8: the second worker leaves while the first one is asked."""
    leaving = Doing("leaving", never)

    class Slow(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, BusJobRequestMessage):
                await leaving.stop()
            await super().publish(message)

    async with running(Doing("silent", never), leaving, bus=Slow()) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("silent", "leaving", name="do", timeout=3)
    text = "timeout after 3 seconds (worker 'leaving' was not ready; known are 'silent'; still at work: 'silent')"
    assert str(caught.value) == f"job group 'do' of 'silent', 'leaving': {text}"


@pytest.mark.parametrize("make_bus", [MemoryBus, EarlyBus], ids=["requester first", "worker first"])
async def test_a_timeout_says_what_the_time_went_by_with(backend: str, make_bus: Callable[[], MemoryBus]) -> None:
    """J6, J8: the turn or the work, whichever end sees it first."""
    waiting, asker = Waiting(), Helper("asker")
    async with running(waiting, asker, bus=make_bus()) as runner:
        await asker.request_job("waiting", name="queued")
        await waiting.begun.wait()
        for name, text in (("queued", "waiting for its turn"), ("do", "still at work"), ("left open", "still at work")):
            with pytest.raises(JobTimeoutError) as caught:
                await runner.job("waiting", name=name, timeout=1)
            assert str(caught.value) == f"job {name!r} at 'waiting': timeout after 1 seconds ({text}: 'waiting')"
            assert caught.value.seconds == 1


async def test_a_timeout_says_who_is_silent_even_then() -> None:
    """J5, J8: it was told to stop, and has not answered within the bound of the clean-up."""
    async with running(Doing("doing", too_slow_to_leave), Doing("leaving", never)) as runner:
        with pytest.raises(TimeoutError) as caught:
            await runner.job_group("doing", "leaving", name="do", timeout=0.5)
    text = "timeout after 0.5 seconds (still at work: 'leaving'; no answer from 'doing')"
    assert str(caught.value) == f"job group 'do' of 'doing', 'leaving': {text}"


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_last_answer_comes_too_late_when_time_was_up(workers: int) -> None:
    """J6, J8, J16: also where the body has not noticed yet; nothing is told to have completed."""
    names = ["doing", "quick"][:workers]
    asker = Listener("asker")
    async with running(Doing("doing", slow_to_leave), Doing("quick", at_once), asker) as runner:
        with pytest.raises(TimeoutError) as caught:  # noqa: PT012 - the context is what raises
            async with (
                asker.job("doing", name="do", timeout=3)
                if workers == 1
                else asker.job_group(*names, name="do", timeout=3)
            ) as asked:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(3.5)
                    await answer_at_once(runner, asked.job_id, "doing", JobStatus.COMPLETED, to="asker")
                await anyio.sleep_forever()
        await anyio.wait_all_tasks_blocked()
    assert isinstance(caught.value, JobError | JobGroupError)
    assert caught.value.reason == "timeout"
    assert [hook for hook, _ in asker.heard if hook in ("error", "completed")] == ["error"]


@pytest.mark.parametrize("attempt", range(6))
async def test_the_timeout_of_a_job_with_a_context_is_told_by_a_hook(attempt: int) -> None:
    """J6, J8: `on_job_error`, once, whichever end sees it first."""
    asker = Listener("asker")
    async with running(asker, Helper("helper")):
        with pytest.raises(TimeoutError):
            await asker.job("helper", name="wait", timeout=3)
        await anyio.wait_all_tasks_blocked()
    assert [hook for hook, _ in asker.heard].count("error") == 1


async def test_the_hook_of_a_timeout_names_one_who_is_late() -> None:
    """J6: and not one who has answered, though it was asked first."""
    asker = Listener("asker")
    async with running(Doing("a", at_once), Doing("b", slow_to_leave), asker):
        await asker.request_job_group("a", "b", name="do", timeout=3)
        message = await asker.until("error")
    assert message.source == "b"


@pytest.mark.parametrize("worker", ["helper", "nobody"])
async def test_a_timeout_is_a_job_error_and_a_timeout_error(worker: str) -> None:
    """J8: also when the worker never came."""
    helper = Helper("helper")
    async with running(helper) as runner:
        context = runner.job(worker, name="wait", timeout=0.02)
        with pytest.raises(JobError) as caught:
            async with context:
                await anyio.sleep_forever()
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.reason == "timeout"
    assert caught.value.job_id == context.job_id
    assert caught.value.statuses == ({"helper": JobStatus.CANCELLED} if worker == "helper" else {})


async def test_a_timeout_of_a_group_is_a_job_group_error_and_a_timeout_error() -> None:
    """J8: with the answers that did arrive."""

    class Quick(Helper):
        @job(name="wait")
        async def wait_for_release(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"quick": True}

    async with running(Quick("quick"), Helper("helper")) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("quick", "helper", name="wait", timeout=0.02)
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert error.statuses == {"quick": JobStatus.COMPLETED, "helper": JobStatus.CANCELLED}
    assert error.responses["quick"] == {"quick": True}


@pytest.mark.parametrize("seed", range(6))
def test_a_timeout_says_who_has_not_answered_whoever_saw_it_first(backend: str, seed: int) -> None:
    """J8"""

    async def main() -> None:
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(ScriptedWorker("poll", Behaviour("hang")), EchoWorker("echo"))
            async with runner.job_group("poll", "echo", timeout=3):
                pass

    with pytest.raises(TimeoutError, match=r": timeout after 3 seconds \(still at work: 'poll'\)\n"):
        run(main, backend=backend, seed=seed)


@pytest.mark.parametrize("schedule", range(8))
def test_who_has_answered_in_time_is_not_late_where_the_late_one_answers_as_soon_as_it_is_told(
    backend: str, schedule: int
) -> None:
    """J6, J8: the hook gets an answer in the name of the one that time has run out for, whichever end sees it first."""

    async def main() -> str:
        listener = Listener()
        async with running(Waiting("late"), EchoWorker("in time"), listener):
            await listener.request_job_group("in time", "late", name="left open", timeout=3)
            return str((await listener.until("error")).source)

    assert run(main, backend=backend, seed=schedule) == "late"


async def test_what_happens_to_a_group_without_a_context_does_not_end_its_time() -> None:
    """J6: one answer, or an update, and still the timeout comes, though no worker keeps it."""
    asker = Listener("asker")
    async with running(asker) as runner, ghost(runner, "one", "two") as (one, _):
        begun = anyio.current_time()
        job_id = await asker.request_job_group("one", "two", timeout=3)
        await one.until(1, BusJobRequestMessage)
        await runner.bus.send(BusJobUpdateMessage(job_id, {"n": 1}, source="one", target="asker"))
        await anyio.sleep(1)
        await runner.bus.send(BusJobResponseMessage(job_id, JobStatus.COMPLETED, source="one", target="asker"))
        assert (await asker.until("error")).source == "two"
        assert anyio.current_time() == pytest.approx(begun + 3)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_those_whose_turn_comes_as_their_time_is_up_are_told_that_they_waited(backend: str, seed: int) -> None:
    """J8: they have never been at work."""
    begun: list[float] = []

    class InTurn(BaseWorker):
        @job(name="do", sequential=True)
        async def do(self, message: BusJobRequestMessage) -> None:
            begun.append(message.payload["seconds"])
            await anyio.sleep(message.payload["seconds"])

    async def scenario() -> list[str]:
        texts: list[str] = []

        async def ask(runner: WorkerRunner) -> None:
            with pytest.raises(JobTimeoutError) as caught:
                await runner.job("in turn", name="do", payload={"seconds": 5}, timeout=1)
            texts.append(str(caught.value))

        async with WorkerRunner(bus=EarlyBus(), handle_sigint=False) as runner:
            await runner.add_workers(InTurn("in turn"), wait=True)
            async with (
                anyio.create_task_group() as tasks,
                runner.job("in turn", name="do", payload={"seconds": 0.9995}),
            ):
                for _ in range(3):
                    tasks.start_soon(ask, runner)
        return texts

    texts = run(scenario, backend=backend, seed=seed)
    assert begun == [0.9995]
    assert texts == ["job 'do' at 'in turn': timeout after 1 seconds (waiting for its turn: 'in turn')"] * 3


async def test_one_that_has_answered_and_gone_is_not_named_as_missing_when_time_is_up(backend: str) -> None:
    """J8: only those that have not answered are."""
    quick = EchoWorker("quick")

    async def ask(runner: WorkerRunner) -> None:
        async with runner.job_group("quick", "silent", timeout=2) as group:
            await anyio.sleep(1)
            assert "quick" in group.responses
            await quick.stop()

    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(quick, ScriptedWorker("silent", Behaviour("hang")), wait=True)
        with pytest.raises(JobGroupError, match=r"timeout after 2 seconds \(still at work: 'silent'\)$"):
            await ask(runner)
