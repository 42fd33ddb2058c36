"""A network with faults, drawn from a seed: `FaultyBus` over any bus, in virtual time."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import create_task_group, current_time, move_on_after, sleep
from anyio.abc import TaskGroup
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.buses import Wire
from support.leaks import task_ids
from support.messages import Alarm, Note, alarm, note
from support.subscribers import Plain
from support.workers import Helper
from workerbus import (
    BaseWorker,
    BusAddWorkerMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusLocalMessage,
    BusMessage,
    BusSubscriber,
    BusSystemMessage,
    BusWorkerRegistryMessage,
    JobError,
    MemoryBus,
    WorkerBus,
    WorkerParams,
    WorkerRunner,
    bus_message,
    job,
)
from workerbus.bus._lanes import Lane
from workerbus.bus._subscriber import Inbox, InboxHost
from workerbus.testing import Fault, Faults, FaultyBus, RecordingBus, run, settle

laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 10_000)


def announcement(message: BusMessage) -> bool:
    return message.announcement


class Taker(BusSubscriber):
    """Keeps what arrives with its time, in the step in which it arrives, whatever its lane."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.got: list[tuple[float, BusMessage]] = []

    @property
    def name(self) -> str:
        return self._name

    def make_inbox(self, bus: InboxHost) -> Inbox:
        return _Taking(self)

    def messages(self, source: str | None = None) -> list[Any]:
        return [message for _, message in self.got if source in (None, message.source)]

    def times(self, message: BusMessage) -> list[float]:
        return [time for time, each in self.got if each is message]


class _Taking(Inbox):
    depth = 0

    def __init__(self, taker: Taker) -> None:
        super().__init__(taker.name, receives="all")
        self._taker = taker

    def take(self, message: BusMessage) -> None:
        self._taker.got.append((current_time(), message))

    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        return None

    def open(self, host: object) -> None: ...

    def close(self) -> None: ...


@asynccontextmanager
async def network(*names: str, bus: WorkerBus | None = None, **kwargs: Any) -> AsyncIterator[list[FaultyBus]]:
    """Open the ends of a network, and see to it that nothing is left of it (L1)."""
    before, wrapped = task_ids(), bus or MemoryBus()
    first = FaultyBus(wrapped, name=names[0], **kwargs)
    async with AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(end) for end in (first, *(first.end(name) for name in names[1:]))]
        yield ends
    assert task_ids() == before
    assert not any(each.is_open for each in (wrapped, *ends))
    assert wrapped.statistics().subscribers == {}


@asynccontextmanager
async def runners(
    left: WorkerBus, right: WorkerBus, *workers: BaseWorker, **kwargs: Any
) -> AsyncIterator[tuple[WorkerRunner, WorkerRunner]]:
    """A runner on each end; the right one has the workers, and the left one knows of them."""
    asker = WorkerRunner(bus=left, name="asker", handle_sigint=False, **kwargs)
    host = WorkerRunner(bus=right, name="host", handle_sigint=False, **kwargs)
    async with host, asker:
        await host.add_workers(*workers)
        for worker in workers:
            await asker.registry.wait_for(worker.name)
        await settle()
        yield asker, host
    assert left.statistics().subscribers == right.statistics().subscribers == {}


@asynccontextmanager
async def another_runner(bus: WorkerBus, *workers: BaseWorker, **kwargs: Any) -> AsyncIterator[WorkerRunner]:
    """One more runner."""
    async with WorkerRunner(bus=bus, name="another", handle_sigint=False, **kwargs) as runner:
        await runner.add_workers(*workers)
        yield runner


def kinds(bus: FaultyBus) -> list[str]:
    return [fault.kind for fault in bus.records]


