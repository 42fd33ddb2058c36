"""B9, J6: bounded lanes of workers: what is held up, and what never is."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.lanes import Log, Sending, lanes
from support.listeners import Chooser, Listener
from support.messages import Alarm, Note, note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusActivateWorkerMessage,
    BusJobRequestMessage,
    BusJobUpdateMessage,
    BusMessage,
    JobError,
    JobGroup,
    JobGroupError,
    JobTimeoutError,
    MemoryBus,
    WorkerParams,
    WorkerPool,
    WorkerRunner,
    job,
)
from workerbus.testing import settle


async def test_a_job_handler_waits_for_room_in_its_workers_own_lane() -> None:
    """B9: it is no hook, and the hooks go on meanwhile."""
    log = Log(holds=Note)

    class Worker(Listener):
        @job(name="send")
        async def send(self, message: BusJobRequestMessage) -> None:
            await self.send_bus_message(note(2, "it"))

    async with running(Worker("it", log), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "it"))
        await log.entered.wait()
        async with runner.job("it", name="send"):
            log.release.set()
        await eventually(lambda: len(log.done) == 2)


async def test_each_message_that_is_refused_makes_room_for_one() -> None:
    """B9, N4: what comes in for it waits to be accepted, and takes its place at once."""
    log = Log(holds=Note)
    chooser = Chooser("it", log)
    chooser.refused = (0, 1)
    async with running(chooser, bus=MemoryBus(max_buffer_size=2)) as runner, anyio.create_task_group() as tasks:
        await settle()
        for n in range(2):
            await runner.bus.send(note(n, "it"))
        sendings = [Sending(tasks, runner.bus, note(n, "it")) for n in range(2, 8)]
        await log.entered.wait()
        await settle()
        assert sum(sending.done for sending in sendings) == 3  # one is being handled, and two wait
        assert runner.bus.statistics().subscribers["it"].depth == 2
        log.release.set()
    assert sorted(lanes(log.done)[0]) == list(range(2, 8))


class Circle(BaseWorker):
    """Has its hook ask for jobs whose handlers send to ``"it"`` until its data lane, with room for eight, is full."""

    def __init__(self, name: str, ask: Callable[["Circle"], Awaitable[Any]]) -> None:
        super().__init__(name)
        self.ask = ask
        self.begun, self.go_on, self.done = anyio.Event(), anyio.Event(), anyio.Event()
        self.heard: list[int] = []
        self.refused: list[int] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.heard.append(message.n)
            if message.n == 0:
                await self.ask(self)
                self.done.set()

    async def send(self) -> None:
        self.begun.set()
        for n in range(1, 12):
            try:
                await self.send_bus_message(note(n, "it"))
            except anyio.WouldBlock:
                self.refused.append(n)
                raise

    @job(name="send")
    async def send_it(self, message: BusJobRequestMessage) -> None:
        await self.send()

    @job(name="send in turn", sequential=True)
    async def send_in_turn(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        await self.go_on.wait()
        await self.send()

    @job(name="answer and send")
    async def answer_and_send(self, message: BusJobRequestMessage) -> None:
        await self.send_job_response(message.job_id, {})
        await self.send()

    @job(name="pass on")
    async def pass_on(self, message: BusJobRequestMessage) -> None:
        assert message.payload is not None
        await self.pass_to(message.payload["path"])

    async def pass_to(self, path: list[str]) -> None:
        first, *rest = path
        await self.job(first, name="pass on" if rest else "send", payload={"path": rest})


class ChoosingCircle(Circle):
    """The same, with an ``accepts_bus_message`` of its own."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


async def asked(*circles: Circle) -> None:
    """Run workers on a bus with room for eight, and have the first one's hook ask."""
    async with running(*circles, bus=MemoryBus(max_buffer_size=8)) as runner:
        await runner.bus.send(note(0, "it"))
        await circles[0].done.wait()
        await eventually(lambda: not runner.bus.statistics().subscribers["it"].depth)


