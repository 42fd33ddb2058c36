"""J20: the first answers of a group, as many as are wanted, or all as they come; and a payload for each worker."""

from typing import Any

import anyio
import pytest
from anyio import current_time
from hypothesis import given, settings
from hypothesis import strategies as st

from support.requesters import Listener
from support.workers import Doing, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusJobStreamWindowMessage,
    JobAnswer,
    JobGroupError,
    JobGroupTimeoutError,
    JobStatus,
    NotRunningError,
    WorkerRunner,
    job,
)
from workerbus.testing import Behaviour, RecordingBus, ScriptedWorker, run


class Runner(BaseWorker):
    """Needs its time, and then completes, or fails; cleans up for a while when it is cancelled."""

    def __init__(self, name: str, seconds: float, *, fails: bool = False, clean_up: float = 0) -> None:
        super().__init__(name)
        self._seconds, self._fails, self._clean_up = seconds, fails, clean_up
        self.left_at: float | None = None

    @job(name="run")
    async def do(self, message: BusJobRequestMessage) -> dict[str, Any]:
        try:
            await anyio.sleep(self._seconds)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self._clean_up)
            self.left_at = current_time()
        if self._fails:
            raise OSError("fell")
        return {"seconds": self._seconds}


def answer(name: str, seconds: float) -> JobAnswer:
    return JobAnswer(name, JobStatus.COMPLETED, {"seconds": seconds})


async def test_the_first_answer_ends_the_wait_and_the_others_have_unwound() -> None:
    """J20: when the context is left, not when the answer comes."""
    slow = Runner("slow", 5, clean_up=0.5)
    async with running(slow, Runner("quick", 1)) as runner:
        async with runner.job_group("slow", "quick", name="run") as group:
            assert await group.first() == answer("quick", 1)
            assert (current_time(), slow.left_at) == (1, None)
        assert (current_time(), slow.left_at) == (1.5, 1.5)
    assert group.statuses == {"slow": JobStatus.CANCELLED, "quick": JobStatus.COMPLETED}


async def test_without_a_context_it_is_all_in_one() -> None:
    """J20: the others have unwound when it returns."""
    slow = Runner("slow", 5, clean_up=0.5)
    async with running(slow, Runner("quick", 1)) as runner:
        assert await runner.job_group("slow", "quick", name="run").first() == answer("quick", 1)
        assert (current_time(), slow.left_at) == (1.5, 1.5)


async def test_a_quorum_is_as_many_answers_as_are_wanted_in_the_order_in_which_they_came() -> None:
    """J20"""
    workers = [Runner("a", 3), Runner("b", 1), Runner("c", 2), Runner("d", 9)]
    async with running(*workers) as runner:
        answers = await runner.job_group("a", "b", "c", "d", name="run").quorum(3)
        assert answers == [answer("b", 1), answer("c", 2), answer("a", 3)]
        assert current_time() == 3
        assert workers[3].left_at == 3


async def test_a_quorum_of_all_is_all() -> None:
    """J20: nobody is told to stop."""
    async with running(Runner("a", 2), Runner("b", 1)) as runner:
        group = runner.job_group("a", "b", name="run")
        assert await group.quorum(2) == [answer("b", 1), answer("a", 2)]
        assert set(group.statuses.values()) == {JobStatus.COMPLETED}


async def test_one_may_ask_again_in_one_context_for_more() -> None:
    """J20: for less than has come, it is there at once; for more than was left to come, never."""
    async with (
        running(Runner("a", 2), Runner("b", 1), Runner("c", 5)) as runner,
        runner.job_group("a", "b", "c", name="run") as group,
    ):
        assert await group.quorum(2) == [answer("b", 1), answer("a", 2)]
        assert await group.first() == answer("b", 1)
        with pytest.raises(JobGroupError, match="only 2 of 3 wanted answers can come"):
            await group.quorum(3)


