"""J6: when and why a worker is told that a job of its is cancelled."""

import anyio
from anyio import CancelScope, sleep, sleep_forever

from support.workers import running
from workerbus import BaseWorker, BusJobCancelMessage, BusJobRequestMessage, job
from workerbus.testing import run


class Slow(BaseWorker):
    """Takes a while to unwind."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.told: list[tuple[float, str | None]] = []

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> None:
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(5)

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        self.told.append((anyio.current_time(), message.reason))


def test_that_time_is_up_is_told_when_it_is_whoever_asked(backend: str) -> None:
    """J6: `on_job_cancelled` runs when the handler is cancelled, and not seconds later, when it has unwound."""

    async def program() -> None:
        slow, asker = Slow(), BaseWorker("asker")
        async with running(slow, asker):
            with anyio.move_on_after(1):
                await asker.request_job("slow", name="do")
                await sleep_forever()
            await sleep(1)
            assert [(round(when), reason) for when, reason in slow.told] == [(1, "timeout")]
            await sleep(10)

    run(program, backend=backend)


def test_time_that_is_up_stays_the_reason_whatever_comes_later(backend: str) -> None:
    """J6: a cancel that comes while the handler unwinds changes nothing; the reason is `timeout`."""

    async def program() -> None:
        slow, asker = Slow(), BaseWorker("asker")
        async with running(slow, asker):
            with anyio.move_on_after(1):
                await asker.request_job("slow", name="do")
                await sleep_forever()
            await sleep(1)
            await asker.stop()
            await sleep(10)
        assert [reason for _, reason in slow.told] == ["timeout"]

    run(program, backend=backend)
