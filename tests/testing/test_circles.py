"""Circles among waits."""

import anyio
import hypothesis.strategies as st
import pytest
from hypothesis import given

from workerbus import BaseWorker, BusJobRequestMessage, WorkerRunner, job
from workerbus.diagnosis._circles import circles_in
from workerbus.testing import DeadlockError, run, settle

WAITS = st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=4), max_size=9)


@given(WAITS)
def test_what_is_found_are_circles_that_have_no_task_in_common(waits: dict[int, list[int]]) -> None:
    circles = circles_in(waits)
    for circle in circles:
        assert all(after in waits[task] for task, after in zip(circle, circle[1:] + circle[:1], strict=True))
        assert circle[0] == min(circle)
    tasks = [task for circle in circles for task in circle]
    assert len(tasks) == len(set(tasks))


@given(WAITS)
def test_without_the_tasks_of_the_circles_that_are_found_there_is_none(waits: dict[int, list[int]]) -> None:
    found = {task for circle in circles_in(waits) for task in circle}

    def reached(task: int) -> set[int]:
        seen: set[int] = set()
        ahead = [task]
        while ahead:
            for after in waits.get(ahead.pop(), []):
                if after not in seen | found:
                    seen.add(after)
                    ahead.append(after)
        return seen

    assert not any(task in reached(task) for task in waits)


def test_a_circle_behind_a_wait_for_somebody_else_is_found() -> None:
    assert circles_in({0: [1, 2], 1: [], 2: [3], 3: [2]}) == [[2, 3]]


def test_of_several_circles_each_is_found() -> None:
    assert circles_in({0: [1], 1: [0], 2: [3], 3: [2], 4: [4]}) == [[0, 1], [2, 3], [4]]


def test_a_circle_of_one_that_waits_for_others_in_a_circle_is_found() -> None:
    """O6: 0 waits for 1 and 3, so both circles keep it waiting."""
    assert circles_in({0: [1, 3], 1: [2], 2: [1], 3: [0]}) == [[1, 2], [0, 3]]


class Two(BaseWorker):
    """Has two places for ``queue``: the first who comes asks for another, and the second stays for ever."""

    def __init__(self) -> None:
        super().__init__("two")
        self.both = anyio.Event()

    @job(name="queue", limit=2)
    async def queue(self, message: BusJobRequestMessage) -> None:
        if message.payload == {"n": 1}:
            await self.both.wait()
            await self.job("two", name="queue")
        self.both.set()
        await anyio.sleep_forever()


def test_who_waits_for_one_of_several_places_is_in_no_circle(backend: str) -> None:
    """Whoever has another may leave."""

    async def main() -> None:
        async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as group:
            two = Two()
            await runner.add_workers(two)
            async with runner.job("two", name="queue", payload={"n": 1}):
                await settle()
                group.start_soon(ask, runner)
                await anyio.sleep_forever()

    async def ask(runner: WorkerRunner) -> None:
        await runner.job("two", name="queue", payload={"n": 2})

    with pytest.raises(DeadlockError) as caught:
        run(main, backend=backend)
    assert "for its turn, which job 'queue'" in str(caught.value)
    assert "in a circle" not in str(caught.value)
