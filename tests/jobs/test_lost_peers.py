"""J4, J5, X4: jobs between processes, one of which is lost: the worker's, the requester's, or each for the other."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.conditions import eventually
from support.messages import note
from support.peers import Switch, SwitchBus, bus_of, processes
from support.pools import Member, pool_of
from support.requesters import Listener, outcome_of
from support.runners import runner_on
from support.workers import Helper
from workerbus import (
    Arrival,
    Backoff,
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    JobGroupError,
    JobStatus,
    Peer,
    Rate,
    WorkerRunner,
    job,
)
from workerbus.testing import settle

GONE = "worker 'helper' left without an answer: runner 'host' is gone: its lease is over"
REASON = "the process of the requester is gone: its lease is over"


class Busy(Helper):
    """Its handlers begin, and wait; what has begun, and what has ended and how, is noted."""

    def __init__(self, name: str = "helper") -> None:
        super().__init__(name)
        self.log: list[str] = []
        self.cancelled: list[BusJobCancelMessage] = []
        self.changed = anyio.Event()

    def note(self, what: str) -> None:
        self.log.append(what)
        self.changed.set()
        self.changed = anyio.Event()

    async def until(self, *noted: str) -> None:
        while not set(noted) <= set(self.log):
            await self.changed.wait()

    async def hold(self, name: str) -> dict[str, Any]:
        self.note(f"{name} begins")
        try:
            await self.release.wait()
        finally:
            self.note(f"{name} ends")
        return {"held": name}

    @job(name="hold")
    async def held(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return await self.hold("hold")

    @job(name="one by one", sequential=True)
    async def one_by_one(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return await self.hold(f"one by one {message.payload['n']}")

    @job(name="at most two", limit=2)
    async def at_most_two(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return await self.hold(f"at most two {message.payload['n']}")

    @job(name="later", deferred=True)
    async def later(self, message: BusJobRequestMessage) -> None:
        self.note("later is open")

    @job(name="one in a while", sequential=True, deferred=True, rate=Rate(1, per=5))
    async def one_in_a_while(self, message: BusJobRequestMessage) -> None:
        self.note(f"one in a while {message.payload['n']} is open")

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        try:
            for n in range(1_000_000):
                self.note("stream begins")
                yield {"n": n}
                await anyio.sleep(0.125)
        finally:
            self.note("stream ends")

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        self.cancelled.append(message)
        self.changed.set()
        self.changed = anyio.Event()


@asynccontextmanager
async def asked_from_afar(*workers: BaseWorker) -> AsyncIterator[tuple[WorkerRunner, WorkerRunner]]:
    """A runner that asks, and a runner with workers, each in a process of its own, that know each other."""
    async with processes("asker", "host") as [asker, host]:
        await host.add_workers(*workers)
        for worker in workers:
            await asker.registry.wait_for(worker.name)
        await settle()
        yield asker, host


# --- the worker's process is lost


async def test_a_job_whose_workers_process_is_lost_is_answered_at_once() -> None:
    """J4, X4: ERROR, with the reason, and not at its timeout."""
    busy = Busy()

    async def ask() -> None:
        async with asker.job("helper", name="hold", timeout=10):
            await busy.until("hold begins")
            bus_of(host).kill()

    async with asked_from_afar(busy) as (asker, host):
        begin = current_time()
        with pytest.raises(JobError, match="its lease is over") as caught:
            await ask()
        assert caught.value.statuses == {"helper": JobStatus.ERROR}
        assert caught.value.responses == {"helper": {"error": GONE, "type": "WorkerGone"}}
        assert current_time() == begin
        assert asker.asking == {}


@pytest.mark.parametrize("cancel_on_error", [True, False])
async def test_a_group_of_which_one_workers_process_is_lost(cancel_on_error: bool) -> None:
    """J4, J8: under ``cancel_on_error`` the others are cancelled; without it, they go on."""
    there, here = Busy(), Busy("here")

    async def ask() -> None:
        group = asker.job_group("helper", "here", name="hold", cancel_on_error=cancel_on_error)
        async with group:
            await there.until("hold begins")
            await here.until("hold begins")
            bus_of(host).kill()
            await eventually(lambda: group.statuses)
            here.release.set()
        statuses.update(group.statuses)

    statuses: dict[str, JobStatus] = {}
    async with asked_from_afar(there) as (asker, host):
        await asker.add_workers(here)
        if cancel_on_error:
            with pytest.raises(JobGroupError) as caught:
                await ask()
            statuses = {name: JobStatus(status) for name, status in caught.value.statuses.items()}
        else:
            await ask()
    rest = JobStatus.CANCELLED if cancel_on_error else JobStatus.COMPLETED
    assert statuses == {"helper": JobStatus.ERROR, "here": rest}


async def test_a_stream_whose_workers_process_is_lost_ends_behind_what_had_come() -> None:
    """J4, J7: what was sent is read; then the loop ends, and the context raises."""
    busy = Busy()
    seen: list[int] = []

    async def read() -> None:
        async with asker.job("helper", name="stream", max_buffered_events=4) as stream:
            async for event in stream:
                if event.data is not None:
                    seen.append(event.data["n"])
                if len(seen) == 20:
                    bus_of(host).kill()

    async with asked_from_afar(busy) as (asker, host):
        with pytest.raises(JobError, match="its lease is over"):
            await read()
        assert seen == list(range(len(seen)))
        assert len(seen) >= 20


async def test_the_hooks_of_a_requester_hear_of_the_loss() -> None:
    """J4, J16: `on_job_response` with ERROR, and `on_job_error`; the group is gone."""
    busy, listener = Busy(), Listener()
    async with asked_from_afar(busy) as (asker, host):
        await asker.add_workers(listener)
        await asker.registry.wait_for("listener")
        await listener.request_job("helper", name="hold")
        await busy.until("hold begins")
        bus_of(host).kill()
        message = await listener.until("error")
        assert (message.status, message.response["type"]) == (JobStatus.ERROR, "WorkerGone")
        assert listener.job_groups == {}


async def test_a_job_with_more_attempts_goes_to_the_new_worker_of_the_name() -> None:
    """J20, X4: where the requester says that it may be repeated; in whichever process the new one is."""
    first, second = Busy(), Busy()
    second.release.set()
    answers: list[Any] = []

    async def ask() -> None:
        options: dict[str, Any] = {"attempts": 3, "retry_on": "WorkerGone", "backoff": Backoff(initial=0.5)}
        answers.append(await asker.job("helper", name="hold", timeout=60, **options))

    async with asked_from_afar(first) as (asker, host), anyio.create_task_group() as group:
        group.start_soon(ask)
        await first.until("hold begins")
        bus_of(host).kill()
        async with runner_on(SwitchBus(bus_of(asker).switch), "host") as again:
            await again.add_workers(second)
            await eventually(lambda: answers)
    assert answers == [{"held": "hold"}]
    assert (first.log.count("hold begins"), second.log.count("hold begins")) == (1, 1)


async def test_a_job_that_waits_for_a_lost_worker_to_come_again_gets_its_answer() -> None:
    """J4, X4: it was asked for after the loss."""
    async with asked_from_afar(Helper("helper")) as (asker, host):
        bus_of(host).kill()
        await eventually(lambda: not bus_of(asker).peers)
        async with anyio.create_task_group() as group:
            answers: list[Any] = []

            async def ask() -> None:
                answers.append(await asker.job("helper", name="echo"))

            group.start_soon(ask)
            await settle()
            assert not answers
            async with runner_on(SwitchBus(bus_of(asker).switch), "host") as again:
                await again.add_workers(Helper("helper"))
                await eventually(lambda: answers)


async def test_a_worker_that_is_asked_while_it_starts_is_lost_with_its_process() -> None:
    """J4, W2: nobody knows it yet, so the job waits; and goes to who comes then."""

    class Starting(Helper):
        async def on_activated(self, args: object) -> None:
            await anyio.sleep_forever()

    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await asker.job("helper", name="echo"))

    async with asked_from_afar(Helper("other")) as (asker, host):
        await host.add_workers(Starting("helper"))
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await settle()
            bus_of(host).kill()
            await eventually(lambda: not asker.registry.remote_workers)
            await asker.add_workers(Helper("helper"))
            await eventually(lambda: answers)
        assert answers[0]["worker"] == "helper"
        await host.get_worker("helper").cancel()  # type: ignore[union-attr]  # it is there


async def test_a_worker_that_has_failed_and_is_restarted_is_lost_with_its_process() -> None:
    """J4, S1: a job that waited for its restart waits for whoever comes now."""

    class Failing(Helper):
        @job(name="crash")
        async def crash(self, message: BusJobRequestMessage) -> None:
            raise _Crash

    async with processes("asker", "host") as [asker, host]:
        await host.supervise(lambda: Failing("helper"), backoff=Backoff(initial=1000, maximum=1000))
        with pytest.raises(JobError):
            await asker.job("helper", name="crash")
        await eventually(lambda: "helper" in asker.registry.restarting)
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await asker.job("helper", name="echo"))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await settle()
            bus_of(host).kill()
            await eventually(lambda: not asker.registry.restarting)
            await asker.add_workers(Helper("helper"))
            await eventually(lambda: answers)


class _Crash(BaseException):
    """Ends the worker whose handler raises it."""


# --- who was asked


async def test_a_loss_fails_the_jobs_that_asked_there_and_no_others() -> None:
    """J4: the name is known here, too, while the lost one still had it; each job is answered for whom it was asked."""
    there, here = Busy("twin"), Busy("twin")
    async with processes("asker", "host") as [asker, host]:
        await host.add_workers(there)
        await asker.registry.wait_for("twin")
        async with anyio.create_task_group() as group:
            outcomes: list[Any] = []

            async def ask() -> None:
                try:
                    outcomes.append(await asker.job("twin", name="hold"))
                except JobError as error:
                    outcomes.append(error.responses["twin"]["type"])

            group.start_soon(ask)
            await there.until("hold begins")
            bus_of(asker).switch.names.clear()  # as where a network knows no claims
            await asker.add_workers(here)
            await eventually(lambda: "twin" in asker.registry.local_workers)
            group.start_soon(ask)
            await here.until("hold begins")
            bus_of(host).kill()
            await eventually(lambda: outcomes)
            assert outcomes == ["WorkerGone"]
            here.release.set()
        assert outcomes == ["WorkerGone", {"held": "hold"}]


async def test_the_departure_of_an_old_worker_does_not_concern_the_requests_to_a_new_one() -> None:
    """J4: the new one of its name is known before it is known that the old one has gone."""
    old, new = Busy("twin"), Busy("twin")
    async with processes("asker", "one", "two") as [asker, one, two]:
        await one.add_workers(old)
        await asker.registry.wait_for("twin")
        bus_of(one).switch.names.clear()  # as where a network knows no claims
        await two.add_workers(new)
        await eventually(lambda: any(message.source == "twin" for _, message in bus_of(asker).arrivals[-1:]))
        async with anyio.create_task_group() as group:
            outcomes: list[Any] = []

            async def ask() -> None:
                try:
                    outcomes.append(await asker.job("twin", name="hold"))
                except JobError as error:
                    outcomes.append(error.responses["twin"]["type"])

            group.start_soon(ask)
            await old.until("hold begins")
            assert not new.log
            bus_of(one).kill()
            await eventually(lambda: outcomes)
            group.start_soon(ask)
            await new.until("hold begins")
            assert len(outcomes) == 1
            new.release.set()
        assert outcomes == ["WorkerGone", {"held": "hold"}]


# --- the requester's process is lost


@asynccontextmanager
async def asking(asker: WorkerRunner, *requests: dict[str, Any], worker: str = "helper") -> AsyncIterator[None]:
    """Ask for jobs while the block runs; however they end."""

    async def ask(request: dict[str, Any]) -> None:
        with pytest.raises(JobError):
            await asker.job(worker, **request)

    async with anyio.create_task_group() as group:
        for request in requests:
            group.start_soon(ask, request)
            await settle()
        yield


Loss = Callable[[WorkerRunner, WorkerRunner], Awaitable[None]]


async def kill_the_requester(asker: WorkerRunner, host: WorkerRunner) -> None:
    """Its process is gone; in this one it has to be told that, for its part, all others are."""
    bus_of(asker).kill()
    bus_of(asker).end_life("it was killed")
    await eventually(lambda: not bus_of(host).peers)


async def fence_the_requester(asker: WorkerRunner, host: WorkerRunner) -> None:
    bus_of(asker).fence()
    await eventually(lambda: bus_of(asker).me in bus_of(host).peers)


async def fence_the_host(asker: WorkerRunner, host: WorkerRunner) -> None:
    """The one with the workers is cut off: for its part, all others are gone."""
    bus_of(host).fence("its lease is over")
    await eventually(lambda: bus_of(host).me in bus_of(asker).peers)


every_loss = pytest.mark.parametrize("lose", [kill_the_requester, fence_the_requester, fence_the_host])


@every_loss
@pytest.mark.parametrize("name", ["hold", "stream"])
async def test_the_handler_of_a_lost_requester_is_cancelled_and_unwinds(lose: Loss, name: str) -> None:
    """J5, X4: `on_job_cancelled` says why; nothing of the job is left."""
    busy = Busy()
    async with asked_from_afar(busy) as (asker, host):
        async with asking(asker, {"name": name}):
            await busy.until(f"{name} begins")
            await lose(asker, host)
            await busy.until(f"{name} ends")
        await eventually(lambda: busy.cancelled)
        assert [message.reason for message in busy.cancelled] == [REASON]
        assert busy.active_jobs == {}
        assert host.statistics().jobs_answered[JobStatus.CANCELLED] == 1


@every_loss
async def test_jobs_without_a_handler_that_runs_are_over_with_their_requester(lose: Loss) -> None:
    """J5, J13, X4: deferred ones, delayed ones, and those in line, whose turn never comes."""
    busy = Busy()
    async with asked_from_afar(busy) as (asker, host):
        requests: list[dict[str, Any]] = [
            {"name": "later"},
            {"name": "hold", "delay": 3},
            *({"name": "one by one", "payload": {"n": n}} for n in range(3)),
            *({"name": "at most two", "payload": {"n": n}} for n in range(4)),
        ]
        async with asking(asker, *requests):
            await eventually(lambda: len(busy.active_jobs) == len(requests))
            await settle()
            begun = list(busy.log)
            assert sorted(begun) == [
                "at most two 0 begins", "at most two 1 begins", "later is open", "one by one 0 begins",
            ]  # fmt: skip
            await lose(asker, host)
            await eventually(lambda: not busy.active_jobs)
            await eventually(lambda: len(busy.cancelled) == len(requests))
        await anyio.sleep(5)
        assert [what for what in busy.log if "begins" in what] == [what for what in begun if "begins" in what]
        assert host.statistics().jobs_answered[JobStatus.CANCELLED] == len(requests)


async def test_the_jobs_of_a_lost_requester_are_cancelled_at_all_workers() -> None:
    """J5, X4"""
    workers = [Busy(f"w{n}") for n in range(4)]
    async with asked_from_afar(*workers) as (asker, host):
        async with anyio.create_task_group() as group:
            for worker in workers[1:]:
                group.start_soon(partial(outcome_of, asker, worker.name, name="hold"))
            for worker in workers[1:]:
                await worker.until("hold begins")
            await kill_the_requester(asker, host)
            for worker in workers[1:]:
                await worker.until("hold ends")
        assert host.statistics().jobs_answered[JobStatus.CANCELLED] == 3


async def test_the_jobs_of_others_go_on_when_a_requester_is_lost() -> None:
    """X4: those in line behind it get their turn."""
    busy = Busy()
    async with processes("asker", "host", "other") as [asker, host, other]:
        await host.add_workers(busy)
        for runner in (asker, other):
            await runner.registry.wait_for("helper")
        async with asking(asker, *({"name": "one by one", "payload": {"n": n}} for n in range(2))):
            await busy.until("one by one 0 begins")
            async with other.job("helper", name="one by one", payload={"n": 7}) as theirs:
                await eventually(lambda: len(busy.active_jobs) == 3)
                bus_of(asker).kill()
                bus_of(asker).end_life("it was killed")
                await busy.until("one by one 7 begins")
                busy.release.set()
            assert theirs.response == {"held": "one by one 7"}
        assert "one by one 1 begins" not in busy.log


async def test_those_of_a_lost_requester_who_wait_in_line_take_nobody_s_time() -> None:
    """J13, X4: where the first of the line goes, too, the second does not get its place, and no time of the rate."""
    busy = Busy()
    async with processes("asker", "host", "other") as [asker, host, other]:
        await host.add_workers(busy)
        for runner in (asker, other):
            await runner.registry.wait_for("helper")
        async with asking(asker, *({"name": "one in a while", "payload": {"n": n}} for n in range(3))):
            await busy.until("one in a while 0 is open")
            async with other.job("helper", name="one in a while", payload={"n": 7}) as theirs:
                await eventually(lambda: len(busy.active_jobs) == 4)
                await anyio.sleep(8)
                lost = current_time()
                bus_of(asker).kill()
                bus_of(asker).end_life("it was killed")
                await busy.until("one in a while 7 is open")
                assert current_time() - lost < 1
                await busy.send_job_response(theirs.job_id, {"n": 7})
            assert theirs.response == {"n": 7}
        assert busy.log == ["one in a while 0 is open", "one in a while 7 is open"]


@every_loss
@pytest.mark.parametrize("shared", [None, "one"], ids=["alone", "shared"])
async def test_a_pool_gives_up_the_jobs_of_a_lost_requester(lose: Loss, shared: str | None) -> None:
    """S2, X4: those that members have, which unwind, and those that wait for one; asked in a shared name, too."""
    log: list[Any] = []
    pool = pool_of(2, log=log, shared=shared)
    async with asked_from_afar(pool) as (asker, host):
        requests = [{"name": "sleep", "payload": {"n": n, "seconds": 60}} for n in range(5)]
        async with asking(asker, *requests, worker="pool"):
            await eventually(lambda: len(log) == 2)
            await lose(asker, host)
            await eventually(lambda: not pool.active_jobs)
        assert sorted(log) == [("begun", 0), ("begun", 1), ("end", 0), ("end", 1)]
        begin = current_time()
        assert (await host.job("pool", name="who", payload={"n": 9}))["n"] == 9
        assert current_time() == begin


async def test_members_of_a_pool_that_ask_in_a_lost_process_ask_again_elsewhere() -> None:
    """S2, J20, X4: `pool.map`, whose members' handlers retry."""

    class Fetching(Member):
        @job(name="fetch")
        async def fetch(self, message: BusJobRequestMessage) -> dict[str, Any]:
            again: dict[str, Any] = {"attempts": 2, "retry_on": "WorkerGone", "backoff": Backoff(initial=0.5)}
            return await self.job("helper", name="hold", **again)

    first, second = Busy(), Busy()
    second.release.set()
    pool = pool_of(3, kind=Fetching)
    async with asked_from_afar(first) as (asker, host):
        await asker.add_workers(pool)
        await asker.registry.wait_for("pool")
        async with pool.map("fetch", [{"n": n} for n in range(6)]) as answers:
            await eventually(lambda: first.log.count("hold begins") == 3)
            bus_of(host).kill()
            async with runner_on(SwitchBus(bus_of(asker).switch), "host") as again:
                await again.add_workers(second)
                assert [answer.response async for answer in answers] == [{"held": "hold"}] * 6
    assert first.log.count("hold begins") == 3


