"""Whole programs drawn from a number: workers that ask each other for jobs, stop each other, add children, and end."""

from collections.abc import Callable
from random import Random
from typing import Any, Final

import anyio
from anyio import CancelScope, create_task_group, current_time, move_on_after, sleep
from anyio.abc import TaskGroup

from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    JobFailure,
    JobGroupError,
    MemoryBus,
    NotRunningError,
    UnknownJobError,
    UnknownWorkerError,
    WorkerBus,
    WorkerParams,
    WorkerRunner,
    bus_message,
)
from workerbus import job as handler
from workerbus.testing import nothing_left
from workerbus.testing.buses._faults import Faults
from workerbus.testing.buses._faulty import FaultyBus

NAMES: Final = tuple(f"w{number}" for number in range(5))
JOBS: Final = ("ordinary", "in turn", "deferred")
EXPECTED: Final = (JobError, JobGroupError, NotRunningError, UnknownJobError, UnknownWorkerError)
"""What code that asks and answers has to reckon with where workers come and go."""


@bus_message
class Chat(BusDataMessage):
    """A message of the program's own."""


class BodyError(Exception):
    """What a body raises."""


class SlowBus(WorkerBus):
    """A bus whose publishing takes a while, now and then."""

    def __init__(self, rnd: Random) -> None:
        super().__init__()
        self._rnd = rnd

    async def publish(self, message: BusMessage) -> None:
        await sleep(self._rnd.choice((0, 0, 0, 0.1)) * self._rnd.random())
        await self.deliver(message)


class Member(BaseWorker):
    """A worker that does whatever is drawn."""

    def __init__(self, name: str, rnd: Random) -> None:
        super().__init__(name)
        self.rnd = rnd
        self._tasks: TaskGroup | None = None

    async def run(self, params: WorkerParams) -> None:
        self._tasks = params.task_group
        await super().run(params)

    @handler(name="ordinary")
    async def ordinary(self, message: BusJobRequestMessage) -> Any:
        await self._work(message)
        return ended(self.rnd)

    @handler(name="in turn", sequential=True)
    async def in_turn(self, message: BusJobRequestMessage) -> Any:
        await self._work(message)
        return ended(self.rnd)

    @handler(name="deferred", deferred=True)
    async def deferred(self, message: BusJobRequestMessage) -> None:
        assert self._tasks is not None
        if self.rnd.random() < 0.7:
            self._tasks.start_soon(self._answer_later, message.job_id)

    async def _answer_later(self, job_id: str) -> None:
        await sleep(self.rnd.random() * 3)
        try:
            await self.send_job_response(job_id, {"late": True})
        except UnknownJobError:
            return

    async def _work(self, message: BusJobRequestMessage) -> None:
        rnd = self.rnd
        try:
            for _ in range(rnd.randrange(3)):
                await sleep(rnd.random() * 2)
                await self._do_something(message.job_id)
        except EXPECTED:
            return
        finally:
            if rnd.random() < 0.3:
                with CancelScope(shield=True, deadline=current_time() + rnd.random() * 2.5):
                    await sleep(rnd.random() * 2.4)

    async def _do_something(self, job_id: str) -> None:
        rnd = self.rnd
        draw = rnd.random()
        if draw < 0.2:
            await self.send_job_update(job_id, {}, urgent=rnd.random() < 0.5)
        elif draw < 0.3:
            await self.send_job_stream_data(job_id, {})
        elif draw < 0.45:
            await self._ask_others()
        elif draw < 0.5:
            await self.send_job_response(job_id, {"early": True}, urgent=rnd.random() < 0.5)
        elif draw < 0.52:
            await self.stop()
        elif draw < 0.54:
            await self.add_workers(rnd.choice((Member, Careful))(f"child{rnd.getrandbits(40)}", rnd))
        elif draw < 0.57:
            await self.send_bus_message(Chat(source=self.name, target=rnd.choice((None, *NAMES))))
        elif draw < 0.59:
            await self.activate_worker(rnd.choice(NAMES))
        elif draw < 0.61:
            await self.deactivate_worker(rnd.choice(NAMES))

    async def _ask_others(self) -> None:
        rnd = self.rnd
        others = [name for name in NAMES if name != self.name]
        names = rnd.sample(others, rnd.randrange(3))
        timeout = rnd.choice((None, 1, 3))
        async with self.job_group(
            *names, name=rnd.choice(JOBS), timeout=timeout, cancel_on_error=rnd.random() < 0.5
        ) as group:
            async for _ in group:
                pass

    # --- hooks

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Chat) and self.rnd.random() < 0.3:
            await sleep(self.rnd.random())

    async def on_job_response(self, message: Any) -> None:
        await sleep(self.rnd.random())
        if self.rnd.random() < 0.1:
            raise ValueError("the hook went wrong")

    async def on_job_completed(self, result: Any) -> None:
        pass

    async def on_job_error(self, message: Any) -> None:
        pass

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        await sleep(self.rnd.random())


