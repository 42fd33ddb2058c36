"""A bus that loses, doubles and delays what is sent over it."""

from typing import Any

import pytest
from anyio import create_task_group, sleep
from hypothesis import given
from hypothesis import strategies as st

from support.buses import Wire
from support.messages import Note, note
from support.networks import Script, Speaker, Taker, another_runner, laws, network, play, runners, scripts, seeds
from support.subscribers import Plain
from support.workers import Helper
from workerbus import (
    BaseWorker,
    BusAddWorkerMessage,
    BusJobResponseMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    MemoryBus,
    WorkerBus,
    WorkerRunner,
    bus_message,
)
from workerbus.testing import Fault, Faults, FaultyBus, RecordingBus, run, settle


async def test_what_is_no_bus_and_no_plan_is_refused() -> None:
    with pytest.raises(TypeError, match="wraps a WorkerBus, not 'redis'"):
        FaultyBus("redis")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(TypeError, match=r"FaultyBus already.*end\(\)"):
        FaultyBus(FaultyBus(MemoryBus()))
    with pytest.raises(TypeError, match="faults is a Faults"):
        FaultyBus(MemoryBus(), faults=0.5)  # type: ignore[arg-type]  # the point of the test
    bus = FaultyBus(MemoryBus())
    with pytest.raises(TypeError, match="faults is a Faults"):
        bus.faults = None  # type: ignore[assignment]  # the point of the test


# --- no faults


@pytest.mark.parametrize("wrapped", [MemoryBus, RecordingBus, Wire])
def test_without_faults_it_behaves_like_the_bus_that_it_wraps(backend: str, wrapped: type[WorkerBus]) -> None:
    """A job, a group and a stream."""

    async def program(bus: WorkerBus) -> list[Any]:
        async with WorkerRunner(bus=bus, name="R", handle_sigint=False) as runner:
            await runner.add_workers(Speaker("a"), Speaker("b"))
            done: list[Any] = [await runner.job("a", name="say", payload={"text": "x"})]
            async with runner.job_group("a", "b", name="say") as group:
                pass
            done.append(group.responses)
            async with runner.job("b", name="stream") as stream:
                done += [event.data async for event in stream]
            return [*done, stream.response]

    async def main() -> None:
        bus = FaultyBus(wrapped())
        assert await program(bus) == await program(wrapped())
        assert bus.records == []
        assert str(bus) == ""

    run(main, backend=backend)


def test_runners_on_two_ends_see_each_others_workers_as_remote_and_jobs_go_across(backend: str) -> None:
    """R6."""

    async def main() -> None:
        async with network("left", "right") as (left, right), runners(left, right, Speaker("b")) as (asker, host):
            assert asker.registry.remote_workers == ["b"]
            assert host.registry.local_workers == ["b"]
            assert await asker.job("b", name="say", payload={"text": "x"}) == {"said": "x", "by": "b"}
            async with asker.job("b", name="stream") as stream:
                assert [event.data async for event in stream][1:4] == [{"n": 0}, {"n": 1}, {"n": 2}]

    run(main, backend=backend)


@bus_message
class Secret(BusSystemMessage, BusLocalMessage):
    """Stays where it is."""


def test_a_local_message_stays_at_its_end(backend: str) -> None:
    """B8."""

    async def main() -> None:
        wire = RecordingBus()
        async with network("left", "right", bus=wire, faults=Faults(lose=1.0)) as (left, right):
            here, there = Plain("here"), Plain("there")
            await left.subscribe(here)
            await right.subscribe(there)
            for message in (Secret(source="me"), BusAddWorkerMessage(Helper("x"), source="me")):
                await left.send(message)
            await wire.send(Secret(source="wire"))
            await here.until(2)
            await sleep(1)
            assert there.got == []
            assert len(here.got) == 2
            assert len(wire.records) == 1
            assert left.statistics().refused == 0
            assert left.records == []

    run(main, backend=backend)


def test_what_is_sent_past_the_ends_arrives_at_all_of_them_untouched(backend: str) -> None:
    async def main() -> None:
        wire = MemoryBus()
        async with network("left", "right", bus=wire, faults=Faults(lose=1.0)) as ends:
            takers = [Taker(f"at {end.name}") for end in ends]
            for end, taker in zip(ends, takers, strict=True):
                await end.subscribe(taker)
            ends[0].split()
            messages = [note(1), note(2)]
            for message in messages:
                await wire.send(message)
            await sleep(0.1)
            assert [taker.messages() for taker in takers] == [messages, messages]
            counts = wire.statistics().subscribers
            assert {name: count.delivered for name, count in counts.items()} == {
                "faulty end left": 2,
                "faulty end right": 2,
            }

    run(main, backend=backend)


