"""L7: a bus and its runners are used in one event loop, in one thread; and how to get in from another."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import from_thread, to_thread

from support.messages import note
from support.subscribers import Plain
from support.threads import in_a_thread
from support.workers import Helper
from workerbus import MemoryBus, WorkerRunner, WrongLoopError
from workerbus.testing._leaks import signal_handlers


class Program:
    """A runner with a worker, on a bus that is open."""

    def __init__(self) -> None:
        self.bus = MemoryBus(name="bus")
        self.runner = WorkerRunner(name="runner", bus=self.bus, handle_sigint=False)
        self.helper = Helper("helper")
        self.plain = Plain("plain")

    async def begin(self) -> None:
        await self.bus.subscribe(self.plain)
        await self.runner.__aenter__()
        await self.runner.add_workers(self.helper)
        await self.runner.registry.wait_for("helper")
        self.job_id = await self.helper.request_job("helper", name="wait")
        self.asked = self.runner.job("helper", name="wait")
        await self.asked.__aenter__()
        self.task = self.helper.create_task(anyio.sleep_forever)
        await anyio.wait_all_tasks_blocked()

    async def end(self) -> None:
        self.helper.release.set()
        await self.asked.__aexit__(None, None, None)
        await self.runner.__aexit__(None, None, None)

    async def check(self) -> None:
        """All is as it was."""
        assert await self.runner.job("helper", name="echo")
        assert self.helper.active
        assert self.runner.known_workers() == ["helper"]
        assert self.bus.has_subscriber("plain")
        assert not self.runner.is_ending
        assert not self.task.done()
        assert self.job_id in self.helper.job_groups
        assert len(self.helper.active_jobs) == 2
        assert not self.helper.unwound.is_set()


async def ask(program: Program) -> None:
    await program.runner.job("helper", name="echo")


async def ask_group(program: Program) -> None:
    await program.runner.job_group("helper", name="echo")


async def ask_as_a_worker(program: Program) -> None:
    await program.helper.request_job("helper", name="echo")


async def post(program: Program) -> None:
    program.bus.post(note(1))


async def receive(program: Program) -> None:
    program.bus.on_message_received(note(1))


async def enter_the_bus(program: Program) -> None:
    async with program.bus:
        pass


async def run_another(program: Program) -> None:
    await WorkerRunner(bus=program.bus, handle_sigint=False).run()


async def create_a_task(program: Program) -> None:
    program.helper.create_task(anyio.sleep_forever)


async def enter_a_job(program: Program) -> None:
    async with program.runner.job("helper", name="echo"):
        pass


USES: dict[str, Callable[[Program], Awaitable[Any]]] = {
    "job": ask,
    "job_group": ask_group,
    "request_job": ask_as_a_worker,
    "send": lambda it: it.bus.send(note(1)),
    "send_bus_message": lambda it: it.helper.send_bus_message(note(1)),
    "post": post,
    "deliver": lambda it: it.bus.deliver(note(1)),
    "on_message_received": receive,
    "subscribe": lambda it: it.bus.subscribe(Plain("other")),
    "unsubscribe": lambda it: it.bus.unsubscribe(it.plain),
    "add_workers": lambda it: it.runner.add_workers(Helper("other")),
    "end": lambda it: it.runner.end(),
    "cancel": lambda it: it.runner.cancel(),
    "leave": lambda it: it.runner.__aexit__(None, None, None),
    "worker.add_workers": lambda it: it.helper.add_workers(Helper("other")),
    "worker.end": lambda it: it.helper.end(),
    "worker.cancel": lambda it: it.helper.cancel(),
    "worker.stop": lambda it: it.helper.stop(),
    "registry.wait_for": lambda it: it.runner.registry.wait_for("helper"),
    "registry.watch": lambda it: it.runner.registry.watch("helper", print),
    "registry.watch_departure": lambda it: it.runner.registry.watch_departure("helper", print),
    "worker.wait": lambda it: it.helper.wait(),
    "worker.create_task": create_a_task,
    "cancel_task": lambda it: it.helper.cancel_task(it.task),
    "send_job_response": lambda it: it.helper.send_job_response(it.job_id, {}),
    "send_job_update": lambda it: it.helper.send_job_update(it.job_id, {}),
    "send_job_stream_data": lambda it: it.helper.send_job_stream_data(it.job_id, {}),
    "send_job_stream_end": lambda it: it.helper.send_job_stream_end(it.job_id, {}),
    "cancel_job_group": lambda it: it.helper.cancel_job_group(it.job_id),
    "request_cancel_job_group": lambda it: it.helper.request_cancel_job_group(it.job_id),
    "request_job_update": lambda it: it.helper.request_job_update(it.job_id, "helper"),
    "watch_workers": lambda it: it.helper.watch_workers("nobody"),
    "deactivate_worker": lambda it: it.helper.deactivate_worker("helper"),
    "supervise": lambda it: it.runner.supervise(lambda: Helper("other")),
    "async with job": enter_a_job,
    "leave a job": lambda it: it.asked.__aexit__(None, None, None),
    "activate_worker": lambda it: it.helper.activate_worker("helper", deactivate_self=True),
    "async with bus": enter_the_bus,
    "run": run_another,
}


@pytest.mark.parametrize("use", USES)
def test_another_thread_is_refused_and_told_how_to_get_in(use: str, backend: str) -> None:
    """L7: nothing has changed by it."""

    async def main() -> None:
        program = Program()
        await program.begin()
        try:
            raised = await to_thread.run_sync(in_a_thread, lambda: USES[use](program), backend)
            assert isinstance(raised, WrongLoopError), raised
            assert "belongs to another thread: to get in from a worker thread" in str(raised)
            assert "anyio.from_thread.run()" in str(raised)
            assert "BlockingPortal" in str(raised)
            await program.check()
        finally:
            await program.end()

    anyio.run(main, backend=backend)


SENDS = (
    "send",
    "send_bus_message",
    "post",
    "deliver",
    "on_message_received",
    "worker.end",
    "worker.cancel",
    "send_job_response",
    "send_job_update",
    "send_job_stream_data",
    "send_job_stream_end",
    "request_job_update",
    "deactivate_worker",
)
"""What only looks at the thread, since to look at the loop takes too long for a message."""


@pytest.mark.parametrize("use", [use for use in USES if use not in SENDS])
def test_another_event_loop_in_the_same_thread_is_refused(use: str) -> None:
    """L7: where the first one stands still, as with fixtures of a wider scope."""
    program, over = Program(), asyncio.Event()

    async def live() -> None:
        await program.begin()
        begun.set_result(None)
        await over.wait()
        await program.check()
        await program.end()

    async def used() -> None:
        await USES[use](program)

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    begun = first.create_future()
    task = first.create_task(live())
    first.run_until_complete(begun)
    with pytest.raises(WrongLoopError, match="belongs to another event loop"):
        second.run_until_complete(used())
    second.close()
    over.set()
    first.run_until_complete(task)
    first.close()


def test_a_worker_thread_gets_in_by_from_thread(backend: str) -> None:
    """L7: with jobs and job groups, in the form that returns the answer, and with all else."""

    def work(program: Program) -> list[Any]:
        return [
            from_thread.run(partial(program.runner.job, "helper", name="echo", payload={"n": 1})),
            from_thread.run(partial(program.runner.job_group, "helper", name="echo", timeout=5)),
            from_thread.run(program.runner.add_workers, Helper("other")),
            from_thread.run_sync(program.runner.known_workers),
        ]

    async def main() -> None:
        program = Program()
        async with program.runner:
            await program.runner.add_workers(program.helper)
            answers.extend(await to_thread.run_sync(work, program))

    answers: list[Any] = []
    anyio.run(main, backend=backend)
    one = {"worker": "helper", "payload": {"n": 1}}
    assert answers == [one, {"helper": one | {"payload": {}}}, None, ["helper", "other"]]


def test_any_other_thread_gets_in_by_a_portal(backend: str) -> None:
    """L7: one that has an event loop of its own, for instance."""

    async def main() -> None:
        program = Program()
        async with program.runner, from_thread.BlockingPortal() as portal:
            await program.runner.add_workers(program.helper)

            async def ask() -> None:
                job = partial(program.runner.job, "helper", name="echo")
                answers.append(await to_thread.run_sync(portal.call, job))

            assert await to_thread.run_sync(in_a_thread, ask, backend) is None

    answers: list[Any] = []
    anyio.run(main, backend=backend)
    assert answers == [{"worker": "helper", "payload": {}}]


def test_a_job_can_be_the_function_of_a_task(backend: str) -> None:
    """L7: it is a coroutine for all that takes one, and can be closed as one."""

    async def main() -> None:
        program = Program()
        async with program.runner:
            await program.runner.add_workers(program.helper)
            async with anyio.create_task_group() as group:
                group.start_soon(partial(program.runner.job, "helper", name="echo"))
            assert len(program.helper.calls) == 1
            if backend == "asyncio":
                assert await asyncio.create_task(program.runner.job("helper", name="echo"))
                task = asyncio.create_task(program.runner.job("helper", name="wait"))
                await program.helper.begun.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert program.helper.unwound.is_set()
            started = program.runner.job("helper", name="wait")
            started.close()
            assert program.runner.job_client.groups == {}

    anyio.run(main, backend=backend)


def test_a_bus_that_is_closed_belongs_to_nobody(backend: str) -> None:
    """L7: it is used in one loop after the other, in whatever thread, and by whom it is sent to before."""
    bus, plain = MemoryBus(), Plain("plain")

    async def use() -> None:
        await bus.subscribe(plain)
        await bus.send(note(len(plain.got)))
        count = len(plain.got) + 1
        async with bus:
            await plain.until(count)
        await bus.unsubscribe(plain)

    anyio.run(use, backend=backend)
    assert in_a_thread(use, backend) is None
    anyio.run(use, backend=backend)
    assert plain.got == [note(0), note(1), note(2)]


def test_what_a_runner_in_a_thread_leaves_alone(backend: str) -> None:
    """L7, R5: the signals of the main thread."""

    async def use() -> None:
        async with WorkerRunner(handle_sigint=False):
            pass

    before = signal_handlers()
    assert in_a_thread(use, backend) is None
    assert signal_handlers() == before
