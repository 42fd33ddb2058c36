"""J14, N1: the ways of asking, what they pass on, and who can ask."""

import contextlib
import functools
import math
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobRequestMessage,
    BusJobUpdateMessage,
    JobError,
    NotRunningError,
    WorkerActivationArgs,
    WorkerParams,
    WorkerRunner,
    job,
)


async def test_a_worker_that_does_not_run_yet_cannot_ask() -> None:
    """J14: which is what the error says."""
    helper = Helper("helper")
    with pytest.raises(RuntimeError, match="yet"):
        helper.job("other")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(helper)
    for request in (helper.job, helper.job_group, runner.job, runner.job_group):
        with pytest.raises(RuntimeError, match="yet"):
            request("other")
    await runner.cancel()
    await runner.run()


@pytest.mark.parametrize("how", ["job", "request_job"])
async def test_a_worker_that_asks_before_its_start_is_not_left_waiting(how: str) -> None:
    """J14, W2: the answer would wait for the start, and the start for the answer."""
    outcomes: list[Any] = []

    class Hasty(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            try:
                outcomes.append(await getattr(self, how)("helper", name="echo"))
            except RuntimeError as exc:
                outcomes.append(exc)
            await super().run(params)

    async with running(Helper("helper"), Hasty("hasty")):
        assert len(outcomes) == 1


async def test_a_worker_that_runs_no_more_cannot_ask() -> None:
    """J14: which is what the error says."""
    helper = Helper("helper")
    async with running(helper) as runner:
        await helper.stop()
        for request in (helper.job, helper.job_group):
            with pytest.raises(RuntimeError, match="more"):
                request("other")
    for request in (runner.job, runner.job_group):
        with pytest.raises(RuntimeError, match="more"):
            request("other")


async def test_a_context_that_was_made_in_time_cannot_be_entered_too_late() -> None:
    """J14: what counts is when it asks."""
    helper = Helper("helper")
    async with running(helper):
        context = helper.job("other")
        await helper.stop()
        with pytest.raises(RuntimeError, match="more"):
            await context


async def test_who_asks_again_and_again_learns_that_the_runner_has_ended() -> None:
    """J14: no request slips in between the end and the error that tells of it, to wait for ever."""
    async with anyio.create_task_group() as group, running() as runner:

        async def insist() -> None:
            while True:
                try:
                    await runner.job("nobody")
                except JobError:
                    continue
                except RuntimeError:
                    return

        group.start_soon(insist)
        await anyio.wait_all_tasks_blocked()


async def test_who_asks_again_and_again_learns_that_the_worker_has_stopped() -> None:
    """J14: the same for a worker, whose answers would find nobody any more."""
    asker, helper = BaseWorker("asker"), Helper("helper")
    async with running(asker, helper), anyio.create_task_group() as group:

        async def insist(name: str) -> None:
            while True:
                try:
                    await asker.job("helper", name=name)
                except JobError:
                    continue
                except RuntimeError:
                    return

        group.start_soon(insist, "wait")
        group.start_soon(insist, "echo")
        await helper.begun.wait()
        await asker.stop()


def test_who_asks_while_its_worker_stops_does_not_hold_that_up_for_ever(backend: str) -> None:
    """J14, L4: one bound for the whole wind-down, whatever a handler asks for in its clean-up."""

    async def cleans_up(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(8, shield=True), contextlib.suppress(JobError, RuntimeError):
                await worker.job("refusing", name="hold")

    class Refusing(BaseWorker):
        @job(name="hold")
        async def hold(self, message: BusJobRequestMessage) -> None:
            with anyio.move_on_after(8, shield=True):
                await release.wait()

    release = anyio.Event()

    async def example() -> None:
        doing = Doing("doing", cleans_up)
        async with running(doing, Refusing("refusing")) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "doing", "do")
            await raw.until(1, BusJobUpdateMessage)
            started = anyio.current_time()
            await doing.stop()
            assert anyio.current_time() - started < CLEANUP_SECONDS + 0.9
            release.set()

    clock.run(example, backend=backend)


async def request_job(worker: BaseWorker, **options: Any) -> None:
    await worker.request_job("listener", name="wait", **options)


async def request_job_group(worker: BaseWorker, **options: Any) -> None:
    await worker.request_job_group("listener", name="wait", **options)


async def create_job_group(worker: BaseWorker, **options: Any) -> None:
    await worker.create_job_group_and_request_job(["listener"], name="wait", **options)


async def enter_job(worker: BaseWorker, **options: Any) -> None:
    async with worker.job("listener", name="wait", **options):
        pass


async def enter_job_group(worker: BaseWorker, **options: Any) -> None:
    async with worker.job_group("listener", name="wait", **options):
        pass


FORMS = [request_job, request_job_group, create_job_group, enter_job, enter_job_group]


class Waiting(Listener):
    """Keeps the requests for the job ``wait``."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[BusJobRequestMessage] = []

    @job(name="wait")
    async def wait_for_release(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.requests.append(message)
        return await super().wait_for_release(message)


@pytest.mark.parametrize("options", [{}, {"label": "fast", "cancellable": False}, {"cancellable": True}])
@pytest.mark.parametrize("ask", FORMS)
async def test_every_way_of_asking_passes_on_what_it_was_given(
    ask: Callable[..., Any], options: dict[str, Any]
) -> None:
    """N4, N1: a label, whether others may cancel it (they may, if nothing is said), the payload, the name."""
    listener, asker = Waiting(), Helper("asker")
    async with running(listener, asker), anyio.create_task_group() as tasks:
        tasks.start_soon(functools.partial(ask, asker, payload={"n": 1}, **options))
        await listener.begun.wait()
        [group] = asker.job_groups.values()
        assert group.label == options.get("label")
        assert group.cancellable is options.get("cancellable", True)
        assert group.cancel_on_error is True
        [request] = listener.requests
        assert (request.job_name, request.payload) == ("wait", {"n": 1})
        listener.release.set()


@pytest.mark.parametrize("ask", FORMS)
@pytest.mark.parametrize(
    ("options", "error"), [({"payload": [1]}, TypeError), ({"timeout": "1"}, TypeError), ({"timeout": -1}, ValueError)]
)
async def test_every_way_of_asking_refuses_what_makes_no_sense(
    ask: Callable[..., Any], options: dict[str, Any], error: type[Exception]
) -> None:
    """N1: at once, and before anything was sent."""
    asker = Helper("asker")
    async with running(asker):
        with pytest.raises(error):
            await ask(asker, **options)
        assert asker.job_groups == {}


@pytest.mark.parametrize("ask", FORMS)
async def test_every_way_of_asking_needs_a_worker_that_runs(ask: Callable[..., Any]) -> None:
    """J14."""
    runner, asker = WorkerRunner(), Helper("asker")
    await runner.add_workers(asker)
    with pytest.raises(NotRunningError, match="'asker' is not running yet"):
        await ask(asker)
    async with runner:
        pass
    with pytest.raises(NotRunningError, match="'asker' is not running any more"):
        await ask(asker)
    assert asker.job_groups == {}


@pytest.mark.parametrize(
    ("names", "options", "error", "text"),
    [
        (("a", 7), {}, TypeError, "workers are asked by name, a str, not 7"),
        (
            ("c", "b", "a", "b", "d", "a"),
            {},
            ValueError,
            "a job group asks each worker once, but has 'a', 'b' more than once",
        ),
        (("a",), {"payload": [1]}, TypeError, "a job's payload is a dict or None, not [1]"),
        (("a",), {"timeout": "1"}, TypeError, "timeout is a number of seconds or None, not '1'"),
        (("a",), {"timeout": True}, TypeError, "timeout is a number of seconds or None, not True"),
        (("a",), {"timeout": -1}, ValueError, "timeout is a number of seconds, not less than 0, not -1"),
        (("a",), {"timeout": math.nan}, ValueError, "timeout is a number of seconds, not less than 0, not nan"),
    ],
)
async def test_what_makes_no_sense_is_named(
    names: tuple[Any, ...], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    """J12, N1."""
    async with running() as runner:
        with pytest.raises(error) as caught:
            runner.job_group(*names, **options)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("name", "kwargs", "error"),
    [
        (7, {}, TypeError),
        ("helper", {"payload": [1]}, TypeError),
        ("helper", {"timeout": "soon"}, TypeError),
        ("helper", {"timeout": True}, TypeError),
        ("helper", {"timeout": -1}, ValueError),
    ],
)
async def test_a_job_that_makes_no_sense_is_not_asked_for(name: Any, kwargs: Any, error: type[Exception]) -> None:
    helper = Helper("helper")
    async with running(helper) as runner:
        with pytest.raises(error):
            runner.job(name, **kwargs)
        with pytest.raises(error):
            runner.job_group(name, **kwargs)
    assert helper.calls == []


async def test_a_job_carries_its_label() -> None:
    """N4: ``label=`` on every way to ask for a job."""
    asker, helper = Helper("asker"), Helper("helper")
    async with running(asker, helper):
        first = await asker.request_job("helper", name="wait", label="one")
        second = await asker.request_job_group("helper", name="wait", label="two")
        third = await asker.create_job_group_and_request_job(["helper"], name="wait", label="three")
        assert [asker.job_groups[each].label for each in (first, second, third.job_id)] == ["one", "two", "three"]
        async with asker.job("helper", name="wait", label="four") as context:
            assert asker.job_groups[context.job_id].label == "four"
            helper.release.set()
        async with asker.job_group("helper", name="wait", label="five") as group:
            assert asker.job_groups.get(group.job_id) is None or asker.job_groups[group.job_id].label == "five"


async def test_a_group_that_names_a_worker_twice_is_refused() -> None:
    """J12: a `ValueError`, and nobody is asked."""
    asker, helper = Helper("asker"), Helper("helper")
    async with running(asker, helper) as runner:
        for group in (asker.job_group, runner.job_group):
            with pytest.raises(ValueError, match="'helper'"):
                group("helper", "asker", "helper", name="echo")
        with pytest.raises(ValueError, match="'helper'"):
            await asker.request_job_group("helper", "helper", name="echo")
        with pytest.raises(ValueError, match="'helper'"):
            await asker.create_job_group_and_request_job(["helper", "helper"], name="echo")
        assert helper.calls == []
        assert asker.job_groups == {}


async def test_a_worker_may_ask_itself() -> None:
    """J12: it is a member of its own group, and answers as any other."""
    helper = Helper("helper")
    async with running(helper):
        assert (await helper.job("helper", name="echo"))["worker"] == "helper"


TIMES = 200
"""More often than the bus lets anybody send without a pause."""


class Clock:
    """Counts how often others came to their turn."""

    def __init__(self) -> None:
        self.turns = 0

    async def tick(self) -> None:
        while True:
            self.turns += 1
            await checkpoint()


async def refused(runner: WorkerRunner) -> None:
    for _ in range(TIMES):
        with pytest.raises(JobError, match="inactive"):
            await runner.job("off")


async def refused_quietly(runner: WorkerRunner) -> None:
    for _ in range(TIMES):
        await runner.job_group("off", cancel_on_error=False)


async def refused_in_contexts(runner: WorkerRunner) -> None:
    for _ in range(TIMES):
        async with runner.job_group("off", cancel_on_error=False):
            pass


@pytest.mark.parametrize("use", [refused, refused_quietly, refused_in_contexts])
async def test_jobs_that_are_refused_at_once_let_others_run(use: Callable[[WorkerRunner], Awaitable[None]]) -> None:
    """B2: every 64th request yields, so that who tries again and again starves nobody."""
    clock = Clock()
    async with running(Helper("off", active=False)) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(clock.tick)
        await checkpoint()
        before = clock.turns
        await use(runner)
        after = clock.turns
        tasks.cancel_scope.cancel()
    assert after > before


async def test_entering_many_contexts_lets_others_run() -> None:
    """B2: a context that is entered sends a request, and every 64th yields."""
    clock = Clock()
    async with running(Helper("on")) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(clock.tick)
        await checkpoint()
        before = clock.turns
        async with AsyncExitStack() as stack:
            for _ in range(TIMES):
                await stack.enter_async_context(runner.job("on", name="echo"))
            after = clock.turns
        tasks.cancel_scope.cancel()
    assert after > before


async def test_others_run_while_many_are_asked_in_contexts() -> None:
    """B2: each 64th request lets them, though nothing has to be waited for."""
    names = [f"helper {n}" for n in range(64)]
    ran: list[bool] = []

    async def other() -> None:
        ran.append(True)

    async with running(*map(Helper, names)) as runner, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(other)
        async with (
            runner.job_group(*names, name="echo"),
            runner.job_group(*names, name="echo"),
            runner.job_group(*names, name="echo"),
        ):
            assert ran


async def test_a_worker_that_asks_before_its_start_is_told_so() -> None:
    """J14: its answers could not be received."""
    told: list[str] = []

    class Early(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            try:
                self.job("helper")
            except NotRunningError as exc:
                told.append(str(exc))
            await super().run(params)

    async with running(Early("early")):
        pass
    assert told == ["worker 'early' is not running yet: it asks for jobs from its start() on"]


def test_metadata_that_is_empty_is_passed_on() -> None:
    """W3"""
    assert WorkerActivationArgs(metadata={}).to_dict() == {"metadata": {}}
