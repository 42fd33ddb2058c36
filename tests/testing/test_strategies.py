"""What the strategies draw is valid, shrinks to the simplest, and is shown as code."""

import itertools
import json
import re
from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Any, get_args, get_type_hints

import pytest
from attrs import evolve, fields, frozen
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.vendor.pretty import pretty

import workerbus
from support.documents import names_for_examples
from workerbus import (
    BusAddWorkerMessage,
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusSystemMessage,
    JobStatus,
    MemoryBus,
    bus_message,
)
from workerbus.testing import Behaviour, Faults, GroupPlan, PeerFaults
from workerbus.testing.strategies import (
    MESSAGES,
    Befalls,
    behaviours,
    delays,
    fault_plans,
    group_plans,
    messages,
    names,
    payloads,
    peer_fault_plans,
    scripts,
    seeds,
    worker_names,
)

few = settings(max_examples=50, deadline=None)


def simplest(strategy: st.SearchStrategy[Any], that: Callable[[Any], bool] = lambda _: True) -> Any:
    quick = settings(
        max_examples=500,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    return find(strategy, that, settings=quick)


def from_code(code: str) -> Any:
    return eval(code, {**names_for_examples(), **vars(workerbus)})


# --- small things


@few
@given(seeds(), names(), worker_names(), delays(1.0), payloads())
def test_small_things_are_what_they_are_for(
    seed: int, name: str, worker: str, delay: float, payload: dict[str, Any]
) -> None:
    assert 0 <= seed < 2**32
    assert name
    assert worker.isidentifier() or worker.isalpha()
    assert delay in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert json.loads(json.dumps(payload)) == payload


def test_small_things_shrink_to_the_simplest() -> None:
    assert simplest(seeds()) == 0
    assert simplest(worker_names()) == "a"
    assert simplest(delays()) == 0.0
    assert simplest(payloads()) == {}


# --- messages


def test_every_message_class_is_drawn() -> None:
    public = {
        value
        for value in vars(workerbus).values()
        if isinstance(value, type) and issubclass(value, BusMessage) and value.__name__.endswith("Message")
    }
    assert set(MESSAGES) == public - {BusMessage, BusDataMessage, BusSystemMessage}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_each_field_of_a_message_takes_more_than_one_value(kind: type[BusMessage]) -> None:
    drawn: dict[str, set[str]] = {}

    @settings(max_examples=40, derandomize=True, database=None)
    @given(messages([kind]))
    def look(message: BusMessage) -> None:
        assert type(message) is kind
        for field in fields(kind):  # type: ignore[arg-type]  # mypy does not know that bus_message is attrs
            drawn.setdefault(field.name, set()).add(repr(getattr(message, field.name)))

    look()
    assert {name: values for name, values in drawn.items() if len(values) < 2} == {}
    optional = {name for name, hint in get_type_hints(kind).items() if type(None) in get_args(hint)}
    assert {name for name in optional & drawn.keys() if "None" not in drawn[name]} == set()


@few
@given(messages())
def test_any_message_can_be_sent(backend_free_bus: MemoryBus, message: BusMessage) -> None:
    assert backend_free_bus.statistics().sent == 0
    assert message.source
    assert message.target != ""


@pytest.fixture(scope="module")
def backend_free_bus() -> MemoryBus:
    return MemoryBus()


class Colour(Enum):
    RED = 1
    GREEN = 2


@frozen
class Point:
    x: int
    y: float


@bus_message
class Drawing(BusDataMessage):
    """A message of a user, with fields of many types."""

    points: list[Point]
    colour: Colour = Colour.RED
    title: str | None = None
    extra: dict[str, Any] | None = None
    anything: Any = None
    pair: tuple[int, str] = (0, "")


@few
@given(messages([Drawing]))
def test_messages_of_ones_own_are_drawn_by_their_annotations(message: Drawing) -> None:
    assert all(type(point) is Point and type(point.x) is int and type(point.y) is float for point in message.points)
    assert isinstance(message.colour, Colour)
    assert message.title is None or isinstance(message.title, str)
    assert message.extra is None or isinstance(message.extra, dict)
    assert [type(part) for part in message.pair] == [int, str]


def test_messages_shrink_to_the_simplest() -> None:
    assert simplest(messages([BusJobRequestMessage])) == BusJobRequestMessage("a", source="a")
    assert simplest(messages([Drawing]), lambda message: message.points) == Drawing([Point(0, 0.0)], source="a")


@few
@given(messages([kind for kind in MESSAGES if kind is not BusAddWorkerMessage]))
def test_a_message_is_shown_as_code(message: BusMessage) -> None:
    assert from_code(re.sub(r"<(JobStatus\.\w+): '\w+'>", r"\1", pretty(message))) == message


def test_a_type_can_be_asked_for_by_itself() -> None:
    assert type(simplest(st.from_type(BusJobResponseMessage))) is BusJobResponseMessage
    assert simplest(st.from_type(Behaviour)) == Behaviour()
    assert simplest(st.from_type(GroupPlan)) == GroupPlan({})
    assert type(simplest(st.from_type(BusMessage))) in MESSAGES


# --- behaviours and plans


@pytest.mark.slow
def test_behaviours_and_plans_shrink_to_the_simplest() -> None:
    assert simplest(behaviours()) == Behaviour()
    assert simplest(behaviours(), lambda each: each.end == "crash") == Behaviour("crash")
    assert simplest(behaviours(), lambda each: each.chunks) == Behaviour(chunks=[{"chunk": 0}])
    assert simplest(group_plans()) == GroupPlan({})
    finite = group_plans(behaviour=behaviours(ends=("answer", "raise")))
    two = simplest(finite, lambda plan: len(plan.workers) > 1 and plan.timeout is not None)
    assert two == GroupPlan({"w1": Behaviour(), "w2": Behaviour()}, timeout=0.0)


ENDS = {"answer", "raise", "hang", "defer", "crash", "stop"}
REQUESTERS = {f"requester {each}" for each in ("wait", "iterate", "raise", "cancelled", "deadline")}
ITERATES = {"every event", "window 1", "window 2"}
"""What only a requester has that iterates."""


def _of_behaviour(each: Behaviour) -> tuple[set[str], set[str]]:
    names = ("updates", "chunks", "every", "after", "clean_up", "generator", "urgent_updates", "insists")
    longest = {"after": 3.0, "every": 1.5, "clean_up": 1.0}
    most = {f"longest {name}" for name, seconds in longest.items() if getattr(each, name) == seconds}
    most |= {f"most {name}" for name in ("updates", "chunks") if len(getattr(each, name) or ()) == 3}
    most |= {f"status {each.status}", f"urgent {each.urgent}", f"by turns {each.alternate}"}
    return {name for name in names if getattr(each, name)} | {each.end}, most


def _of_plan(plan: GroupPlan) -> tuple[set[str], set[str]]:
    found = {name for name in ("workers", "at") if getattr(plan, name)} | {f"requester {plan.requester}"}
    found |= {"every event"} if plan.every else set()
    found |= {"no timeout"} if plan.timeout is None else {"timeout"}
    found |= {f"window {plan.max_buffered_events}"} if plan.max_buffered_events in (1, 2) else set()
    found |= set() if plan.cancel_on_error else {"goes on"}
    return found, {f"timeout {plan.timeout}", f"at {plan.at}", f"{len(plan.workers)} workers"}


def _of_faults(faults: Any) -> tuple[set[str], set[str]]:
    names = [each.name for each in fields(type(faults)) if each.name != "spare"]
    return {name for name in names if getattr(faults, name) not in (0, (0, 0))}, set()


def _apart(one: str, other: str) -> bool:
    """Whether two features are never drawn together."""
    pair = {one, other}
    alternatives = (ENDS, REQUESTERS, {"timeout", "no timeout"}, {"window 1", "window 2"})
    never_at = {"requester wait", "requester iterate"} | ITERATES
    return (
        any(pair <= each for each in alternatives)
        or pair == {"generator", "defer"}
        or bool(pair & ITERATES and pair & (REQUESTERS - {"requester iterate"}))
        or ("at" in pair and bool(pair & never_at))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "features", "extremes", "examples"),
    [
        (behaviours(), _of_behaviour, "longest after, most updates, most chunks, status cancelled, by turns True", 600),
        (group_plans(2, behaviour=st.just(Behaviour())), _of_plan, "timeout 0.0, timeout 3.0, at 3.0, 2 workers", 500),
        (fault_plans(), _of_faults, "", 200),
        (peer_fault_plans(), _of_faults, "", 200),
    ],
    ids=["behaviours", "plans", "faults", "faults of processes"],
)
def test_whatever_there_may_be_is_drawn_together_with_everything_else(
    strategy: st.SearchStrategy[Any],
    features: Callable[[Any], tuple[set[str], set[str]]],
    extremes: str,
    examples: int,
) -> None:
    """Each with each but for those that exclude one another; and up to the longest and the most."""
    mixed: set[tuple[str, ...]] = set()
    alone: set[str] = set()
    most: set[str] = set()

    @settings(max_examples=examples, derandomize=True, database=None, deadline=None)
    @given(strategy)
    def look(drawn: Any) -> None:
        found, furthest = features(drawn)
        alone.update(found)
        most.update(furthest)
        mixed.update(itertools.combinations(sorted(found), 2))

    look()
    missing = set(itertools.combinations(sorted(alone), 2)) - mixed
    assert {pair for pair in missing if not _apart(*pair)} == set()
    assert {pair for pair in mixed if _apart(*pair)} == set()
    assert set(filter(None, extremes.split(", "))) <= most
    assert features is not _of_behaviour or alone >= ENDS
    assert features is not _of_plan or alone >= REQUESTERS


