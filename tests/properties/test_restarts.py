"""The table of a supervised worker, how often there may be another one, and a model of who is made when."""

import math
from typing import Any

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from workerbus import Backoff, BaseWorker, RestartLimitError, WorkerErrorData, WorkerParams, WorkerRunner
from workerbus.supervision._state import (
    SUPERVISION_TABLE,
    RestartIntensity,
    SupervisedState,
    SupervisedTrigger,
    wants_back,
)
from workerbus.testing import run


def test_what_has_failed_stays_so_and_what_has_ended_comes_again_only_with_all() -> None:
    """S1."""
    assert not SUPERVISION_TABLE[SupervisedState.FAILED]
    assert SUPERVISION_TABLE[SupervisedState.ENDED] == {SupervisedTrigger.ALL: SupervisedState.RESTARTING}
    for state in (SupervisedState.RUNNING, SupervisedState.RESTARTING):
        assert SUPERVISION_TABLE[state][SupervisedTrigger.STOP] is SupervisedState.ENDED


@given(st.booleans())
def test_who_never_is_restarted_is_not_and_who_always_is_is(failed: bool) -> None:
    """S1."""
    assert not wants_back("never", failed=failed)
    assert wants_back("always", failed=failed)
    assert wants_back("on_failure", failed=failed) is failed


@given(st.integers(0, 5), st.integers(1, 20), st.lists(st.integers(0, 15), max_size=40))
def test_no_stretch_of_time_has_more_restarts_than_allowed_and_none_is_refused_without_need(
    most: int, within: int, gaps: list[int]
) -> None:
    """S1."""
    intensity, now, permitted = RestartIntensity(most, within), 0, list[int]()
    for gap in gaps:
        now += gap
        recent = [at for at in permitted if now - at <= within]
        assert intensity.permits(now) is (len(recent) < most)
        if len(recent) < most:
            permitted.append(now)


class Fragile(BaseWorker):
    """Fails when it is told to, or where it is attached."""

    def __init__(self, name: str, *, attachable: bool) -> None:
        super().__init__(name)
        self.attachable = attachable
        self.broken = anyio.Event()

    async def attach(self, **kwargs: Any) -> None:
        if not self.attachable:
            raise OSError("not yet")
        await super().attach(**kwargs)

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await self.broken.wait()
        raise ValueError("broken")


WAITS = Backoff(initial=0.37, factor=2, maximum=2.3, jitter=0)  # so that nothing is due when something fails
Moments = list[tuple[float, str]]


class Foreseen:
    """When the factories are called, of whom it is told when that it is given up, and how it ends."""

    def __init__(self, all_for_one: bool, most: int, within: float) -> None:
        self.all_for_one, self.most, self.within = all_for_one, most, within
        self.made: Moments = [(0, "a"), (0, "b")]
        self.told: Moments = []
        self.states = {"a": "running", "b": "running"}
        self.troubles: dict[str, list[str]] = {"a": [], "b": []}
        # By name; where one stands for all, both go by what is counted for the first.
        self.counted: dict[str, list[float]] = {"a": [], "b": []}
        self.waited = {"a": 0, "b": 0}
        self.due: dict[str, float] = {}

    def fails(self, name: str, now: float) -> None:
        if self.states[name] == "running" and not self._one_too_many(name, now):
            self._all_again(name)
            self._wait(name, now)

    def go_on(self, until: float) -> None:
        while self.due and min(self.due.values()) < until:
            pace = min(self.due, key=lambda each: self.due[each])
            self._restart(pace, self.due.pop(pace))

    def _pace(self, name: str) -> str:
        return "a" if self.all_for_one else name

    def _wait(self, name: str, now: float) -> None:
        pace = self._pace(name)
        self.due[pace] = now + min(0.37 * 2 ** self.waited[pace], 2.3)
        self.waited[pace] += 1

    def _one_too_many(self, name: str, now: float) -> bool:
        pace = self._pace(name)
        recent = [at for at in self.counted[pace] if now - at <= self.within]
        if not recent:
            self.waited[pace] = 0
        if len(recent) < self.most:
            self.counted[pace].append(now)
            return False
        self._give_up(name, now)
        return True

    def _give_up(self, name: str, now: float) -> None:
        self.told.append((now, name))
        for each, state in self.states.items():
            if each == name or (self.all_for_one and state == "restarting"):
                self.states[each] = "failed"
            elif self.all_for_one and state == "running":
                self.states[each] = "ended"

    def _restart(self, pace: str, now: float) -> None:
        for name in [name for name in self.states if self._pace(name) == pace]:
            if self.states[name] != "restarting":
                continue
            self.made.append((now, name))
            trouble = self.troubles[name].pop(0) if self.troubles[name] else ""
            if trouble == "makes none":
                return self._give_up(name, now)
            if trouble:
                if not self._one_too_many(name, now):
                    self._all_again(name)
                    self._wait(name, now)
                return None
            self.states[name] = "running"
        return None

    def _all_again(self, name: str) -> None:
        for each, state in self.states.items():
            if each == name or (self.all_for_one and state == "running"):
                self.states[each] = "restarting"


TROUBLES: list[list[str]] = [[], [], [], ["attach"], ["raises"], ["attach", "raises"], ["makes none"]]


@given(
    all_for_one=st.booleans(),
    most=st.integers(1, 5),
    within=st.sampled_from([2.5, 6.5, 20.5]),
    script=st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from("ab"), st.sampled_from(TROUBLES)), min_size=4, max_size=12
    ),
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 20),
)
@settings(max_examples=70)
def test_whoever_fails_and_however_often_the_model_says_who_is_made_when(
    all_for_one: bool, most: int, within: float, script: list[tuple[int, str, list[str]]], backend: str, seed: int
) -> None:
    """S1: how many restarts there may be in which time, and after which waits; also where some cannot be made."""
    made, told = Moments(), Moments()
    troubles: dict[str, list[str]] = {"a": [], "b": []}

    def factory(name: str) -> Any:
        made.append((round(anyio.current_time(), 6), name))
        trouble = troubles[name].pop(0) if troubles[name] else ""
        if trouble == "makes none":
            return None
        if trouble == "raises":
            raise OSError("not yet")
        return Fragile(name, attachable=trouble != "attach")

    def tell(_: WorkerRunner, data: WorkerErrorData) -> None:
        if data.origin == "restart" or isinstance(data.exception, RestartLimitError):
            told.append((round(anyio.current_time(), 6), data.worker_name))

    async def main() -> dict[str, str]:
        async with WorkerRunner(handle_sigint=False) as runner:
            runner.add_event_handler("on_error", tell)
            supervision = await runner.supervise(
                lambda: factory("a"), lambda: factory("b"), strategy="all_for_one" if all_for_one else "one_for_one",
                max_restarts=most, within=within, backoff=WAITS,
            )  # fmt: skip
            for gap, name, trouble in script:
                await anyio.sleep(gap)
                troubles[name] = [*trouble]
                if supervision.states[name] == "running":
                    worker = runner.get_worker(name)
                    assert isinstance(worker, Fragile)
                    worker.broken.set()
            await anyio.sleep(50)
            return supervision.states

    foreseen, now = Foreseen(all_for_one, most, within), 0.0
    for gap, name, trouble in script:
        now += gap
        foreseen.go_on(now)
        foreseen.troubles[name] = [*trouble]
        foreseen.fails(name, now)
    foreseen.go_on(math.inf)
    assert run(main, backend=backend, seed=seed) == foreseen.states
    assert made == [(round(time, 6), name) for time, name in foreseen.made]
    assert told == [(round(time, 6), name) for time, name in foreseen.told]
