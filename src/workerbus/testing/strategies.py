"""Hypothesis strategies: messages, payloads, names, seeds, and whole job groups.

What they draw shrinks towards the simplest case (no delay, an empty payload, a group of no workers), and is shown as
code that can be pasted into a plain test. Importing this module also registers messages, behaviours and plans with
`hypothesis.strategies.from_type`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
from hypothesis import strategies as st

from workerbus import messages as _messages
from workerbus._values import JobStatus
from workerbus.messages import (
    BusAddWorkerMessage,
    BusDataMessage,
    BusMessage,
    BusSystemMessage,
    JobRequestOptions,
    WorkerRegistryEntry,
)
from workerbus.testing.buses._faults import Faults
from workerbus.testing.buses._peer_faults import PeerFaults
from workerbus.testing.exploring._strategies import picks
from workerbus.testing.workers._behaviour import ENDS, Behaviour, End
from workerbus.testing.workers._plans import REQUESTERS, GroupPlan, Requester
from workerbus.worker._base import BaseWorker

M = TypeVar("M", bound=BusMessage)
T = TypeVar("T")

RESOLUTION: Final = 0.25
"""Drawn times are multiples of this many seconds, so that several things are due at the same moment now and then."""

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def seeds() -> st.SearchStrategy[int]:
    """Seeds for the schedules of `workerbus.testing.run`."""
    return st.integers(0, 2**32 - 1)


def schedules(max_switches: int = 3, max_choices: int = 100) -> st.SearchStrategy[picks]:
    """Orders of tasks, for ``explore(…, strategy=schedule)``; they shrink towards the default order.

    Args:
        max_switches: How many choices may differ from the default.
        max_choices: Among how many of a run's first choices these are.
    """
    pick = st.tuples(st.integers(0, max_choices - 1), st.integers(1, 7))
    return st.lists(pick, max_size=max_switches, unique_by=lambda pair: pair[0]).map(lambda pairs: picks(sorted(pairs)))


def names() -> st.SearchStrategy[str]:
    """Names: any text that is not empty, often just lower-case letters."""
    return st.text(_LETTERS, min_size=1, max_size=8) | st.text(min_size=1, max_size=20)


def worker_names() -> st.SearchStrategy[str]:
    """Names of workers: one to three lower-case letters, so that two are sometimes equal."""
    return st.text(_LETTERS, min_size=1, max_size=3)


def delays(max_delay: float = 3.0) -> st.SearchStrategy[float]:
    """Numbers of seconds, 0 included, in steps of a quarter of a second.

    Args:
        max_delay: The longest, in seconds.
    """
    return st.integers(0, int(max_delay / RESOLUTION)).map(lambda steps: steps * RESOLUTION)


def payloads(max_size: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """Payloads that can cross any bus: nested dicts of JSON values.

    Args:
        max_size: How many entries there are at most on each level.
    """
    return st.dictionaries(_keys(), _values(max_size), max_size=max_size)


def _keys() -> st.SearchStrategy[str]:
    return st.text(_LETTERS, max_size=4) | st.text(max_size=6)


def _values(max_size: int) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _floats() | st.text(max_size=8)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=max_size) | st.dictionaries(_keys(), inner, max_size=max_size),
        max_leaves=2 * max_size,
    )


def _floats() -> st.SearchStrategy[float]:
    return st.floats(allow_nan=False, allow_infinity=False)


# --- messages


def messages(kinds: Iterable[type[M]] | None = None) -> st.SearchStrategy[M]:
    """Messages, with all their fields.

    Args:
        kinds: The classes of messages to draw from; by default all of the library's own. Those made with `bus_message`
            may be among them: their fields are drawn by their annotations.
    """
    classes = MESSAGES if kinds is None else tuple(kinds)
    return st.sampled_from(classes).flatmap(_of_kind)  # type: ignore[arg-type]  # M is BusMessage where kinds is None


def _concrete() -> tuple[type[BusMessage], ...]:
    found = [value for value in vars(_messages).values() if isinstance(value, type) and issubclass(value, BusMessage)]
    return tuple(kind for kind in found if kind not in (BusMessage, BusDataMessage, BusSystemMessage))


MESSAGES: Final = _concrete()
"""All message classes of the library that can be sent."""


@cache
def _of_kind(kind: type[Any]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    fields = {its.name: _field(kind, its.name, hints[its.name]) for its in attrs.fields(kind) if its.init}
    return st.builds(kind, **fields)


def _field(kind: type[Any], name: str, hint: Any) -> st.SearchStrategy[Any]:
    own = kind in MESSAGES or kind is JobRequestOptions or name in ("source", "target", "headers")
    if own and name in _BY_NAME:
        optional = NoneType in get_args(hint)
        return st.none() | _BY_NAME[name] if optional else _BY_NAME[name]
    if kind is BusAddWorkerMessage:
        return worker_names().map(BaseWorker)
    return _by_hint(hint)


_BY_NAME: Final[dict[str, st.SearchStrategy[Any]]] = {
    "source": worker_names(),
    "target": worker_names(),
    "job_id": worker_names(),
    "runner": worker_names(),
    "parent": worker_names(),
    "payload": st.none() | payloads(),
    "seconds_left": delays(),
    "attempt": st.integers(1, 9),
    "max_buffered_events": st.integers(1, 2048),
    "priority": st.integers(-3, 3),
    "delay": delays(),
    "until": st.integers(1, 4096),
    "number": st.integers(1, 4096),
    "sent": st.integers(1, 4096),
    "headers": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    "started_at": st.integers(0, 2**31).map(float),
}


def _by_hint(hint: Any) -> st.SearchStrategy[Any]:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return st.one_of([_by_hint(part) for part in sorted(parts, key=lambda part: part is not NoneType)])
    if hint is Any:
        return _values(2)
    if hint is float:
        return _floats()
    if hint is dict or (origin is dict and parts == (str, Any)):
        return payloads()
    if origin is Mapping:  # by itself, hypothesis draws any class of mappings that there is
        return st.dictionaries(_by_hint(parts[0]), _by_hint(parts[1]), max_size=3)
    if origin is list:
        return st.lists(_by_hint(parts[0]), max_size=3)
    if isinstance(hint, type) and attrs.has(hint):
        return _of_kind(hint)
    simple: st.SearchStrategy[Any] = st.from_type(hint)
    return simple


# --- job groups

_STATUSES: Final = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.ERROR, JobStatus.CANCELLED)


def behaviours(
    max_delay: float = 3.0,
    *,
    ends: Sequence[End] = ENDS,
    max_sends: int = 3,
    max_clean_up: float = 1.0,
) -> st.SearchStrategy[Behaviour]:
    """What a `ScriptedWorker` does with a job; the simplest answers at once, COMPLETED.

    Args:
        max_delay: The longest wait before an update, a chunk or the end, in seconds.
        ends: How a job may end, the simplest first; see `Behaviour`.
        max_sends: How many updates there are at most, and how many chunks.
        max_clean_up: How long a cancelled handler may go on, in seconds. From `workerbus.CLEANUP_SECONDS` on,
            requesters leave without its answer.

    Guarantees: J5.
    """
    return _behaviours(max_delay, ends, max_sends, max_clean_up)


@st.composite
def _behaviours(
    draw: st.DrawFn, max_delay: float, ends: Sequence[End], max_sends: int, max_clean_up: float
) -> Behaviour:
    end = draw(st.sampled_from(ends))
    options: dict[str, Any] = {"after": draw(delays(max_delay))}
    # Drawn whatever the end, since what needs fewer draws counts as simpler, and an answer is the simplest end.
    answer = {"status": draw(st.sampled_from(_STATUSES)), "response": draw(_responses()), "urgent": draw(st.booleans())}
    if end == "answer":
        options |= answer
    if draw(_rarely()):
        options["updates"] = draw(_numbered("update", max_sends))
        options["urgent_updates"] = draw(st.booleans())
    if draw(_rarely()):
        options["chunks"] = draw(_numbered("chunk", max_sends))
        options["generator"] = draw(st.booleans()) and end != "defer"
        if options["generator"]:
            options = {name: value for name, value in options.items() if name not in answer}
    if options.keys() >= {"updates", "chunks"}:
        options["alternate"] = draw(st.booleans())
    if options.keys() & {"updates", "chunks"}:
        options["every"] = draw(delays(max_delay / 2))
    if draw(_rarely()):
        options["clean_up"] = draw(delays(max_clean_up))
        options["insists"] = draw(st.booleans())
    return Behaviour(end, **options)


def scripts(
    behaviour: st.SearchStrategy[Behaviour] | None = None, *, max_size: int = 4
) -> st.SearchStrategy[list[Behaviour]]:
    """Scripts for a `ScriptedWorker`: what it does with one job, or one attempt at a job, after the other.

    Args:
        behaviour: What each of them is; by default any of `behaviours`.
        max_size: How many there are at most.
    """
    return st.lists(behaviours() if behaviour is None else behaviour, min_size=1, max_size=max_size)


def _responses() -> st.SearchStrategy[dict[str, Any] | None]:
    return st.none() | payloads(2)


def _rarely() -> st.SearchStrategy[bool]:
    return st.sampled_from((False, False, False, True))


def _numbered(what: str, most: int) -> st.SearchStrategy[tuple[dict[str, Any], ...]]:
    return st.integers(1, max(1, most)).map(lambda count: tuple({what: number} for number in range(count)))


def group_plans(
    max_workers: int = 6,
    *,
    max_delay: float = 3.0,
    behaviour: st.SearchStrategy[Behaviour] | None = None,
    requesters: Sequence[Requester] = REQUESTERS,
    payload: st.SearchStrategy[dict[str, Any] | None] | None = None,
) -> st.SearchStrategy[GroupPlan]:
    """Plans of job groups that are sure to end, for `run_group_plan`; the simplest asks no worker, and waits.

    Args:
        max_workers: How many workers there are at most.
        max_delay: The longest wait, timeouts included, in seconds.
        behaviour: What each worker does; by default any of `behaviours`.
        requesters: What the requester may do, the simplest first; see `GroupPlan`.
        payload: The payload of the job; by default none.
    """
    each = behaviours(max_delay) if behaviour is None else behaviour
    return _group_plans(max_workers, max_delay, each, requesters, st.none() if payload is None else payload)


@st.composite
def _group_plans(
    draw: st.DrawFn,
    max_workers: int,
    max_delay: float,
    behaviour: st.SearchStrategy[Behaviour],
    requesters: Sequence[Requester],
    payload: st.SearchStrategy[dict[str, Any] | None],
) -> GroupPlan:
    count = draw(st.integers(0, max_workers))
    requester = draw(st.sampled_from(requesters))
    plan = GroupPlan(
        {f"w{number}": draw(behaviour) for number in range(1, count + 1)},
        timeout=draw(st.none() | delays(max_delay)),
        cancel_on_error=draw(st.sampled_from((True, False))),
        requester=requester,
        at=0.0 if requester in ("wait", "iterate") else draw(delays(max_delay)),
        payload=draw(payload),
    )
    if requester == "iterate":
        window, every = draw(st.sampled_from((plan.max_buffered_events, 1, 2))), draw(delays(max_delay / 6))
        plan = attrs.evolve(plan, max_buffered_events=window, every=every)
    return plan if plan.ends else attrs.evolve(plan, timeout=draw(delays(max_delay)))


# --- faults

Befalls = Literal["delay", "duplicate", "lose", "split"]
"""What can happen to a message on a `FaultyBus`."""


def fault_plans(
    max_delay: float = 1.0,
    *,
    kinds: Collection[Befalls] = get_args(Befalls),
    max_probability: float = 0.3,
) -> st.SearchStrategy[Faults]:
    """Plans for a `FaultyBus`; the simplest lets nothing happen.

    Args:
        max_delay: The longest delay, and the longest split, in seconds.
        kinds: What may happen; ``("delay", "duplicate")`` if every message should arrive.
        max_probability: The highest probability of each of these: a message is duplicated, is lost, or begins a split.
    """
    never = st.just(0.0)
    probability = st.integers(0, int(max_probability * 20)).map(lambda twentieths: twentieths / 20)
    splits = "split" in kinds
    return st.builds(
        Faults,
        delay=_spans(max_delay) if "delay" in kinds else st.just((0.0, 0.0)),
        duplicate=probability if "duplicate" in kinds else never,
        lose=probability if "lose" in kinds else never,
        split=probability if splits else never,
        split_seconds=_spans(max_delay) if splits else st.just((0.0, 0.0)),
        split_loses=st.booleans() if splits and "lose" in kinds else st.just(False),
    )


PeerBefalls = Literal["store", "unconfirmed", "delay", "duplicate", "lose", "late", "split", "fence"]
"""What can happen to a message on a `PeerNetwork`, and with it to its sender's end."""


