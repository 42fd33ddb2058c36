"""L1, O2, O3, O7: the runners of other processes, as one sees them who looks; in virtual time."""

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.leaks import task_ids
from support.networks import Taker
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobRequestMessage,
    BusMessage,
    BusObservationMessage,
    BusObserveMessage,
    BusWorkerRegistryMessage,
    JobError,
    MemoryBus,
    NotRunningError,
    PeerBus,
    WorkerPool,
    WorkerRunner,
    bus_message,
    job,
)
from workerbus.observing import ObservedCluster, PassedMessage, PassingMessages, _cluster, observe_cluster
from workerbus.runner import _observers, _reporter
from workerbus.runner._notes import ROOM
from workerbus.runner._observers import parts
from workerbus.runner._reporter import Report, Reporter
from workerbus.testing import PeerNetwork, settle, virtual_backend
from workerbus.wire import Wire

SECRET = "xyzzy-payload"


@pytest.fixture(autouse=True)
def _no_processor_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    # A runner pauses for a hundred times the processor time that a report took: in virtual time, that would decide.
    monkeypatch.setattr(_observers, "thread_time", lambda: 0.0)


class Parent(BaseWorker):
    @job(name="nested")
    async def nested(self, message: BusJobRequestMessage) -> None:
        await self.job("helper", name="echo", payload={"secret": SECRET})


def network(**kwargs: Any) -> PeerNetwork:
    return PeerNetwork(wire=Wire(), **kwargs)


async def seen(cluster: ObservedCluster, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Wait until a state is as it should be."""
    while not condition(state := cluster.state()):
        await cluster.changed()
    return state


async def of_jobs(passing: PassingMessages, count: int) -> list[PassedMessage]:
    """Wait until so many messages of jobs have passed."""
    found: list[PassedMessage] = []
    while len(found) < count:
        found += [each] if (each := await anext(passing)).job_id else []
    return found


def taps(*runners: WorkerRunner) -> list[int]:
    return [len(runner.bus._taps) for runner in runners]


@asynccontextmanager
async def three(net: PeerNetwork, **kwargs: Any) -> AsyncIterator[tuple[WorkerRunner, WorkerRunner, WorkerRunner]]:
    """Three processes: one asks, one has a parent, one its helper."""
    async with (
        running(Helper("helper"), name="three", bus=net.end("three"), **kwargs) as third,
        running(Parent("parent"), name="two", bus=net.end("two"), **kwargs) as second,
        running(name="one", bus=net.end("one"), **kwargs) as first,
    ):
        await first.registry.wait_for("parent")
        await second.registry.wait_for("helper")
        yield first, second, third


async def test_what_is_seen_is_what_the_statistics_of_each_process_say() -> None:
    """O2, O7: of each worker, each runner, their sums, and each job in flight; no payload (O3)."""
    net = network()
    async with three(net) as runners, observe_cluster(net.end("view")) as cluster:
        first = runners[0]
        for _ in range(3):
            await first.job("parent", name="nested", payload={"secret": SECRET})
        with pytest.raises(JobError):
            await first.job("helper", name="fail")
        async with first.job("helper", name="wait", timeout=10, payload={"secret": SECRET}):
            told = {"jobs": 1, "answered_error": 1, "answered_completed": 6, "requested": 8}
            said = await seen(cluster, lambda state: told.items() <= state["about"].items())
            for runner in runners:
                statistics, row = runner.statistics(), said["runners"][runner.name]
                assert row["workers"] == len(statistics.workers)
                assert {status: row[f"answered_{status}"] for status in statistics.jobs_answered} == (
                    statistics.jobs_answered
                )
                assert (row["requested"], row["peers"]) == (statistics.jobs_requested, 3)
                for name, worker in statistics.workers.items():
                    it = said["workers"][name]
                    assert {status: it[status] for status in worker.jobs_answered} == worker.jobs_answered
                    assert (it["jobs"], it["runner"], it["active"]) == (len(worker.jobs), runner.name, True)
                    assert {lane: it[lane] for lane in worker.lanes} == worker.lanes
            helper = runners[2].get_worker("helper")
            assert isinstance(helper, Helper)
            helper.release.set()
        about, (asked,) = said["about"], said["jobs"].values()
        assert (about["processes"], about["runners"], about["workers"], about["jobs"]) == (1, 3, 2, 1)
        assert about["requested"] == sum(runner.statistics().jobs_requested for runner in runners)
        assert (asked["name"], asked["worker"], asked["requester"], asked["runner"]) == (
            "wait",
            "helper",
            "one",
            "three",
        )
        (error,) = said["errors"].values()
        assert (error[2], error[5]) == ("helper", "three")
        assert error[4].endswith("ValueError: it went wrong\n")
        assert SECRET not in json.dumps([said, cluster.story(asked["id"])])


async def test_the_story_of_a_job_goes_over_all_processes() -> None:
    """O7: each message of it once, causes before effects, and who was asked for what in it."""
    net = network()
    async with three(net) as (first, _, _), observe_cluster(net.end("view")) as cluster:
        async with first.job("parent", name="nested") as asked:
            pass
        while (story := cluster.story(asked.job_id)) is None or len(story["steps"]) < 4:
            await cluster.changed()
            cluster.state()
    assert [(kind, source, target) for _, kind, source, target, _, _ in story["steps"]] == [
        ("asked", "one", "parent"),
        ("asked", "parent", "helper"),
        ("answered", "helper", "parent"),
        ("answered", "parent", "one"),
    ]
    assert [(each["name"], each["requester"]) for each in story["nested"]] == [("echo", "parent")]
    assert story["places"] == {"one": "one", "parent": "two", "helper": "three"}
    assert not story["open"]


@bus_message
class Reading(BusDataMessage):
    celsius: float


class Busy(BaseWorker):
    """Has two jobs at a time, whose handlers ask in their own tasks, and a hook that asks in none."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked: dict[str, str | None] = {}

    async def ask(self, outer: str | None) -> None:
        async with self.job("helper", name="echo") as inner:
            self.asked[inner.job_id] = outer

    @job(name="twice")
    async def twice(self, message: BusJobRequestMessage) -> None:
        await anyio.sleep(0.1)
        await self.ask(message.job_id)
        async with anyio.create_task_group() as group:
            group.start_soon(self.ask, message.job_id)
        await anyio.sleep(0.1)

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Reading):
            await self.ask(None)


