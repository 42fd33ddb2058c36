"""X8: headers, which travel with a job's request and come back with all that belongs to the job."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import anyio
import attrs
import pytest

from support.conditions import eventually
from support.messages import Note
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    JobGroupError,
    JobStatus,
    bus_message,
)
from workerbus._slot import core_of
from workerbus.testing import RecordingBus

TRACE = {"traceparent": "00-1-2-01"}


def of_jobs(bus: RecordingBus) -> list[BusMessage]:
    return [message for message in bus.messages() if hasattr(message, "job_id")]


def kinds(bus: RecordingBus) -> set[type[BusMessage]]:
    return {type(message) for message in of_jobs(bus)}


@asynccontextmanager
async def recorded(*workers: BaseWorker) -> AsyncIterator[tuple[RecordingBus, Helper]]:
    bus, asker = RecordingBus(), Helper("asker")
    async with running(asker, *workers, bus=bus):
        yield bus, asker


def test_a_message_has_no_headers_unless_it_is_given_some() -> None:
    """X8: a class of one's own has them too, by keyword; they are shown where they are set."""
    assert repr(Note(1, source="me")) == "Note(source='me', target=None, n=1)"
    message = Note(1, source="me", headers=TRACE)
    assert message.headers is TRACE
    assert repr(message) == f"Note(source='me', target=None, headers={TRACE!r}, n=1)"
    assert message != Note(1, source="me")
    assert attrs.evolve(message, headers=None) == Note(1, source="me")  # type: ignore[misc]  # made by bus_message
    assert BusDataMessage(source="me", headers=TRACE).headers is TRACE


def test_a_message_may_have_headers_of_its_own_making() -> None:
    """X8, N5: a field of that name is the class's own, as every other that it declares again."""

    @bus_message
    class Letter(BusDataMessage):
        headers: Any = ()
        body: str = ""

    assert Letter(["to me"], "hello", source="me").headers == ["to me"]


async def test_the_bus_leaves_headers_alone() -> None:
    """X8."""
    async with recorded() as (bus, asker):
        await asker.send_bus_message(Note(1, source="asker", headers=TRACE))
        assert bus.messages(Note)[0].headers is TRACE


async def tell_all(worker: Doing, message: BusJobRequestMessage) -> None:
    job_id = message.job_id
    await worker.send_job_update(job_id, {"n": 1})
    await worker.send_job_update(job_id, {"n": 2}, urgent=True)
    await worker.send_job_stream_start(job_id)
    await worker.send_job_stream_data(job_id, {"n": 3})
    await worker.send_job_stream_end(job_id, {"n": 4})


async def test_all_that_a_worker_tells_of_a_job_has_the_headers_of_its_request() -> None:
    """X8: updates, and a stream from its start to its end."""
    async with recorded(Doing("doing", tell_all)) as (bus, asker):
        await asker.job("doing", name="do", headers=TRACE)
        assert kinds(bus) == {
            BusJobRequestMessage,
            BusJobUpdateMessage,
            BusJobUpdateUrgentMessage,
            BusJobStreamStartMessage,
            BusJobStreamDataMessage,
            BusJobStreamEndMessage,
        }
        assert all(message.headers is TRACE for message in of_jobs(bus))


async def answer_urgently(worker: Doing, message: BusJobRequestMessage) -> None:
    await worker.send_job_response(message.job_id, urgent=True)


@pytest.mark.parametrize(
    ("worker_name", "name", "kind"),
    [
        ("helper", "echo", BusJobResponseMessage),
        ("helper", "fail", BusJobResponseMessage),
        ("helper", "unknown", BusJobResponseMessage),
        ("idle", "echo", BusJobResponseMessage),
        ("doing", "do", BusJobResponseUrgentMessage),
    ],
)
async def test_an_answer_has_the_headers_of_its_request(worker_name: str, name: str, kind: type[BusMessage]) -> None:
    """X8: whoever makes it, and whatever it says."""
    workers = Helper("helper"), Helper("idle", active=False), Doing("doing", answer_urgently)
    async with recorded(*workers) as (bus, asker):
        await asker.job_group(worker_name, name=name, headers=TRACE, cancel_on_error=False)
        assert kinds(bus) == {BusJobRequestMessage, kind}
        assert all(message.headers is TRACE for message in of_jobs(bus))


async def test_a_cancel_and_a_question_have_the_headers_of_their_request() -> None:
    """X8."""
    helper = Helper("helper")
    async with recorded(helper) as (bus, asker):
        job_id = await asker.request_job("helper", name="wait", headers=TRACE)
        await asker.request_job_update(job_id, "helper")
        await helper.begun.wait()
        await asker.cancel_job_group(job_id)
        await eventually(lambda: not core_of(asker).job_client.groups)
        assert kinds(bus) >= {BusJobCancelMessage, BusJobUpdateRequestMessage, BusJobResponseMessage}
        assert all(message.headers is TRACE for message in of_jobs(bus))


