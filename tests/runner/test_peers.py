"""X3, X4, X5, J4: runners in other processes: they meet, are lost, come again, and have the names that they claim."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import anyio
import pytest

from support.conditions import eventually
from support.leaks import left_in
from support.messages import note
from support.peers import Switch, SwitchBus, bus_of, processes
from support.runners import runner_on
from support.workers import Doing, Helper
from workerbus import (
    Backoff,
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerRegistryMessage,
    JobError,
    NameTakenError,
    NotRunningError,
    Peer,
    RestartLimitError,
    WorkerErrorData,
    WorkerGoneData,
    WorkerReadyData,
    WorkerRegistryEntry,
    WorkerRunner,
    worker_ready,
)
from workerbus.runner import _discovery
from workerbus.testing import settle


def snapshots(runner: WorkerRunner) -> list[BusWorkerRegistryMessage]:
    """The snapshots that have arrived at the bus of a runner."""
    return [message for _, message in bus_of(runner).arrivals if isinstance(message, BusWorkerRegistryMessage)]


# --- meeting


@pytest.mark.parametrize("count", [2, 6])
async def test_runners_that_start_at_once_know_each_other(count: int) -> None:
    """X3, G1: each of them asks all, and meets those whose buses join later."""
    switch, names = Switch(), [f"runner {number}" for number in range(count)]
    runners = [runner_on(SwitchBus(switch), name) for name in names]
    workers = {f"{runner.name}/{n}" for runner in runners for n in range(2)}
    known = anyio.Event()
    complete: list[str] = []

    async def run(runner: WorkerRunner) -> None:
        async with runner:
            await runner.add_workers(*(Helper(f"{runner.name}/{n}") for n in range(2)))
            for name in workers:
                await runner.registry.wait_for(name)
            complete.append(runner.name)
            if len(complete) == count:
                known.set()
            await known.wait()
            assert {*runner.registry.local_workers, *runner.registry.remote_workers} == workers

    async with anyio.create_task_group() as group:
        for runner in runners:
            group.start_soon(run, runner)


async def test_a_snapshot_for_a_peer_that_was_met_is_not_answered() -> None:
    """X3: each of two sends its own when the second one joins; the second, which was not there before, asks all."""
    async with processes("a") as [a]:
        await a.add_workers(Helper("on a"))
        async with runner_on(SwitchBus(bus_of(a).switch), "b") as b:
            await b.registry.wait_for("on a")
            await settle()
            assert [message.asks for message in snapshots(a)] == [True]
            assert [message.target for message in snapshots(b) if message.asks] == ["b"]


async def test_runners_that_share_a_bus_are_known_to_others_whichever_came_first() -> None:
    """R6, X3: two on one bus, one of which comes later; what they send goes to where their workers are."""
    async with processes("far") as [far], SwitchBus(bus_of(far).switch, name="shared") as shared:
        await far.add_workers(Helper("on far"))
        async with runner_on(shared, "one") as one:
            await one.add_workers(Helper("a"), Helper("b"))
            async with runner_on(shared, "two") as two:
                await two.add_workers(Helper("c"), Helper("d"))
                for name in ("a", "b", "c", "d"):
                    assert (await far.job(name, name="echo"))["worker"] == name
                for runner in (one, two):
                    assert (await runner.job("on far", name="echo"))["worker"] == "on far"
                assert (await one.job("c", name="echo"))["worker"] == "c"
                bus_of(far).kill()
                await eventually(lambda: sorted(one.registry.remote_workers) == ["c", "d"])
                assert sorted(two.registry.remote_workers) == ["a", "b"]
            await settle()


async def test_what_is_sent_to_a_worker_of_a_peer_goes_to_that_one_alone() -> None:
    """X6: a request, its answer to a runner that has no workers, and no more of it."""
    async with processes("a", "b", "c") as [a, b, c]:
        await a.add_workers(Helper("on a"))
        await b.registry.wait_for("on a")
        await c.registry.wait_for("on a")
        await settle()
        before = len(bus_of(c).arrivals)
        assert await b.job("on a", name="echo")
        await settle()
        assert len(bus_of(c).arrivals) == before


async def test_a_runner_whose_bus_was_there_before_it_is_known_to_those_who_have_no_workers() -> None:
    """X6, R6: its answer to a requester elsewhere goes to that one alone."""
    async with processes("asker", "other") as [asker, other], SwitchBus(bus_of(asker).switch, name="shared") as shared:
        await settle()
        async with runner_on(shared, "host") as host:
            await host.add_workers(Helper("helper"))
            for runner in (asker, other):
                await runner.registry.wait_for("helper")
            await settle()
            before = len(bus_of(other).arrivals)
            assert await asker.job("helper", name="echo")
            await settle()
            assert len(bus_of(other).arrivals) == before


@pytest.mark.parametrize("first", ["asker", "host"])
async def test_a_runner_with_more_workers_than_go_into_a_message_tells_of_all(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X1, R9: in several parts, of which each is taken for a part; whoever of the two was there first."""
    monkeypatch.setattr(_discovery, "PART", 10)
    names = [f"w{n:02}" for n in range(25)]
    switch = Switch()
    asker, host = runner_on(SwitchBus(switch), "asker"), runner_on(SwitchBus(switch), "host")
    await host.add_workers(*map(Helper, names))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asker if first == "asker" else host)
        await settle()
        await stack.enter_async_context(host if first == "asker" else asker)
        await settle()
        assert sorted(asker.registry.remote_workers) == names
        assert max(len(message.workers) for message in snapshots(asker)) <= 10
        bus_of(host).fence()
        await settle()
        assert sorted(asker.registry.remote_workers) == names