async def test_errors_are_passed_over_where_they_end_nothing() -> None:
    """J20: `cancel_on_error=False`."""
    workers = [Runner("bad", 1, fails=True), Runner("good", 2), Runner("slow", 9)]
    async with running(*workers) as runner:
        group = runner.job_group("bad", "good", "slow", name="run", cancel_on_error=False)
        assert await group.first() == answer("good", 2)
    assert group.statuses["bad"] is JobStatus.ERROR


async def test_an_error_ends_the_group_where_it_does_as_ever() -> None:
    """J8, J20: the default."""
    slow = Runner("slow", 9)
    async with running(Runner("bad", 1, fails=True), slow) as runner:
        with pytest.raises(JobGroupError, match="worker 'bad' raised OSError: fell"):
            await runner.job_group("bad", "slow", name="run").first()
        assert (current_time(), slow.left_at) == (1, 1)


async def test_too_few_is_told_as_soon_as_it_is_certain() -> None:
    """J20: it says how many there are, and why not more; the others are told to stop."""
    workers = [Runner("bad", 1, fails=True), Runner("worse", 2, fails=True), Runner("good", 0.5), Runner("slow", 9)]
    async with running(*workers) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("bad", "worse", "good", "slow", name="run", cancel_on_error=False).quorum(3)
        assert current_time() == 2
        assert workers[3].left_at == 2
    error = caught.value
    assert error.reason == "only 1 of 3 wanted answers can come: worker 'bad' raised OSError: fell"
    assert error.statuses["good"] is JobStatus.COMPLETED
    assert error.responses["worse"]["error"] == "fell"


async def test_none_of_all_is_told_when_the_last_has_failed() -> None:
    """J20"""
    async with running(Runner("bad", 1, fails=True), Runner("worse", 2, fails=True)) as runner:
        with pytest.raises(JobGroupError, match="only 0 of 1 wanted answers can come: worker 'bad' raised"):
            await runner.job_group("bad", "worse", name="run", cancel_on_error=False).first()


async def test_its_time_may_be_up_before() -> None:
    """J6, J20"""
    slow = Runner("slow", 9)
    async with running(slow, Runner("quick", 1)) as runner:
        with pytest.raises(JobGroupTimeoutError) as caught:
            await runner.job_group("slow", "quick", name="run", timeout=2).quorum(2)
        assert (current_time(), slow.left_at) == (2, 2)
    assert caught.value.statuses["quick"] is JobStatus.COMPLETED


async def test_the_group_s_time_ends_nothing_when_there_is_enough() -> None:
    """J8, J20: the body may take longer."""
    async with running(Runner("slow", 9), Runner("quick", 1)) as runner:
        async with runner.job_group("slow", "quick", name="run", timeout=2) as group:
            await group.first()
            await anyio.sleep(5)
        assert current_time() == 6


async def test_an_error_of_the_body_goes_through_after_enough() -> None:
    """J5, J8: and the others have unwound."""
    slow = Runner("slow", 9, clean_up=0.5)
    async with running(slow, Runner("quick", 1)) as runner:
        with pytest.raises(ValueError, match="mine"):  # noqa: PT012 - the context is what it goes through
            async with runner.job_group("slow", "quick", name="run") as group:
                await group.first()
                raise ValueError("mine")
        assert slow.left_at == current_time() == 1.5


async def test_a_cancellation_from_outside_ends_the_wait() -> None:
    """J5"""
    slow = Runner("slow", 9)
    async with running(slow) as runner:
        with anyio.move_on_after(1) as scope:
            await runner.job_group("slow", name="run").first()
        assert scope.cancelled_caught
        assert slow.left_at == 1


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (3, ValueError), (-1, ValueError), (1.0, TypeError)])
async def test_a_quorum_that_cannot_be_is_refused(n: Any, error: type[Exception]) -> None:
    """J20: before anybody is asked."""
    slow = Runner("slow", 9)
    async with running(slow, Runner("b", 1)) as runner:
        group = runner.job_group("slow", "b", name="run")
        with pytest.raises(error, match="quorum"):
            await group.quorum(n)
        assert current_time() == 0
        assert await group.quorum(1) == [answer("b", 1)]


