"""What is seen of several runners, of one process or of many, as one state of sections and rows (O2, O3, O4, O7).

It is given what each of them tells, and knows nothing of how that has come. What the state has is described at
`workerbus.observing`. A row is never changed: one that is equal to the one before need not be told again.
"""

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from workerbus.observing._ordering import in_order
from workerbus.observing._runners import SPAN, SeenRunner
from workerbus.observing._stories import Leg, Stories, Story
from workerbus.runner._notes import Note
from workerbus.runner._rows import JOBS, Row, Section, Sections, moment

POINTS: Final = 120
"""How many points a curve has: one for each second."""
TOLD: Final = 300
"""How many steps of a story are told."""
COUNTS: Final = ("workers", "jobs", "requested", "hooks_failed", "restarts", "sent", "undelivered")
"""Of what a runner counts, what is added up."""


class Overview:
    """What is seen of runners.

    Args:
        name: What they are called; None for the name of the only one.
        cluster: Whether they are those of a network.

    Attributes:
        runners: Those that have told of themselves.
        stories: The jobs that have passed.
        others: Workers that are known and of which nothing is told: name to the name of their runner.
    """

    def __init__(self, name: str | None = None, *, cluster: bool = False) -> None:
        self._name = name
        self._cluster = cluster
        self.runners: list[SeenRunner] = []
        self.stories: Stories = Stories()
        self.others: Mapping[str, str] = {}
        self.bus: str = "connected"
        self._curves: Section = {}
        self._seconds = 0
        self._measured_at: float | None = None

    # --- what is told

    def add(self, runner: SeenRunner) -> None:
        """See one more."""
        self.runners.append(runner)
        self.runners.sort(key=lambda each: each.name)

    def remove(self, runner: SeenRunner) -> None:
        """See one no more; nothing happens where it is not seen."""
        if runner in self.runners:
            self.runners.remove(runner)

    def learn(self, runner: SeenRunner, notes: Iterable[Note]) -> list[Note]:
        """Learn what has passed at a runner; returns it with times on this process's clock."""
        seen = [runner.note(note) for note in notes]
        self.stories.add(seen, self.peers(), runner.peer or "")
        return seen

    def peers(self) -> frozenset[str]:
        """Return the incarnations of the peers that tell of what they send."""
        return frozenset(each.peer for each in self.runners if each.peer is not None)

    def measure(self, now: float) -> None:
        """Add a point to the curves, where it is time to.

        Args:
            now: The time, by the clock of the event loop.
        """
        self.stories.forget_before(monotonic())
        known = [each.rates for each in self.runners if each.rates is not None]
        if self._measured_at is None:
            self._measured_at = now
            self.stories.latencies.clear()
        if now - self._measured_at < SPAN or not known:
            return
        self._measured_at = now
        times, self.stories.latencies = sorted(self.stories.latencies), []
        self._seconds += 1
        self._curves[str(self._seconds)] = [
            round(monotonic(), 2),
            round(sum(messages for messages, _ in known), 1),
            round(sum(jobs for _, jobs in known), 1),
            _quantile(times, 0.5),
            _quantile(times, 0.99),
            sum(each.row.get("jobs", 0) for each in self.runners),
        ]
        self._curves.pop(str(self._seconds - POINTS), None)

    def rest(self) -> None:
        """Measure anew from the next report on: nobody has looked for a while."""
        self._measured_at = None
        for runner in self.runners:
            runner.rest()

    # --- what there is to see

    def state(self) -> Sections:
        """Return what there is to see."""
        told = [each for each in self.runners if each.row]
        workers, keys = _workers(told, self.stories)
        jobs = _jobs(told, keys, self.stories)
        return {
            "about": self._about(told, len(jobs)),
            "processes": _processes(told),
            "runners": {each.name: {**each.row, "silent": True} if each.silent else each.row for each in told},
            "workers": workers,
            "others": {name: runner for name, runner in self.others.items() if name not in workers},
            "jobs": jobs,
            "groups": {key: row for each in told for key, row in each.sections["groups"].items()},
            "curves": dict(self._curves),
            "errors": {f"{each.name}/{key}": row for each in told for key, row in each.sections["errors"].items()},
            "spans": {f"{story.job_id}@{leg.worker}": _span(story, leg) for story, leg in self.stories.drawn()},
        }

    def _about(self, told: Sequence[SeenRunner], jobs: int) -> dict[str, Any]:
        sums = {name: sum(each.row[name] for each in told) for name in COUNTS}
        answered = [name for each in told[:1] for name in each.row if name.startswith("answered_")]
        return {
            "runner": self._name or (told[0].name if told else ""),
            "cluster": self._cluster,
            "bus": self.bus,
            "processes": len({each.row["process"] for each in told}),
            "runners": len(told),
            "sampled": any(each.sampled for each in told),
            "not_ready": [
                f"{each.name}: {reason}" if self._cluster else reason
                for each in told
                for reason in each.row["not_ready"]
            ],
            "left_out": sums["jobs"] - jobs,
            **sums,
            **{name: sum(each.row.get(name, 0) for each in told) for name in answered},
        }

    def story(self, job_id: str) -> dict[str, Any] | None:
        """Return the story of a job, with that of those that were asked for in it; None where it is not remembered."""
        told = self.stories.get(job_id)
        if told is None:
            return None
        family = self.stories.family(told)
        steps = in_order(
            [step for each in family for step in (*each.steps, *each.last)],
            [step for each in family for step in each.arrivals],
        )
        return {
            **_head(told),
            "parent": told.parent,
            "open": any(each.open for each in family),
            "steps": [_step(at, each.note) for at, each in steps[:TOLD]],
            "left_out": sum(each.left_out for each in family) + len(steps[TOLD:]),
            "nested": [_head(each) for each in family[1:]],
            "legs": {
                leg.worker: [
                    moment(leg.begun),
                    None if leg.ended is None else moment(leg.ended),
                    leg.status,
                    leg.updates,
                ]
                for leg in told.legs.values()
            },
            "places": self._places(family),
        }

    def _places(self, family: Sequence[Story]) -> dict[str, str]:
        """Return at which runner those are who take part in some jobs, as far as that is known."""
        names = {name for each in family for name in (each.requester, *each.legs)}
        return {
            name: runner.name
            for runner in self.runners
            for name in sorted(names)
            if name in runner.sections["workers"] or name == runner.name
        }


