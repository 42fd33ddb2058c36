"""O3, O7: who reads messages as they pass gets each of them in its order, or is told how many were left out."""

import pytest
from anyio import create_task_group
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workerbus.observing import PassingMessages, _passed
from workerbus.observing._passed import Passing
from workerbus.runner._notes import Note
from workerbus.testing import run, settle


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(reports=st.lists(st.integers(0, 7), max_size=8))
def test_who_reads_gets_all_in_its_order_but_the_first_of_too_many(
    backend: str, monkeypatch: pytest.MonkeyPatch, reports: list[int]
) -> None:
    """O7: whether it waits for each, takes what there is, or comes late; reading ends when nobody looks any more."""
    monkeypatch.setattr(_passed, "KEPT", 5)

    async def main() -> None:
        passing, sent = Passing(), 0
        waits, takes, late = (passing.begin() for _ in range(3))
        read: dict[PassingMessages, list[float]] = {waits: [], late: []}
        each_of: list[float] = []

        async def read_on(reader: PassingMessages) -> None:
            read[reader].extend([message.at async for message in reader])

        async with create_task_group() as tasks:
            tasks.start_soon(read_on, waits)
            await settle()
            for count in reports:
                numbers = [float(sent + n) for n in range(count)]
                passing.add("r", [Note(number, "asked", "1", "me", "w", None) for number in numbers])
                sent += count
                each_of += numbers[-5:]
                assert [message.at for message in takes.take()] == numbers[-5:]
                await settle()
            passing.end()
            tasks.start_soon(read_on, late)
        assert read == {waits: each_of, late: [float(n) for n in range(sent)][-5:]}
        assert passing.missed == 2 * (sent - len(each_of)) + max(0, sent - 5)

    run(main, backend=backend)
