"""J1, J5, X1: requests, answers, updates and chunks that cannot travel to another process."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.peers import Switch, SwitchBus, bus_of, processes
from support.pools import pool_of
from support.requesters import outcome_of
from support.runners import runner_on
from support.workers import Helper
from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusMessage,
    JobError,
    JobFailure,
    JobGroupError,
    JobStatus,
    WorkerBus,
    WorkerRunner,
    job,
)
from workerbus.errors import WireError
from workerbus.testing import settle

BAD: dict[str, Any] = {"items": [{"when": {1, 2}}]}


class Answering(Helper):
    """Answers in all ways with what cannot travel."""

    caught: WireError | None = None

    @job(name="returns")
    async def returns(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return BAD

    @job(name="fails")
    async def fails(self, message: BusJobRequestMessage) -> None:
        raise JobFailure("not today", **BAD)

    @job(name="responds")
    async def responds(self, message: BusJobRequestMessage) -> None:
        await self.send_job_response(message.job_id, BAD)
        self.release.set()

    @job(name="responds urgently")
    async def responds_urgently(self, message: BusJobRequestMessage) -> None:
        await self.send_job_response(message.job_id, BAD, urgent=True)

    @job(name="ends a stream")
    async def ends_a_stream(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_end(message.job_id, BAD)

    @job(name="deferred", deferred=True)
    async def answers_later(self, message: BusJobRequestMessage) -> None:
        async def later() -> None:
            await self.send_job_response(message.job_id, BAD)

        self.create_task(later)

    @job(name="updates")
    async def updates(self, message: BusJobRequestMessage) -> None:
        await self.send_job_update(message.job_id, BAD)

    @job(name="starts a stream")
    async def starts_a_stream(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(message.job_id, BAD)

    @job(name="streams")
    async def streams(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        try:
            yield {"n": 1}
            yield BAD
        finally:
            self.unwound.set()

    @job(name="catches")
    async def catches(self, message: BusJobRequestMessage) -> dict[str, Any]:
        for chunk in ({"n": 1}, BAD, {"n": 2}):
            try:
                await self.send_job_stream_data(message.job_id, chunk)
            except WireError as error:
                self.caught = error
        return {"ok": True}


class SendsItself(Answering):
    """Its messages pass by a method of its own."""

    async def send_bus_message(self, message: BusMessage) -> None:
        await anyio.lowlevel.checkpoint()
        await super().send_bus_message(message)


ANSWERS = ["returns", "fails", "responds", "responds urgently", "ends a stream", "deferred"]
PROGRESS = ["updates", "starts a stream", "streams"]


@pytest.mark.parametrize("kind", [Answering, SendsItself])
@pytest.mark.parametrize("name", ANSWERS + PROGRESS)
async def test_an_answer_that_cannot_travel_becomes_an_error_that_says_so(name: str, kind: type[Answering]) -> None:
    """J1, X1: so does an update or a chunk, where the handler does not catch it; with the path in the payload."""
    async with processes("asker", "host") as [asker, host]:
        worker = kind("worker")
        await host.add_workers(worker)
        await asker.job("worker", name="echo")
        status, response = await outcome_of(asker, "worker", name=name)
        assert (status, response["type"]) == (JobStatus.ERROR, "WireError")
        assert "items[0].when" in response["error"]
        assert await outcome_of(asker, "worker", name=name) == (status, response)
        assert worker.active_jobs == {}
        assert worker.release.is_set() is (name == "responds"), "its handler goes on"
        answered = host.statistics().jobs_answered
        assert {status: count for status, count in answered.items() if count} == {
            JobStatus.COMPLETED: 1,
            JobStatus.ERROR: 2,
        }
        assert (await asker.job("worker", name="echo"))["worker"] == "worker"


@pytest.mark.parametrize("urgent", [False, True])
async def test_what_is_told_in_the_place_of_an_answer_is_as_urgent_as_that(urgent: bool) -> None:
    """J14, X1: it overtakes what waits at the requester, or waits with it."""

    class Hurrying(Helper):
        @job(name="hurry")
        async def hurry(self, message: BusJobRequestMessage) -> None:
            await self.send_job_response(message.job_id, BAD, urgent=urgent)

    async with processes("a", "b") as [a, b]:
        await b.add_workers(Hurrying("there"))
        await a.registry.wait_for("there")
        with pytest.raises(JobError, match="items"):
            await a.job("there", name="hurry", timeout=5)
        kinds = [type(message) for _, message in bus_of(a).arrivals if hasattr(message, "status")]
    assert kinds == [BusJobResponseUrgentMessage if urgent else BusJobResponseMessage]


async def test_what_is_answered_in_the_same_process_need_not_travel() -> None:
    """X6: a set arrives as a set."""
    async with processes("host") as [host]:
        await host.add_workers(Answering("worker"))
        assert await host.job("worker", name="returns") == BAD


async def test_an_answer_that_cannot_travel_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """J1, R8: with the worker and the job."""
    async with processes("asker", "host") as [asker, host]:
        await host.add_workers(Answering("worker"))
        await outcome_of(asker, "worker", name="returns")
    [record] = [each for each in caplog.records if "cannot send its answer" in each.message]
    assert record.levelname == "ERROR"
    assert record.worker == "worker"  # type: ignore[attr-defined]  # an attribute of ours


async def test_a_chunk_that_cannot_travel_takes_no_place_in_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    """J19: the handler catches it and goes on; nothing is missing for the reader, nor said to be."""
    async with processes("asker", "host") as [asker, host]:
        worker = Answering("worker")
        await host.add_workers(worker)
        async with asker.job("worker", name="catches", max_buffered_events=2) as stream:
            seen = [event.data async for event in stream if event.type == "stream_data"]
        assert seen == [{"n": 1}, {"n": 2}]
        assert stream.response == {"ok": True}
        assert worker.caught is not None
        assert worker.caught.path == "data.items[0].when"
    assert not any("were lost" in record.message for record in caplog.records)


async def test_a_pools_answer_that_cannot_travel_becomes_an_error() -> None:
    """S2, J1: the member has done its work; the pool answers."""
    async with processes("asker", "host") as [asker, host]:
        pool = pool_of(2, kind=lambda name, _log: Answering(name))
        await host.add_workers(pool)
        status, response = await outcome_of(asker, "pool", name="returns")
        assert (status, response["type"]) == (JobStatus.ERROR, "WireError")
        assert pool.active_jobs == {}


async def test_an_answer_that_waits_for_a_connection_and_cannot_travel_becomes_an_error() -> None:
    """J1, X2: it was posted before the bus had a connection."""

    class Late(SwitchBus):
        def join(self) -> None:
            """Wait with that."""

    switch = Switch()
    late = Late(switch, name="late")
    host = runner_on(late, "host")
    await host.add_workers(Answering("worker"))
    async with runner_on(SwitchBus(switch), "asker") as asker:
        await asker.add_workers(Helper("raw"))
        await asker.registry.wait_for("raw")
        async with late, host:
            await settle()
            late.on_message_received(BusJobRequestMessage("early", "returns", source="raw", target="worker"))
            await settle()
            SwitchBus.join(late)
            await settle()
        answers = [each for _, each in bus_of(asker).arrivals if getattr(each, "job_id", "") == "early"]
        assert [(each.status, each.response["type"]) for each in answers] == [(JobStatus.ERROR, "WireError")]  # type: ignore[attr-defined]  # they are answers


async def test_an_answer_that_a_transport_refuses_in_publish_becomes_an_error() -> None:
    """J1: on a bus whose `publish` may wait, too."""

    class Refusing(WorkerBus):
        async def publish(self, message: BusMessage) -> None:
            if getattr(message, "response", None) == BAD:
                raise WireError("a set", class_name=type(message).__name__, path="response.items[0].when")
            self.on_message_received(message)

    async with WorkerRunner(bus=Refusing(), handle_sigint=False) as runner:
        await runner.add_workers(Answering("worker"))
        status, response = await outcome_of(runner, "worker", name="returns")
        assert (status, response["type"]) == (JobStatus.ERROR, "WireError")


# --- requests


async def test_a_request_that_cannot_travel_leaves_nothing_behind() -> None:
    """X1, J5: it raises at the requester; whatever way it is asked for."""
    async with processes("asker", "host") as [asker, host]:
        await host.add_workers(Helper("helper"))
        await asker.registry.wait_for("helper")
        with pytest.raises(WireError, match=r"payload\.items\[0\]\.when"):
            await asker.job("helper", name="echo", payload=BAD)
        with pytest.raises(WireError):
            await asker.job("helper", name="echo", payload=BAD, timeout=5, attempts=3)
        await settle()
        assert asker.asking == {}
        assert asker.job_client.groups == {}
        assert host.get_worker("helper").calls == []  # type: ignore[union-attr]  # it is a Helper


async def test_a_group_of_which_one_request_cannot_travel_is_cancelled() -> None:
    """J5: the first of three was asked, and has unwound; the third is not asked."""
    async with processes("asker", "host") as [asker, host]:
        helpers = [Helper(name) for name in ("one", "two", "three")]
        await host.add_workers(*helpers)
        for helper in helpers:
            await asker.registry.wait_for(helper.name)
        with pytest.raises(WireError):
            async with asker.job_group("one", "two", "three", name="wait", payloads={"two": BAD}):
                pytest.fail("it was asked for")
        assert not helpers[0].active_jobs
        assert helpers[0].begun.is_set() == helpers[0].unwound.is_set()
        assert [helper.calls for helper in helpers[1:]] == [[], []]
        assert asker.asking == {}


async def test_a_request_without_a_context_that_cannot_travel_is_forgotten() -> None:
    """J5, J14: `request_job_group` of a worker's raises, and there is no group of it."""
    asking = BaseWorker("asking")
    async with processes("asker", "host") as [asker, host]:
        await asker.add_workers(asking)
        await host.add_workers(Helper("one"), Helper("two"))
        for name in ("asking", "one", "two"):
            await asker.registry.wait_for(name)
        with pytest.raises(WireError):
            await asking.request_job_group("one", "two", name="echo", payloads={"two": BAD})
        await settle()
        assert asking.job_groups == {}
        assert asker.asking == {}