def _processes(told: Iterable[SeenRunner]) -> Section:
    rows: Section = {}
    for each in told:
        row = each.row
        process = rows.setdefault(row["process"], {"host": row["host"], "pid": row["pid"], "runners": []})
        process["runners"].append(each.name)
    return rows


_Keys = dict[tuple[str, str], str]


def _workers(told: Iterable[SeenRunner], stories: Stories) -> tuple[Section, _Keys]:
    """Return the workers of all runners, and which of them are not under their name: two may have the same."""
    together: Section = {}
    keys: _Keys = {}
    for each in told:
        section = each.sections["workers"]
        if together.keys().isdisjoint(section):
            together.update(section)
            continue
        mine = {name: f"{name}@{each.name}" if name in together else name for name in section}
        keys.update({(each.name, name): key for name, key in mine.items() if key != name})
        for name, row in section.items():
            together[mine[name]] = {**row, "parent": mine.get(row["parent"], row["parent"])}
    for name, number in stories.restarts.items():
        if name in together and not together[name]["restarts"]:
            together[name] = {**together[name], "restarts": number}
    return together, keys


def _jobs(told: Iterable[SeenRunner], keys: _Keys, stories: Stories) -> Section:
    oldest = sorted((row for each in told for row in each.sections["jobs"].values()), key=_begun)[:JOBS]
    rows: Section = {}
    for row in oldest:
        story = stories.get(row["id"])
        leg = None if story is None else story.legs.get(row["worker"])
        worker = keys.get((row["runner"], row["worker"]), row["worker"]) if keys else row["worker"]
        rows[f"{row['id']}@{worker}"] = {
            **row,
            "worker": worker,
            "updates": 0 if leg is None else leg.updates,
            "answered": _answered(story),
        }
    return rows


def _begun(row: Row) -> float:
    begun: float = row["begun"]
    return begun


def _answered(told: Story | None) -> list[int] | None:
    """How many of those that were asked for a job have answered; None where that is one."""
    if told is None or len(told.legs) < 2:
        return None
    return [sum(leg.ended is not None for leg in told.legs.values()), len(told.legs)]


def _span(story: Story, leg: Leg) -> Row:
    assert leg.ended is not None
    return [leg.worker, moment(leg.begun), moment(leg.ended), leg.status, story.job_id, story.name]


def _head(told: Story) -> dict[str, Any]:
    return {"id": told.job_id, "name": told.name, "requester": told.requester, "workers": list(told.legs)}


def _step(at: float, note: Note) -> list[Any]:
    return [moment(at), note.kind, note.source, note.target, note.text, note.job_id]


def _quantile(times: list[float], part: float) -> float | None:
    """Return a quantile of sorted times, in milliseconds; None where there are none."""
    return round(1000 * times[min(len(times) - 1, int(part * len(times)))], 3) if times else None