# --- requests that wait when their requester is lost


class Choosy(Busy):
    """Its messages wait until it has been asked whether it accepts them."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


class Slow(Busy):
    """Starts, and handles each message, when it is let."""

    def __init__(self, *, starts: bool) -> None:
        super().__init__()
        self.gate = anyio.Event()
        self.starts = starts

    async def start(self) -> None:
        if not self.starts:
            await self.gate.wait()
        await super().start()

    async def on_bus_message(self, message: BusMessage) -> None:
        self.note("hears")
        await self.gate.wait()


def arrives_and_is_lost(bus: SwitchBus, peer: Peer) -> None:
    """Let a request arrive, and its requester be lost behind it, in one step."""
    request = BusJobRequestMessage("late", "hold", source="asker", target="helper")
    assert bus.arrive(request, peer) is Arrival.DELIVERED
    bus.lose(peer, "its lease is over")


async def test_a_request_that_waits_to_be_accepted_starts_no_handler_when_its_requester_is_lost() -> None:
    """X4, J5: it is over when the worker comes to it."""
    busy = Choosy()
    async with asked_from_afar(busy) as (asker, host):
        arrives_and_is_lost(bus_of(host), bus_of(asker).me)
        await settle()
        assert busy.log == []
        assert host.statistics().jobs_answered[JobStatus.CANCELLED] == 1


async def test_a_request_that_waits_for_the_start_starts_no_handler_when_its_requester_is_lost() -> None:
    """X4, W2: it is over when the worker starts."""
    slow = Slow(starts=False)
    async with processes("asker", "host") as [asker, host]:
        await host.add_workers(slow)
        await settle()
        arrives_and_is_lost(bus_of(host), bus_of(asker).me)
        slow.gate.set()
        await slow.until("hears")
        await settle()
        assert slow.log == ["hears"]
        assert host.statistics().jobs_answered[JobStatus.CANCELLED] == 1


async def test_a_request_that_waits_for_room_starts_no_handler_when_its_requester_is_lost() -> None:
    """X4, X7: it is over when there is room in the worker's lane."""
    slow, switch = Slow(starts=True), Switch()
    async with (
        runner_on(SwitchBus(switch), "asker") as asker,
        runner_on(SwitchBus(switch, max_buffer_size=1), "host") as host,
    ):
        await host.add_workers(slow)
        await asker.registry.wait_for("helper")
        await asker.bus.send(note(1, target="helper"))
        await slow.until("hears")
        await asker.bus.send(note(2, target="helper"))
        await eventually(lambda: slow.log == ["hears"] and bus_of(host).statistics().subscribers["helper"].depth)
        arrives_and_is_lost(bus_of(host), bus_of(asker).me)
        assert bus_of(host).statistics().subscribers["helper"].depth == 1
        slow.gate.set()
        await eventually(lambda: slow.log.count("hears") == 3)
        await settle()
        assert set(slow.log) == {"hears"}
        assert host.statistics().jobs_answered[JobStatus.CANCELLED] == 1


# --- both


async def test_jobs_both_ways_are_settled_at_both_ends() -> None:
    """X4, J4, J5: each loses the other; each has asked the other for a job."""
    left, right = Busy("left"), Busy("right")
    async with processes("a", "b") as [a, b]:
        await a.add_workers(left)
        await b.add_workers(right)
        await a.registry.wait_for("right")
        await b.registry.wait_for("left")
        async with asking(a, {"name": "hold"}, worker="right"), asking(b, {"name": "hold"}, worker="left"):
            await left.until("hold begins")
            await right.until("hold begins")
            bus_of(a).fence("it was declared lost")
            await left.until("hold ends")
            await right.until("hold ends")
        await a.registry.wait_for("right")
        await b.registry.wait_for("left")
        for busy in (left, right):
            busy.release.set()
        assert await a.job("right", name="hold")
        assert await b.job("left", name="hold")