class Speaker(BaseWorker):
    """Streams words, takes its time, and counts how often it was asked."""

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        super().__init__(name)
        self.seconds = seconds
        self.asked: Counter[str] = Counter()

    @job(name="say")
    async def say(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.asked[message.job_id] += 1
        await sleep(self.seconds)
        return {"said": (message.payload or {}).get("text"), "by": self.name}

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(message.job_id, {})
        for n in range(3):
            await self.send_job_stream_data(message.job_id, {"n": n})
        await self.send_job_stream_end(message.job_id, {"total": 3})


# --- the plan


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("lose", 1.5, r"lose is a probability, from 0 to 1, not 1\.5"),
        ("duplicate", -0.1, r"duplicate is a probability"),
        ("split", float("nan"), r"split is a probability"),
        ("delay", -1, r"delay must be seconds.*not -1"),
        ("delay", (2.0, 1.0), r"delay must be seconds.*\(2\.0, 1\.0\)"),
        ("delay", float("inf"), r"delay must be seconds, finite"),
        ("split_seconds", (-1.0, 1.0), r"split_seconds must be seconds"),
    ],
)
def test_a_plan_that_is_out_of_range_is_refused(field: str, value: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Faults(**{field: value})  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("lose", "often", r"lose is a probability, a number from 0 to 1, not 'often'"),
        ("lose", True, r"lose is a probability"),
        ("delay", "long", r"delay is a number of seconds, or a range \(least, most\) of them, not 'long'"),
        ("delay", True, r"delay is a number of seconds"),
        ("delay", (1.0,), r"delay is a number of seconds"),
        ("spare", 3, r"spare is a function of a message, or None, not 3"),
    ],
)
def test_a_plan_of_the_wrong_kind_is_refused(field: str, value: object, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        Faults(**{field: value})  # type: ignore[arg-type]  # the point of the test


def test_a_number_of_seconds_is_the_most_that_is_drawn() -> None:
    assert Faults(delay=2.0).delay == (0.0, 2.0)
    assert Faults(delay=(1.0, 2.0)).delay == (1.0, 2.0)


@given(seed=seeds, number=st.integers(1, 100))
def test_a_draw_is_the_same_again_and_one_probability_does_not_change_the_others(seed: int, number: int) -> None:
    message = note(1)
    plan = Faults(delay=(1.0, 2.0), duplicate=0.5)
    fate = plan.draw(message, seed, "a", number)
    assert fate == plan.draw(message, seed, "a", number)
    assert all(1.0 <= delay <= 2.0 for delay in fate.delays)
    assert (
        fate.delays
        == Faults(delay=(1.0, 2.0), duplicate=0.5, lose=1.0, split=1.0).draw(message, seed, "a", number).delays
    )


def test_what_is_spared_is_drawn_no_fault_for() -> None:
    plan = Faults(lose=1.0, spare=lambda message: isinstance(message, Alarm))
    assert plan.draw(note(1), 0, "a", 1).lost
    assert not plan.draw(alarm(1), 0, "a", 1).lost


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
            message = note(1)
            await wire.send(message)
            await sleep(0.1)
            assert [taker.messages() for taker in takers] == [[message], [message]]

    run(main, backend=backend)


# --- late, twice, never

Script = list[tuple[int, float, bool]]


async def play(group: TaskGroup, ends: list[FaultyBus], script: Script) -> dict[str, list[tuple[float, BusMessage]]]:
    """Let three senders, at all ends, send notes and alarms with pauses. Returns who sent what, and when."""
    sent: dict[str, list[tuple[float, BusMessage]]] = {f"s{n}": [] for n in range(3)}

    async def sender(number: int) -> None:
        source = f"s{number}"
        for n, (who, pause, urgent) in enumerate(script):
            await sleep(pause)
            if who == number:
                message = alarm(n, source=source) if urgent else note(n, source=source)
                sent[source].append((current_time(), message))
                await ends[number % len(ends)].send(message)

    for number in range(3):
        group.start_soon(sender, number)
    return sent


scripts = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.0, 0.1, 0.5]), st.booleans()), max_size=15)
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


def expected_times(sent: float, faults: list[Fault]) -> list[float]:
    """When a message arrives, as the story has it."""
    told = [fault.kind for fault in faults]
    if "lost" in told:
        assert told == ["lost"]
        return []
    late = [sent + fault.seconds for fault in faults if fault.seconds is not None]
    return [*[sent] * (1 + ("duplicated" in told) - len(late)), *late]