async def test_it_is_known_in_which_job_another_one_is_asked_for() -> None:
    """O7: of a worker that has several at once; by its hooks, none is asked for in a job."""
    net = network()
    busy = Busy("busy")
    async with (
        running(Helper("helper"), name="two", bus=net.end("two")),
        running(busy, name="one", bus=net.end("one")) as first,
        observe_cluster(net.end("view")) as cluster,
    ):
        await first.registry.wait_for("helper")
        outer = []
        for _ in range(2):  # the second time in tasks that were used before
            async with first.job("busy", name="twice") as one, first.job("busy", name="twice") as another:
                await anyio.sleep(0.05)
                first.bus.post(Reading(1.0, source="one", target="busy"))
            outer += [one.job_id, another.job_id]
        stories = cluster._overview.stories
        await seen(
            cluster, lambda _: all((each := stories.get(job_id)) and len(each.steps) == 2 for job_id in busy.asked)
        )
        told = {job_id: each.parent for job_id in busy.asked if (each := stories.get(job_id)) is not None}
        assert told == busy.asked
        assert sorted(filter(None, told.values())) == sorted([*outer, *outer])
        assert len(told) == 10


async def test_on_entering_all_have_answered_however_long_it_takes_to_ask_one_of_them() -> None:
    """O7: for as long as it takes, up to two seconds."""
    far = iter([0.2, 0.7, 0.1, 0.4])
    net = network()
    async with AsyncExitStack() as stack:
        for name in ("one", "two", "three", "four"):
            await stack.enter_async_context(running(Helper(f"of {name}"), name=name, bus=net.end(name)))
        end = net.end("eye")
        for name in ("one", "two", "three", "four"):
            net.split("eye", name, seconds=next(far))
        async with observe_cluster(end) as cluster:
            assert sorted(cluster.state()["runners"]) == ["four", "one", "three", "two"]


