"""W3: hand-over from one worker to another."""

from dataclasses import dataclass
from typing import Any, ClassVar

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import define, frozen

from support.agents import Agent, activation
from support.buses import Wire
from support.conditions import eventually
from support.peers import processes
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusDeactivateWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    MemoryBus,
    WorkerActivationArgs,
    WorkerBus,
    WorkerReadyData,
    WorkerRegistry,
    WorkerRunner,
    job,
)
from workerbus.errors import WireError
from workerbus.testing import settle


class Lingering(Wire):
    """A bus on which a message has been handled before `send` returns."""

    async def publish(self, message: BusMessage) -> None:
        await super().publish(message)
        for _ in range(5):
            await checkpoint()


@pytest.mark.parametrize("bus", [MemoryBus, Wire, Lingering])
async def test_the_caller_is_inactive_before_the_target_is_active(bus: type[WorkerBus]) -> None:
    """W3"""
    caller, target = Agent("caller"), Agent("target", active=False)
    target.watched = [caller]
    async with running(caller, target, bus=bus()):
        await caller.activate_worker("target", deactivate_self=True)
        assert not caller.active
        await eventually(lambda: target.log and "deactivated" in caller.log)
        assert target.active
    assert target.log == [("activated", None)]
    assert target.seen == [[False]]


async def test_an_activation_leaves_the_caller_active_by_default() -> None:
    """W3"""
    caller, target = Agent("caller"), Agent("target", active=False)
    async with running(caller, target):
        await caller.activate_worker("target")
        await eventually(lambda: target.log)
        assert caller.active
        await caller.deactivate_worker("target")
        await eventually(lambda: "deactivated" in target.log)
        assert not target.active


@pytest.mark.parametrize("deactivate_self", [True, False])
async def test_an_unknown_name_changes_nothing(deactivate_self: bool) -> None:
    """W3: a `LookupError` with near names"""
    caller = Agent("caller")
    async with running(caller, Agent("billing"), Agent("support")) as runner:
        await anyio.wait_all_tasks_blocked()
        sent = runner.bus.statistics().sent
        with pytest.raises(LookupError, match="'billing'"):
            await caller.activate_worker("biling", deactivate_self=deactivate_self)
        with pytest.raises(LookupError, match="'billing'"):
            await caller.deactivate_worker("biling")
        assert caller.active
        assert runner.bus.statistics().sent == sent
        await anyio.wait_all_tasks_blocked()
    assert caller.log == [("activated", None)]


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5])
async def test_a_hand_over_that_is_cancelled_half_way_is_done_all_the_same(seconds: float) -> None:
    """W3, L4: where sending takes its time, in a method of the worker's own; not both are inactive."""

    class Slow(Agent):
        async def send_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, BusActivateWorkerMessage | BusDeactivateWorkerMessage):
                await anyio.sleep(0.8)
            await super().send_bus_message(message)

    caller, target = Slow("caller"), Agent("target", active=False)
    async with running(caller, target) as runner:
        await runner.registry.wait_for("target")
        with anyio.move_on_after(seconds):
            await caller.activate_worker("target", deactivate_self=True)
        await settle()
        assert (caller.active, target.active) == (False, True)


async def test_a_finished_worker_is_unknown() -> None:
    """W3"""
    caller, target = Agent("caller"), Agent("target")
    async with running(caller, target):
        await target.stop()
        with pytest.raises(LookupError):
            await caller.activate_worker("target", deactivate_self=True)
        assert caller.active


async def test_a_worker_that_has_not_started_can_be_activated() -> None:
    """W3, W2: the runner knows it"""
    target = Agent("target", active=False)

    class Calling(Agent):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await runner.add_workers(target)
            await self.activate_worker("target", deactivate_self=True)

    caller = Calling("caller")
    async with running() as runner:
        await runner.add_workers(caller)
        await eventually(lambda: target.log)
        assert not caller.active
    assert target.log == [("activated", None)]


async def test_a_worker_that_is_being_added_can_be_activated() -> None:
    """W3, W2: the runner knows it already, so the activation is not lost"""
    caller, target = Agent("caller"), Agent("target", active=False)
    async with running(caller) as runner:
        await runner.bus.send(BusAddWorkerMessage(target, source="test", target=runner.name))
        assert runner.get_worker("target") is target
        await caller.activate_worker("target", deactivate_self=True)
        await anyio.wait_all_tasks_blocked()
        assert target.active
    assert target.log == [("activated", None)]


async def test_a_child_can_be_activated_by_any_worker() -> None:
    """W3"""
    caller, parent, child = Agent("caller"), Agent("parent"), Agent("child", active=False)
    async with running(caller, parent):
        await parent.add_workers(child)
        await caller.activate_worker("child")
        await eventually(lambda: child.active)