@settings(laws, max_examples=10)
@given(script=scripts, seed=seeds)
def test_the_same_seed_tells_the_same_story_whatever_the_schedule(script: Script, seed: int) -> None:
    """Of both backends, too: the draws are by sender and message."""

    async def main() -> list[str]:
        plan = Faults(delay=1.0, duplicate=0.3, lose=0.3)
        async with network("left", "right", seed=seed, faults=plan) as ends:
            async with create_task_group() as group:
                await play(group, ends, script)
            await sleep(50)
        return str(ends[1]).splitlines()

    stories = [run(main, backend=backend, seed=schedule) for backend in ("asyncio", "trio") for schedule in (0, 1)]
    assert all(sorted(story) == sorted(stories[0]) for story in stories)
    assert run(main, backend="asyncio", seed=0) == stories[0]


def test_another_seed_tells_another_story(backend: str) -> None:
    def story(seed: int) -> str:
        async def main() -> str:
            async with network("left", seed=seed, faults=Faults(delay=1.0, lose=0.5)) as (bus,):
                for n in range(20):
                    await bus.send(note(n))
            return str(bus)

        return str(run(main, backend=backend))

    assert story(1) == story(1) != story(2)


def test_each_message_is_drawn_for_itself_by_end_and_sender(backend: str) -> None:
    async def main() -> list[tuple[int, ...]]:
        lost = []
        async with network("left", "right", faults=Faults(lose=0.5)) as (left, right):
            for end, source in ((left, "a"), (left, "b"), (right, "a")):
                before = len(left.records)
                for n in range(20):
                    await end.send(note(n, source=source))
                lost.append(
                    tuple(fault.message.n for fault in left.records[before:] if isinstance(fault.message, Note))
                )
        return lost

    lost = run(main, backend=backend)
    assert len(set(lost)) == 3
    assert all(0 < len(numbers) < 20 for numbers in lost)


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


# --- jobs


def test_a_request_that_comes_twice_runs_once(backend: str) -> None:
    """J12."""

    async def main() -> None:
        async with network("left", "right", faults=Faults(duplicate=1.0, delay=1.0, spare=announcement)) as (
            left,
            right,
        ):
            speaker = Speaker("b", seconds=0.5)
            async with runners(left, right, speaker) as (asker, _):
                for _ in range(5):
                    await asker.job("b", name="say")
                await sleep(5)
                assert sorted(speaker.asked.values()) == [1] * 5

    run(main, backend=backend)


@laws
@given(seed=seeds, lose=st.sampled_from([0.05, 0.3, 0.7]), spared=st.booleans(), timeout=st.sampled_from([0.2, 3.0]))
def test_a_job_with_a_timeout_always_ends_on_a_lossy_network_and_leaves_nothing(
    backend: str, seed: int, lose: float, spared: bool, timeout: float
) -> None:
    """J1, J6, L1."""
    outcomes: list[str] = []

    async def main() -> None:
        plan = Faults(lose=lose, delay=0.3, duplicate=0.1, spare=announcement if spared else None)
        async with network("left", "right", seed=seed, faults=plan) as (left, right):
            asker = WorkerRunner(bus=left, name="asker", handle_sigint=False, grace_period=1.0)
            host = WorkerRunner(bus=right, name="host", handle_sigint=False, grace_period=1.0)
            async with host, asker:
                await host.add_workers(Speaker("b", seconds=0.1))
                for _ in range(4):
                    begun = current_time()
                    try:
                        answer = await asker.job("b", name="say", payload={"text": "x"}, timeout=timeout)
                        assert answer == {"said": "x", "by": "b"}
                        outcomes.append("answered")
                    except JobError as error:
                        outcomes.append(error.reason)
                    assert current_time() - begun <= timeout + 2.1  # the job's time, and that of its cancellation (L4)
                assert asker.job_client.groups == {}
                ending = current_time()
            # Each of the two: its grace period, and the bound of its clean-up.
            assert current_time() - ending <= 2 * (1.0 + 2.0) + 0.1

    run(main, backend=backend, seed=seed, limit=200.0)
    assert len(outcomes) == 4


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


# --- splits


