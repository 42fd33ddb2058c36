"""R10: a block that is cancelled when the client of a web application has gone."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from anyio import CancelScope, Event, current_time, move_on_after, sleep, sleep_forever

from support.workers import running
from workerbus import BaseWorker, BusJobRequestMessage, JobError, JobFailure, NotRunningError, job
from workerbus.asgi import cancel_on_disconnect

REQUEST = {"type": "http.request", "body": b"", "more_body": False}


class Slow(BaseWorker):
    """Takes for ever, and half a second to clean up.

    Attributes:
        ended: When it was cancelled, and had cleaned up.
    """

    ended: float | None = None

    @job(name="work")
    async def work(self, message: BusJobRequestMessage) -> None:
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(0.5)
            self.ended = current_time()

    @job(name="fail")
    async def fail(self, message: BusJobRequestMessage) -> None:
        raise JobFailure("no paper")


def receiving(*messages: dict[str, Any], after: float = 1) -> Callable[[], Any]:
    """ASGI's `receive`: a request, then other messages, each after a second; then nothing more."""
    rest = [REQUEST, *messages]

    async def receive() -> dict[str, Any]:
        if not rest:
            await sleep_forever()
        message = rest.pop(0)
        await sleep(0 if message is REQUEST else after)
        return message

    return receive


@pytest.mark.parametrize("gone", ["http.disconnect", "websocket.disconnect"])
async def test_a_job_is_cancelled_when_the_client_has_gone_and_has_unwound_when_the_block_is_left(gone: str) -> None:
    """R10, J5: what comes before is dropped; what stands behind the block is run."""
    slow = Slow("slow")
    async with running(slow) as runner:
        began = current_time()
        receive = receiving({"type": "websocket.receive", "text": "hello"}, {"type": gone})
        async with cancel_on_disconnect(receive) as client:
            await runner.job("slow", name="work")
            pytest.fail("the block went on")
        assert client.disconnected
        assert slow.ended == current_time() == began + 2.5


async def test_a_block_that_comes_to_its_end_listens_no_more() -> None:
    """R10, L1: no task is left that would take what another one is to receive."""
    left = Event()

    async def receive() -> Any:
        try:
            await sleep_forever()
        finally:
            left.set()

    async with cancel_on_disconnect(receive) as client:
        await sleep(1)
    assert left.is_set()
    assert not client.disconnected


async def test_a_block_may_be_left_with_a_result() -> None:
    """R10: as an endpoint does."""

    async def endpoint(receive: Any) -> str:
        async with cancel_on_disconnect(receive):
            await sleep(5)
            return "answer"
        return "nobody reads it"

    assert await endpoint(receiving()) == "answer"
    assert await endpoint(receiving({"type": "http.disconnect"})) == "nobody reads it"


async def test_what_the_block_raises_goes_through_as_it_is() -> None:
    """R10, L6: in no exception group, so that a framework's handlers of errors find it."""
    async with running(Slow("slow")) as runner:
        with pytest.raises(JobError, match="no paper") as caught:
            async with cancel_on_disconnect(receiving()):
                await runner.job("slow", name="fail")
    assert caught.value.__cause__ is None
    own = ExceptionGroup("own", [ValueError("one")])
    with pytest.raises(ExceptionGroup) as group:
        async with cancel_on_disconnect(receiving()):
            raise own
    assert group.value is own


async def test_an_error_while_the_block_is_being_cancelled_goes_through() -> None:
    """R10: a clean-up that fails is not hidden."""
    with pytest.raises(ValueError, match="clean-up"):  # noqa: PT012 - the block itself raises
        async with cancel_on_disconnect(receiving({"type": "http.disconnect"})):
            try:
                await sleep_forever()
            finally:
                raise ValueError("clean-up")


async def test_a_cancellation_from_outside_goes_through() -> None:
    """R10, L3: it is not taken for a client that has gone."""
    with move_on_after(1) as scope:
        async with cancel_on_disconnect(receiving()) as client:
            await sleep_forever()
        pytest.fail("the cancellation was swallowed")
    assert scope.cancelled_caught
    assert not client.disconnected


@pytest.mark.parametrize("backend", ["asyncio"])
async def test_a_native_cancellation_goes_through(backend: str) -> None:
    """R10, L3: a server cancels requests so when it is to end."""

    async def endpoint() -> None:
        async with cancel_on_disconnect(receiving()):
            await sleep_forever()
        pytest.fail("the cancellation was swallowed")

    task = asyncio.create_task(endpoint())
    await sleep(1)
    task.cancel("graceful shutdown exceeded")
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_server_is_not_lost() -> None:
    """R10: it is in a group, since it is none of the block's."""

    async def receive() -> Any:
        raise OSError("the server has failed")

    with pytest.raises(ExceptionGroup) as caught:
        async with cancel_on_disconnect(receive):
            await sleep_forever()
    assert isinstance(caught.value.exceptions[0], OSError)


async def test_a_block_is_entered_once() -> None:
    """R10, N8: another one is needed for another request."""
    block = cancel_on_disconnect(receiving())
    async with block:
        pass
    with pytest.raises(NotRunningError, match="entered before"):
        await block.__aenter__()
