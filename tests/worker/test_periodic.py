"""`@every`: methods that are called again and again, by time alone (N7, N8, W7, W10)."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.workers import running
from workerbus import BaseWorker, HandlerTypeError, ReservedNameError, WorkerErrorData, WorkerRunner, every, job


class Clock(BaseWorker):
    """Notes when it is called, and takes as long as it is told."""

    def __init__(self, *takes: float) -> None:
        super().__init__("clock")
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.takes = list(takes)

    async def tick(self) -> None:
        self.begun.append(current_time())
        await anyio.sleep(self.takes.pop(0) if self.takes else 0)
        self.ended.append(current_time())


def ticking(*takes: float, **how: Any) -> Clock:
    class Ticking(Clock):
        @every(1, **how)
        async def poll(self) -> None:
            await self.tick()

    return Ticking(*takes)


async def test_it_is_called_at_even_distances_from_the_start_on() -> None:
    """W10: the first call is when the first time has passed."""
    clock = ticking(0.5, 0.25, 0.125)
    async with running(clock):
        await anyio.sleep(3.5)
    assert clock.begun == [1, 2, 3]
    assert clock.ended == [1.5, 2.25, 3.125]


async def test_it_is_called_at_once_where_that_is_asked_for() -> None:
    """W10"""
    clock = ticking(at_once=True)
    async with running(clock):
        await anyio.sleep(2.5)
    assert clock.begun == [0, 1, 2]


@pytest.mark.parametrize("at_once", [False, True])
async def test_it_is_not_called_before_the_start_is_over(at_once: bool) -> None:
    """W10, W2: the first `on_activated` is part of the start, and may make what the method needs."""

    class Ready(Clock):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await anyio.sleep(1.5)

        @every(1, at_once=at_once)
        async def poll(self) -> None:
            await self.tick()

    clock = Ready()
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(clock)
        await anyio.sleep(4)
    assert clock.begun == ([1.5, 2.5, 3.5] if at_once else [2.5, 3.5])


async def test_a_call_that_takes_too_long_makes_others_be_left_out_and_none_come_late() -> None:
    """W10: two calls at once are for those who ask for them."""
    clock = ticking(2.5, 1)
    async with running(clock):
        await anyio.sleep(6.5)
    assert clock.begun == [1, 4, 5, 6]
    assert clock.ended[:2] == [3.5, 5]


async def test_no_two_calls_overlap_however_many_take_too_long() -> None:
    """W10: each waits for the one before it."""
    clock = ticking(2.5, 2.5, 2.5)
    async with running(clock):
        await anyio.sleep(10)
    assert clock.begun == [1, 4, 7, 10]
    assert clock.ended[:3] == [3.5, 6.5, 9.5]


async def test_calls_overlap_where_that_is_asked_for() -> None:
    """W10"""
    clock = ticking(2.5, 2.5, 0.125, overlapping=True)
    async with running(clock):
        await anyio.sleep(4.75)
    assert clock.begun == [1, 2, 3, 4]
    assert clock.ended == [3.125, 3.5, 4, 4.5]


async def test_an_error_is_reported_and_the_next_call_comes() -> None:
    """W7: as that of a hook is; the worker lives on."""
    heard: list[WorkerErrorData] = []

    class Failing(BaseWorker):
        calls = 0

        @every(1)
        async def poll(self) -> None:
            self.calls += 1
            if self.calls == 2:
                raise OSError("no device")

    async def hear(runner: WorkerRunner, data: WorkerErrorData) -> None:
        heard.append(data)

    failing = Failing("failing")
    async with WorkerRunner(handle_sigint=False) as runner:
        runner.add_event_handler("on_error", hear)
        await runner.add_workers(failing)
        await anyio.sleep(4.5)
        assert failing.calls == 4
        assert failing.active
    assert [(data.worker_name, str(data.exception), data.fatal) for data in heard] == [("failing", "no device", False)]
    assert heard[0].origin == "task 'poll'"


@pytest.mark.parametrize("how", ["end", "cancel", "stop"])
async def test_an_end_does_not_wait_for_a_call(how: str) -> None:
    """W10: it is cancelled with the worker, and there are no more."""
    clock = ticking(1000)
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(clock)
        await anyio.sleep(1.5)
        if how == "end":
            await clock.end()
        elif how == "stop":
            await clock.stop()
        else:
            await runner.end()
        await clock.wait()
        assert current_time() == 1.5
    assert clock.begun == [1]
    assert clock.ended == []


async def test_it_is_called_while_the_worker_is_inactive_too() -> None:
    """W10"""

    class Quiet(BaseWorker):
        calls = 0

        @every(1)
        async def poll(self) -> None:
            self.calls += 1

    quiet = Quiet("quiet", active=False)
    async with running(quiet):
        await anyio.sleep(2.5)
    assert quiet.calls == 2


async def test_what_lookup_gives_when_it_is_due_is_called() -> None:
    """N7: an override, and what is put on the object meanwhile."""
    calls: list[str] = []

    class First(BaseWorker):
        @every(1)
        async def poll(self) -> None:
            calls.append("first")

    class Second(First):
        async def poll(self) -> None:
            calls.append("second")

    async def third() -> None:
        calls.append("third")

    second = Second("second")
    async with running(second):
        await anyio.sleep(1.5)
        second.poll = third  # type: ignore[method-assign]  # as a test's patch does
        await anyio.sleep(1)
    assert calls == ["second", "third"]


async def test_stacked_it_is_called_at_the_times_of_each() -> None:
    """N7"""

    class Both(Clock):
        @every(2)
        @every(3)
        async def poll(self) -> None:
            await self.tick()

    both = Both()
    async with running(both):
        await anyio.sleep(6.5)
    assert sorted(both.begun) == [2, 3, 4, 6, 6]


async def test_a_class_decorator_that_replaces_the_method_leaves_it_periodic() -> None:
    """N7"""

    def traced(cls: type[Clock]) -> type[Clock]:
        inner: Callable[[Any], Awaitable[None]] = cls.poll  # type: ignore[attr-defined]  # the class has one

        async def poll(self: Any) -> None:
            await inner(self)

        cls.poll = poll  # type: ignore[attr-defined]  # see above
        return cls

    @traced
    class Traced(Clock):
        @every(5)
        async def poll(self) -> None:
            await self.tick()

    clock = Traced()
    async with running(clock):
        await anyio.sleep(6)
    assert clock.begun == [5]


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    """N8: where the class is written."""
    with pytest.raises(ValueError, match="seconds is a finite number above 0"):
        every(seconds)


def test_a_forgotten_time_is_refused_by_name() -> None:
    """N8"""
    with pytest.raises(HandlerTypeError, match=r"^@every is written @every\(seconds\), with parentheses and a number"):

        @every  # type: ignore[arg-type]  # the mistake
        async def poll(self: BaseWorker) -> None: ...


def test_a_method_that_cannot_be_called_is_refused() -> None:
    """N8: it is not async, or wants more than itself."""
    with pytest.raises(HandlerTypeError, match=r"^@every\(2\) goes over an async method"):

        @every(2)  # type: ignore[type-var]  # the mistake
        def poll(self: BaseWorker) -> None: ...

    with pytest.raises(HandlerTypeError, match=r"^@every\(2\) goes over a method \(self\), not \(self: "):

        @every(2)
        async def look(self: BaseWorker, message: object) -> None: ...


def test_an_override_that_wants_an_argument_is_refused() -> None:
    """N8: where the class is made."""

    class First(BaseWorker):
        @every(1)
        async def poll(self) -> None: ...

    with pytest.raises(HandlerTypeError, match="poll"):

        class Second(First):
            async def poll(self, message: object) -> None: ...  # type: ignore[override]  # the mistake


def test_a_documented_name_is_refused() -> None:
    """N6"""
    with pytest.raises(ReservedNameError, match="'wait'"):

        class Mine(BaseWorker):
            @every(1)
            async def wait(self) -> None: ...


async def test_it_may_be_a_job_handler_s_neighbour() -> None:
    """J2: a job is answered while calls go on."""

    class Both(Clock):
        @every(1)
        async def poll(self) -> None:
            await self.tick()

        @job(name="count")
        async def count(self, message: object) -> dict[str, int]:
            await anyio.sleep(2.5)
            return {"calls": len(self.begun)}

    async with running(Both()) as runner:
        assert await runner.job("clock", name="count") == {"calls": 2}
