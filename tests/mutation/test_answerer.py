"""What a worker makes of the jobs that it is asked for, where no other test looks closely."""

import pytest

from support.requesters import Raw
from support.workers import Helper, running
from workerbus import (
    BusJobRequestMessage,
    BusMessage,
    JobStatus,
)

# --- requests that are refused


class Choosy(Helper):
    """Takes the job ``echo`` and the job ``wait`` only while it is open."""

    open = False

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return self.open or not isinstance(message, BusJobRequestMessage)


REFUSED = (JobStatus.FAILED, {"error": "worker 'choosy' does not accept this request", "type": "Refused"})


async def test_a_request_that_is_not_accepted_is_answered_at_once() -> None:
    """J1, N4: every request that reached a worker gets an outcome; a refused one, FAILED, with the reason."""
    choosy = Choosy("choosy")
    async with running(choosy) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "choosy", "echo")
        assert await raw.answer("job") == REFUSED
    assert choosy.calls == []


async def test_a_refused_request_that_comes_again_is_ignored() -> None:
    """J12: it had its outcome, also where it would be accepted by now."""
    choosy = Choosy("choosy")
    async with running(choosy) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "choosy", "echo")
        await raw.ask("job", "choosy", "echo")
        await raw.answer("job")
        choosy.open = True
        await raw.ask("job", "choosy", "echo")
        await raw.ask("next", "choosy", "echo")
        await raw.answer("next")
        await raw.settle()
        assert raw.answers("job") == [REFUSED]
    assert choosy.calls == ["next"]


@pytest.mark.parametrize("over", [False, True])
async def test_a_request_that_comes_again_and_is_refused_then_leaves_its_job_alone(over: bool) -> None:
    """J1, J12: one outcome, that of the job."""
    choosy = Choosy("choosy")
    choosy.open = True
    async with running(choosy) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "choosy", "wait")
        await choosy.begun.wait()
        if over:
            choosy.release.set()
            await raw.answer("job")
        choosy.open = False
        await raw.ask("job", "choosy", "wait")
        await raw.ask("next", "choosy", "wait")
        assert await raw.answer("next") == REFUSED
        choosy.release.set()
        await raw.answer("job")
        await raw.settle()
        assert raw.answers("job") == [(JobStatus.COMPLETED, {"released": True})]