# --- losing


async def test_of_several_peers_that_are_lost_one_after_the_other_each_takes_its_own_workers_along() -> None:
    """X4: and no others."""
    async with processes("watching", "a", "b", "c") as [watching, *others]:
        for other in others:
            await other.add_workers(Helper(f"at {other.name}"))
        for other in others:
            await watching.registry.wait_for(f"at {other.name}")
        left = {f"at {other.name}" for other in others}
        for other in others:
            bus_of(other).kill()
            left.remove(f"at {other.name}")
            await settle()
            assert set(watching.registry.remote_workers) == left


async def test_the_workers_of_a_lost_peer_are_unregistered_and_all_who_watch_are_told_why() -> None:
    """X4, W9, G2: on_worker_gone with the reason, and those who watch for its departure."""
    gone: list[WorkerGoneData] = []
    left: list[str] = []

    class Watching(BaseWorker):
        async def on_worker_gone(self, data: WorkerGoneData) -> None:
            gone.append(data)

    async def departed(data: WorkerReadyData) -> None:
        left.append(data.worker_name)

    async with processes("a", "b") as [a, b]:
        watching = Watching("watching")
        await b.add_workers(watching)
        await a.add_workers(Helper("one"), Helper("two"))
        for name in ("one", "two"):
            await b.registry.wait_for(name)
        await watching.watch_workers("one")
        await b.registry.watch_departure("two", departed)
        bus_of(a).kill()
        await eventually(lambda: gone and left)
        assert gone == [WorkerGoneData("one", "a", "runner 'a' is gone: its lease is over")]
        assert left == ["two"]
        assert b.registry.remote_workers == []
        b.registry.unwatch("two", departed)


async def test_a_watcher_sees_a_worker_go_and_come_with_its_process() -> None:
    """X4, W9: `@worker_ready` again for the new incarnation."""
    seen: list[str] = []

    class Watching(BaseWorker):
        @worker_ready(name="there")
        async def came(self, data: WorkerReadyData) -> None:
            seen.append(f"came, at {data.runner}")

        async def on_worker_gone(self, data: WorkerGoneData) -> None:
            seen.append("went")

    async with processes("b") as [b]:
        watching = Watching("watching")
        await b.add_workers(watching)
        await watching.watch_workers("there")
        for _ in range(2):
            async with runner_on(SwitchBus(bus_of(b).switch), "a") as a:
                await a.add_workers(Helper("there"))
                await eventually(lambda: len(seen) % 2)
                bus_of(a).kill()
                await eventually(lambda: not len(seen) % 2)
    assert seen == ["came, at a", "went"] * 2


