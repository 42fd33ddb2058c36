"""What holds for runners on any bus, however their messages travel: by reference, through bytes, over a server.

A kind of bus is added in `support.places`.
"""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any
from zlib import crc32

import anyio
import pytest

from support.messages import Alarm, Note, note
from support.pipelines import Spy, worker_of
from support.places import KINDS, REAL_TIME, Places
from support.redis_servers import RedisServer
from support.requesters import outcome_of
from support.subscribers import Plain
from support.workers import Doing, Helper
from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobRequestMessage,
    JobError,
    JobFailure,
    JobStatus,
    JobTimeoutError,
    NameTakenError,
    WireError,
    WorkerActivationArgs,
    WorkerGoneData,
    WorkerPool,
    WorkerReadyData,
    WorkerRunner,
    bus_message,
    job,
)
from workerbus.pipeline import TextFrame
from workerbus.testing import settle, virtual_backend
from workerbus.wire import register

register(Note, tag="tests.note")
register(Alarm, tag="tests.alarm")


@pytest.fixture(scope="module")
def servers() -> Iterator[list[RedisServer]]:
    """The server that this module has started, if it has."""
    started: list[RedisServer] = []
    yield started
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest, kind: str, backend: str) -> Any:
    if kind in REAL_TIME:
        return backend
    return virtual_backend(backend, seed=crc32(request.node.nodeid.encode()) + request.config.getoption("schedule"))


@pytest.fixture
def places(kind: str, servers: list[RedisServer]) -> Places:
    def server() -> RedisServer:
        if not servers:
            servers.append(RedisServer().__enter__())
        return servers[0]

    return KINDS[kind](server)


PAYLOAD = {"n": [1, 2.5, True, None, "ö"], "deep": {"er": [{}]}}


# --- messages


async def test_messages_of_one_sender_arrive_in_order_at_all_they_are_for(places: Places) -> None:
    """B2, X2: broadcasts and those with a target alike."""
    near, far, other = Plain("near"), Plain("far", receives="own"), Plain("other", receives="own")
    async with places.runners("left", "right") as (left, right):
        await left.bus.subscribe(near)
        await right.bus.subscribe(far)
        await right.bus.subscribe(other)
        sent = [note(n, target=("far", None, "near", "other")[n % 4]) for n in range(200)]
        for message in sent:
            await left.bus.send(message)
        await far.until(100, Note)
        await other.until(100, Note)
        await near.until(100 if not places.in_one_process else 200, Note)
        assert far.of(Note) == [message for message in sent if message.target in (None, "far")]
        assert other.of(Note) == [message for message in sent if message.target in (None, "other")]
        assert [each for each in near.of(Note) if each.target in (None, "near")] == [
            each for each in sent if each.target in (None, "near")
        ]


async def test_headers_travel(places: Places) -> None:
    """X8"""
    far = Plain("far")
    async with places.runners("left", "right") as (left, right):
        await right.bus.subscribe(far)
        await left.bus.send(Note(1, source="me", headers={"tenant": "ö"}))
        (got,) = await far.until(1, Note)
        assert got.headers == {"tenant": "ö"}


@bus_message
class Unregistered(BusDataMessage):
    n: int


async def test_a_message_that_cannot_travel_is_refused_where_it_would_have_to(places: Places) -> None:
    """X1"""
    far = Plain("far")
    async with places.runners("left", "right") as (left, right):
        await right.bus.subscribe(far)
        if places.by_wire:
            with pytest.raises(WireError, match="Unregistered cannot travel: its class was never registered"):
                await left.bus.send(Unregistered(1, source="me"))
            await left.bus.send(note(2))
        else:
            await left.bus.send(Unregistered(1, source="me"))
        await far.until(1, BusDataMessage)
        assert len(far.of(Unregistered)) == (0 if places.by_wire else 1)


# --- jobs


async def test_a_job_is_done_elsewhere(places: Places) -> None:
    """J2, J15, X8: with its payload and its headers, and the answer comes back."""

    async def do(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"payload": message.payload, "headers": dict(message.headers or {}), "source": message.source}

    async with places.runners("left", "right") as (left, right):
        await right.add_workers(Doing("w", do))
        async with left.job("w", name="do", payload=PAYLOAD, headers={"tenant": "a"}) as context:
            pass
        assert context.response["payload"] == PAYLOAD
        assert context.response["headers"] == {"tenant": "a"}


async def test_a_job_waits_for_a_worker_that_comes_later(places: Places) -> None:
    """J4"""
    answers: list[Any] = []

    async def ask(runner: WorkerRunner) -> None:
        answers.append(await runner.job("late", name="echo", payload={"n": 1}))

    async with places.runners("left", "right") as (left, right):
        async with anyio.create_task_group() as group:
            group.start_soon(ask, left)
            await settle()
            assert not answers
            await right.add_workers(Helper("late"))
        assert answers == [{"worker": "late", "payload": {"n": 1}}]