# --- what the library says by itself


class OddError(Exception):
    def __str__(self) -> str:
        return "a file named \udc80"


@pytest.fixture
def unlogged(caplog: pytest.LogCaptureFixture) -> None:
    """Log nothing: what is no Unicode cannot be written to most logs, nor to the report of a test."""
    caplog.set_level(logging.CRITICAL + 1, logger="workerbus")


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize("name", ["raises", "crashes"])
async def test_an_error_whose_text_is_no_unicode_is_told_all_the_same(name: str) -> None:
    """J1, J4, X1: in an answer; and when a worker has ended of it, which is told to others."""

    class Raising(Helper):
        @job(name="raises")
        async def raises(self, message: BusJobRequestMessage) -> None:
            raise OddError

        @job(name="crashes", deferred=True)
        async def crashes(self, message: BusJobRequestMessage) -> None:
            self.release.set()

        async def run(self, params: object) -> None:
            await self.start()
            await self.release.wait()
            raise OddError

    async with processes("asker", "host") as [asker, host]:
        host.add_event_handler("on_error", lambda *_: None)
        await host.add_workers(Raising("helper"))
        status, response = await outcome_of(asker, "helper", name=name)
        assert (status, response) == (JobStatus.ERROR, {"error": "a file named \\udc80", "type": "OddError"})
        if name == "crashes":
            await eventually(lambda: not asker.registry.remote_workers)
            with pytest.raises(JobError, match="has failed: OddError: a file named"):
                await asker.job("helper", name="echo")