class Careful(Member):
    """The same, with an ``accepts_bus_message`` of its own."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


def ended(rnd: Random) -> Any:
    """End a handler."""
    draw = rnd.random()
    if draw < 0.1:
        raise ValueError("the handler went wrong")
    if draw < 0.15:
        raise JobFailure("it could not be done")
    return 3 if draw < 0.2 else {"done": True}


def a_bus(kind: str, rnd: Random, seed: int) -> WorkerBus:
    buses: dict[str, Callable[[], WorkerBus]] = {
        "memory": MemoryBus,
        "bounded": lambda: MemoryBus(max_buffer_size=2),
        "slow": lambda: SlowBus(rnd),
        "faulty": lambda: FaultyBus(MemoryBus(), seed=seed, faults=Faults(delay=0.2, duplicate=0.1)),
    }
    return buses[kind]()


class Program:
    """A program.

    Args:
        seed: What it is drawn from.
        bus: Its kind of bus.
    """

    def __init__(self, seed: int, bus: str) -> None:
        rnd = self.rnd = Random(seed)
        self.workers = [rnd.choice((Member, Member, Careful))(name, rnd) for name in NAMES]
        self.runner = WorkerRunner(
            bus=a_bus(bus, rnd, seed), handle_sigint=False, job_grace=rnd.choice((0, 1)), grace_period=2
        )

    async def run(self) -> None:
        """Run it to its end, and look whether it leaves anything."""
        rnd, runner = self.rnd, self.runner
        async with nothing_left(runner, *self.workers):
            await runner.add_workers(*self.workers)
            async with create_task_group() as tasks:
                killed = CancelScope()
                if rnd.random() < 0.3:
                    killed.deadline = current_time() + rnd.random() * 8
                tasks.start_soon(self._main)
                with killed:
                    await runner.run(auto_end=rnd.random() < 0.5)
                tasks.cancel_scope.cancel()
        assert not runner.job_client.groups
        assert not runner.asking

    async def _main(self) -> None:
        rnd, runner = self.rnd, self.runner
        async with create_task_group() as clients:
            for _ in range(3):
                clients.start_soon(self._client)
            await sleep(rnd.random() * 8)
            for worker in self.workers:
                if rnd.random() < 0.2:
                    clients.start_soon(self._request, worker)
            draw = rnd.random()
            if draw < 0.3:
                await runner.end("it is over")
            elif draw < 0.6:
                await runner.cancel("it is over")
            elif draw < 0.8:
                clients.cancel_scope.cancel()
            else:
                for worker in self.workers:
                    await worker.stop()
            clients.cancel_scope.deadline = current_time() + 100
        await runner.end("all clients have gone")

    async def _request(self, worker: BaseWorker) -> None:
        try:
            await worker.request_job(self.rnd.choice(NAMES), name="ordinary", timeout=2)
        except EXPECTED:
            return

    async def _client(self) -> None:
        rnd = self.rnd
        for _ in range(rnd.randrange(4)):
            await sleep(rnd.random() * 2)
            try:
                with move_on_after(rnd.choice((1, 5, 50))):
                    await self._ask()
            except (*EXPECTED, BodyError):
                await anyio.lowlevel.checkpoint()

    async def _ask(self) -> None:
        rnd = self.rnd
        names = rnd.sample(NAMES, rnd.randrange(4))
        options: dict[str, Any] = {"timeout": rnd.choice((None, 1, 3, 20)), "cancel_on_error": rnd.random() < 0.5}
        async with self.runner.job_group(*names, name=rnd.choice((*JOBS, "unknown")), **options) as group:
            if rnd.random() < 0.5:
                async for _ in group:
                    pass
            if rnd.random() < 0.2:
                raise BodyError