def peer_fault_plans(
    max_delay: float = 1.0,
    *,
    kinds: Collection[PeerBefalls] = get_args(PeerBefalls),
    max_probability: float = 0.3,
) -> st.SearchStrategy[PeerFaults]:
    """Plans for a `PeerNetwork`; the simplest lets nothing happen.

    Args:
        max_delay: The longest delay, and the longest split, in seconds.
        kinds: What may happen; without ``"lose"`` and ``"fence"`` no life ends by itself.
        max_probability: The highest probability of each of these: a message is not confirmed, is duplicated, is lost,
            comes late, or begins a split, or its sender is declared lost.
    """
    probability = st.integers(0, int(max_probability * 20)).map(lambda twentieths: twentieths / 20)
    drawn: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(kinds, probability)
    drawn |= {kind: _spans(max_delay) for kind in ("store", "delay") if kind in kinds}
    if "split" in kinds:
        drawn["split_seconds"] = _spans(max_delay)
    return st.builds(PeerFaults, **drawn)


def _spans(longest: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(delays(longest), delays(longest)).map(lambda ends: (min(ends), max(ends)))


# --- types


def _register() -> None:
    st.register_type_strategy(BusMessage, messages())
    for kind in MESSAGES:
        st.register_type_strategy(kind, st.deferred(lambda kind=kind: _of_kind(kind)))  # type: ignore[misc]  # any class
    for part in (WorkerRegistryEntry, JobRequestOptions):
        st.register_type_strategy(part, st.deferred(lambda part=part: _of_kind(part)))  # type: ignore[misc]  # any class
    st.register_type_strategy(Behaviour, behaviours())
    st.register_type_strategy(GroupPlan, group_plans())
    st.register_type_strategy(Faults, fault_plans())
    st.register_type_strategy(PeerFaults, peer_fault_plans())


_register()