async def test_hooks_hear_that_it_has_completed_with_the_answers_that_it_has() -> None:
    """J16, J20: once; those that were told to stop are in it no more."""
    asker = Listener("asker")
    async with running(Runner("slow", 9), Runner("quick", 1), asker):
        async with asker.job_group("slow", "quick", name="run") as group:
            await group.first()
        result = await asker.until("completed")
        await anyio.wait_all_tasks_blocked()
    assert result.responses == {"quick": {"seconds": 1}}
    assert [hook for hook, _ in asker.heard] == ["response", "completed"]


async def test_answers_come_as_they_come() -> None:
    """J20: those before the loop began included."""
    workers = [Runner("a", 3), Runner("b", 1), Runner("c", 2)]
    async with running(*workers) as runner:
        async with runner.job_group("a", "b", "c", name="run") as group:
            await anyio.sleep(1.5)
            came = [(each.worker_name, current_time()) async for each in group.as_completed()]
        assert came == [("b", 1.5), ("c", 2), ("a", 3)]


async def test_bad_answers_are_among_them_where_they_end_nothing() -> None:
    """J11, J20"""
    async with (
        running(Runner("good", 2), Runner("bad", 1, fails=True)) as runner,
        runner.job_group("good", "bad", name="run", cancel_on_error=False) as group,
    ):
        came = [(each.worker_name, each.status) async for each in group.as_completed()]
    assert came == [("bad", JobStatus.ERROR), ("good", JobStatus.COMPLETED)]


async def test_a_bad_answer_ends_the_loop_where_it_ends_the_group() -> None:
    """J8, J20: no line of the body runs after it."""
    came: list[str] = []
    async with running(Runner("good", 1), Runner("bad", 2, fails=True), Runner("slow", 3)) as runner:
        with pytest.raises(JobGroupError):  # noqa: PT012 - the context is what raises
            async with runner.job_group("good", "bad", "slow", name="run") as group:
                async for each in group.as_completed():
                    came.append(each.worker_name)  # noqa: PERF401 - a list that is not finished has none of them
                came.append("after")
    assert came == ["good"]


async def test_no_line_of_a_loop_runs_for_an_answer_that_came_in_the_step_of_a_bad_one() -> None:
    """J8, J20: the group has failed before the body could hear of the other one."""
    came: list[str] = []

    class Open(BaseWorker):
        @job(name="run", deferred=True)
        async def open_it(self, message: BusJobRequestMessage) -> None: ...

    workers = [Open(name) for name in ("good", "bad", "slow")]

    async def answer_both(job_id: str) -> None:
        await workers[0].send_job_response(job_id)
        await workers[1].send_job_response(job_id, {"error": "no"}, status=JobStatus.FAILED)

    async with running(*workers) as runner, anyio.create_task_group() as tasks:
        with pytest.raises(JobGroupError):  # noqa: PT012 - the context is what raises
            async with runner.job_group("good", "bad", "slow", name="run") as group:
                tasks.start_soon(answer_both, group.job_id)
                async for each in group.as_completed():
                    came.append(each.worker_name)  # noqa: PERF401 - a list that is not finished has none of them
        with pytest.raises(JobGroupError, match="worker 'bad' failed: no") as caught:  # noqa: PT012 - the same
            async with runner.job_group("good", "bad", "slow", name="run") as group:
                tasks.start_soon(answer_both, group.job_id)
                await group.quorum(2)
    assert came == []
    assert "only" not in str(caught.value)  # it is the error of the group, which came first
    assert caught.value.statuses["slow"] is JobStatus.CANCELLED