def test_a_split_that_is_shorter_than_the_timeout_delays_a_job(backend: str) -> None:
    async def main() -> None:
        async with network("left", "right") as (left, right), runners(left, right, Speaker("b")) as (asker, _):
            left.split("left", "right", seconds=2.0)
            assert await asker.job("b", name="say", timeout=3.0)
            assert current_time() == pytest.approx(2.0)
            told = [line.split("  ", 1)[1] for line in str(left).splitlines()]
            assert told == [
                "left and right are split for 2 s",
                "the request of 'asker' to 'b' (job asker-1) is held back from right: left and right are split",
                "left and right are together again; 1 message arrives late",
            ]

    run(main, backend=backend)


def test_a_job_times_out_in_a_split_that_is_longer(backend: str) -> None:
    async def main() -> None:
        async with network("left", "right") as (left, right), runners(left, right, Speaker("b")) as (asker, _):
            right.split("left", seconds=30.0)
            with pytest.raises(TimeoutError):
                await asker.job("b", name="say", timeout=3.0)
            assert current_time() <= 5.1
            right.heal()
            assert await asker.job("b", name="say", timeout=3.0)
            assert current_time() <= 5.1

    run(main, backend=backend)


def test_an_answer_that_meets_a_losing_split_is_lost(backend: str) -> None:
    async def main() -> str:
        async with network("left", "right") as (left, right), runners(left, right, Speaker("b", 0.5)) as (asker, _):
            async with create_task_group() as group:
                group.start_soon(partial(ask, asker))
                await sleep(0.25)
                left.split(seconds=1.0, loses=True)
            return str(left)

    async def ask(asker: WorkerRunner) -> None:
        with pytest.raises(TimeoutError):
            await asker.job("b", name="say", timeout=2.0)

    told = run(main, backend=backend).splitlines()
    assert told[:3] == [
        "0.25 s  left and right are split for 1 s",
        "0.50 s  the answer of 'b' to 'asker' (job asker-1) is lost on its way to left: left and right are split",
        "1.25 s  left and right are together again; 1 message was lost",
    ]


def test_what_is_held_back_arrives_in_order_and_before_what_is_sent_after_the_split(backend: str) -> None:
    async def main() -> None:
        async with network("left", "right") as (left, right):
            taker = Taker("taker")
            await right.subscribe(taker)
            await left.send(note(0))
            await sleep(0.1)
            left.split()
            for n in range(1, 10):
                await left.send(alarm(n) if n % 2 else note(n))
            await sleep(0.1)
            assert len(taker.got) == 1
            left.heal()
            left.heal()
            await left.send(note(10))
            await sleep(0.1)
            assert [message.n for message in taker.messages()] == list(range(11))
            assert kinds(left) == ["split", *["held back"] * 9, "healed"]

    run(main, backend=backend)


def test_what_concerns_nobody_at_the_other_end_is_not_held_back_from_it(backend: str) -> None:
    """Nothing that is no fault is in the story."""

    async def main() -> None:
        async with network("left", "right") as (left, right):
            await left.subscribe(Helper("here"))
            await right.subscribe(Helper("there"))
            left.split("left", "right")
            await left.send(note(1, "here"))
            await left.send(note(2, "nobody"))
            assert kinds(left) == ["split"]
            await left.send(note(3, "there"))
            assert kinds(left) == ["split", "held back"]

    run(main, backend=backend)


def test_three_ends_can_be_split_into_sides_and_splits_can_overlap(backend: str) -> None:
    async def main() -> None:
        async with network("a", "b", "c") as ends:
            a, b, _ = ends
            takers = {end.name: Taker(f"at {end.name}") for end in ends}
            for end in ends:
                await end.subscribe(takers[end.name])
            a.split(["a", "b"], "c", seconds=1.0)
            b.split("a", "b", seconds=3.0)
            await a.send(note(1))
            for until, reached in ((0.5, "a"), (2.0, "ac"), (4.0, "abc")):
                await sleep(until - current_time())
                assert [name for name, taker in takers.items() if taker.got] == list(reached)
            assert [line.split("  ", 1)[1] for line in str(a).splitlines() if "split for" in line] == [
                "a and b | c are split for 1 s",
                "a and b are split for 3 s",
            ]

    run(main, backend=backend)