@pytest.mark.parametrize("kind", [Circle, ChoosingCircle])
@pytest.mark.parametrize("path", [["it"], ["other"], ["other", "it"], ["it", "other", "it", "other"]])
async def test_a_handler_is_refused_room_that_is_held_up_until_it_answers(kind: type[Circle], path: list[str]) -> None:
    """B9: the hook waits for its job, directly or over others, so that it would wait for itself."""

    async def ask(it: Circle) -> None:
        with pytest.raises(JobError):
            await it.pass_to(path)

    it, other = kind("it", ask), kind("other", ask)
    await asked(it, other)
    sender = it if path[-1] == "it" else other
    assert len(sender.refused) == 1
    assert it.heard == list(range(sender.refused[0]))


async def test_a_handler_is_refused_room_whoever_else_waits_for_a_job_behind_its_own() -> None:
    """B9, J13: the hook that waits for its own job holds the room up, and another one that stands in line, nothing."""

    async def ask(it: Circle) -> None:
        async def pass_on() -> None:
            with pytest.raises(JobError):
                await it.job("other", name="send in turn")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pass_on)
            await other.begun.wait()
            await it.send_bus_message(note(0, "third"))
            await settle()
            other.go_on.set()

    async def ask_behind(third: Circle) -> None:
        await third.job("other", name="send in turn")

    it, other, third = Circle("it", ask), Circle("other", ask), Circle("third", ask_behind)
    await asked(it, other, third)
    assert len(other.refused) == 1
    assert it.heard[: other.refused[0]] == list(range(other.refused[0]))


@pytest.mark.parametrize("kind", [Circle, ChoosingCircle])
async def test_a_handler_that_already_waits_is_let_in_when_the_hook_awaits_its_job(kind: type[Circle]) -> None:
    """B9: whoever came first, neither waits for ever, and what waited is not dropped."""

    async def ask(it: Circle) -> None:
        group = await it.create_job_group_and_request_job(["it"], name="send", cancel_on_error=False)
        await it.begun.wait()
        await anyio.wait_all_tasks_blocked()
        assert not group.is_done
        assert not it.refused
        await group.wait()

    it = kind("it", ask)
    await asked(it)
    assert len(it.refused) == 1
    assert it.heard == list(range(it.refused[0]))


async def test_a_handler_that_waits_for_its_own_turn_may_wait_for_room_elsewhere() -> None:
    """B9, J13: it cannot have the turn, as its deadline says; and that is no reason to look round for ever."""
    log = Log(holds=Note)

    class Selfish(Helper):
        @job(name="turn", sequential=True)
        async def turn(self, message: BusJobRequestMessage) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.ask_again)
                await settle()
                for n in range(1, 4):
                    await self.send_bus_message(note(n, "it"))

        async def ask_again(self) -> None:
            with pytest.raises(JobTimeoutError):
                await self.job("selfish", name="turn", timeout=1)
            log.release.set()

    async with running(Listener("it", log), Selfish("selfish"), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "it"))
        await log.entered.wait()
        await runner.job("selfish", name="turn")
        await eventually(lambda: len(log.done) == 4)


