"""N1, N7: what a worker sends by its methods goes through a `send_bus_message` that its class overrides."""

from unittest.mock import AsyncMock

import anyio
import pytest

from support.conditions import eventually
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusCancelMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    BusWorkerErrorMessage,
    JobError,
    job,
)


class Sending(Helper):
    """Keeps what it sends."""

    def __init__(self, name: str = "sending", *, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.sent: list[BusMessage] = []

    async def send_bus_message(self, message: BusMessage) -> None:
        self.sent.append(message)
        await super().send_bus_message(message)

    @property
    def kinds(self) -> list[type[BusMessage]]:
        return [type(message) for message in self.sent]

    @job(name="answer", deferred=True)
    async def answer(self, message: BusJobRequestMessage) -> None:
        await self.send_job_update(message.job_id, {"n": 1})
        await self.send_job_response(message.job_id, {"done": True})

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(message.job_id)
        await self.send_job_stream_data(message.job_id, {})
        await self.send_job_stream_end(message.job_id)


class Slow(Helper):
    """Takes its time to send."""

    async def send_bus_message(self, message: BusMessage) -> None:
        await anyio.sleep(10)


async def test_what_the_library_sends_goes_through_one_that_is_put_on_the_object_too() -> None:
    """N1, N7: a mock, say; and no more when it is taken off."""
    sending = Helper("sending")
    async with running(sending, Helper("one")):
        sending.send_bus_message = AsyncMock(wraps=sending.send_bus_message)  # type: ignore[method-assign]  # on purpose
        assert await sending.job("one", name="echo")
        await sending.deactivate_worker("one")
        kinds = [type(call.args[0]) for call in sending.send_bus_message.await_args_list]
        assert kinds == [BusJobRequestMessage, BusDeactivateWorkerMessage]
        del sending.send_bus_message
        await sending.activate_worker("one")
    assert len(kinds) == 2


async def test_jobs_that_are_asked_for_go_through_it() -> None:
    """N1, N7"""
    sending, one = Sending(), Helper("one")
    async with running(sending, one):
        assert await sending.job("one", name="echo")
        async with sending.job_group("one", name="echo"):
            pass
        job_id = await sending.request_job("one", name="wait")
        await sending.request_job_update(job_id, "one")
        one.release.set()
    assert sending.kinds == [BusJobRequestMessage] * 3 + [BusJobUpdateRequestMessage]


async def test_answers_that_are_sent_go_through_it() -> None:
    """N1, N7"""
    sending = Sending()
    async with running(sending) as runner:
        assert await runner.job("sending", name="answer") == {"done": True}
        assert sending.kinds == [BusJobUpdateMessage, BusJobResponseMessage]
        sending.sent.clear()
        assert await runner.job("sending", name="stream") == {}
    assert sending.kinds == [BusJobStreamStartMessage, BusJobStreamDataMessage, BusJobStreamEndMessage]


async def test_activations_children_errors_and_ends_go_through_it() -> None:
    """N1, N7"""
    sending, other = Sending(), Helper("other", active=False)
    async with running(sending, other):
        await sending.add_workers(Helper("child"))
        await sending.send_bus_error_message("broken")
        await sending.activate_worker("other")
        await sending.deactivate_worker("other")
        await sending.activate_worker("other", deactivate_self=True)
        await eventually(lambda: other.active and not sending.active)
        await sending.end(reason="enough")
        await sending.cancel()
    assert sending.kinds == [
        BusAddWorkerMessage,
        BusWorkerErrorMessage,
        BusActivateWorkerMessage,
        BusDeactivateWorkerMessage,
        BusDeactivateWorkerMessage,
        BusActivateWorkerMessage,
        BusEndMessage,
        BusCancelMessage,
    ]


async def test_one_that_is_put_on_the_object_counts() -> None:
    """N7: as a test does it."""
    helper, mock = Helper("helper"), AsyncMock()
    async with running(helper):
        helper.send_bus_message = mock  # type: ignore[method-assign]  # the point of it
        await helper.send_bus_error_message("broken")
        await helper.end()
        del helper.send_bus_message
    assert [type(call.args[0]) for call in mock.await_args_list] == [BusWorkerErrorMessage, BusEndMessage]


async def test_an_answer_that_it_fails_to_send_is_sent_all_the_same() -> None:
    """J1: the job is over at its worker, and must not stay open at its requester."""

    class Failing(Helper):
        async def send_bus_message(self, message: BusMessage) -> None:
            raise ValueError("no line")

        @job(name="answer")
        async def answer(self, message: BusJobRequestMessage) -> None:
            with pytest.raises(ValueError, match="no line"):
                await self.send_job_response(message.job_id, {"done": True})

    async with running(Failing("failing")) as runner:
        assert await runner.job("failing", name="answer") == {"done": True}


async def test_a_request_that_waits_in_it_has_its_timeout() -> None:
    """J6, N7"""
    slow = Slow("slow")
    async with running(slow, Helper("one")):
        begun = anyio.current_time()
        with pytest.raises(TimeoutError):
            await slow.job("one", name="echo", timeout=0.5)
        assert anyio.current_time() - begun == pytest.approx(0.5)


async def test_a_job_that_waits_in_it_to_be_asked_for_can_be_cancelled() -> None:
    """J8, N7: in the short form, too, which has no scope where nothing waits."""
    slow, reasons = Slow("slow"), list[str]()

    async def ask() -> None:
        with pytest.raises(JobError) as caught:
            await slow.job("one", name="echo")
        reasons.append(caught.value.reason)

    async with running(slow, Helper("one")), anyio.create_task_group() as tasks:
        with pytest.raises(TimeoutError):
            await slow.job("one", name="echo", timeout=0.1)  # the first one is asked for with more care
        begun = anyio.current_time()
        tasks.start_soon(ask)
        await eventually(lambda: slow.job_groups)
        await slow.cancel_job_group(next(iter(slow.job_groups)), reason="enough")
        await eventually(lambda: reasons)
        assert anyio.current_time() == begun
    assert reasons == ["enough"]


async def test_what_the_library_sends_in_a_worker_s_name_passes_it_by() -> None:
    """J1, N7: it must neither wait nor be lost."""
    sending, observer = Sending(), Plain("observer")
    async with running(sending) as runner:
        await runner.bus.subscribe(observer)
        assert await runner.job("sending", name="echo")
        await eventually(lambda: observer.of(BusJobResponseMessage))
    assert sending.sent == []