async def test_workers_of_a_lost_peer_are_not_taken_for_failed_and_may_come_back() -> None:
    """X4, J4: who asks later waits for them, also for one that had failed there before, or was being restarted."""
    answers: list[str] = []

    async def ask() -> None:
        answers.append((await b.job("there", name="echo", timeout=5))["worker"])

    async with processes("b") as [b]:
        async with runner_on(SwitchBus(bus_of(b).switch), "a") as a:
            await a.add_workers(Helper("there"))
            await b.registry.wait_for("there")
            bus_of(a).kill()
            await eventually(lambda: not b.registry.remote_workers)
            assert b.registry.failure_of("there") is None
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await settle()
            async with runner_on(SwitchBus(bus_of(b).switch), "a") as a:
                await a.add_workers(Helper("there"))
                await eventually(lambda: answers)
    assert answers == ["there"]


class Broken(BaseException):
    """Ends the worker whose code raises it."""


async def fail(_worker: Doing, _message: BusJobRequestMessage) -> None:
    raise Broken


async def test_a_worker_that_was_being_restarted_with_its_process_is_waited_for_elsewhere() -> None:
    """X4, S1: its restart is forgotten with the process; another one may have the name."""
    async with processes("a", "b") as [a, b]:
        await a.supervise(lambda: Doing("there", fail), backoff=Backoff(initial=3600, maximum=3600))
        with pytest.raises(JobError):
            await b.job("there", name="do")
        await eventually(lambda: "there" in b.registry.restarting)
        bus_of(a).kill()
        await eventually(lambda: "there" not in b.registry.restarting)
        await b.add_workers(Helper("there"))
        assert await b.job("there", name="echo")


# --- coming again


async def test_the_same_names_may_come_back_at_once_in_a_new_incarnation() -> None:
    """X4, L8: all that is told of the new one counts, whatever the numbers of its announcements."""
    async with processes("b") as [b], runner_on(SwitchBus(bus_of(b).switch), "a") as first:
        await first.add_workers(*(Helper(f"w{n}") for n in range(5)))
        for n in range(5):
            await b.registry.wait_for(f"w{n}")
        bus_of(first).kill()
        async with runner_on(SwitchBus(bus_of(b).switch), "a") as second:
            await second.add_workers(*(Helper(f"w{n}") for n in range(5)))
            for n in range(5):
                assert (await b.job(f"w{n}", name="echo"))["worker"] == f"w{n}"
            assert sorted(b.registry.remote_workers) == [f"w{n}" for n in range(5)]
            data = b.registry.get("w0")
            assert data is not None
            assert data.runner == "a"


def _has(found: list[WorkerGoneData], count: int) -> bool:
    return len(found) == count


async def test_a_runner_that_was_fenced_joins_again_and_is_known_again() -> None:
    """X4: both ways, with the workers that it has; though it says that it is the same runner, it is in a new life."""
    gone: list[WorkerGoneData] = []

    class Watching(Helper):
        async def on_worker_gone(self, data: WorkerGoneData) -> None:
            gone.append(data)

    async with processes("a", "b") as [a, b]:
        watching = Watching("on b")
        await a.add_workers(Helper("on a"))
        await b.add_workers(watching)
        await watching.watch_workers("on a")
        await a.registry.wait_for("on b")
        await b.registry.wait_for("on a")
        for times in (1, 2):
            bus_of(a).fence()
            assert a.registry.remote_workers == []
            await a.registry.wait_for("on b")
            await eventually(partial(_has, gone, times))
            await b.registry.wait_for("on a")
            assert await a.job("on b", name="echo")
            assert await b.job("on a", name="echo")


async def test_a_runner_that_is_heard_from_another_peer_is_in_another_life() -> None:
    """X3, X4: though it says that it is in the same one; the end of the session with the first peer changes nothing."""
    gone: list[str] = []
    first, second = Peer("a", "1"), Peer("a", "2")
    async with processes("b") as [b]:
        bus = bus_of(b)
        for number, peer in enumerate((first, second)):
            bus.meet(peer)
            bus.arrive(BusWorkerRegistryMessage("a", [WorkerRegistryEntry("there")], "life", number, source="a"), peer)
            if peer is first:
                b.registry.watch_gone("there", lambda data: gone.append(data.worker_name))
        assert gone == ["there"]
        bus.lose(first, "its lease is over")
        assert gone == ["there"]
        assert b.registry.remote_workers == ["there"]
        bus.lose(second, "its lease is over")
        assert gone == ["there"] * 2
        assert b.registry.remote_workers == []