async def test_a_handler_is_refused_room_though_one_of_those_who_await_its_job_has_given_up() -> None:
    """B9: two tasks of the hook await it, and one of them goes on."""

    async def ask(it: Circle) -> None:
        group = await it.create_job_group_and_request_job(["other"], name="send in turn", cancel_on_error=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(group.wait)
            await settle()
            with anyio.move_on_after(0.1):
                await group.wait()
            other.go_on.set()

    it, other = Circle("it", ask), Circle("other", ask)
    await asked(it, other)
    assert len(other.refused) == 1
    assert it.heard == list(range(other.refused[0]))


@pytest.mark.parametrize("awaited", ["at once", "the first one first", "the last one first"])
async def test_all_handlers_that_already_wait_are_let_in_whoever_stands_in_line_before_them(awaited: str) -> None:
    """B9: one hook awaits the jobs of several, at once or one after the other."""

    async def ask(it: Circle) -> None:
        names = [["it", "other"]] if awaited == "at once" else [["it"], ["other"]]
        groups = [await it.create_job_group_and_request_job(each, name="send", cancel_on_error=False) for each in names]
        await it.begun.wait()
        await other.begun.wait()
        await anyio.wait_all_tasks_blocked()
        assert not it.refused + other.refused
        for group in groups[::-1] if awaited == "the last one first" else groups:
            await group.wait()

    it, other = Circle("it", ask), Circle("other", ask)
    await asked(it, other)
    assert len(it.refused) == len(other.refused) == 1
    assert sorted(it.heard) == sorted([*range(it.refused[0]), *range(1, other.refused[0])])


async def test_a_handler_that_already_waits_is_let_in_whoever_else_awaits_its_job_before() -> None:
    """B9: a hook of a worker that holds nothing up, which came first."""
    groups: list[JobGroup] = []

    async def ask(it: Circle) -> None:
        groups.append(await it.create_job_group_and_request_job(["other"], name="send", cancel_on_error=False))
        await it.send_bus_message(note(0, "third"))
        await other.begun.wait()
        await anyio.wait_all_tasks_blocked()
        assert not other.refused
        with anyio.fail_after(5):
            await groups[0].wait()

    async def ask_first(third: Circle) -> None:
        await groups[0].wait()

    it, other, third = Circle("it", ask), Circle("other", ask), Circle("third", ask_first)
    await asked(it, other, third)
    assert len(other.refused) == 1
    assert it.heard == list(range(other.refused[0]))


@pytest.mark.parametrize("first", ["the wait for room", "the wait for the turn"])
@pytest.mark.parametrize("server", ["it", "other"])
@pytest.mark.parametrize("timeout", [None, 60])
async def test_a_hook_may_await_a_job_that_stands_in_line_behind_one_that_waits_for_room(
    first: str, server: str, timeout: float | None
) -> None:
    """B9, J13: whichever of the two waits begins earlier, and long before its time is up."""

    async def ask(it: Circle) -> None:
        workers = {"it": it, "other": other}
        group = None
        if server == "it":  # asked while there is room for the request
            group = await it.create_job_group_and_request_job(["it"], name="send in turn", timeout=timeout)
        if first == "the wait for room":
            workers[server].go_on.set()
            await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks:
            behind = it.job("other", name="send in turn", timeout=timeout) if group is None else group.wait()
            tasks.start_soon(wait_for, behind)
            await anyio.wait_all_tasks_blocked()
            workers[server].go_on.set()

    async def wait_for(what: Awaitable[Any]) -> None:
        with pytest.raises((JobError, JobGroupError)):
            await what

    it, other = Circle("it", ask), Circle("other", ask)
    async with running(it, other, bus=MemoryBus(max_buffer_size=8)) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(wait_for, runner.job(server, name="send in turn"))
        await (it if server == "it" else other).begun.wait()
        await runner.bus.send(note(0, "it"))
        with anyio.fail_after(5):
            await it.done.wait()


async def test_a_hook_may_await_a_job_that_stands_in_line_for_a_pool_whose_members_have_lines_too() -> None:
    """B9, J13, S5: who waits in the one line is not forgotten for those in the other."""
    members: list[Circle] = []

    async def ask(it: Circle) -> None:
        with pytest.raises(JobError):
            await it.job("pool", name="send in turn")

    def made(name: str) -> Circle:
        members.append(Circle(name, ask))
        return members[-1]

    it, pool = Circle("it", ask), WorkerPool("pool", made, size=1, concurrency=2)
    async with running(it, pool, bus=MemoryBus(max_buffer_size=8)) as runner, anyio.create_task_group() as tasks:

        async def wait_for() -> None:
            with pytest.raises(JobError):
                await runner.job("pool", name="send in turn")

        for _ in range(2):  # one is at work, and one waits for its turn
            tasks.start_soon(wait_for)
        await members[0].begun.wait()
        await settle()
        await runner.bus.send(note(0, "it"))
        await eventually(lambda: pool.waiting == 1)
        members[0].go_on.set()
        with anyio.fail_after(5):
            await it.done.wait()


@pytest.mark.parametrize("how", ["unawaited", "given up", "answered"])
async def test_a_handler_that_no_hook_waits_for_waits_for_room(how: str) -> None:
    """B9: since nobody awaits its job, or nobody any more, or since it has answered."""

    async def ask(it: Circle) -> None:
        if how == "unawaited":
            await it.request_job("it", name="send")
        elif how == "given up":
            group = await it.create_job_group_and_request_job(["it"], name="send in turn")
            with anyio.move_on_after(0.1):
                await group.wait()
            it.go_on.set()
        else:
            await it.job("it", name="answer and send")
        await it.begun.wait()
        await anyio.wait_all_tasks_blocked()

    it = Circle("it", ask)
    async with running(it, bus=MemoryBus(max_buffer_size=8)) as runner:
        await runner.bus.send(note(0, "it"))
        await it.done.wait()
        await eventually(lambda: it.heard == list(range(12)))
    assert not it.refused


async def test_nothing_of_jobs_is_left_on_a_bounded_bus() -> None:
    """B9, R9: who waits for whom is forgotten with the job."""
    bus = MemoryBus(max_buffer_size=1)
    async with running(Helper("a"), bus=bus) as runner:
        await runner.job("a", name="echo")
        with pytest.raises(JobError):
            await runner.job("a", name="fail")
        assert not bus.job_groups


async def test_a_lane_takes_as_many_as_it_has_room_for() -> None:
    """B9: beside the one that is handled; the next sender waits."""
    log = Log(holds=Note)
    async with running(Listener("it", log), bus=MemoryBus(max_buffer_size=3)) as runner:
        for n in range(4):
            await runner.bus.send(note(n, "it"))
            await settle()
        async with anyio.create_task_group() as group:
            group.start_soon(runner.bus.send, note(4, "it"))
            await settle()
            assert runner.bus.statistics().subscribers["it"].depth == 3
            log.release.set()
        await eventually(lambda: len(log.done) == 5)


async def test_the_hooks_of_activations_take_no_room() -> None:
    """B9: what the library queues for itself is not counted."""
    gate = anyio.Event()

    class Slow(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await gate.wait()

        async def on_activated(self, args: object) -> None:
            self.calls.append("activated")

    worker = Slow("it")
    async with running(worker, bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "it"))
        await settle()
        await runner.bus.send(BusActivateWorkerMessage(None, source="me", target="it"))
        with anyio.move_on_after(1) as scope:
            await runner.bus.send(note(1, "it"))
        assert not scope.cancelled_caught
        gate.set()


async def test_a_task_that_a_hook_starts_in_the_workers_own_group_waits_for_room() -> None:
    """B9: the hook does not wait for it, so that there is room when the hook is over."""
    log = Log()

    class Worker(Listener):
        async def run(self, params: WorkerParams) -> None:
            self.params = params
            await super().run(params)

        async def send_three(self) -> None:
            for n in range(1, 4):
                await self.send_bus_message(note(n, "it"))
            sent.set()

        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.params.task_group.start_soon(self.send_three)
            await anyio.wait_all_tasks_blocked()
            assert not sent.is_set()

    sent = anyio.Event()
    async with running(Worker("it", log), bus=MemoryBus(max_buffer_size=1)):
        await sent.wait()
        await eventually(lambda: lanes(log.done)[0] == [1, 2, 3])


class Asker(Helper):
    """Is stuck in a hook, with its data lane full, while it asks for jobs."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.log = Log(holds=Note)

    async def on_bus_message(self, message: BusMessage) -> None:
        await self.log(message)


class ChoosingAsker(Asker):
    """The same, with an ``accepts_bus_message`` of its own."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


class Talker(Helper):
    """Answers with a stream, or with updates."""

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(message.job_id)
        for n in range(5):
            await self.send_job_stream_data(message.job_id, {"n": n})
        await self.send_job_stream_end(message.job_id)

    @job(name="tell")
    async def tell(self, message: BusJobRequestMessage) -> None:
        for n in range(5):
            await self.send_job_update(message.job_id, {"n": n})


@pytest.mark.parametrize("kind", [Asker, ChoosingAsker])
@pytest.mark.parametrize("name", ["echo", "stream", "tell"])
async def test_what_belongs_to_a_job_that_was_asked_for_is_never_held_up(kind: type[Asker], name: str) -> None:
    """B9: answers, updates and stream events, however full the lane."""
    asker = kind("asker")
    async with running(asker, Talker("talker"), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "asker"))
        await asker.log.entered.wait()
        await runner.bus.send(note(1, "asker"))
        for _ in range(3):
            await asker.job("talker", name=name)
        asker.log.release.set()