async def test_nothing_is_gathered_before_and_after_somebody_looks() -> None:
    """O7, L1: no tap, no task, no listener to what is logged; after the end of the block at once."""
    net = network()
    async with three(net) as runners:
        await settle()
        before, handlers = task_ids(), list(logging.getLogger("workerbus").handlers)
        assert taps(*runners) == [0, 0, 0]
        async with observe_cluster(net.end("view")):
            assert taps(*runners) == [1, 1, 1]
        await settle()
        assert taps(*runners) == [0, 0, 0]
        assert task_ids() == before
        assert logging.getLogger("workerbus").handlers == handlers
        sent = [runner.bus.statistics().sent for runner in runners]
        await anyio.sleep(15)
        assert [runner.bus.statistics().sent for runner in runners] == sent


async def test_nothing_is_gathered_anywhere_while_one_rests() -> None:
    """O4, O7: and everywhere again when one looks again."""
    net = network()
    async with three(net) as runners, observe_cluster(net.end("view")) as cluster:
        for _ in range(2):
            assert taps(*runners) == [1, 1, 1]
            cluster.rest()
            await settle()
            assert taps(*runners) == [0, 0, 0]
            cluster.look()
            await cluster.answered()
            assert set(cluster.state()["runners"]) == {"one", "two", "three"}


async def test_who_is_lost_is_told_nothing_from_that_moment_on() -> None:
    """O7, X4: a process that looks and is killed."""
    net = network(lease=5.0, beat=1.0)
    async with three(net) as runners, anyio.create_task_group() as group:
        looks = anyio.Event()

        async def look(end: PeerBus) -> None:
            async with observe_cluster(end):
                looks.set()
                await anyio.sleep_forever()

        group.start_soon(net.run, "view", look)
        await looks.wait()
        assert taps(*runners) == [1, 1, 1]
        gone = anyio.Event()

        def peer_gone(_bus: object, _peer: object, _reason: str) -> None:
            assert taps(*runners)[0] == 0
            gone.set()

        bus = runners[0].bus
        assert isinstance(bus, PeerBus)
        bus.add_event_handler("on_peer_gone", peer_gone)
        net.kill("view")
        await gone.wait()
        await settle()
        assert taps(*runners) == [0, 0, 0]


async def test_who_does_not_ask_again_is_told_nothing_more() -> None:
    """O7: one report for one question, and after a while nothing is gathered for it."""
    net = network()
    async with running(Helper("helper"), name="one", bus=net.end("one")) as runner, net.end("view") as bus:
        lazy = Taker("lazy")
        await bus.subscribe(lazy)
        bus.post(BusObserveMessage(1, 0.1, source="lazy"))
        await anyio.sleep(_observers.KEEP - 1)
        for _ in range(10):
            await runner.job("helper", name="echo")
        assert taps(runner) == [1]
        await anyio.sleep(2)
        assert taps(runner) == [0]
        assert [type(each) for each in lazy.messages("one")].count(BusObservationMessage) == 1


async def test_who_asks_too_often_is_answered_seldom() -> None:
    """O7: ten times a second at most, and always to the last question."""
    net = network()
    async with running(Helper("helper"), name="one", bus=net.end("one")), net.end("view") as bus:
        eager = Taker("eager")
        await bus.subscribe(eager)
        for number in range(1, 101):
            bus.post(BusObserveMessage(number, -1.0, source="eager"))
            await anyio.sleep(0.01)
        answers = [each for each in eager.messages("one") if isinstance(each, BusObservationMessage)]
        assert 2 <= len(answers) <= 11


def reports(looker: Taker) -> list[dict[str, Any]]:
    """Return what a runner has told somebody, put together from its parts, and when."""
    found: dict[int, dict[str, Any]] = {}
    complete: list[dict[str, Any]] = []
    for time, message in looker.got:
        if isinstance(message, BusObservationMessage) and message.target == looker.name:
            report, part = found.setdefault(message.number, {"notes": []}), json.loads(message.report)
            report.update(part, notes=report["notes"] + part.get("notes", []), at=time)
            complete += [] if message.more else [report]
    return complete


def is_told(looker: Taker, times: int) -> bool:
    return len(reports(looker)) == times


