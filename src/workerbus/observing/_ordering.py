"""What came before what, where several processes tell of it, whose clocks never quite agree (L8, O7).

Two things are certain: the order in which one process tells what happened there, and that what has arrived was sent
before. Whatever these leave open, the times decide.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable

from workerbus.observing._stories import Step

_Key = tuple[str, str, str, str | None]


def in_order(steps: Iterable[Step], arrivals: Iterable[Step]) -> list[tuple[float, Step]]:
    """Return steps in the order of their causes, each with a time that is not before that of the one ahead of it.

    Args:
        steps: What was sent.
        arrivals: What has arrived; it is not returned.
    """
    sent = sorted(steps, key=_number)
    events = sorted([*sent, *arrivals], key=_number)
    after: dict[int, list[Step]] = defaultdict(list)
    causes: dict[int, int] = defaultdict(int)
    at_place: dict[str, Step] = {}
    on_its_way: dict[_Key, deque[Step]] = defaultdict(deque)
    for step in sent:
        on_its_way[_key(step)].append(step)
    shown = {step.number for step in sent}
    for step in events:
        before = [at_place[step.place]] if step.place in at_place else []
        if step.number not in shown and on_its_way[_key(step)]:
            before.append(on_its_way[_key(step)].popleft())
        for each in before:
            after[each.number].append(step)
        causes[step.number] = len(before)
        at_place[step.place] = step
    return _walk(events, shown, after, causes)


def _walk(
    events: list[Step], shown: set[int], after: dict[int, list[Step]], causes: dict[int, int]
) -> list[tuple[float, Step]]:
    ordered: list[tuple[float, Step]] = []
    left = {step.number: step for step in events}
    ready = [(step.note.at, step.number) for step in events if not causes[step.number]]
    heapq.heapify(ready)
    now = float("-inf")
    while left:
        # Where something is missing, causes may go in a circle: then it goes on with what is the first by its time.
        _, number = heapq.heappop(ready) if ready else min((step.note.at, step.number) for step in left.values())
        step = left.pop(number, None)
        if step is None:
            continue
        now = max(now, step.note.at)
        if number in shown:
            ordered.append((now, step))
        for each in after[number]:
            causes[each.number] -= 1
            if not causes[each.number]:
                heapq.heappush(ready, (each.note.at, each.number))
    return ordered


def _number(step: Step) -> int:
    return step.number


def _key(step: Step) -> _Key:
    return step.note.kind, step.note.job_id, step.note.source, step.note.target