async def test_a_worker_may_hand_over_to_itself() -> None:
    """W3"""
    worker = Agent("w")
    async with running(worker):
        await worker.activate_worker("w", deactivate_self=True)
        await eventually(lambda: len(worker.log) == 3)
        assert worker.active
    assert worker.log == [("activated", None), "deactivated", ("activated", None)]


async def test_a_hand_over_from_a_job_handler_leaves_its_job_alone() -> None:
    """W3, W4"""

    class Transferring(Agent):
        @job(name="transfer")
        async def transfer(self, message: BusJobRequestMessage) -> dict[str, Any]:
            await self.activate_worker("target", deactivate_self=True)
            await eventually(lambda: target.log)
            return {"to": "target"}

    target = Agent("target", active=False)
    async with running(Transferring("caller"), target) as runner:
        assert await runner.job("caller", name="transfer") == {"to": "target"}


async def test_hand_overs_in_a_ring_leave_one_active() -> None:
    """W3"""
    turns: list[list[str]] = []

    class Turning(Agent):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            turns.append([worker.name for worker in ring if worker.active])
            if len(turns) < 9:
                await self.activate_worker(ring[len(turns) % 3].name, deactivate_self=True)

    ring = [Turning(f"w{n}", active=False) for n in range(3)]
    async with running(*ring) as runner:
        await runner.bus.send(activation("w0"))
        await eventually(lambda: len(turns) == 9)
    assert turns == [["w0"], ["w1"], ["w2"]] * 3


@frozen
class Greeting(WorkerActivationArgs):
    text: str | None = None


async def test_what_is_given_along_reaches_the_target() -> None:
    """W3"""
    caller, target = Agent("caller"), Agent("target", active=False)
    async with running(caller, target):
        assert target.activation_args is None
        await caller.activate_worker("target", args=Greeting(metadata={"n": 1}, text="hello"))
        await eventually(lambda: target.log)
        assert target.activation_args == {"metadata": {"n": 1}, "text": "hello"}
        await caller.activate_worker("target", args=Greeting(text="again"))
        await eventually(lambda: len(target.log) == 2)
        assert target.activation_args == {"text": "again"}
        await caller.deactivate_worker("target")
        await eventually(lambda: not target.active)
        assert target.activation_args is None
    assert target.log[:2] == [
        ("activated", {"metadata": {"n": 1}, "text": "hello"}),
        ("activated", {"text": "again"}),
    ]


async def test_who_activates_and_deactivates_is_said_in_the_message() -> None:
    """W3, N1."""
    observer, one = Plain("observer"), Helper("one")
    async with running(one, Helper("two", active=False)) as runner:
        await runner.bus.subscribe(observer)
        await one.activate_worker("two", args=WorkerActivationArgs())
        await one.deactivate_worker("two")
        await observer.until(1, BusDeactivateWorkerMessage)
    args = WorkerActivationArgs().to_dict()
    assert observer.of(BusActivateWorkerMessage) == [BusActivateWorkerMessage(args, source="one", target="two")]
    assert observer.of(BusDeactivateWorkerMessage) == [BusDeactivateWorkerMessage(source="one", target="two")]


async def test_a_worker_that_is_unknown_is_told_apart_from_those_that_were_added() -> None:
    """W3: near names are those that the runner knows, too, ready or not."""
    one = Helper("one")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(one, Helper("speaker"))
    with pytest.raises(LookupError, match=r"^there is no worker 'speeker'; did you mean 'speaker'\?$"):
        await one.activate_worker("speeker")
    await runner.cancel()
    await runner.run()


async def test_a_worker_without_a_runner_looks_others_up_in_its_registry() -> None:
    """W1, W3."""
    bus, registry, worker = MemoryBus(), WorkerRegistry("somewhere"), Helper("worker")
    await worker.attach(registry=registry, bus=bus)
    with pytest.raises(LookupError, match="no worker 'other'; no names are known"):
        await worker.activate_worker("other")
    await registry.register(WorkerReadyData("others", "somewhere"))
    with pytest.raises(LookupError, match="did you mean 'others'"):
        await worker.deactivate_worker("other")


async def test_a_worker_that_is_not_there_is_told_from_one_of_another_runner() -> None:
    """W3: the error has the names that are near."""
    worker = Helper("worker")
    bus = MemoryBus()
    first, second = (WorkerRunner(bus=bus, name=name, handle_sigint=False) for name in ("A", "B"))
    async with bus, first, second:
        await first.add_workers(worker)
        await second.add_workers(Helper("remote"))
        await first.registry.wait_for("remote")
        with pytest.raises(LookupError, match="did you mean 'remote'"):
            await worker.activate_worker("remot")