class Told(Helper):
    """Keeps the messages that its hooks get."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.told: list[BusMessage] = []

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        self.told.append(message)

    async def on_job_error(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        self.told.append(message)

    async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        self.told.append(message)


async def test_what_no_message_was_sent_for_has_the_headers_as_well() -> None:
    """X8: a timeout at either side, and the answer in the place of a worker that has gone without one (J4, J6)."""
    helper, asker = Told("helper"), Told("asker")
    async with running(helper, asker) as runner:
        await asker.request_job("helper", name="wait", timeout=1, headers=TRACE)
        await eventually(lambda: bool(helper.told and asker.told))
        asker.told.clear()
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", source="remote"))
        await asker.request_job("remote", headers=TRACE)
        await runner.bus.send(BusWorkerGoneMessage("elsewhere", source="remote"))
        await eventually(lambda: bool(asker.told))
    assert all(message.headers is TRACE for message in [*helper.told, *asker.told])


async def test_every_way_of_asking_takes_headers() -> None:
    """X8: contexts and requests, of a worker and of a runner."""
    bus, asker = RecordingBus(), Helper("asker")
    async with running(Helper("one"), Helper("two"), asker, bus=bus) as runner:
        for who in (asker, runner):
            async with who.job("one", name="echo", headers=TRACE):
                pass
            async with who.job_group("one", "two", name="echo", headers=TRACE):
                pass
            await who.job("one", name="echo", headers=TRACE)
            await who.job_group("one", "two", name="echo", headers=TRACE)
        await asker.request_job("one", name="echo", headers=TRACE)
        await asker.request_job_group("one", "two", name="echo", headers=TRACE)
        group = await asker.create_job_group_and_request_job(["one"], name="echo", headers=TRACE)
        await group.wait()
        await eventually(lambda: not core_of(asker).job_client.groups)
        requests = bus.messages(BusJobRequestMessage)
        assert len(requests) == 16
        assert all(message.headers is TRACE for message in of_jobs(bus))


async def test_an_answer_that_is_none_keeps_its_headers() -> None:
    """X8, J1: one that the library has to make good."""
    asker = Told("asker")
    stranger = Doing("stranger", lambda worker, message: anyio.sleep_forever())
    async with running(stranger, asker) as runner:
        await asker.request_job("stranger", name="do", headers=TRACE)
        (job_id,) = asker.job_groups
        odd: Any = "odd"
        response = BusJobResponseMessage(job_id, odd, odd, source="stranger", target="asker", headers=TRACE)
        await runner.bus.send(response)
        await eventually(lambda: bool(asker.told))
    answer: Any = asker.told[0]
    assert (answer.status, answer.headers) == (JobStatus.ERROR, TRACE)


async def test_a_job_that_is_asked_for_in_a_handler_has_headers_of_its_own() -> None:
    """X8: who wants to pass them on does so."""

    async def ask_again(worker: Doing, message: BusJobRequestMessage) -> Any:
        return await worker.job("helper", name="echo")

    async with recorded(Helper("helper"), Doing("doing", ask_again)) as (bus, asker):
        await asker.job("doing", name="do", headers=TRACE)
        assert [each.headers for each in bus.messages(BusJobRequestMessage)] == [TRACE, None]


async def test_headers_may_be_read_only() -> None:
    """X8: a mapping is enough, and it is passed by reference."""
    headers: Mapping[str, str] = MappingProxyType(TRACE)
    async with recorded(Helper("helper")) as (bus, asker):
        await asker.job("helper", name="echo", headers=headers)
        assert all(message.headers is headers for message in of_jobs(bus))


@pytest.mark.parametrize("headers", ["a=b", [("a", "b")], {"a": 1}, {1: "a"}, {"a": None}, {"a": "b", "c": 1}])
async def test_headers_are_text_by_name(headers: Any) -> None:
    """X8: refused before anybody is asked."""
    async with recorded(Helper("helper")) as (bus, asker):
        with pytest.raises(TypeError, match="headers"):
            asker.job("helper", name="echo", headers=headers)
        with pytest.raises(TypeError, match="headers"):
            await asker.request_job("helper", name="echo", headers=headers)
        assert of_jobs(bus) == []


async def test_the_error_of_a_job_with_headers_is_as_any_other() -> None:
    """X8, J8."""
    async with recorded(Helper("helper")) as (_, asker):
        with pytest.raises(JobGroupError, match="it went wrong"):
            await asker.job_group("helper", name="fail", headers=TRACE)