async def test_who_asks_anew_is_told_everything_again() -> None:
    """O7: it gets what has changed only as long as it goes on from its last question."""
    net = network()
    async with running(Helper("helper"), name="one", bus=net.end("one")), net.end("view") as bus:
        looker = Taker("looker")
        await bus.subscribe(looker)
        for times, number in enumerate((1, 2, 1, 2, 1), 1):
            bus.post(BusObserveMessage(number, 0.5, source="looker"))
            await eventually(partial(is_told, looker, times))
            assert ("helper" in reports(looker)[-1]["changes"].get("workers", {"set": {}})["set"]) == (number == 1)


async def test_a_runner_that_needs_long_to_tell_tells_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """O7: it takes a hundredth of the processor's time at most, however often it is asked."""
    now = itertools.count(0.0, 0.03)
    monkeypatch.setattr(_observers, "thread_time", lambda: next(now))
    net = network()
    async with running(Helper("helper"), name="one", bus=net.end("one")), net.end("view") as bus:
        looker = Taker("looker")
        await bus.subscribe(looker)
        for number in (1, 2, 3):
            bus.post(BusObserveMessage(number, 0.5, source="looker"))
            await eventually(partial(is_told, looker, number))
        first, second, third = (each["at"] for each in reports(looker))
        assert (second - first, third - second) == (pytest.approx(3.0, abs=0.1), pytest.approx(3.0, abs=0.1))


@pytest.mark.parametrize("first", ["modest", "curious"])
async def test_of_several_who_look_each_is_told_what_it_asks_for_and_when(first: str) -> None:
    """O7: whoever came first. When their process is lost, all of them are forgotten."""
    wanted = {"modest": ("none", 8.0), "curious": ("all", 0.5)}
    net = network()
    async with running(Helper("helper"), name="one", bus=net.end("one")) as runner:
        async with net.end("view") as bus:
            lookers = {name: Taker(name) for name in sorted(wanted, key=lambda name: name != first)}
            begun = anyio.current_time()
            for number in (1, 2):
                for name, looker in lookers.items():
                    messages, interval = wanted[name]
                    await bus.subscribe(looker)
                    bus.post(BusObserveMessage(number, interval, messages, source=name))
                await eventually(lambda: all(reports(looker) for looker in lookers.values()))
            await runner.job("helper", name="echo")
            await eventually(lambda: all(len(reports(looker)) == 2 for looker in lookers.values()))
            assert reports(lookers["curious"])[1]["at"] - begun < 8.0 <= reports(lookers["modest"])[1]["at"] - begun
            assert reports(lookers["modest"])[1]["notes"] == []
            assert "asked" in [note[1] for note in reports(lookers["curious"])[1]["notes"]]
            for name in lookers:
                bus.post(BusObserveMessage(3, wanted[name][1], wanted[name][0], source=name))
            await settle()
        left = anyio.current_time()
        await eventually(lambda: taps(runner) == [0])
        assert anyio.current_time() - left < _observers.KEEP / 2


async def test_a_report_says_what_was_left_out_since_the_last_one() -> None:
    """O7: whether more has passed than was looked at, and how much of that could not wait."""
    async with running(Helper("helper")) as runner:
        reporter = Reporter(runner)
        looker = reporter.observe("all")

        async def pass_by(messages: int) -> None:
            for _ in range(messages):
                await runner.bus.send(BusDataMessage(source="me", target="helper"))
            reporter.look()

        for messages in (1, 2 * ROOM, 1, 2 * ROOM, 1):
            await pass_by(messages)
            report = looker.report()
            assert (report.sampled, len(report.notes), report.missed) == (messages > ROOM, min(messages, ROOM), 0)
        for _ in range(6):
            await pass_by(ROOM)
        report = looker.report()
        assert (report.sampled, len(report.notes), report.missed) == (False, 4 * ROOM, 2 * ROOM)
        await pass_by(1)
        report = looker.report()
        assert (len(report.notes), report.missed) == (1, 0)
        looker.end()