async def test_a_hand_over_that_is_cancelled_leaves_somebody_active() -> None:
    """W3: it is one step, however long the bus takes."""

    class Slow(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            await anyio.sleep(1)
            await super().publish(message)

    one, other = Helper("one"), Helper("other", active=False)
    async with running(one, other, bus=Slow()):
        with anyio.move_on_after(0.5):
            await one.activate_worker("other", deactivate_self=True)
        assert not one.active
        await anyio.sleep(10)  # what the runner and the workers announce goes first
        assert other.active


async def test_a_name_like_that_of_another_runners_worker_is_near() -> None:
    """J1, G1"""
    registry = WorkerRegistry("here")
    await registry.register(WorkerReadyData("printer", "there"))
    assert registry.near("printr") == "did you mean 'printer'?"


@dataclass
class Told(WorkerActivationArgs):
    text: str | None = None


@dataclass
class ToldMore(Told):
    more: int = 0


@define
class Open(WorkerActivationArgs):
    text: str | None = None


@pytest.mark.parametrize("kind", [Greeting, Told, ToldMore, Open])
def test_activation_arguments_are_dataclasses_or_attrs_classes(kind: type[Told]) -> None:
    """N1: with the fields of whichever decorator they have."""
    args = kind(metadata={"a": 1}, text="hello")
    assert kind.from_dict({**args.to_dict(), "other": 2}) == args
    assert args.to_dict() == {"metadata": {"a": 1}, "text": "hello"} | ({"more": 0} if kind is ToldMore else {})
    assert kind({"b": 2}).metadata == {"b": 2}


def test_activation_arguments_of_a_dataclass_can_be_set() -> None:
    """N1: as upstream."""
    args = ToldMore(text="hello")
    args.text, args.more = "bye", 3
    assert args.to_dict() == {"text": "bye", "more": 3}


def test_activation_arguments_with_fields_that_nothing_sets_are_refused() -> None:
    """N1, N8: where one is built, by its name."""

    class Bare(WorkerActivationArgs):
        text: str | None = None

    class Below(Bare):
        pass

    for kind in (Bare, Below):
        with pytest.raises(TypeError, match="Bare has fields, and nothing sets them: put @dataclass over it"):
            kind.from_dict({"text": "lost"})


def test_activation_arguments_without_fields_of_their_own_need_no_decorator() -> None:
    """N1"""

    class Plain(Told):
        kind: ClassVar[str] = "plain"

    assert Plain.from_dict({"text": "hello"}).to_dict() == {"text": "hello"}


def test_activation_arguments_ignore_unknown_keys_and_leave_out_none() -> None:
    """N1: `from_dict` and `to_dict` as in the seeds, of subclasses too."""
    assert WorkerActivationArgs.from_dict({"metadata": {"a": 1}, "other": 2}).to_dict() == {"metadata": {"a": 1}}
    assert WorkerActivationArgs().to_dict() == {}


async def test_a_hand_over_is_told_to_those_who_watch_and_in_its_order() -> None:
    """W3, N1: the one is inactive, then the other is activated."""
    observer, one, two = Plain("observer"), Helper("one"), Helper("two", active=False)
    async with running(one, two) as runner:
        await runner.bus.subscribe(observer)
        await one.activate_worker("two", deactivate_self=True)
        await observer.until(1, BusActivateWorkerMessage)
        await eventually(lambda: two.active)
        assert not one.active
    told = [m for m in observer.got if isinstance(m, BusActivateWorkerMessage | BusDeactivateWorkerMessage)]
    assert told == [
        BusDeactivateWorkerMessage(True, source="one", target="one"),
        BusActivateWorkerMessage(None, source="one", target="two"),
    ]


async def test_word_of_a_hand_over_that_comes_late_deactivates_nobody() -> None:
    """W3: the worker may have been activated again meanwhile."""
    worker = Helper("w")
    async with running(worker) as runner:
        await runner.bus.send(BusDeactivateWorkerMessage(True, source="w", target="w"))
        await settle()
        assert worker.active


@pytest.mark.parametrize("deactivate_self", [True, False])
async def test_args_that_cannot_travel_are_refused_before_anything_was_changed(deactivate_self: bool) -> None:
    """W3, X1: the one who hands over stays active, and the other one hears nothing."""
    heard: list[object] = []

    class Hearing(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            heard.append(args)

    class Active(Hearing):
        async def on_deactivated(self) -> None:
            heard.append("deactivated")

    async with processes("here", "there") as [here, there]:
        active = Active("active")
        await here.add_workers(active, Hearing("near", active=False))
        await there.add_workers(Hearing("far", active=False))
        for name in ("active", "near", "far"):
            await here.registry.wait_for(name)
        await settle()
        args = WorkerActivationArgs(metadata={"a set": {1}})
        with pytest.raises(WireError, match="a set"):
            await active.activate_worker("far", args=args, deactivate_self=deactivate_self)
        await settle()
        assert active.active
        assert heard == [None]
        await active.activate_worker("near", args=args, deactivate_self=deactivate_self)
        await settle()
        assert active.active is not deactivate_self
        assert args.to_dict() in heard