def test_what_is_sent_before_an_end_is_open_arrives_when_it_is(backend: str) -> None:
    """B4."""

    async def main() -> None:
        bus = FaultyBus(MemoryBus())
        taker = Taker("taker")
        await bus.subscribe(taker)
        for n in range(3):
            await bus.send(note(n))
        async with bus:
            await bus.send(note(3))
            await settle()
            assert [message.n for message in taker.messages()] == [0, 1, 2, 3]

    run(main, backend=backend)


class Asking(BaseWorker):
    """Asks for a job as soon as it gets a note, and takes no other one meanwhile."""

    answers: list[Any]

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.answers = [*getattr(self, "answers", []), await self.job("b", name="say", timeout=5.0)]


def test_a_full_lane_at_one_end_holds_up_no_answer(backend: str) -> None:
    """B9, W8: a hook awaits a job while more arrives than there is room for."""

    async def main() -> None:
        wire = MemoryBus()
        async with wire, FaultyBus(wire, max_buffer_size=1) as left, left.end("right") as right:
            asking = Asking("asking")
            async with runners(right, left, asking) as (_, host), another_runner(right, Speaker("b", 0.5)):
                await host.registry.wait_for("b")
                for n in range(4):
                    await right.send(note(n, "asking"))
                await sleep(10)
                assert len(asking.answers) == 4

    run(main, backend=backend)


@pytest.mark.parametrize("schedule", range(4))
@pytest.mark.parametrize("size", [1, 3, 100])
def test_what_arrives_at_a_bounded_end_keeps_its_order_whether_it_waits_for_room_or_not(
    backend: str, schedule: int, size: int
) -> None:
    """B2, B9: though each message that may have to wait does so in a task of its own."""

    async def main() -> list[BusMessage]:
        plain = Plain("plain", on=lambda _: sleep(0.1))
        wire = MemoryBus()
        async with wire, FaultyBus(wire) as left, left.end("right", max_buffer_size=size) as right:
            await right.subscribe(plain)
            for n in range(12):
                await left.send(note(n))
            return await plain.until(12)

    assert run(main, backend=backend, seed=schedule) == [note(n) for n in range(12)]


# --- late, twice, never


def expected_times(sent: float, faults: list[Fault]) -> list[float]:
    """When a message arrives, as the story has it."""
    told = [fault.kind for fault in faults]
    if "lost" in told:
        assert told == ["lost"]
        return []
    late = [sent + fault.seconds for fault in faults if fault.seconds is not None]
    return [*[sent] * (1 + ("duplicated" in told) - len(late)), *late]


some = st.sampled_from([0.0, 0.3, 1.0])


@laws
@given(
    script=scripts,
    seed=seeds,
    delay=st.sampled_from([0.0, 0.05, 2.0]),
    duplicate=some,
    lose=st.sampled_from([0.0, 0.3]),
)
def test_the_story_says_what_happens_to_each_message_and_a_senders_messages_keep_their_order(
    backend: str, script: Script, seed: int, delay: float, duplicate: float, lose: float
) -> None:
    """Whatever is late or doubled; without loss each arrives, without duplication once."""

    async def main() -> None:
        plan = Faults(delay=delay, duplicate=duplicate, lose=lose)
        async with network("left", "right", seed=seed, faults=plan) as ends:
            taker = Taker("taker")
            await ends[1].subscribe(taker)
            async with create_task_group() as group:
                sent = await play(group, ends, script)
            await sleep(50)
        for source, messages in sent.items():
            numbers = [message.n for message in taker.messages(source)]
            assert numbers == sorted(numbers)
            for time, message in messages:
                faults = [fault for fault in ends[0].records if fault.message is message]
                assert taker.times(message) == pytest.approx(expected_times(time, faults))
        if not lose:
            assert {id(m) for m in taker.messages()} == {id(m) for each in sent.values() for _, m in each}
        if not duplicate:
            assert len({id(message) for message in taker.messages()}) == len(taker.got)

    run(main, backend=backend, seed=seed)


def test_messages_of_different_senders_overtake_each_other(backend: str) -> None:
    async def main() -> list[str]:
        async with network("left", faults=Faults(delay=1.0)) as (bus,):
            taker = Taker("taker")
            await bus.subscribe(taker)
            for n in range(10):
                await bus.send(note(n, source=f"s{n}"))
            await sleep(2)
            return [message.source for message in taker.messages()]

    arrived = run(main, backend=backend)
    assert len(arrived) == 10
    assert arrived != sorted(arrived)