async def test_runners_come_and_go() -> None:
    """O7, X4: one that starts, ends, is killed, and lives again under its name."""
    net = network(lease=5.0, beat=1.0)
    async with anyio.create_task_group() as group, observe_cluster(net.end("view")) as cluster:
        assert cluster.state()["runners"] == {}

        async def host(end: PeerBus) -> None:
            async with running(Helper("helper"), name="host", bus=end):
                await anyio.sleep_forever()

        async with running(Helper("first"), name="other", bus=net.end("other")):
            await seen(cluster, lambda state: set(state["workers"]) == {"first"})
            group.start_soon(net.run, "host", host)
            state = await seen(cluster, lambda state: set(state["workers"]) == {"first", "helper"})
            assert state["workers"]["helper"]["runner"] == "host"
            net.kill("host")
            await seen(cluster, lambda state: set(state["runners"]) == {"other"})
            group.start_soon(net.run, "host", host)
            await seen(cluster, lambda state: set(state["workers"]) == {"first", "helper"})
        await seen(cluster, lambda state: set(state["runners"]) == {"host"})
        group.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", [virtual_backend("asyncio")], ids=["asyncio"])
async def test_one_whose_telling_was_cancelled_natively_tells_all_who_look_when_it_is_asked_again() -> None:
    """L3, O7: `asyncio.Task.cancel()` of that task alone."""
    net = network()
    async with (
        running(Helper("first"), name="host", bus=net.end("host")) as runner,
        observe_cluster(net.end("eye")) as eye,
    ):
        await seen(eye, lambda state: set(state["workers"]) == {"first"})
        (telling,) = [task for task in asyncio.all_tasks() if task.get_name() == "host observers"]
        telling.cancel()
        await runner.add_workers(Helper("second"), wait=True)
        async with observe_cluster(net.end("ear")) as ear:
            assert set(ear.state()["workers"]) == {"first", "second"}
            await seen(eye, lambda state: set(state["workers"]) == {"first", "second"})


async def test_one_who_was_cut_off_sees_all_again() -> None:
    """O7, X4: declared lost while it lived, as is one whom it looks at."""
    net = network(lease=5.0, beat=1.0)
    async with three(net) as runners, observe_cluster(net.end("view")) as cluster:
        await seen(cluster, lambda state: len(state["runners"]) == 3)
        for end in ("view", "two"):
            net.fence(end)
            await seen(cluster, lambda state: "two" not in state["runners"])
            await seen(cluster, lambda state: set(state["workers"]) == {"parent", "helper"})
            await seen(cluster, lambda _: taps(*runners) == [1, 1, 1])


async def test_runners_that_share_a_bus_are_all_seen_and_one_tells_what_passes() -> None:
    """O7, R6: also one that starts later, and alone when the one that has told ends."""
    net = network()
    async with (
        net.end("shared") as bus,
        observe_cluster(net.end("view"), messages="all", interval=4.0) as cluster,
        running(Helper("a"), name="one", bus=bus) as first,
        running(Helper("b"), name="two", bus=bus) as second,
    ):
        state = await seen(cluster, lambda state: set(state["runners"]) == {"one", "two"})
        assert {name: row["runner"] for name, row in state["workers"].items()} == {"a": "one", "b": "two"}
        passing = cluster.messages()
        await second.job("a", name="echo")
        assert [each.kind for each in await of_jobs(passing, 2)] == ["asked", "answered"]
        await anyio.sleep(4.5)  # both have reported since
        assert not [each for each in passing.take() if each.job_id]
        await first.end()
        await seen(cluster, lambda state: set(state["runners"]) == {"two"})
        await anyio.sleep(0.5)  # the other one is asked at once for what passes
        await second.job("b", name="echo")
        assert [each.kind for each in await of_jobs(passing, 2)] == ["asked", "answered"]


async def test_one_that_tells_everything_once_more_is_seen_as_it_is_now() -> None:
    """O7: where it is asked anew, as one is that begins."""
    net = network()
    async with (
        running(Helper("a"), Helper("b"), name="host", bus=net.end("host")) as runner,
        observe_cluster(net.end("view"), interval=5.0) as cluster,
    ):
        await seen(cluster, lambda state: set(state["workers"]) == {"a", "b"})
        worker = runner.get_worker("a")
        assert worker is not None
        await worker.stop()
        runner.bus.post(BusWorkerRegistryMessage(runner="host", workers=[], asks=True, source="host"))
        await seen(cluster, lambda state: set(state["workers"]) == {"b"})
        await anyio.sleep(6)
        assert set(cluster.state()["workers"]) == {"b"}