@pytest.mark.parametrize("goes", [0, 1])
async def test_of_two_who_have_a_worker_of_one_name_what_is_for_it_goes_to_the_one_that_is_left(goes: int) -> None:
    """G4, X6: also what a job tells that worker, and whether its process is lost or only the worker has gone."""
    peers = Peer("a", "1"), Peer("c", "2")
    async with processes("b") as [b]:
        bus = bus_of(b)
        for peer in peers:
            bus.meet(peer)
            entries = [WorkerRegistryEntry("there")]
            bus.arrive(BusWorkerRegistryMessage(peer.name, entries, "life", 1, source=peer.name), peer)
        gone, left = peers[goes], peers[1 - goes]
        bus.arrive(BusWorkerGoneMessage(gone.name, "life", 2, source="there"), gone)
        assert bus._routes.get("there") == left
        assert b.registry.remote_workers == ["there"]
        bus.lose(left, "its lease is over")
        assert bus._routes.get("there") is None


async def test_what_is_sent_to_a_name_while_its_next_worker_starts_elsewhere_is_not_lost() -> None:
    """X4, B4, W2: the earlier one was lost, and nobody has heard of the new one yet."""
    heard: list[BusMessage] = []
    gate = anyio.Event()

    class Starting(Helper):
        async def start(self) -> None:
            await gate.wait()
            await super().start()

        async def on_bus_message(self, message: BusMessage) -> None:
            heard.append(message)

    async with processes("asker", "first", "second") as [asker, first, second]:
        await first.add_workers(Helper("there"))
        await asker.registry.wait_for("there")
        bus_of(first).kill()
        await eventually(lambda: not asker.registry.remote_workers)
        await second.add_workers(Starting("there"))
        await asker.bus.send(note(1, target="there"))
        await settle()
        gate.set()
        await eventually(lambda: note(1, target="there") in heard)


async def test_a_worker_that_leaves_holds_no_end_up_where_its_answers_have_come() -> None:
    """J4, R2: what is for this process arrives in the step in which it is sent, also on a bus with peers."""
    async with processes("a") as [a]:
        await a.add_workers(Helper("helper"))
        async with a.job_group("helper", name="echo") as group:
            await eventually(lambda: group.responses)
            await a.get_worker("helper").stop()  # type: ignore[union-attr]  # it is there
            assert not a._orphans._waiting