def test_a_plan_can_be_changed_while_messages_are_under_way(backend: str) -> None:
    async def main() -> None:
        async with network("left", "right", faults=Faults(delay=(1.0, 1.0))) as (left, right):
            taker = Taker("taker")
            await right.subscribe(taker)
            one, two, three = note(1, source="a"), note(2, source="a"), note(3, source="b")
            await left.send(one)
            right.faults = Faults()
            await left.send(two)
            await left.send(three)
            await sleep(2)
            assert taker.got == [(0.0, three), (1.0, one), (1.0, two)]

    run(main, backend=backend)


def test_a_message_does_not_overtake_one_of_its_sender_that_is_on_its_way(backend: str) -> None:
    class Slow(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            await sleep(5.0 if message == note(1) else 0.1)
            await super().publish(message)

    async def main() -> None:
        async with network("left", bus=Slow(), faults=Faults(delay=(1.0, 1.0))) as (bus,):
            taker = Taker("taker")
            await bus.subscribe(taker)
            await bus.send(note(1))
            await sleep(1.5)
            bus.faults = Faults()
            await bus.send(note(2))
            await sleep(10)
            assert taker.messages() == [note(1), note(2)]
            assert [fault.kind for fault in bus.records] == ["delayed"]

    run(main, backend=backend)


def test_a_message_overtakes_none_of_several_of_its_sender_that_are_on_their_way(backend: str) -> None:
    class Slow(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, Note) and message.n < 4:
                await sleep(1.0)
            await super().publish(message)

    async def main() -> None:
        async with network("left", bus=Slow(), faults=Faults(delay=(1.0, 1.0))) as (bus,):
            taker = Taker("taker")
            await bus.subscribe(taker)
            for n in range(1, 4):
                await bus.send(note(n))
            await sleep(2.5)  # the first is out, and the second on its way
            bus.faults = Faults()
            await bus.send(note(4))
            await sleep(1)
            await bus.send(note(5))
            await sleep(10)
            assert [message.n for message in taker.messages()] == [1, 2, 3, 4, 5]

    run(main, backend=backend)


def test_a_message_that_the_wrapped_bus_does_not_take_is_logged_and_the_next_one_goes_out(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, Note) and message.n == 1:
                raise OSError("the cable is cut")
            await super().publish(message)

    async def main() -> None:
        async with network("left", bus=Broken(), faults=Faults(delay=(0.5, 0.5))) as (bus,):
            taker = Taker("taker")
            await bus.subscribe(taker)
            await bus.send(note(1))
            await bus.send(note(2))
            await sleep(1)
            assert [message.n for message in taker.messages()] == [2]
            bus.faults = Faults()
            with pytest.raises(OSError, match="cable"):
                await bus.send(note(1))

    run(main, backend=backend)
    assert "could not send Note" in caplog.text


async def test_what_is_drawn_to_be_lost_is_lost_though_it_was_to_go_out_twice() -> None:
    async with FaultyBus(MemoryBus(), faults=Faults(lose=1.0, duplicate=1.0)) as bus:
        plain = Plain("plain")
        await bus.subscribe(plain)
        await bus.send(note(1))
        await settle()
        assert plain.got == []
        assert [fault.kind for fault in bus.records] == ["lost"]


# --- telling


def test_the_story_is_told_with_jobs_numbered_by_who_asked(backend: str) -> None:
    async def main() -> str:
        async with network("left", "right") as (left, right), runners(left, right, Speaker("b", 0.3)) as (asker, _):
            await asker.job("b", name="say")
            left.faults = Faults(lose=1.0, spare=lambda message: not isinstance(message, BusJobResponseMessage))
            with pytest.raises(TimeoutError):
                await asker.job("b", name="say", timeout=1.0)
            left.faults = Faults()
            return str(left)

    told = run(main, backend=backend).splitlines()
    assert told[0] == "0.60 s  the answer of 'b' to 'asker' (job asker-2) is lost"
    assert len(told) == 1


async def test_the_story_counts_from_the_first_end_that_opened() -> None:
    left = FaultyBus(MemoryBus(), name="left")
    right = left.end("right")
    async with left:
        await sleep(2)
        async with right:
            left.split()
    assert left.story() == "2.00 s  left and right are split"