async def test_one_who_is_lost_before_it_has_answered_is_not_waited_for() -> None:
    """O7, X4: neither at once nor when one looks again."""
    net = network(lease=0.5, beat=0.25)
    async with (
        running(Helper("helper"), name="host", bus=net.end("host")),
        net.end("mute"),
        observe_cluster(net.end("view")) as cluster,
    ):
        cluster.rest()
        net.split("mute", "view")
        cluster.look()
        net.kill("mute")
        net.heal()
        begun = anyio.current_time()
        await cluster.answered()
        assert anyio.current_time() - begun < 1
        assert set(cluster.state()["workers"]) == {"helper"}


async def test_of_each_report_it_is_read_what_was_missed_however_many_parts_the_one_before_had() -> None:
    """O7"""
    net = network()
    async with net.end("other") as other, observe_cluster(net.end("view")) as cluster:
        head = {"now": 1.0, "asked_at": 1.0, "sampled": False, "missed": 2}
        rest: dict[str, Any] = {"changes": {}, "notes": []}
        for number in (1, 2):
            for part, more in (({**head, **rest}, True), (rest, True), (rest, False)):
                text = json.dumps(part)
                other.post(BusObservationMessage(number, text, more, source="other", target=cluster._me.name))
            await eventually(lambda number=number: cluster.missed >= 2 * number)  # type: ignore[misc]  # a number
            assert cluster.missed == 2 * number


async def test_times_of_another_process_are_right_at_once_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """L8, O7: though its clock differs, and nothing was asked for long."""
    monkeypatch.setattr(_cluster, "monotonic", anyio.current_time)
    for module in (_observers, _reporter):
        monkeypatch.setattr(module, "monotonic", lambda: anyio.current_time() + 1000)
    net = network()
    looks = observe_cluster(net.end("view"), messages="none")
    async with running(Helper("helper"), name="host", bus=net.end("host")), looks as cluster:
        for _ in range(2):
            assert [runner.clock.seconds for runner in cluster._asked.values()] == [pytest.approx(1000, abs=0.2)]
            cluster.rest()
            await anyio.sleep(5)
            cluster.look()
            await cluster.answered()


async def test_of_a_process_that_is_lost_no_runner_is_seen_any_more() -> None:
    """O7, X4: of two that share its bus neither, and both again when it has started anew."""
    net = network(lease=5.0, beat=1.0)

    async def process(bus: PeerBus) -> None:
        async with bus, running(Helper("a"), name="one", bus=bus), running(Helper("b"), name="two", bus=bus):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks, observe_cluster(net.end("view")) as cluster:
        for _ in range(2):
            tasks.start_soon(net.run, "shared", process)
            await seen(cluster, lambda state: set(state["workers"]) == {"a", "b"})
            net.kill("shared")
            state = await seen(cluster, lambda state: not state["workers"])
            assert (state["runners"], state["processes"]) == ({}, {})


async def test_each_message_is_seen_passing_once() -> None:
    """O7: where it is sent; those of all kinds, but not what it takes to look."""
    net = network()
    async with three(net) as (first, _, third), observe_cluster(net.end("view"), messages="all") as cluster:
        passing = cluster.messages()
        await first.job("helper", name="echo", payload={"secret": SECRET})
        third.bus.post(Reading(21.5, source="helper", target="helper"))
        passed = [await anext(passing) for _ in range(3)]
        told = {(each.runner, each.kind, each.source, each.target, each.text, each.payload) for each in passed}
        assert told == {
            ("one", "asked", "one", "helper", "echo", None),
            ("three", "answered", "helper", "one", "completed", None),
            ("three", "Reading", "helper", "helper", None, None),
        }
    assert [each async for each in passing] == []
    assert cluster.missed == 0


async def test_there_is_one_question_at_a_time_also_when_more_is_wanted() -> None:
    """O7: what is wanted anew is asked for soon, and after that one question a second goes to each runner."""
    net = network()
    async with running(Helper("helper"), name="one", bus=net.end("one")) as runner:
        asked, numbers = list[str](), list[int]()

        def tap(message: BusMessage) -> None:
            if isinstance(message, BusObserveMessage) and message.number:
                asked.append(message.messages)
                numbers.append(message.number)

        runner.bus.add_tap(tap)
        async with observe_cluster(net.end("view")) as cluster:
            wanted: list[Any] = ["all", "payloads", "none", "all"]
            for messages in wanted:
                cluster.want(messages)
            await anyio.sleep(1.5)
            asked.clear()
            await anyio.sleep(10)
            assert 8 <= len(asked) <= 12
            assert set(asked) == {"all"}
            assert numbers == list(range(1, len(numbers) + 1))  # only the first is answered with all that there is


