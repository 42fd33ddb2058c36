"""O3, O4, O7: of several who look at one runner, by one reporter or by two, each is told what it asks for."""

import logging
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.workers import Helper, running
from workerbus import BusDataMessage, BusJobUpdateMessage, WorkerRunner
from workerbus.runner._notes import LEVELS, MessagesWanted
from workerbus.runner._reporter import Observation, Reporter
from workerbus.testing import run

who, levels = st.integers(0, 3), st.sampled_from(LEVELS)
"""The first two look by one reporter, the others by another."""
steps = st.one_of(
    st.tuples(st.just("want"), who, levels),
    st.tuples(st.just("want"), who, levels),
    st.tuples(st.sampled_from(["leave", "begin anew", "report"]), who),
    st.tuples(st.just("look"), st.integers(0, 1)),
    st.sampled_from([("send",), ("send of a job",), ("job",)]),
    st.sampled_from([("send",), ("send of a job",)]),
)


class Looker:
    """One who looks, and what it is to be told next."""

    def __init__(self, reporter: Reporter, wanted: MessagesWanted) -> None:
        self.observation: Observation = reporter.observe(wanted)
        self.wanted: MessagesWanted = wanted
        self.due: list[tuple[str, bool]] = []
        self.state: dict[str, dict[str, Any]] = {}


class World:
    """A runner, two reporters, and a model of what they have noted: of each message, as much as somebody wanted."""

    def __init__(self, runner: WorkerRunner) -> None:
        self.runner = runner
        self.reporters = [Reporter(runner), Reporter(runner)]
        self.noted: list[list[tuple[str, bool, int]]] = [[], []]
        self.lookers: dict[int, Looker] = {}
        self.sent = 0

    def wanted_of(self, reporter: int) -> int:
        here = [each.wanted for number, each in self.lookers.items() if number // 2 == reporter]
        return max((LEVELS.index(each) for each in here), default=0)

    async def do(self, action: str, *about: Any) -> None:
        await getattr(self, action.replace(" ", "_"))(*about)
        for number in range(2):
            if not self.wanted_of(number):
                self.noted[number].clear()
        assert len(self.runner.bus._taps) == sum(self.wanted_of(number) > 0 for number in range(2))
        listening = {number // 2 for number in self.lookers}
        heard = logging.getLogger("workerbus").handlers
        assert [each.errors in heard for each in self.reporters] == [number in listening for number in range(2)]

    async def want(self, number: int, wanted: MessagesWanted) -> None:
        looker = self.lookers.get(number)
        if looker is None:
            self.lookers[number] = Looker(self.reporters[number // 2], wanted)
        else:
            looker.wanted = wanted
            looker.observation.want(wanted)

    async def leave(self, number: int) -> None:
        if number in self.lookers:
            self.lookers.pop(number).observation.end()

    async def begin_anew(self, number: int) -> None:
        if number in self.lookers:
            self.lookers[number].state = {}
            self.lookers[number].observation.begin_anew()

    async def send(self, *, of_job: bool = False) -> None:
        self.sent += 1
        name = f"number {self.sent}"
        if of_job:
            await self.runner.bus.send(BusJobUpdateMessage("none", {"n": 1}, source=name, target="helper"))
        else:
            await self.runner.bus.send(BusDataMessage(source=name, target="helper"))
        for number, noted in enumerate(self.noted):
            if self.wanted_of(number) >= (1 if of_job else 2):
                noted.append((name, of_job, self.wanted_of(number)))

    async def send_of_a_job(self) -> None:
        await self.send(of_job=True)

    async def job(self) -> None:
        await self.runner.job("helper", name="echo")

    async def look(self, reporter: int) -> None:
        self.reporters[reporter].look()
        for number, looker in self.lookers.items():
            level = LEVELS.index(looker.wanted)
            if number // 2 == reporter:
                told = [each for each in self.noted[reporter] if level >= (1 if each[1] else 2)]
                looker.due += [(name, min(level, wanted) == 3) for name, _, wanted in told]
        self.noted[reporter] = []

    async def report(self, number: int) -> None:
        """Be told just that, and so much of the state that with what was told before it is all of it."""
        looker = self.lookers.get(number)
        if looker is None:
            return
        report = looker.observation.report()
        notes = [(each.source, each.payload is not None) for each in report.notes if each.source.startswith("number")]
        assert (notes, report.missed, report.sampled) == (looker.due, 0, False)
        looker.due = []
        for section, change in report.changes.items():
            looker.state.setdefault(section, {}).update(change["set"])
            for key in change["gone"]:
                del looker.state[section][key]
        sections = self.reporters[number // 2].sections
        assert {name: rows for name, rows in looker.state.items() if rows} == {
            name: rows for name, rows in sections.items() if rows
        }


@given(st.lists(steps, min_size=20, max_size=50))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_who_looks_is_told_what_it_asks_for_whoever_else_looks(
    backend: str, script: list[tuple[Any, ...]]
) -> None:
    """O3, O4, O7: no payload without having asked for it; nothing is gathered for nobody."""

    async def main() -> None:
        async with running(Helper("helper")) as runner:
            world = World(runner)
            for action, *about in script:
                await world.do(action, *about)
            for number in range(4):
                await world.do("look", number // 2)
                await world.do("report", number)
            for number in range(4):
                await world.do("leave", number)

    run(main, backend=backend)