OF_A_KIND = {"split": {"split", "split_seconds"}}
"""What a kind of fault needs beside what is called like it."""


@few
@given(st.sets(st.sampled_from(get_args(Befalls))), st.data())
def test_only_the_kinds_of_faults_are_drawn_that_are_asked_for(kinds: Any, data: st.DataObject) -> None:
    drawn = data.draw(fault_plans(kinds=kinds))
    allowed = {name for kind in kinds for name in OF_A_KIND.get(kind, {kind})}
    assert _of_faults(drawn)[0] <= allowed | ({"split_loses"} if {"split", "lose"} <= kinds else set())


@few
@given(
    st.sets(st.sampled_from(["store", "unconfirmed", "delay", "duplicate", "lose", "late", "split", "fence"])),
    st.data(),
)
def test_only_the_kinds_of_faults_of_processes_are_drawn_that_are_asked_for(kinds: Any, data: st.DataObject) -> None:
    drawn = data.draw(peer_fault_plans(kinds=kinds))
    usual = {"split_seconds"} if "split" not in kinds else set()  # what a plan has by itself
    assert _of_faults(drawn)[0] - usual <= {name for kind in kinds for name in OF_A_KIND.get(kind, {kind})}


@pytest.mark.parametrize("kind", ["store", "delay", "split"])
def test_each_span_of_faults_of_processes_is_drawn_by_itself(kind: Any) -> None:
    name = "split_seconds" if kind == "split" else kind
    drawn: set[Any] = set()

    @settings(max_examples=30, derandomize=True, database=None)
    @given(peer_fault_plans(kinds=(kind,)))
    def look(faults: PeerFaults) -> None:
        drawn.add(getattr(faults, name))

    look()
    assert len(drawn) > 2