async def test_payloads_are_told_where_they_are_asked_for_and_the_runner_allows_it() -> None:
    """O3, O7"""
    net = network()
    async with (
        running(Helper("open"), name="one", bus=net.end("one"), observable="payloads") as first,
        running(Helper("shut"), name="two", bus=net.end("two")) as second,
        observe_cluster(net.end("view"), messages="payloads") as cluster,
        observe_cluster(net.end("another"), messages="all") as modest,
    ):
        passing, without = cluster.messages(), modest.messages()
        await first.job("open", name="echo", payload={"n": 1})
        await second.job("shut", name="echo", payload={"n": 2})
        first.bus.post(Reading(21.5, source="open", target="open"))
        told = [await anext(passing) for _ in range(5)]
        assert {each.source: each.payload for each in told if each.kind == "asked"} == {"one": '{"n": 1}', "two": None}
        assert [each.payload for each in told if each.kind == "Reading"] == ['{"celsius": 21.5}']
        assert {(await anext(without)).payload for _ in range(5)} == {None}


async def test_who_is_not_to_be_observed_tells_nothing() -> None:
    """O3, O7: and nobody waits for it."""
    net = network()
    async with (
        running(Helper("helper"), name="one", bus=net.end("one"), observable=False) as runner,
        observe_cluster(net.end("view")) as cluster,
    ):
        begun = anyio.current_time()
        async with observe_cluster(net.end("another")):
            assert anyio.current_time() == begun
        assert cluster.state()["runners"] == {}
        assert taps(runner) == [0]


