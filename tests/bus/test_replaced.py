"""N7: what is put in the place of what messages pass on a `MemoryBus`: it gets all that is sent, the library's, too."""

from collections.abc import Callable
from unittest.mock import patch

import anyio
import pytest

from support.families import Parent
from support.messages import note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BusAddWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusWorkerLocalErrorMessage,
    JobStatus,
    MemoryBus,
)
from workerbus.testing import settle

Undo = Callable[[], None]


def spied(bus: MemoryBus, door: str, how: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[BusMessage], Undo]:
    """Put a spy, which passes on what it gets, in the place of a method of a bus."""
    seen: list[BusMessage] = []
    original = getattr(bus if how == "object" else MemoryBus, door)

    async def on_object(message: BusMessage) -> None:
        seen.append(message)
        await original(message)

    async def on_class(self: MemoryBus, message: BusMessage) -> None:
        seen.append(message)
        await original(self, message)

    if how == "object":
        setattr(bus, door, on_object)
        return seen, lambda: delattr(bus, door)
    monkeypatch.setattr(MemoryBus, door, on_class)
    return seen, monkeypatch.undo


def kinds(seen: list[BusMessage]) -> list[str]:
    return [type(message).__name__ for message in seen if "Worker" not in type(message).__name__]


@pytest.mark.parametrize("how", ["object", "class"])
@pytest.mark.parametrize("door", ["send", "publish", "deliver"])
async def test_a_spy_sees_what_users_and_the_library_send(door: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """N7: requests, answers, cancels; each once, and they arrive."""
    bus = MemoryBus()
    seen, _ = spied(bus, door, how, monkeypatch)
    helper, plain = Helper("helper"), Plain("plain")
    await bus.subscribe(plain)
    async with running(helper, bus=bus) as runner:
        assert (await runner.job("helper", name="echo", payload={"n": 1}))["payload"] == {"n": 1}
        job_id = await helper.request_job("helper", name="wait")
        await helper.begun.wait()
        await helper.cancel_job_group(job_id, reason="enough")
        await helper.unwound.wait()
        await bus.send(note(1))
        await settle()
    requests = [message for message in seen if isinstance(message, BusJobRequestMessage)]
    answers = [message for message in seen if isinstance(message, BusJobResponseMessage)]
    assert len(requests) == 2
    assert [answer.status for answer in answers] == [JobStatus.COMPLETED, JobStatus.CANCELLED]
    assert [message.reason for message in seen if isinstance(message, BusJobCancelMessage)] == ["enough"]
    assert seen.count(note(1)) == 1
    assert len({id(message) for message in seen}) == len(seen)
    sent = [message for message in seen if not message.system]
    assert [plain.got.count(message) for message in sent] == [1] * len(sent)


async def test_a_spy_may_come_and_go_while_the_bus_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """N7: put on the object, it counts from the next message on; taken off, the short way is taken again."""
    bus = MemoryBus()
    async with running(Helper("helper"), bus=bus) as runner:
        assert bus.never_waits
        assert await runner.job("helper", name="echo")
        seen, undo = spied(bus, "send", "object", monkeypatch)
        assert not bus.never_waits
        assert await runner.job("helper", name="echo")
        assert kinds(seen) == ["BusJobRequestMessage", "BusJobResponseMessage"]
        undo()
        assert bus.never_waits
        assert await runner.job("helper", name="echo")
        assert len(kinds(seen)) == 2


async def test_a_patch_of_the_class_counts_from_the_next_subscriber_on() -> None:
    """N7: and so does its end."""
    bus, seen = MemoryBus(), list[BusMessage]()
    original = MemoryBus.send

    async def spy(self: MemoryBus, message: BusMessage) -> None:
        seen.append(message)
        await original(self, message)

    async with running(Helper("helper"), bus=bus) as runner:
        with patch.object(MemoryBus, "send", spy):
            await runner.add_workers(Helper("other"), wait=True)
            assert await runner.job("helper", name="echo")
            assert kinds(seen) == ["BusJobRequestMessage", "BusJobResponseMessage"]
        await runner.add_workers(Helper("third"), wait=True)
        assert bus.never_waits


async def test_what_is_sent_does_not_overtake_what_the_library_has_sent_before() -> None:
    """B2: a spy makes the library's messages wait for a task; what is sent then waits behind them."""
    bus, plain = MemoryBus(), Plain("plain")
    original = bus.send

    async def slow(message: BusMessage) -> None:
        if message == note(1):
            await anyio.sleep(1)
        await original(message)

    await bus.subscribe(plain)
    async with bus:
        bus.send = slow  # type: ignore[method-assign]  # as a spy does
        bus.post(note(1))
        bus.post(note(2))
        await original(note(3))
        bus.post(note(4))
        del bus.send
        bus.post(note(5))
        await plain.until(5)
    assert plain.got == [note(n) for n in range(1, 6)]


async def test_what_is_sent_does_not_overtake_the_last_message_that_waits_in_a_spy() -> None:
    """B2: the spy is gone, and still has one message."""
    bus, plain = MemoryBus(), Plain("plain")
    original = bus.send

    async def slow(message: BusMessage) -> None:
        await anyio.sleep(1)
        await original(message)

    await bus.subscribe(plain)
    async with bus:
        bus.send = slow  # type: ignore[method-assign]  # as a spy does
        bus.post(note(1))
        await settle()
        del bus.send
        bus.post(note(2))
        await bus.send(note(3))
        await plain.until(3)
    assert plain.got == [note(n) for n in range(1, 4)]


async def test_a_spy_sees_what_stays_in_this_process() -> None:
    """N7: local messages, which no transport gets."""
    bus, seen, child = MemoryBus(), list[BusMessage](), Helper("child")
    original = bus.send

    async def spy(message: BusMessage) -> None:
        seen.append(message)
        await original(message)

    bus.send = spy  # type: ignore[method-assign]  # as a spy does
    parent = Parent("parent")
    async with running(parent, bus=bus) as runner:
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        await child.send_bus_error_message("oh")
        await settle()
    local = [type(message) for message in seen if message.local]
    assert local == [BusAddWorkerMessage, BusWorkerLocalErrorMessage]
    assert [data.error for data in parent.failed] == ["oh"]


async def test_other_attributes_of_a_bus_are_its_users() -> None:
    """N7, B6: nothing is looked at for them."""
    bus = MemoryBus()
    bus.mine = 1  # type: ignore[attr-defined]  # an attribute of the user's
    assert bus.never_waits
    del bus.mine  # type: ignore[attr-defined]  # the same
    with pytest.raises(AttributeError):
        del bus.send