async def test_runners_without_workers_are_forgotten_beyond_a_number_with_their_peers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R9: the last ones are remembered; a peer may have had any number of them, one after the other."""
    monkeypatch.setattr(_discovery, "REMEMBERED", 3)
    peer = Peer("many", "1")
    async with processes("b") as [b]:
        bus = bus_of(b)
        bus.meet(peer)
        for n in range(10):
            bus.arrive(BusWorkerRegistryMessage(f"r{n}", [], f"life {n}", n, source=f"r{n}"), peer)
        assert list(b._discovery._at["1"]) == ["r7", "r8", "r9"]
        bus.arrive(BusWorkerRegistryMessage("r8", [WorkerRegistryEntry("w")], "life 8", 11, source="r8"), peer)
        bus.arrive(BusWorkerRegistryMessage("r0", [WorkerRegistryEntry("v")], "life 0", 12, source="r0"), peer)
        assert sorted(b.registry.remote_workers) == ["v", "w"]
        bus.lose(peer, "its lease is over")
        assert b.registry.remote_workers == []
        assert b._discovery._at == {}


@pytest.mark.parametrize("first", ["asker", "host"])
async def test_what_workers_have_failed_of_is_told_briefly(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """J4, X1: a long text, and the texts of many, go into a message; those that failed last are told."""
    monkeypatch.setattr(_discovery, "PART", 20)
    switch = Switch()
    asker, host = runner_on(SwitchBus(switch), "asker"), runner_on(SwitchBus(switch), "host")
    host.add_event_handler("on_error", lambda *_: None)
    async with AsyncExitStack() as stack:
        if first == "asker":
            await stack.enter_async_context(asker)
        await stack.enter_async_context(host)
        for n in range(5):
            await host.add_workers(Failing(f"w{n}"))
            await eventually(partial(host.registry.failure_of, f"w{n}"))
        if first == "host":
            await stack.enter_async_context(asker)
        await eventually(lambda: asker.registry.failure_of("w4"))
        failures = [asker.registry.failure_of(f"w{n}") for n in range(5)]
        assert [failure is not None for failure in failures] == [first == "asker"] * 3 + [True] * 2
        assert failures[4] is not None
        assert failures[4].error == f"ValueError: {'x' * 988}…"


class Failing(BaseWorker):
    """Fails to start, with a long text."""

    async def on_activated(self, args: object) -> None:
        raise ValueError("x" * 5_000)


async def test_nothing_stays_of_a_peer_that_is_gone() -> None:
    """R9: however many have come and gone, whether they have left or were lost."""
    async with processes("b") as [b]:

        async def once(kill: bool) -> None:
            async with runner_on(SwitchBus(bus_of(b).switch), "a") as a:
                await a.add_workers(Helper("there"))
                assert await b.job("there", name="echo")
                if kill:
                    bus_of(a).kill()
            await eventually(lambda: not bus_of(b).peers)

        for kill in (True, False):
            await once(kill)
        before = left_in(b.registry)
        for kill in (True, False) * 5:
            await once(kill)
        assert b._discovery._at == {}
        assert b._discovery._others == {}
        assert not b._discovery._without_workers
        assert left_in(b.registry) == before


# --- names


async def test_a_worker_whose_name_another_process_has_taken_meanwhile_fails() -> None:
    """X5: its runner was cut off, and joins again; ``on_error`` is told, its jobs are answered ERROR."""
    errors: list[WorkerErrorData] = []
    answers: list[JobError] = []

    async def ask() -> None:
        with pytest.raises(JobError) as caught:
            await a.job("twin", name="wait")
        answers.append(caught.value)

    async with processes("a", "b") as [a, b]:
        a.add_event_handler("on_error", lambda _runner, data: errors.append(data))
        mine, theirs = Helper("twin"), Helper("twin")
        await a.add_workers(mine, Helper("other"))
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await mine.begun.wait()
            bus_of(a).kill()
            await eventually(lambda: not bus_of(b).peers)
            await b.add_workers(theirs)
            bus_of(a).end_life("it was declared lost")
            bus_of(a).join()
        await eventually(lambda: any(data.fatal for data in errors))
        [failed] = [data for data in errors if data.fatal]
        assert failed.worker_name == "twin"
        assert isinstance(failed.exception, NameTakenError)
        assert "runner 'b'" in failed.error
        assert answers[0].responses["twin"]["type"] == "NameTakenError"
        await eventually(lambda: a.get_worker("twin") is None)
        assert (await a.job("twin", name="echo"))["worker"] == "twin"
        assert theirs.calls
        assert a.registry.local_workers == ["other"]


@pytest.mark.parametrize("taken", [True, False])
async def test_a_worker_that_was_added_before_its_bus_has_joined_may_come_too_late_for_its_name(taken: bool) -> None:
    """X5: then it never starts, and the run ends with the error; the other one's jobs are done as before."""
    activated: list[str] = []

    class Starting(Helper):
        async def on_activated(self, args: object) -> None:
            activated.append(self.name)

    async with processes("b") as [b]:
        if taken:
            await b.add_workers(Helper("twin"))
        a = runner_on(SwitchBus(bus_of(b).switch), "a")
        await a.add_workers(Starting("twin"), Starting("other"))
        if taken:
            with pytest.raises(NameTakenError, match="runner 'b'"):
                await _end_soon(a)
            assert await b.job("twin", name="echo")
        else:
            await _end_soon(a)
        assert sorted(activated) == (["other"] if taken else ["other", "twin"])
        assert bus_of(b).switch.names == ({"twin": bus_of(b).me.incarnation} if taken else {})


async def _end_soon(runner: WorkerRunner) -> None:
    async with runner:
        await runner.registry.wait_for("other")


