"""What the models and the random programs have found, as plain tests."""

import anyio
from anyio import CancelScope, sleep, sleep_forever

from model.script import Setting
from model.stage import play_steps
from model.steps import Advance, Ask, Cancel, Outside, Revive, Stop, Tell
from support.messages import note
from support.workers import running
from workerbus import BaseWorker, BusJobCancelMessage, BusJobRequestMessage, BusMessage, WorkerBus, job
from workerbus.testing import run


class StuckBus(WorkerBus):
    """A bus that never gets rid of what it is to publish."""

    stopped = False

    async def publish(self, message: BusMessage) -> None:
        await sleep_forever()

    async def stop(self) -> None:
        self.stopped = True
        await super().stop()


def test_a_bus_whose_messages_do_not_go_out_is_stopped_all_the_same(backend: str) -> None:
    """L5, L1: `stop()` is called, whether or not the bound of the wind-down is over; a transport closes its streams."""

    async def program() -> None:
        bus = StuckBus()
        async with bus:
            bus.post(note(1))
        assert bus.stopped

    run(program, backend=backend)


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


def test_a_worker_that_stops_leaves_its_own_groups_before_it_answers_them(backend: str) -> None:
    """W6: it has asked itself; its group is cancelled, and not completed by the answer that the worker stops."""
    play_steps(
        Setting(workers=1),
        [Ask(1, "w0", ("w0",), job="defer", cancel_on_error=False), Tell(1, "w0", "return"), Stop("w0")],
        backend=backend,
        seed=0,
    )


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


def test_time_that_an_answered_job_handed_down_is_still_told_when_it_is_up(backend: str) -> None:
    """J6: the outer job has been answered, so that its requester is not cancelled; the inner one is slow to unwind."""
    play_steps(
        Setting(workers=1),
        [
            Ask(2, "runner", ("w0",), timeout=0.25),
            Ask(3, "w0", ("w0",), inside=2),
            Tell(3, "w0", "slow"),
            Outside(2, "w0", "urgent completed"),
            Advance(0.25),
            Stop("w0"),
        ],
        backend=backend,
        seed=779,
    )


def test_a_cancellation_that_comes_while_a_cancelled_job_unwinds_wins(backend: str) -> None:
    """J8: also where the job is only awaited, and has no scope of its own."""
    play_steps(
        Setting(workers=1),
        [
            Ask(1, "asker", ("w0",), form="await", within=0.5),
            Tell(1, "w0", "slow"),
            Cancel(1),
            Advance(0.5),
            Advance(1.5),
        ],
        backend=backend,
        seed=7,
    )


def test_a_worker_that_times_out_for_a_scope_with_more_time_cancels_the_body_at_once(backend: str) -> None:
    """J8, J6: the outer job has been answered, so its time ends nothing; the body of the inner one does not look."""
    play_steps(
        Setting(workers=1),
        [
            Ask(4, "runner", ("w0",), timeout=0.25),
            Ask(5, "w0", ("w0",), inside=4, loop=False),
            Tell(4, "w0", "completed"),
            Advance(0.5),
        ],
        backend=backend,
        seed=1638,
    )


def test_time_that_is_up_is_told_whatever_the_requester_does_meanwhile(backend: str) -> None:
    """J6: the outer job has been answered, the inner one is slow to unwind, and nobody waits for it."""
    play_steps(
        Setting(),
        [
            Ask(0, "runner", ("w0",), within=0.25),
            Ask(1, "w0", ("w0",), inside=0, loop=False),
            Tell(0, "w0", "urgent completed"),
            Tell(1, "w0", "slow"),
            Advance(0.25),
        ],
        backend=backend,
        seed=5926,
    )


def test_whoever_waits_for_a_worker_that_left_meanwhile_has_asked_those_before_it(backend: str) -> None:
    """J6: one that was there when the wait began is waited for anew."""
    play_steps(
        Setting(),
        [
            Stop("w1", crash=True),
            Ask(1, "asker", ("w0", "w2", "w1"), job="none", form="hooks", cancel_on_error=False),
            Stop("w2", crash=True),
            Revive("w1"),
        ],
        backend=backend,
        seed=65535,
    )


def test_a_job_whose_turn_comes_while_its_cancel_is_on_its_way_may_begin(backend: str) -> None:
    """J13: the place is free when the handler before it has raised, and the cancel comes once another has unwound."""
    play_steps(
        Setting(workers=4),
        [
            Ask(0, "runner", ("w3", "w0"), job="turn"),
            Ask(2, "w3", ("w0", "w2"), job="turn", inside=0),
            Tell(0, "w0", "raise"),
        ],
        backend=backend,
        seed=26362,
    )