async def test_no_code_of_users_sees_that_somebody_looks() -> None:
    """O7: no worker, and no runner, also where they look at messages, or choose them."""
    got: list[str] = []

    class Curious(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            got.append(type(message).__name__)

    class CuriousRunner(WorkerRunner):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            got.append(type(message).__name__)
            return True

        async def on_bus_message(self, message: BusMessage) -> None:
            got.append(type(message).__name__)

    net = network()
    async with CuriousRunner(name="one", bus=net.end("one"), handle_sigint=False) as runner:
        await runner.add_workers(Curious("curious"), wait=True)
        async with observe_cluster(net.end("view")) as cluster:
            await seen(cluster, lambda state: set(state["workers"]) == {"curious"})
            await runner.job("curious", name="echo")
            await seen(cluster, lambda state: state["workers"]["curious"]["completed"] == 1)
    assert "BusJobRequestMessage" in got
    assert not {name for name in got if name.startswith("BusObs")}


async def test_a_thousand_workers_are_told_of_in_small_messages() -> None:
    """O7: only what has changed is told again."""
    net, wire = network(), Wire()
    workers = [Helper(f"worker-{number}") for number in range(1000)]
    async with running(*workers, name="host", bus=net.end("host")) as runner:
        bus = net.end("view")
        sizes: list[int] = []
        bus.add_tap(
            lambda message: (
                sizes.append(len(wire.encode(message))) if isinstance(message, BusObservationMessage) else None
            )
        )
        async with observe_cluster(bus) as cluster:
            await seen(cluster, lambda state: len(state["workers"]) == 1000)
            assert max(sizes) < 64 * 1024
            assert sum(sizes) > 100_000
            sizes.clear()
            await runner.job("worker-7", name="echo")
            await seen(cluster, lambda state: state["workers"]["worker-7"]["completed"] == 1)
            assert sum(sizes) < 10_000


def test_a_message_is_smaller_where_the_network_takes_less() -> None:
    """O7, X1"""
    rows = {f"worker {number}": {"name": "w" * 50} for number in range(100)}
    texts = list(parts(Report(1.0, {"workers": {"set": rows, "gone": ["a"]}}, [], 0, sampled=False), 1000, 5.0))
    told = [json.loads(text) for text in texts]
    assert max(map(len, texts)) <= 1000
    assert ["now" in each for each in told] == [True, *[False] * (len(texts) - 1)]
    together: dict[str, Any] = {}
    for each in told:
        together.update(each["changes"].get("workers", {"set": {}})["set"])
    assert together == rows


def test_what_is_too_long_for_any_message_is_left_out() -> None:
    """O7, X1: and the rest is told."""
    changes = {"workers": {"set": {"long": "w" * 2000, "short": "w"}, "gone": []}}
    told = [json.loads(text) for text in parts(Report(1.0, changes, [], 0, sampled=False), 1000, 5.0)]
    assert [each.get("now") for each in told] == [1.0, None]
    assert [each["changes"] for each in told] == [{}, {"workers": {"set": {"short": "w"}, "gone": []}}]


async def test_a_pool_in_another_process_shows_its_members() -> None:
    """O7, S2"""
    net = network()
    async with (
        running(WorkerPool("pool", Helper, size=2), name="host", bus=net.end("host")) as runner,
        observe_cluster(net.end("view")) as cluster,
    ):
        await runner.job("pool", name="echo")
        state = await seen(cluster, lambda state: state["workers"].get("pool", {}).get("completed") == 1)
        members = [row for row in state["workers"].values() if row["parent"] == "pool"]
        assert (state["workers"]["pool"]["pool"], sum(row["completed"] for row in members)) == ([2, 0], 1)


async def test_what_cannot_be_read_ends_the_looking_at_that_runner_alone(caplog: pytest.LogCaptureFixture) -> None:
    """O7: a process of another version, say."""
    net = network()
    async with (
        running(Helper("helper"), name="good", bus=net.end("good")),
        net.end("bad") as bad,
        observe_cluster(net.end("view")) as cluster,
    ):
        for report in ("no JSON", "[]", "{}", '{"now": 1}', '{"now": null, "asked_at": 0, "sampled": 0, "missed": 0}'):
            caplog.clear()
            bad.post(BusObservationMessage(1, report, source="bad", target=cluster._me.name))
            await eventually(lambda: "not known here" in caplog.text)
        state = await seen(cluster, lambda state: set(state["workers"]) == {"helper"})
        assert set(state["runners"]) == {"good"}


async def test_one_that_tells_nothing_for_long_is_shown_as_silent() -> None:
    """O7: its loop stands still, say."""
    net = network()
    async with (
        running(Helper("helper"), name="host", bus=net.end("host")),
        observe_cluster(net.end("view")) as cluster,
    ):
        state = await seen(cluster, lambda state: state["runners"])
        assert "silent" not in state["runners"]["host"]
        net.split("host", "view", seconds=8.0)
        await anyio.sleep(5)
        assert cluster.state()["runners"]["host"]["silent"]
        await seen(cluster, lambda state: "host" in state["runners"] and "silent" not in state["runners"]["host"])


async def test_a_cluster_is_observed_once_and_over_a_network() -> None:
    """O7"""
    no_network: Any = MemoryBus()
    with pytest.raises(TypeError, match="PeerBus"):
        observe_cluster(no_network)
    bus = network().end("view")
    with pytest.raises(ValueError, match="interval"):
        observe_cluster(bus, interval=0)
    wrong: Any = "some"
    with pytest.raises(ValueError, match="'none', 'jobs', 'all', 'payloads'"):
        observe_cluster(bus, messages=wrong)
    cluster = observe_cluster(bus)
    async with cluster:
        assert cluster.state()["about"]["bus"] == "connected"
    with pytest.raises(NotRunningError):
        await cluster.__aenter__()


@pytest.mark.parametrize("wrong", ["payload", None])
def test_what_a_runner_may_tell_is_one_of_three(wrong: Any) -> None:
    """N8"""
    with pytest.raises(ValueError, match="observable"):
        WorkerRunner(observable=wrong)


async def test_looking_from_within_a_process_of_the_network_shows_the_others() -> None:
    """O7: over the bus that a runner there has opened."""
    net = network()
    async with (
        running(Helper("theirs"), name="there", bus=net.end("there")),
        running(Helper("mine"), name="here", bus=net.end("here")) as here,
    ):
        bus: Any = here.bus
        async with observe_cluster(bus) as cluster:
            await seen(cluster, lambda state: set(state["runners"]) == {"there"})
        assert here.bus.is_open
