"""What is left behind is found, and named."""

import re
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from support.documents import examples
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import BusTTSSpeakMessage, JobGroup, MemoryBus, WorkerRunner
from workerbus.testing import Behaviour, RecordingWorker, ScriptedWorker, assert_no_jobs, nothing_left, run
from workerbus.testing._leaks import left_in, signal_handlers
from workerbus.worker._core import core_of


@pytest.mark.parametrize("example", examples(assert_no_jobs, nothing_left))
def test_the_examples_in_the_docstrings_run(example: Any, backend: str) -> None:
    run(example, backend=backend)


async def left_by(program: Callable[[], Awaitable[None]], *owners: Any, **options: Any) -> str:
    """What `nothing_left` says about a program."""
    with pytest.raises(AssertionError) as caught:
        async with nothing_left(*owners, **options):
            await program()
    return str(caught.value)


async def test_a_task_is_named_and_where_it_waits() -> None:
    async with anyio.create_task_group() as group:

        async def forgotten() -> None:
            await anyio.sleep_forever()

        async def program() -> None:
            group.start_soon(forgotten, name="the forgotten one")
            await anyio.wait_all_tasks_blocked()

        text = await left_by(program)
        group.cancel_scope.cancel()
    assert text.startswith("something is left:\n- task 'the forgotten one'")
    assert "await anyio.sleep_forever()" in text
    assert "test_leaks.py" in text


async def test_tasks_that_were_there_before_may_stay() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        await anyio.wait_all_tasks_blocked()
        async with nothing_left():
            pass
        group.cancel_scope.cancel()


async def test_idle_tasks_of_the_library_are_left_things_too() -> None:
    bus = MemoryBus()

    async def program() -> None:
        await bus.__aenter__()
        await bus.subscribe(plain)
        await bus.send(BusTTSSpeakMessage("hi", source="test"))
        await plain.until(1)

    plain = Plain("plain")
    text = await left_by(program, bus)
    await bus.__aexit__(None, None, None)
    assert re.search(r"task 'plain.*', which is idle", text)
    assert f"on bus {bus.name!r} are subscribed 'plain'" in text
    assert f"bus {bus.name!r} is open, and was not before" in text


async def test_whatever_is_looked_at_is_looked_at_each() -> None:
    """L1: of two runners, buses and workers what each has left; and what was there before is no leak."""
    runners = [WorkerRunner(bus=MemoryBus(), name=name, handle_sigint=False) for name in ("one", "two")]
    buses = [MemoryBus(name=name) for name in ("near", "far")]

    async def program() -> None:
        for runner in runners:
            await runner.add_workers(Helper(f"of {runner.name}"))
        for bus in buses:
            await bus.subscribe(Plain(f"on {bus.name}"))

    text = await left_by(program, *runners, *buses)
    for name in ("one", "two"):
        assert f"runner {name!r} hosts 'of {name}'" in text
    for name in ("near", "far"):
        assert f"on bus {name!r} are subscribed 'on {name}'" in text
    for runner in runners:
        await runner.cancel()
        await runner.run()


async def test_a_bus_that_was_closed_in_the_block_is_named() -> None:
    bus = MemoryBus()
    await bus.__aenter__()

    async def program() -> None:
        await bus.__aexit__(None, None, None)

    assert f"bus {bus.name!r} is closed, and was not before" in await left_by(program, bus)


async def test_subscribers_that_stay_are_said_to() -> None:
    bus = MemoryBus()
    async with nothing_left(bus, stays=["observer"]):
        await bus.subscribe(Plain("observer"))
    async with bus:
        pass


async def test_workers_watches_and_those_who_wait_are_found_in_the_registry() -> None:
    async with WorkerRunner(name="r", handle_sigint=False) as runner, anyio.create_task_group() as group:

        async def watcher(_: Any) -> None: ...

        async def program() -> None:
            worker = RecordingWorker("left")
            await runner.add_workers(worker)
            await worker.until("on_activated")
            await runner.registry.watch("seen", watcher)
            await runner.registry.watch_departure("gone", watcher)
            group.start_soon(runner.registry.wait_for, "awaited", name="waits")
            await anyio.wait_all_tasks_blocked()

        text = await left_by(program, runner, stays=["r", "left"])
        runner.registry.unwatch("seen", watcher)
        runner.registry.unwatch("gone", watcher)
        group.cancel_scope.cancel()
    for line in (
        "in the registry of runner 'r': the workers 'left'",
        "in the registry of runner 'r': watches for 'seen'",
        "in the registry of runner 'r': watches for the departure of 'gone'",
        "in the registry of runner 'r': somebody who waits for 'awaited'",
        "runner 'r' hosts 'left'",
    ):
        assert line in text
    assert "on bus" not in text
    assert left_in(runner.registry) == {}