async def test_answers_that_come_when_there_is_enough_are_not_in_a_loop_that_was_begun_before() -> None:
    """J20: the workers are told to stop, and answer that they have."""
    async with running(Runner("a", 1), Runner("b", 5)) as runner, runner.job_group("a", "b", name="run") as group:
        answers = group.as_completed()
        await group.first()
        await anyio.sleep(1)
        assert [each.worker_name async for each in answers] == ["a"]


async def test_two_loops_share_the_answers() -> None:
    """J20: each gets what the other has left."""
    workers = [Runner("a", 1), Runner("b", 2), Runner("c", 3)]
    async with running(*workers) as runner, runner.job_group("a", "b", "c", name="run") as group:
        async for each in group.as_completed():
            assert each.worker_name == "a"
            break
        rest = [each.worker_name async for each in group.as_completed()]
        assert [each async for each in group.as_completed()] == []
    assert rest == ["b", "c"]


async def test_events_and_answers_can_be_had_of_one_group() -> None:
    """J7, J20"""

    async def tells(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        await worker.send_job_update(message.job_id, {"from": worker.name})
        return {}

    async with (
        running(Doing("a", tells), Doing("b", tells)) as runner,
        runner.job_group("a", "b", name="do") as group,
    ):
        answered = {each.worker_name async for each in group.as_completed()}
        told = {event.worker_name async for event in group}
    assert answered == told == {"a", "b"}


async def test_a_loop_over_answers_needs_a_context_that_is_entered() -> None:
    """J14"""
    async with running(Runner("a", 1)) as runner:
        group = runner.job_group("a", name="run")
        with pytest.raises(NotRunningError, match="has not been asked for yet"):
            group.as_completed()
        await group


async def test_a_thousand_answers_let_others_run() -> None:
    """L2: a loop that always finds one waits now and then."""
    names = [f"w{n}" for n in range(500)]
    turns = 0
    async with running(*(Runner(name, 0) for name in names)) as runner, anyio.create_task_group() as tasks:

        async def others() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with runner.job_group(*names, name="run") as group:
            await group.quorum(500)
            tasks.start_soon(others)
            assert len([each async for each in group.as_completed()]) == 500
            assert turns
        tasks.cancel_scope.cancel()


class Echo(BaseWorker):
    @job(name="echo")
    async def echo(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"got": message.payload}


async def test_each_worker_gets_its_own_payload() -> None:
    """J20: the others, that of all."""
    async with running(Echo("a"), Echo("b"), Echo("c")) as runner:
        got = await runner.job_group("a", "b", "c", name="echo", payload={"n": 0}, payloads={"b": {"n": 1}})
    assert got == {"a": {"got": {"n": 0}}, "b": {"got": {"n": 1}}, "c": {"got": {"n": 0}}}


async def test_without_names_those_are_asked_that_have_a_payload() -> None:
    """J20: in that order; for groups without a context, too."""
    payloads = {"b": {"n": 1}, "a": {"n": 2}}
    asker = BaseWorker("asker")
    async with running(Echo("a"), Echo("b"), asker) as runner:
        got = await runner.job_group(name="echo", payloads=payloads)
        assert list(got.items()) == [("b", {"got": {"n": 1}}), ("a", {"got": {"n": 2}})]
        group = await asker.create_job_group_and_request_job([], name="echo", payloads=payloads)
        await group.wait()
        assert group.responses["a"] == {"got": {"n": 2}}
        assert await asker.request_job_group(name="echo", payloads=payloads)


@pytest.mark.parametrize(
    ("payloads", "error", "text"),
    [
        ({"lef": {}}, ValueError, "there is a payload for 'lef', who is not asked; did you mean 'left'?"),
        ({"left": 3}, TypeError, "payloads are dicts by worker name; that of 'left' is 3"),
        ([("left", {})], TypeError, "payloads are dicts by worker name, not "),
    ],
)
async def test_payloads_that_cannot_be_are_refused(payloads: Any, error: type[Exception], text: str) -> None:
    """N8: before anybody is asked."""
    async with running(Echo("left")) as runner:
        with pytest.raises(error) as caught:
            runner.job_group("left", name="echo", payloads=payloads)
        assert str(caught.value).startswith(text)


@given(
    seconds=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    bad=st.sets(st.integers(0, 5)),
    data=st.data(),
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 50),
)
@settings(deadline=None, max_examples=60)
def test_a_quorum_is_the_quickest_that_complete_or_too_few(
    seconds: list[int], bad: set[int], data: st.DataObject, backend: str, seed: int
) -> None:
    """J20: whoever is how quick and fails, under any schedule; and all have unwound."""
    wanted = data.draw(st.integers(1, len(seconds)))
    workers = [Runner(f"w{n}", each, fails=n in bad) for n, each in enumerate(seconds)]
    good = sorted(each for n, each in enumerate(seconds) if n not in bad)
    failed = sorted(each for n, each in enumerate(seconds) if n in bad)

    async def main() -> tuple[list[float] | None, float]:
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(*workers)
            names = [worker.name for worker in workers]
            group = runner.job_group(*names, name="run", cancel_on_error=False)
            try:
                got = [each.response["seconds"] for each in await group.quorum(wanted)]
            except JobGroupError:
                got = None
            ended = current_time()
            assert all(worker.left_at is not None and worker.left_at <= ended for worker in workers)
            return got, ended

    got, ended = run(main, backend=backend, seed=seed)
    if len(good) >= wanted:
        assert got == good[:wanted]
        assert ended == good[wanted - 1]
    else:
        assert got is None
        assert ended == failed[len(seconds) - wanted]