@pytest.mark.parametrize(
    ("sides", "text"),
    [
        (("left", "rihgt"), "no end 'rihgt'; did you mean 'right'"),
        (("left", ["left", "right"]), "'left' is on 2"),
        ((["left", "right"],), "needs two sides"),
    ],
)
async def test_a_split_that_cannot_be_is_refused(sides: tuple[Any, ...], text: str) -> None:
    async with network("left", "right") as (left, _):
        with pytest.raises(ValueError, match=text):
            left.split(*sides)
        assert left.records == []


async def test_a_split_of_one_end_or_of_negative_length_is_refused() -> None:
    async with network("left") as (left,):
        with pytest.raises(ValueError, match="needs two sides"):
            left.split()
        with pytest.raises(ValueError, match="seconds must be a number"):
            left.split(seconds=-1.0)


def test_a_split_can_be_drawn(backend: str) -> None:
    """It cuts off the end of the message's sender."""

    async def main() -> None:
        plan = Faults(split=1.0, split_seconds=(2.0, 2.0))
        async with network("left", "right", faults=plan) as (left, right):
            taker = Taker("taker")
            await right.subscribe(taker)
            await left.send(note(1))
            await sleep(1)
            await left.send(note(2))
            await sleep(4)
            assert [time for time, _ in taker.got] == pytest.approx([2.0, 2.0])
            assert kinds(left) == ["split", "held back", "held back", "healed"]
            left.faults = Faults(split=1.0, split_loses=True)
            await left.send(note(3))
            assert kinds(left)[4:] == ["split", "lost"]

    run(main, backend=backend)


def test_a_split_ends_in_time_whichever_end_closes(backend: str) -> None:
    async def main() -> None:
        async with network("a", "b", "c") as (a, b, c):
            other = a.end("d")
            async with other:
                other.split("d", "c", seconds=1.0)
            await sleep(2)
            assert [fault.time for fault in a.records if fault.kind == "healed"] == pytest.approx([1.0])
            assert b.records == c.records

    run(main, backend=backend)


def test_a_split_ends_in_time_at_an_end_that_has_come_later(backend: str) -> None:
    async def main() -> None:
        wire = MemoryBus()
        async with wire, create_task_group() as group:
            a = FaultyBus(wire, name="a")
            b = a.end("b")

            async def come_later() -> None:
                async with b:
                    await sleep(2)

            async with a:
                a.split("a", "b", seconds=1.0)
                group.start_soon(come_later)
                await settle()
        assert [fault.time for fault in b.records if fault.kind == "healed"] == pytest.approx([1.0])

    run(main, backend=backend)


def test_nothing_waits_for_a_split_that_was_ended_early(backend: str) -> None:
    async def main() -> None:
        async with network("left", "right") as (left, _):
            before = task_ids()
            left.split(seconds=1000.0)
            left.heal()
            await sleep(0.1)
            assert task_ids() == before

    run(main, backend=backend)


# --- lifetimes


def test_what_is_still_delayed_goes_out_when_an_end_closes(backend: str) -> None:
    async def main() -> None:
        wire = RecordingBus()
        async with network("left", bus=wire, faults=Faults(delay=(10.0, 10.0))) as (left,):
            taker = Taker("taker")
            await wire.subscribe(taker)
            for n in range(3):
                await left.send(note(n))
            await sleep(1)
            await wire.unsubscribe(taker)
        assert [message.n for message in wire.messages(Note)] == [0, 1, 2]
        assert {record.time for record in wire.records} == {1.0}
        assert str(left).splitlines()[-1] == " 1.00 s  left closes; 3 delayed messages go out at once".strip()

    run(main, backend=backend)