async def test_a_name_that_is_lost_before_a_runner_runs_is_told_when_it_runs() -> None:
    """X5, R6: on a bus that another runner uses already; what was claimed anew meanwhile is not."""
    async with SwitchBus(Switch(), name="shared") as shared, runner_on(shared, "one"):
        two = runner_on(shared, "two")
        await two.add_workers(Helper("lost"), Helper("left"), Helper("other"))
        for name in ("lost", "left"):
            shared.name_lost(name, "far")
        left = two.get_worker("left")
        assert left is not None
        await left.stop()
        await two.add_workers(Helper("left"))
        with pytest.raises(NameTakenError, match="'lost'"):
            await _end_soon(two)


@pytest.mark.parametrize("of", ["runner", "parent"])
async def test_a_supervised_worker_whose_name_another_process_has_taken_is_given_up(of: str) -> None:
    """X5, S1: none of its next ones can have the name; the other one keeps it."""
    errors: list[WorkerErrorData] = []
    theirs, told = Helper("twin"), anyio.Event()

    def note_error(_runner: WorkerRunner, data: WorkerErrorData) -> None:
        errors.append(data)
        if data.fatal:
            told.set()

    async with processes("a", "b") as [a, b]:
        a.add_event_handler("on_error", note_error)
        host: WorkerRunner | BaseWorker = a
        if of == "parent":
            host = Helper("parent")
            await a.add_workers(host)
            await b.registry.wait_for("parent")
        await host.supervise(lambda: Helper("twin"), max_restarts=2, within=60, backoff=Backoff(initial=0.5))
        await b.registry.wait_for("twin")
        bus_of(a).kill()
        await eventually(lambda: not bus_of(b).peers)
        await b.add_workers(theirs)
        bus_of(a).end_life("it was declared lost")
        bus_of(a).join()
        await told.wait()
        [error] = [data.exception for data in errors if data.fatal]
        assert isinstance(error, RestartLimitError)
        assert isinstance(error.__cause__, NameTakenError)
        assert (await a.job("twin", name="echo"))["worker"] == "twin"
        assert theirs.calls
        assert bus_of(a).switch.names["twin"] == bus_of(b).me.incarnation
        assert bus_of(a)._names_kept == set()


@pytest.mark.parametrize("of", ["runner", "parent"])
@pytest.mark.parametrize("then", ["comes again", "is given up", "its runner ends"])
async def test_a_worker_that_is_being_restarted_keeps_its_name(of: str, then: str) -> None:
    """S1, X5: no other process can have it meanwhile; when it is not restarted after all, it is free."""
    wait = 1.0 if then == "comes again" else 3600.0
    switch = Switch()
    async with SwitchBus(switch, name="shared") as shared, runner_on(SwitchBus(switch), "b") as b:
        async with runner_on(shared, "a") as a:
            a.add_event_handler("on_error", lambda *_: None)
            host: WorkerRunner | BaseWorker = a
            if of == "parent":
                host = Helper("parent")
                await a.add_workers(host)
                await b.registry.wait_for("parent")
            supervision = await host.supervise(
                lambda: Doing("there", fail), backoff=Backoff(initial=wait, maximum=wait, jitter=0)
            )
            with pytest.raises(JobError):
                await b.job("there", name="do")
            await eventually(lambda: not shared.has_subscriber("there"))
            assert switch.names["there"] == shared.incarnation
            with pytest.raises(NameTakenError):
                await b.add_workers(Helper("there"))
            shared.fence()
            await settle()
            with pytest.raises(NameTakenError):
                await b.add_workers(Helper("there"))
            if then == "comes again":
                await anyio.sleep(1)
                await b.registry.wait_for("there")
                assert switch.names["there"] == shared.incarnation
            elif then == "is given up":
                supervision.release("there")
                assert "there" not in switch.names
        assert switch.names == {}
        assert shared._names_kept == set()
        await b.add_workers(Helper("there"))


async def test_faults_of_the_network_are_reported_to_each_runner_on_the_bus() -> None:
    """X3: by ``on_error``, in the runner's own name."""
    told: list[tuple[str, str]] = []

    def note(runner: WorkerRunner, data: WorkerErrorData) -> None:
        told.append((data.worker_name, data.error))

    async with SwitchBus(Switch()) as bus, runner_on(bus, "one") as one, runner_on(bus, "two") as two:
        for runner in (one, two):
            runner.add_event_handler("on_error", note)
        bus.report("two messages of peer 'far' are lost")
        await eventually(lambda: len(told) == 2)
    assert sorted(told) == [(name, "two messages of peer 'far' are lost") for name in ("one", "two")]