async def test_updates_and_chunks_come_in_order_and_before_the_answer(places: Places) -> None:
    """J7"""

    async def do(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        for n in range(50):
            await worker.send_job_update(message.job_id, {"update": n})
            await worker.send_job_stream_data(message.job_id, {"chunk": n})
        return {"done": True}

    async with places.runners("left", "right") as (left, right):
        await right.add_workers(Doing("w", do))
        async with left.job("w", name="do") as context:
            events = [event.data async for event in context]
        assert [each for each in events if each] == [each for n in range(50) for each in ({"update": n}, {"chunk": n})]
        assert context.response == {"done": True}


async def test_a_stream_waits_for_its_reader_and_loses_nothing(places: Places) -> None:
    """J18, J19"""

    class Counter(BaseWorker):
        @job(name="count")
        async def count(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            for n in range(60):
                yield {"n": n}

    async with places.runners("left", "right") as (left, right):
        await right.add_workers(Counter("counter"))
        async with left.job("counter", name="count", max_buffered_events=4) as context:
            chunks = [chunk["n"] async for chunk in context.stream()]
        assert chunks == list(range(60))


async def test_a_pool_does_jobs_from_elsewhere(places: Places) -> None:
    """S2"""
    async with places.runners("left", "right") as (left, right):
        await right.add_workers(WorkerPool("helpers", Helper, size=3))
        async with anyio.create_task_group() as group:
            for n in range(10):
                group.start_soon(partial(left.job, "helpers", name="echo", payload={"n": n}))
        response = await left.job("helpers", name="echo", payload={"n": 1})
        assert response["payload"] == {"n": 1}
        assert response["worker"].startswith("helpers/")


async def test_how_a_job_ended_is_told(places: Places) -> None:
    """J2, J8: an exception, a refusal, and a name that is none."""

    async def refuse(worker: Doing, message: BusJobRequestMessage) -> None:
        raise JobFailure("no such page", status=404)

    async with places.runners("left", "right") as (left, right):
        await right.add_workers(Helper("helper"), Doing("w", refuse))
        assert await outcome_of(left, "helper", name="fail") == (
            JobStatus.ERROR,
            {"error": "it went wrong", "type": "ValueError"},
        )
        status, response = await outcome_of(left, "w", name="do")
        assert status is JobStatus.FAILED
        assert response == {"error": "no such page", "type": "JobFailure", "status": 404}
        with pytest.raises(JobError) as caught:
            await left.job("helper", name="unheard of")
        assert caught.value.statuses["helper"] in (JobStatus.FAILED, JobStatus.ERROR)


async def test_a_cancel_unwinds_the_handler(places: Places) -> None:
    """J5"""
    helper = Helper("helper")
    async with places.runners("left", "right") as (left, right):
        await right.add_workers(helper)
        with anyio.CancelScope() as scope:
            async with left.job("helper", name="wait"):
                await helper.begun.wait()
                scope.cancel()
        await helper.unwound.wait()
        assert await left.job("helper", name="echo") == {"worker": "helper", "payload": {}}


async def test_a_deadline_ends_the_job_at_both_ends(places: Places) -> None:
    """J6, J8"""
    helper = Helper("helper")
    async with places.runners("left", "right") as (left, right):
        await right.add_workers(helper)
        await left.job("helper", name="echo")
        while not helper.begun.is_set():  # on a busy machine, time may be up before
            with pytest.raises(JobTimeoutError):
                await left.job("helper", name="wait", timeout=0.2)
        await helper.unwound.wait()


async def test_a_group_asks_workers_wherever_they_are(places: Places) -> None:
    """J16"""
    async with places.runners("left", "middle", "right") as (left, middle, right):
        for runner in (left, middle, right):
            await runner.add_workers(Helper(f"at {runner.name}"))
        names = ["at left", "at middle", "at right"]
        async with left.job_group(*names, name="echo", payload={"n": 1}) as group:
            pass
        assert group.responses == {name: {"worker": name, "payload": {"n": 1}} for name in names}


async def test_a_payload_that_cannot_travel_is_refused_by_its_path(places: Places) -> None:
    """X1: where the job is asked for."""
    async with places.runners("left", "right") as (left, right):
        await right.add_workers(Helper("helper"))
        await left.job("helper", name="echo")
        ask = left.job("helper", name="echo", payload={"items": [{"when": {1}}]})
        if places.by_wire:
            with pytest.raises(WireError) as caught:
                await ask
            assert caught.value.path == "payload.items[0].when"
        else:
            assert (await ask)["payload"] == {"items": [{"when": {1}}]}
        assert await left.job("helper", name="echo", payload={"n": 1}) == {"worker": "helper", "payload": {"n": 1}}


async def test_an_answer_that_cannot_travel_becomes_an_error(places: Places) -> None:
    """J1, X1"""

    async def do(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"items": [{1}]}

    async with places.runners("left", "right") as (left, right):
        await right.add_workers(Doing("w", do))
        status, response = await outcome_of(left, "w", name="do")
        if places.by_wire:
            assert (status, response["type"]) == (JobStatus.ERROR, "WireError")
            assert "response.items[0]" in response["error"]
        else:
            assert (status, response) == (JobStatus.COMPLETED, {"items": [{1}]})


async def test_an_update_that_cannot_travel_is_refused_in_the_handler(places: Places) -> None:
    """X1"""
    raised: list[str] = []

    async def do(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        try:
            await worker.send_job_update(message.job_id, {"at": {1}})
        except WireError as error:
            raised.append(error.path)
        return {}

    async with places.runners("left", "right") as (left, right):
        await right.add_workers(Doing("w", do))
        assert await left.job("w", name="do") == {}
        assert raised == (["update.at"] if places.by_wire else [])


# --- workers and runners


class Watcher(BaseWorker):
    """Hears of another worker."""

    def __init__(self, name: str, watched: str) -> None:
        super().__init__(name)
        self.watched = watched
        self.heard: list[str] = []
        self.news = anyio.Event()

    async def start(self) -> None:
        await super().start()
        await self.watch_workers(self.watched)

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.note(f"{data.worker_name} at {data.runner}")

    async def on_worker_gone(self, data: WorkerGoneData) -> None:
        self.note(f"{data.worker_name} has gone")

    def note(self, text: str) -> None:
        self.heard.append(text)
        self.news.set()
        self.news = anyio.Event()

    async def until(self, text: str) -> None:
        while text not in self.heard:
            await self.news.wait()


async def test_workers_hear_of_those_that_come_and_go_elsewhere(places: Places) -> None:
    """G1, J4"""
    watcher = Watcher("watcher", "helper")
    async with places.runners("left", "right") as (left, right):
        await left.add_workers(watcher)
        helper = Helper("helper")
        await right.add_workers(helper)
        await watcher.until("helper at right")
        await helper.end()
        await watcher.until("helper has gone")
        assert watcher.heard == ["helper at right", "helper has gone"]


async def test_a_worker_is_activated_from_elsewhere_with_what_it_is_told(places: Places) -> None:
    """W3"""
    told: list[Any] = []
    active = anyio.Event()

    class Sleeper(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            told.append(args)
            active.set()

    class Waker(BaseWorker):
        @job(name="wake")
        async def wake(self, message: BusJobRequestMessage) -> None:
            await self.activate_worker("sleeper", args=WorkerActivationArgs(metadata={"why": ["x"]}))

    async with places.runners("left", "right") as (left, right):
        await right.add_workers(Sleeper("sleeper", active=False))
        await left.add_workers(Waker("waker"))
        await left.registry.wait_for("sleeper")
        await left.job("waker", name="wake")
        await active.wait()
        assert told == [{"metadata": {"why": ["x"]}}]


async def test_a_name_is_unique_wherever_the_workers_are(places: Places) -> None:
    """R3, X5"""
    async with places.runners("left", "right") as (left, right):
        await right.add_workers(Helper("helper"), wait=True)
        with pytest.raises(NameTakenError):
            await left.add_workers(Helper("helper"), wait=True)
        assert (await left.job("helper", name="echo"))["worker"] == "helper"


async def test_a_job_of_a_runner_that_ends_is_answered(places: Places) -> None:
    """J1, J4"""
    helper = Helper("helper")
    async with places.runners("left", "right") as (left, right):
        await right.add_workers(helper)
        async with left.job_group("helper", name="wait", cancel_on_error=False) as group:
            await helper.begun.wait()
            await right.end()
        assert group.statuses["helper"] in (JobStatus.ERROR, JobStatus.CANCELLED)
        assert helper.unwound.is_set()


# --- pipelines


async def test_frames_go_from_pipeline_to_pipeline(places: Places) -> None:
    """P3: once each, in order, with what is noted on them."""
    here, there = Spy(), Spy()
    async with places.runners("left", "right") as (left, right):
        front, back = worker_of(here, bridged=(), name="front"), worker_of(there, bridged=(), name="back")
        await left.add_workers(front, wait=True)
        await right.add_workers(back, wait=True)
        await left.registry.wait_for("back")
        for n in range(20):
            await front.queue_frame(TextFrame(f"text {n}", metadata={"n": n}))
        await there.until(20)
        assert there.heard == [f"text {n}" for n in range(20)]
        assert here.heard == there.heard


async def test_a_frame_that_cannot_travel_is_an_error_of_its_pipeline_and_those_behind_it_go_on(places: Places) -> None:
    """P1, X1"""
    errors: list[str] = []
    there = Spy()
    async with places.runners("left", "right") as (left, right):
        front, back = worker_of(Spy(), bridged=(), name="front"), worker_of(there, bridged=(), name="back")
        front.add_event_handler("on_pipeline_error", lambda _worker, frame: errors.append(frame.error))
        await left.add_workers(front, wait=True)
        await right.add_workers(back, wait=True)
        await left.registry.wait_for("back")
        for frame in (TextFrame("one"), TextFrame("two", metadata={"at": {1}}), TextFrame("three")):
            await front.queue_frame(frame)
        await there.until(2 if places.by_wire else 3)
        assert there.heard == (["one", "three"] if places.by_wire else ["one", "two", "three"])
    assert len(errors) == (1 if places.by_wire else 0)
    assert all("for frame.metadata.at: set would come back as list" in error for error in errors)