def test_streams_are_drawn_by_turns_by_generators_and_with_windows() -> None:
    both = simplest(behaviours(), lambda each: each.alternate and each.generator)
    assert [kind for kind, _ in both.sends] == ["update", "chunk"]
    failing = simplest(behaviours(), lambda each: each.generator and each.end == "crash")
    assert failing == Behaviour("crash", chunks=[{"chunk": 0}], generator=True)
    plan = simplest(group_plans(1, requesters=("iterate",)), lambda plan: plan.max_buffered_events == 1 and plan.every)
    assert (plan.requester, plan.every) == ("iterate", 0.25)


def test_scripts_have_a_behaviour_for_each_job() -> None:
    assert simplest(scripts()) == [Behaviour()]
    assert simplest(scripts(st.just(Behaviour("hang"))), lambda script: len(script) == 4) == [Behaviour("hang")] * 4


@few
@given(behaviours(2.0, ends=("answer", "hang"), max_sends=1, max_clean_up=0.5))
def test_behaviours_keep_to_their_bounds(behaviour: Behaviour) -> None:
    assert behaviour.end in ("answer", "hang")
    assert behaviour.after <= 2.0
    assert behaviour.every <= 1.0
    assert behaviour.clean_up <= 0.5
    assert len(behaviour.updates) <= 1
    assert len(behaviour.chunks or ()) <= 1