@pytest.mark.parametrize("kind", [Asker, ChoosingAsker])
async def test_what_belongs_to_a_job_that_was_asked_for_is_not_counted(kind: type[Asker]) -> None:
    """B9: answers that wait for the hook leave the room to others."""
    asker = kind("asker")
    async with running(asker, Talker("talker"), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "asker"))
        await asker.log.entered.wait()
        await asker.job("talker", name="tell")
        with anyio.fail_after(1):
            await runner.bus.send(note(1, "asker"))
        asker.log.release.set()


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_what_the_library_sends_is_never_held_up(kind: str) -> None:
    """B9: a worker with a full lane is still deactivated, activated and ended."""
    log = Log(holds=Note)
    worker = (Listener if kind == "worker" else Chooser)("it", log)
    async with running(worker, Helper("boss"), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "it"))
        await log.entered.wait()
        await runner.bus.send(note(1, "it"))
        boss = runner.get_worker("boss")
        assert isinstance(boss, Helper)
        await boss.deactivate_worker("it")
        await eventually(lambda: not worker.active)
        await runner.bus.send(BusActivateWorkerMessage(source="boss", target="it"))
        await eventually(lambda: worker.active)
        await runner.end()
        log.release.set()


async def test_a_worker_without_the_hook_is_never_full() -> None:
    """B9: the bound is on what waits for a hook or for ``on_bus_message``."""
    helper = Helper("helper")
    async with running(helper, bus=MemoryBus(max_buffer_size=1)) as runner:
        for n in range(20):
            await runner.bus.send(note(n, "helper"))
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(_ask, runner)
            await helper.begun.wait()
            helper.release.set()