@pytest.mark.parametrize("how", ["quorum", "as_completed"])
async def test_whoever_asks_for_answers_when_the_body_is_being_cancelled_gets_the_group_s_error(how: str) -> None:
    """J8, J20: and no answer, though one is there, and no other error."""
    taken: list[JobAnswer] = []
    async with running(Runner("quick", 0.5), Runner("slow", 5)) as runner:
        with pytest.raises(JobGroupTimeoutError):  # noqa: PT012 - the context is what raises
            async with runner.job_group("quick", "slow", name="run", timeout=1) as group:
                if how == "as_completed":
                    answers = group.as_completed()
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(2)
                if how == "quorum":
                    taken += await group.quorum(2)
                else:
                    async for answer in answers:
                        taken.append(answer)
    assert taken == []


async def test_a_group_that_is_asked_in_one_line_keeps_no_events() -> None:
    """J19, J20: nobody can read them, so none is kept, and its workers are told of no window."""
    bus = RecordingBus()
    workers = [
        ScriptedWorker(name, Behaviour(chunks=[{}] * 30, after=after)) for name, after in (("a", 1.0), ("b", 2.0))
    ]
    async with running(*workers, bus=bus) as runner:
        group = runner.job_group("a", "b", max_buffered_events=2)
        assert (await group.first()).worker_name == "a"
        assert group._entered.queue is None
    assert [message.options for message in bus.messages(BusJobRequestMessage)] == [None, None]
    assert bus.messages(BusJobStreamWindowMessage) == []


async def test_answers_that_have_come_meanwhile_are_taken_in_their_order() -> None:
    """J20: before the loop, and while it is busy with an earlier one."""
    seconds = {"a": 0.3, "b": 0.1, "c": 0.2, "d": 0.5, "e": 0.4}
    async with running(*(Runner(name, each) for name, each in seconds.items())) as runner:
        for pause in (0.35, 0.0):
            async with runner.job_group(*seconds, name="run") as group:
                await anyio.sleep(pause)
                taken = []
                async for answer in group.as_completed():
                    taken.append(answer.worker_name)
                    await anyio.sleep(0.25)
            assert taken == ["b", "c", "a", "e", "d"]