@few
@given(group_plans(2, max_delay=1.0, requesters=("wait", "raise"), payload=payloads()))
def test_plans_keep_to_their_bounds_and_end(plan: GroupPlan) -> None:
    assert len(plan.workers) <= 2
    assert plan.requester in ("wait", "raise")
    assert plan.at <= 1.0
    assert plan.payload is not None
    assert plan.timeout is None or plan.timeout <= 1.0


@few
@given(group_plans(2, behaviour=behaviours(ends=("answer", "hang", "defer"), max_sends=1)))
def test_plans_are_sure_to_end_whatever_the_requester_does(plan: GroupPlan) -> None:
    ends = all(each.end == "answer" for each in plan.workers.values())
    assert ends or plan.timeout is not None or plan.requester in ("raise", "cancelled", "deadline")
    assert plan.ends


@few
@given(group_plans(3))
def test_a_plan_is_shown_as_code(plan: GroupPlan) -> None:
    assert from_code(repr(plan)) == plan
    assert from_code(pretty(plan)) == plan
    assert evolve(plan) == plan


@few
@given(fault_plans(0.5, kinds=("delay", "duplicate"), max_probability=0.2))
def test_fault_plans_keep_to_their_bounds(faults: Faults) -> None:
    assert faults.delay[0] <= faults.delay[1] <= 0.5
    assert faults.duplicate <= 0.2
    assert (faults.lose, faults.split, faults.split_loses) == (0.0, 0.0, False)
    assert from_code(pretty(faults)) == faults


@given(peer_fault_plans(0.5, kinds=("delay", "duplicate"), max_probability=0.2))
def test_plans_for_processes_keep_to_their_bounds(faults: PeerFaults) -> None:
    assert 0 <= faults.delay[0] <= faults.delay[1] <= 0.5
    assert faults.duplicate <= 0.2
    assert PeerFaults(delay=faults.delay, duplicate=faults.duplicate) == faults


def test_plans_for_processes_draw_every_fault_and_shrink_to_none() -> None:
    assert simplest(peer_fault_plans()) == PeerFaults(split_seconds=0.0)
    for kind in ("unconfirmed", "duplicate", "lose", "late", "split", "fence"):
        assert getattr(simplest(peer_fault_plans(), attrgetter(kind)), kind) == 0.05
    for kind in ("store", "delay", "split_seconds"):
        assert getattr(simplest(peer_fault_plans(), lambda faults: getattr(faults, kind)[1]), kind)[1] > 0  # noqa: B023 - called in this very step


def test_fault_plans_draw_every_fault_and_shrink_to_none() -> None:
    assert not simplest(fault_plans()).draws
    for kind in ("duplicate", "lose", "split"):
        assert getattr(simplest(fault_plans(), attrgetter(kind)), kind) == 0.05
    assert simplest(fault_plans(), lambda faults: faults.delay[1]).delay == (0.0, 0.25)
    assert simplest(fault_plans(), lambda faults: faults.split_loses).split_loses


def test_a_falsifying_example_is_shown_as_code() -> None:
    @settings(database=None, derandomize=True, max_examples=500, phases=[Phase.generate, Phase.shrink])
    @given(group_plans(1))
    def law(plan: GroupPlan) -> None:
        assert all(each.status is JobStatus.COMPLETED for each in plan.workers.values())

    with pytest.raises(AssertionError) as caught:
        law()
    assert "GroupPlan({'w1': Behaviour(status=JobStatus.FAILED)})" in "".join(caught.value.__notes__)