async def test_a_signal_handler_is_found() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def program() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    try:
        text = await left_by(program)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "a handler of SIGTERM" in text
    assert len(signal_handlers()) == 2


async def test_an_exception_of_the_block_goes_through_whatever_is_left() -> None:
    bus = MemoryBus()

    async def program() -> None:
        async with nothing_left(bus):
            await bus.subscribe(Plain("plain"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await program()


async def test_open_jobs_are_named_at_both_ends() -> None:
    worker, requester = ScriptedWorker("w", Behaviour("defer")), RecordingWorker("requester")
    async with running(worker, requester) as runner:

        async def program() -> None:
            await requester.request_job("w", name="fetch")
            await worker.until_requested()
            await anyio.wait_all_tasks_blocked()

        text = await left_by(program, worker, requester)
        job_id = worker.requests[0].job_id
        assert f"worker 'w' has job 'fetch' ({job_id}) for 'requester', deferred" in text
        assert f"'requester' keeps job {job_id}, open, and waits for 'w'" in text
        assert "has answered" not in text
        with pytest.raises(AssertionError, match=r"jobs are left:\n- .*deferred"):
            assert_no_jobs(runner)
        await worker.answer()
        await requester.until("on_job_completed")
        assert_no_jobs(runner)


async def test_each_worker_of_a_runner_is_looked_at() -> None:
    workers = [ScriptedWorker(name, Behaviour("hang")) for name in ("one", "two", "three")]
    async with running(*workers) as runner:

        async def ask(name: str) -> None:
            await runner.job(name)

        for worker in workers:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, worker.name)
                await worker.until_requested()
                with pytest.raises(AssertionError, match=f"worker '{worker.name}' has job without a name"):
                    assert_no_jobs(runner)
                tasks.cancel_scope.cancel()
        assert_no_jobs(runner)


async def test_a_handler_that_runs_on_after_its_answer_is_named() -> None:
    release = anyio.Event()

    class Chatty(ScriptedWorker):
        async def on_job_request(self, message: Any) -> Any:
            await self.send_job_response(message.job_id, {})
            await release.wait()

    worker = Chatty("w")
    async with running(worker) as runner:
        await runner.job("w")
        with pytest.raises(AssertionError, match=r"'w' has answered job without a name .*, and its handler still runs"):
            assert_no_jobs(worker)
        release.set()


async def test_jobs_are_found_that_a_worker_kept_which_has_gone() -> None:
    worker = RecordingWorker("gone")
    async with running(worker) as runner:

        async def program() -> None:
            await worker.stop()
            core_of(worker).job_client.groups["1"] = JobGroup("1", ["w"])

        text = await left_by(program, runner, stays=[runner.name])
    assert text == "something is left:\n- 'gone' keeps job 1, open, and waits for 'w'"


async def test_jobs_are_found_of_a_worker_that_came_in_the_block() -> None:
    worker = RecordingWorker("late")
    async with running(name="r") as runner:

        async def program() -> None:
            await runner.add_workers(worker, wait=True)
            core_of(worker).job_client.groups["1"] = JobGroup("1", ["w"])

        text = await left_by(program, runner, stays=[runner.name])
        core_of(worker).job_client.groups.clear()
    assert "- 'late' keeps job 1, open, and waits for 'w'" in text


async def test_jobs_of_a_runner_are_found() -> None:
    worker = ScriptedWorker("w", Behaviour("hang"))
    async with running(worker, name="r") as runner:
        with anyio.CancelScope() as scope:
            async with runner.job("w"):
                await worker.until_requested()
                with pytest.raises(AssertionError, match=r"'r' keeps job .*, open, and waits for 'w'"):
                    assert_no_jobs(runner)
                scope.cancel()
        assert_no_jobs(runner)


def test_a_check_of_nothing_is_refused(backend: str) -> None:
    with pytest.raises(TypeError, match=r"assert_no_jobs looks at .*, each an argument of its own, not at \("):
        assert_no_jobs((WorkerRunner(),))  # type: ignore[arg-type]  # on purpose

    async def main() -> None:
        async with nothing_left("bus"):  # type: ignore[arg-type]  # on purpose
            pass

    with pytest.raises(TypeError, match="nothing_left looks at runners, workers and buses"):
        run(main, backend=backend)