def test_what_does_not_go_out_in_time_when_an_end_closes_is_dropped(backend: str) -> None:
    """L4."""

    class Stuck(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            await anyio.sleep_forever()

    async def main() -> None:
        async with network("left", bus=Stuck(), faults=Faults(delay=(10.0, 10.0))) as (left,):
            for n in range(3):
                await left.send(note(n))
        assert current_time() == pytest.approx(2.0)
        assert str(left).splitlines()[-2:] == [
            "0.00 s  left closes; 3 delayed messages go out at once",
            "2.00 s  left closes; 2 delayed messages did not go out in time",
        ]

    run(main, backend=backend)


def test_what_a_split_held_back_from_an_end_that_closes_never_arrives(backend: str) -> None:
    async def main() -> None:
        async with network("left") as (left,):
            async with left.end("right") as right:
                await right.subscribe(Helper("b"))
                left.split()
                await left.send(note(1, "b"))
                await right.unsubscribe(right._subscribers["b"])
            left.heal()
            assert [fault.text for fault in left.records[2:]] == [
                "right closes; 1 message held back from it will never arrive",
                "left and right are together again",
            ]

    run(main, backend=backend)


async def test_opening_an_end_opens_the_wrapped_bus_and_closing_it_closes_it() -> None:
    """R6."""
    wire = MemoryBus()
    async with FaultyBus(wire) as left:
        assert wire.is_open
        async with left.end("right"):
            pass
        assert wire.is_open
    assert not wire.is_open
    async with wire:
        async with left:
            assert wire.is_open
        assert wire.is_open


async def test_a_bus_that_a_runner_opens_is_open_for_that_runner_alone() -> None:
    """R6: the wrapped bus, too."""
    wire = MemoryBus()
    left = FaultyBus(wire)
    right = left.end("right")
    for _ in range(2):
        async with WorkerRunner(bus=left, name="first", handle_sigint=False):
            assert wire.opened_by == "first"
            with pytest.raises(RuntimeError, match=r"'right' is an end of, is open for runner 'first' alone"):
                await WorkerRunner(bus=right, name="second", handle_sigint=False).run()
        assert wire.opened_by is None
        assert not wire.is_open
    async with WorkerRunner(bus=right, name="second", handle_sigint=False):
        pass


def test_the_wind_down_of_a_runner_covers_the_wrapped_bus(backend: str) -> None:
    """L4: one deadline for all of it."""

    class Stuck(MemoryBus):
        async def stop(self) -> None:
            await anyio.sleep_forever()

    class Slow(Helper):
        async def cleanup(self) -> None:
            await sleep(1.5)

    async def main() -> float:
        runner = WorkerRunner(bus=FaultyBus(Stuck()), handle_sigint=False)
        async with runner:
            await runner.add_workers(Slow("slow"))
            await runner.registry.wait_for("slow")
            await runner.cancel()
        return current_time()

    assert run(main, backend=backend) == pytest.approx(2.0)


async def test_an_end_that_is_open_or_closed_already_says_so() -> None:
    async with network("left") as (left,):
        with pytest.raises(RuntimeError, match="open already"):
            await left.__aenter__()
        assert left.is_open
    with pytest.raises(RuntimeError, match="not open"):
        await left.__aexit__(None, None, None)


async def test_the_ends_of_a_network_share_seed_and_plan() -> None:
    left = FaultyBus(MemoryBus(), seed=7)
    right = left.end("right")
    right.faults = Faults(lose=0.5)
    assert (left.seed, left.faults) == (right.seed, right.faults) == (7, Faults(lose=0.5))


async def test_two_ends_need_two_names() -> None:
    bus = FaultyBus(MemoryBus(), name="left")
    with pytest.raises(ValueError, match="the name 'left' is taken"):
        bus.end("left")


async def test_a_wrapped_bus_that_does_not_open_leaves_nothing() -> None:
    class Dead(MemoryBus):
        async def start(self) -> None:
            raise OSError("nobody there")

    before, wire = task_ids(), Dead()
    bus = FaultyBus(wire)
    with pytest.raises(OSError, match="nobody there"):
        await bus.__aenter__()
    with pytest.raises(OSError, match="nobody there"):
        await WorkerRunner(bus=bus, handle_sigint=False).run()
    assert task_ids() == before
    assert not bus.is_open
    assert wire.opened_by is None


def test_a_cancelled_program_leaves_nothing(backend: str) -> None:
    """L3, L1."""

    async def main() -> None:
        wire = RecordingBus()
        with move_on_after(1) as scope:
            async with network("left", "right", bus=wire, faults=Faults(delay=(5.0, 5.0))) as (left, right):
                left.split()
                await left.send(note(1))
                await right.send(note(2))
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert not wire.is_open
        assert current_time() == 1.0
        assert [message.n for message in wire.messages(Note)] == [1, 2] or len(wire.records) == 2

    run(main, backend=backend)


async def test_an_error_of_the_body_goes_through_as_it_is() -> None:
    """L6."""
    wire = MemoryBus()
    with pytest.raises(KeyError):
        async with FaultyBus(wire) as left, left.end("right"):
            raise KeyError
    assert not wire.is_open


def test_a_network_can_be_opened_again(backend: str) -> None:
    async def main() -> None:
        bus = FaultyBus(MemoryBus(), faults=Faults(delay=1.0))
        taker = Taker("taker")
        await bus.subscribe(taker)
        for n in range(2):
            async with bus:
                await bus.send(note(n))
                await sleep(2)
        assert [message.n for message in taker.messages()] == [0, 1]

    run(main, backend=backend)


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


# --- what a network brings to light

overtaken = Faults(delay=(1.0, 1.0), spare=lambda message: not isinstance(message, BusWorkerRegistryMessage))
"""Lists of workers are late, and nothing else: per sender the order holds (X2), but a worker and its runner are two."""


def test_a_list_of_workers_that_is_late_does_not_make_newer_workers_disappear(backend: str) -> None:
    """J4."""

    async def main() -> None:
        async with (
            network("left", "right", faults=overtaken) as (left, right),
            runners(left, right, Speaker("b", 5.0)) as (asker, _),
        ):
            assert await asker.job("b", name="say")
            assert asker.registry.remote_workers == ["b"]

    run(main, backend=backend)


def test_a_list_of_workers_that_is_late_does_not_bring_back_a_worker_that_has_gone(backend: str) -> None:
    """G2, J4."""

    async def main() -> None:
        async with network("left", "right", faults=overtaken) as (left, right):
            worker = Speaker("b")
            async with runners(left, right, worker):
                await sleep(2)
                async with another_runner(left) as late:
                    await sleep(1.5)
                    await worker.stop()
                    await sleep(5)
                    assert late.registry.remote_workers == []

    run(main, backend=backend)


async def test_a_runner_that_comes_under_the_name_of_one_that_left_is_told_of_the_workers_there() -> None:
    """On a plain `MemoryBus`."""
    async with MemoryBus() as bus, another_runner(bus, Helper("a")):
        for _ in range(2):
            async with WorkerRunner(bus=bus, name="again", handle_sigint=False) as runner:
                await runner.job("a", name="echo", timeout=0.5)


class Parent(Helper):
    async def on_activated(self, args: dict[str, Any] | None = None) -> None:
        await self.add_workers(Helper("child"))


def test_a_parent_stops_in_bounded_time_when_its_childs_cancel_is_lost(backend: str) -> None:
    async def main() -> None:
        async with network("left") as (bus,), another_runner(bus, Parent("parent")) as runner:
            await runner.registry.wait_for("child")
            bus.faults = Faults(lose=1.0)
            parent = runner.get_worker("parent")
            assert parent is not None
            await parent.stop()

    run(main, backend=backend)


def test_the_answers_of_a_worker_that_ends_count_before_its_departure(backend: str) -> None:
    """The answer is still under way, and the registry tells at once that the worker has gone (J4)."""

    async def main() -> None:
        speaker = Speaker("b", 0.5)
        async with (
            network("left", faults=Faults(delay=(0.1, 0.1))) as (bus,),
            another_runner(bus, speaker, job_grace=5.0) as runner,
        ):
            await runner.registry.wait_for("b")
            async with runner.job("b", name="say", payload={"text": "x"}) as asked:
                await runner.end()
            assert asked.response == {"said": "x", "by": "b"}

    run(main, backend=backend)


def test_a_run_that_was_cancelled_before_it_began_runs_no_worker(backend: str) -> None:
    class Runs(Helper):
        ran = False

        async def run(self, params: WorkerParams) -> None:
            self.ran = True
            await super().run(params)

    async def main() -> None:
        worker = Runs("worker")
        runner = WorkerRunner(bus=FaultyBus(MemoryBus()), handle_sigint=False)
        await runner.add_workers(worker)
        await runner.cancel()
        await runner.run()
        assert not worker.ran

    run(main, backend=backend)