async def _ask(runner: WorkerRunner) -> None:
    await runner.job("helper", name="wait")


@pytest.mark.parametrize("how", ["a handler of its event", "put on the object", "patched on the class"])
async def test_a_worker_that_gets_the_hook_while_it_runs_is_full_from_then_on(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B9, N7: and has never been full before."""

    class Deaf(BaseWorker):
        pass

    async def hear(*args: Any) -> None:
        if isinstance(args[-1], Note):
            await log(args[-1])

    log, worker = Log(holds=Note), Deaf("it")
    async with running(worker, bus=MemoryBus(max_buffer_size=1)) as runner, anyio.create_task_group() as tasks:
        for n in range(3):
            await runner.bus.send(note(n, "it"))
        if how == "a handler of its event":
            worker.add_event_handler("on_bus_message", hear)
        else:
            monkeypatch.setattr(worker if how == "put on the object" else Deaf, "on_bus_message", hear)
        sending = Sending(tasks, runner.bus, *(note(n, "it") for n in range(3, 7)))
        await log.entered.wait()
        await settle()
        assert not sending.done
        assert runner.bus.statistics().subscribers["it"].depth == 1
        log.release.set()
        await eventually(lambda: sending.done and len(log.done) == 4)


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_what_waits_for_a_workers_start_is_bounded_too(kind: str) -> None:
    """B9, W2: and goes on, in its order, when the worker has started."""
    log = Log()
    bus = MemoryBus(max_buffer_size=2)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers((Listener if kind == "worker" else Chooser)("it", log))
    async with anyio.create_task_group() as tasks:
        await bus.send(note(0, "it"))
        await bus.send(note(1, "it"))
        sending = Sending(tasks, bus, note(2, "it"), note(3, "it"), note(4, "it"))
        await anyio.wait_all_tasks_blocked()
        assert not sending.done
        async with runner:
            await eventually(lambda: sending.done and len(log.done) == 5)
    assert lanes(log.done)[0] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_who_waits_for_the_start_of_a_worker_goes_on_when_it_starts_inactive(kind: str) -> None:
    """B9, W4: what waited is dropped by then, and leaves its room."""
    log = Log()

    class Idle(BaseWorker):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await log(message)

    class ChoosingIdle(Idle):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    bus = MemoryBus(max_buffer_size=1)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers((Idle if kind == "worker" else ChoosingIdle)("it", active=False))
    async with anyio.create_task_group() as tasks:
        sending = Sending(tasks, bus, *(note(n, "it") for n in range(4)))
        await anyio.wait_all_tasks_blocked()
        assert not sending.done
        async with runner:
            await eventually(lambda: sending.done)
    assert log.got == []


async def test_a_worker_without_the_hook_is_not_full_before_its_start_either() -> None:
    """B9: nothing of it will wait for a hook."""
    bus = MemoryBus(max_buffer_size=1)
    helper = Helper("helper")
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(helper)
    with anyio.fail_after(1):
        for n in range(3):
            await bus.send(note(n, "helper"))
    async with runner:
        await runner.job("helper", name="echo")


@pytest.mark.parametrize("kind", ["plain", "choosing worker"])
async def test_a_refused_message_gives_its_place_back(kind: str) -> None:
    """B9, N4: a sender that waits for room goes on when what was before it has been refused."""
    log = Log()

    class Picky(Plain):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return not (isinstance(message, Note) and message.n < 3)

    bus = MemoryBus(max_buffer_size=1)
    if kind == "plain":
        async with bus, anyio.create_task_group() as tasks:
            await bus.subscribe(Picky("it", on=log))
            sending = Sending(tasks, bus, *(note(n, "it") for n in range(5)))
            await eventually(lambda: sending.done and len(log.done) == 2)
    else:
        worker = Chooser("it", log)
        worker.refused = (0, 1, 2)
        async with running(worker, bus=bus), anyio.create_task_group() as tasks:
            sending = Sending(tasks, bus, *(note(n, "it") for n in range(5)))
            await eventually(lambda: sending.done and len(log.done) == 2)
    assert lanes(log.done)[0] == [3, 4]


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_senders_that_wait_for_a_worker_go_on_when_it_becomes_inactive(kind: str) -> None:
    """B9, W4: an inactive worker drops custom messages; whoever waits for room is not forgotten."""
    log = Log(holds=Note)
    worker = (Listener if kind == "worker" else Chooser)("it", log)
    bus = MemoryBus(max_buffer_size=1)
    async with running(worker, Helper("boss"), bus=bus) as runner, anyio.create_task_group() as tasks:
        await bus.send(note(0, "it"))
        await log.entered.wait()
        sending = Sending(tasks, bus, *(note(n, "it") for n in range(1, 6)))
        await anyio.wait_all_tasks_blocked()
        await runner.bus.send(BusActivateWorkerMessage(source="boss", target="it"))
        boss = runner.get_worker("boss")
        assert isinstance(boss, Helper)
        await boss.deactivate_worker("it")
        await eventually(lambda: not worker.active)
        log.release.set()
        await eventually(lambda: sending.done)


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_a_sender_that_waits_for_room_is_released_when_the_worker_stops(kind: str) -> None:
    """B9, B5: whoever waits for a worker that finishes goes on."""
    log = Log(holds=Note)
    worker = (Listener if kind == "worker" else Chooser)("it", log)
    bus = MemoryBus(max_buffer_size=1)
    async with running(worker, bus=bus), anyio.create_task_group() as tasks:
        await bus.send(note(0, "it"))
        await log.entered.wait()
        await bus.send(note(1, "it"))
        sending = Sending(tasks, bus, note(2, "it"))
        await anyio.wait_all_tasks_blocked()
        assert not sending.done
        await worker.stop()
        await eventually(lambda: sending.done)


@pytest.mark.parametrize("size", [1, 2])
async def test_sending_to_a_worker_with_a_full_lane_that_is_stopping_does_not_hang(size: int) -> None:
    """B9, B5: its handler is still cleaning up when somebody sends; nobody will ever take what waits."""
    log = Log(holds=Note)
    cleaning, cleaned = anyio.Event(), anyio.Event()

    class Slow(Listener):
        @job(name="slow")
        async def slow(self, message: BusJobRequestMessage) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                cleaning.set()
                with anyio.CancelScope(shield=True):
                    await cleaned.wait()

    worker = Slow("it", log)
    asker = Helper("asker")
    bus = MemoryBus(max_buffer_size=size)
    async with running(worker, asker, bus=bus), anyio.create_task_group() as tasks:
        await asker.request_job("it", name="slow")
        await bus.send(note(0, "it"))
        await log.entered.wait()
        for n in range(size):
            await bus.send(note(n + 1, "it"))
        tasks.start_soon(worker.stop)
        await cleaning.wait()
        await anyio.wait_all_tasks_blocked()
        sending = Sending(tasks, bus, note(9, "it"))
        await anyio.wait_all_tasks_blocked()
        cleaned.set()
        await worker.wait()
        await anyio.wait_all_tasks_blocked()
        assert sending.done
        tasks.cancel_scope.cancel()


async def test_a_request_that_finds_no_room_runs_into_its_timeout() -> None:
    """B9, J6: the deadline covers the wait for room."""
    log = Log(holds=Note)
    async with running(Listener("it", log), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "it"))
        await log.entered.wait()
        await runner.bus.send(note(1, "it"))
        with pytest.raises(JobTimeoutError):
            await runner.job("it", name="any", timeout=0.05)
        log.release.set()


async def test_an_update_finds_room_where_there_is_none() -> None:
    """B9: for the one that asked, and for nobody else."""
    release = anyio.Event()
    bus = MemoryBus(max_buffer_size=1)
    asker, other = Plain("asker", on=lambda _: release.wait()), Plain("other", receives="own", on=lambda _: None)
    await bus.subscribe(asker)
    await bus.subscribe(other)
    async with bus:
        await bus.send(note(1, target="asker"))
        await asker.until(1)
        await bus.send(note(2, target="asker"))
        update = BusJobUpdateMessage("job", source="other", target="asker")
        await bus.send(update)
        assert bus.statistics().subscribers["asker"].depth == 2
        held = BusJobUpdateMessage("job", source="asker", target="other")
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bus.send, held)
                await other.until(1)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        release.set()
        await asker.until(3)
    assert asker.got == [note(1, target="asker"), note(2, target="asker"), update]
    assert other.got == [held]


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
@pytest.mark.parametrize("lane", [Note, Alarm])
async def test_a_worker_whose_hook_is_suspended_stops_at_once(kind: str, lane: type[Note] | type[Alarm]) -> None:
    """B2, W6: the hook is cancelled, and its end is noticed; nobody waits for `CLEANUP_SECONDS`."""
    log = Log(holds=lane)
    worker = (Listener if kind == "worker" else Chooser)("it", log)
    async with running(worker) as runner:
        await runner.bus.send(lane(0, source="me", target="it"))
        await log.entered.wait()
        with anyio.fail_after(1):
            await worker.stop()