@pytest.mark.usefixtures("unlogged")
async def test_others_are_cancelled_for_a_reason_that_is_no_unicode() -> None:
    """J5, X1: the words of a worker of this process go to one of another."""

    class Failing(Helper):
        @job(name="wait")
        async def wait_for_release(self, message: BusJobRequestMessage) -> dict[str, Any]:
            await self.release.wait()
            raise JobFailure("a file named \udc80")

    far, near = Helper("far"), Failing("near")
    async with processes("asker", "host") as [asker, host]:
        await asker.add_workers(near)
        await host.add_workers(far)
        with pytest.raises(JobGroupError) as caught:
            await _both(asker, far, near)
        assert caught.value.statuses["far"] == JobStatus.CANCELLED
        assert far.unwound.is_set()


async def _both(asker: WorkerRunner, far: Helper, near: Helper) -> None:
    async with asker.job_group("far", "near", name="wait"):
        await far.begun.wait()
        near.release.set()


async def test_messages_of_the_librarys_own_that_cannot_travel_are_logged_and_reach_who_is_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """X1: nobody could do anything about them."""

    class Odd(BusDataMessage):
        pass

    async with processes("a", "b") as [a, _]:
        heard = Helper("heard")
        await a.add_workers(heard)
        a.bus.post(Odd(source="me"))
    assert any("could not send Odd" in record.message for record in caplog.records)
