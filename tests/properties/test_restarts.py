"""The table of a supervised worker, how often there may be another one, and a model of who is made when."""

import math

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
    """Fails when it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.broken = anyio.Event()

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await self.broken.wait()
        raise ValueError("broken")


WAITS = Backoff(initial=0.37, factor=2, maximum=2.3, jitter=0)  # so that nothing is due when something fails
Moments = list[tuple[float, str]]


def foreseen(
    all_for_one: bool, most: int, within: float, script: list[tuple[int, str, int]]
) -> tuple[Moments, Moments, dict[str, str]]:
    """Say when the factories are called, of whom it is told when that it is given up, and how it ends."""
    made: Moments = [(0, "a"), (0, "b")]
    told: Moments = []
    states = {"a": "running", "b": "running"}
    counted: dict[str, list[float]] = {"a": [], "b": []}
    waited = {"a": 0, "b": 0}
    refusals = {"a": 0, "b": 0}
    due: dict[str, float] = {}
    if all_for_one:
        counted["b"] = counted["a"]

    def pace(name: str) -> str:
        return "a" if all_for_one else name

    def wait(name: str, now: float) -> None:
        due[pace(name)] = now + min(0.37 * 2 ** waited[pace(name)], 2.3)
        waited[pace(name)] += 1

    def one_too_many(name: str, now: float) -> bool:
        recent = [at for at in counted[name] if now - at <= within]
        if not recent:
            waited[pace(name)] = 0
        if len(recent) < most:
            counted[name].append(now)
            return False
        told.append((now, name))
        states.update({each: "failed" for each, state in states.items() if all_for_one and state == "restarting"})
        states[name] = "failed"
        return True

    def restart(key: str, now: float) -> None:
        if all_for_one:
            states.update({each: "restarting" for each, state in states.items() if state == "running"})
        for name in [name for name in states if states[name] == "restarting" and pace(name) == key]:
            made.append((now, name))
            if refusals[name]:
                refusals[name] -= 1
                if not one_too_many(name, now):
                    wait(name, now)
                return
            states[name] = "running"

    def go_on(until: float) -> None:
        while due and min(due.values()) < until:
            key = min(due, key=lambda each: due[each])
            now = due.pop(key)
            restart(key, now)

    now = 0.0
    for gap, name, refuses in script:
        now += gap
        go_on(now)
        refusals[name] = refuses
        if states[name] == "running" and not one_too_many(name, now):
            states[name] = "restarting"
            if pace(name) not in due:
                wait(name, now)
    go_on(math.inf)
    return made, told, states


@given(
    all_for_one=st.booleans(),
    most=st.integers(1, 5),
    within=st.sampled_from([2.5, 6.5, 20.5]),
    script=st.lists(st.tuples(st.integers(1, 5), st.sampled_from("ab"), st.sampled_from([0, 0, 1, 2])), max_size=12),
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 20),
)
@settings(max_examples=80)
def test_whoever_fails_and_however_often_the_model_says_who_is_made_when(
    all_for_one: bool, most: int, within: float, script: list[tuple[int, str, int]], backend: str, seed: int
) -> None:
    """S1: how many restarts there may be in which time, and after which waits; also where factories fail."""
    made, told = Moments(), Moments()
    refusals = {"a": 0, "b": 0}

    def factory(name: str) -> Fragile:
        made.append((round(anyio.current_time(), 6), name))
        if refusals[name]:
            refusals[name] -= 1
            raise OSError("not yet")
        return Fragile(name)

    def tell(_: WorkerRunner, data: WorkerErrorData) -> None:
        assert isinstance(data.exception, RestartLimitError)
        told.append((round(anyio.current_time(), 6), data.worker_name))

    async def main() -> dict[str, str]:
        async with WorkerRunner(handle_sigint=False) as runner:
            runner.add_event_handler("on_error", tell)
            supervision = await runner.supervise(
                lambda: factory("a"), lambda: factory("b"), strategy="all_for_one" if all_for_one else "one_for_one",
                max_restarts=most, within=within, backoff=WAITS,
            )  # fmt: skip
            for gap, name, refuses in script:
                await anyio.sleep(gap)
                refusals[name] = refuses
                if supervision.states[name] == "running":
                    worker = runner.get_worker(name)
                    assert isinstance(worker, Fragile)
                    worker.broken.set()
            await anyio.sleep(50)
            return supervision.states

    states = run(main, backend=backend, seed=seed)
    expected_made, expected_told, expected_states = foreseen(all_for_one, most, within, script)
    assert made == [(round(time, 6), name) for time, name in expected_made]
    assert told == [(round(time, 6), name) for time, name in expected_told]
    assert states == expected_states