# --- the end


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
async def test_a_worker_whose_name_is_claimed_when_its_runner_is_asked_to_end_comes_too_late(
    ask: Callable[[WorkerRunner], Awaitable[None]],
) -> None:
    """R3, X5: it is refused, as one that is added after that; its name is free, and nothing waits for it."""

    class Asked(SwitchBus):
        async def claim(self, name: str) -> None:
            await super().claim(name)
            if name == "late":
                await ask(runner)

    switch = Switch()
    runner = runner_on(Asked(switch), "runner")
    async with anyio.create_task_group() as group:
        group.start_soon(partial(runner.run, auto_end=False))
        await settle()
        begin = anyio.current_time()
        late = Helper("late")
        with pytest.raises(NotRunningError, match="comes too late"):
            await runner.add_workers(late)
    assert anyio.current_time() == begin
    assert switch.names == {}
    assert late.calls == []


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
async def test_an_end_concerns_the_runner_of_this_process_alone(ask: Callable[[WorkerRunner], Awaitable[None]]) -> None:
    """X9: the others go on."""
    async with processes("b") as [b]:
        await b.add_workers(Helper("on b"))
        a = runner_on(SwitchBus(bus_of(b).switch), "a")
        async with anyio.create_task_group() as group:
            group.start_soon(partial(a.run, auto_end=False))
            await a.registry.wait_for("on b")
            await ask(a)
        assert await b.job("on b", name="echo")


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
async def test_an_end_everywhere_concerns_all_runners_of_all_processes(
    ask: Callable[..., Awaitable[None]],
) -> None:
    """X9, R2: with its reason, which reaches their workers; those on the same bus, too."""
    switch = Switch()
    async with SwitchBus(switch, name="shared") as shared:
        runners = [runner_on(bus, name) for name, bus in (
            ("a", SwitchBus(switch)), ("b", SwitchBus(switch)), ("c", shared), ("d", shared),
        )]  # fmt: skip
        workers = [Helper(f"on {runner.name}") for runner in runners]
        async with anyio.create_task_group() as group:
            for runner, worker in zip(runners, workers, strict=True):
                await runner.add_workers(worker)
                group.start_soon(partial(runner.run, auto_end=False))
            for runner in runners:
                for worker in workers:
                    await runner.registry.wait_for(worker.name)
            await ask(runners[2], "it is late", everywhere=True)
        outcomes = [runner.outcome for runner in runners]
        assert [None if each is None else each.reason for each in outcomes] == ["it is late"] * 4


async def test_an_end_everywhere_may_be_asked_for_before_the_run() -> None:
    """X9, R1: who is there hears of it when the runner's bus has joined."""
    async with anyio.create_task_group() as group:
        switch = Switch()
        other = runner_on(SwitchBus(switch), "other")
        group.start_soon(partial(other.run, auto_end=False))
        await settle()
        runner = runner_on(SwitchBus(switch), "runner")
        await runner.end("it is late", everywhere=True)
        await runner.run()


async def test_a_peer_that_is_lost_while_a_runner_ends_holds_nothing_up() -> None:
    """X4, R2: a job that its worker has asked for is answered, and the end goes on."""
    outcomes: list[BaseException] = []

    class Asking(BaseWorker):
        async def on_activated(self, args: object) -> None:
            self.create_task(self.ask)

        async def ask(self) -> None:
            try:
                await self.job("on a", name="wait")
            except JobError as error:
                outcomes.append(error)

    async with processes("a", job_grace=5) as [a]:
        helper = Helper("on a")
        await a.add_workers(helper)
        async with runner_on(SwitchBus(bus_of(a).switch), "b", job_grace=5) as b:
            await b.registry.wait_for("on a")
            await b.add_workers(Asking("asking"))
            await helper.begun.wait()
            await b.end()
            await settle()
            bus_of(a).kill()
    assert len(outcomes) == 1
