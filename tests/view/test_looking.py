"""O4, O7: who looks at a scene, how much of it, and what each of them is told."""

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import create_task_group, sleep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workerbus.observing._passed import Passing, PassingMessages
from workerbus.runner._notes import LEVELS, MessagesWanted
from workerbus.runner._rows import Sections
from workerbus.testing import run
from workerbus.view import _observer
from workerbus.view._observer import SHORTEST, Observer

TICK = 2 * SHORTEST
"""In this time a look has begun, or has ended."""


class Scene:
    """Is another one at each look: what was there has gone, and something else has come.

    Attributes:
        looked: What of messages is looked at now; None while nobody looks.
        answer: How many seconds an answer takes.
    """

    def __init__(self) -> None:
        self.looked: MessagesWanted | None = None
        self.answer = 0.0
        self.missed = 0
        self._number = 0
        self._passing = Passing()

    def look(self, messages: MessagesWanted) -> None:
        self.looked = messages

    def rest(self) -> None:
        self.looked = None

    async def answered(self) -> None:
        await sleep(self.answer)

    async def glance(self) -> Sections:
        self.look("none")
        await self.answered()
        return self.state()

    def state(self) -> Sections:
        assert self.looked is not None, "it is at rest"
        self._number += 1
        return {"about": {"number": self._number}, "jobs": {str(self._number): self._number}}

    def story(self, job_id: str) -> dict[str, Any] | None:
        return None

    def messages(self) -> PassingMessages:
        return self._passing.begin()


class Viewer:
    """Keeps up what it is told, and takes its time for each event."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.state: dict[str, dict[str, Any]] = {}
        self.told = 0

    async def send(self, event: bytes) -> None:
        kind, data = (line.split(b": ", 1)[1] for line in event.strip().split(b"\n"))
        told = json.loads(data)
        if kind == b"state":
            self.state = told["state"]
        else:
            for section, change in told["changes"].items():
                for key in change["gone"]:
                    del self.state[section][key]
                self.state[section].update(change["set"])
        assert list(self.state["jobs"].values()) == [self.state["about"]["number"]]
        self.told += 1
        await sleep(self.seconds)


def observed(watch: Callable[[Observer, Scene], Any], backend: str) -> None:
    async def main() -> None:
        scene = Scene()
        observer = Observer(scene)
        async with create_task_group() as tasks:
            tasks.start_soon(observer.look)
            await watch(observer, scene)
            tasks.cancel_scope.cancel()

    run(main, backend=backend)


def test_each_viewer_is_told_of_changes_to_what_it_has_however_slow_it_is(backend: str) -> None:
    """O7: the slow ones miss states, and no change."""
    viewers = [Viewer(seconds) for seconds in (0.0, 0.3, 0.0, 0.7, 2.0)]

    async def watch(observer: Observer, _: Scene) -> None:
        async with create_task_group() as tasks:
            for viewer in viewers:
                tasks.start_soon(observer.tell, viewer.send)
                await sleep(0.1)
            await sleep(20)
            tasks.cancel_scope.cancel()

    observed(watch, backend)
    quickest, *_, slowest = sorted(viewer.told for viewer in viewers)[::-1]
    assert quickest > 3 * slowest > 9


def test_who_was_told_of_all_waits_once_for_the_next_look(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """O4: it costs nothing to look at what does not change."""
    viewer, begun = Viewer(0.0), 0

    def move_on_after(seconds: float) -> anyio.CancelScope:
        nonlocal begun
        begun += 1
        assert begun < 100, "it does not wait"
        return anyio.move_on_after(seconds)

    monkeypatch.setattr(_observer, "move_on_after", move_on_after)

    async def watch(observer: Observer, _: Scene) -> None:
        with anyio.move_on_after(10 * SHORTEST):
            await observer.tell(viewer.send)

    observed(watch, backend)
    assert 10 <= viewer.told <= begun <= viewer.told + 1


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    visits=st.lists(
        st.tuples(st.sampled_from(("", "all", "payloads")), st.integers(0, 5), st.integers(1, 5)), max_size=5
    )
)
def test_as_much_of_messages_is_looked_at_as_those_want_who_look_at_that_moment(
    backend: str, visits: list[tuple[str, int, int]]
) -> None:
    """O3, O7: of several who want the same one may leave; who wants more may come later; at last all is at rest."""

    async def visit(observer: Observer, wanted: Any, begin: int, end: int) -> None:
        async def take(_: bytes) -> None:
            pass

        await sleep(begin)
        with anyio.move_on_after(end - begin):
            await (observer.tell_messages(take, wanted) if wanted else observer.tell(take))

    async def watch(observer: Observer, scene: Scene) -> None:
        async with create_task_group() as tasks:
            for wanted, begin, seconds in visits:
                tasks.start_soon(visit, observer, wanted, begin, begin + seconds)
            for second in range(12):
                await sleep(TICK)
                there: list[MessagesWanted] = [
                    "all" if wanted == "all" else "payloads" if wanted else "jobs"
                    for wanted, begin, seconds in visits
                    if begin <= second < begin + seconds
                ]
                assert scene.looked == max(there, key=LEVELS.index, default=None)
                await sleep(1 - TICK)

    observed(watch, backend)


def test_who_asks_for_the_state_gets_it_whoever_else_asks_or_looks_meanwhile(backend: str) -> None:
    """O4, O7: nothing is at rest before the last has its answer, and then all is."""

    async def watch(observer: Observer, scene: Scene) -> None:
        async def ask(begin: float) -> None:
            await sleep(begin)
            assert (await observer.state())["about"]

        async def glimpse(begin: float) -> None:
            await sleep(begin)
            with anyio.move_on_after(1):
                await observer.tell(Viewer(0).send)

        scene.answer = 1.0
        for begins in ((0, 0.5, 0.9, 1.2), (0, 0, 0)):
            async with create_task_group() as tasks:
                for begin in begins:
                    tasks.start_soon(ask, begin)
            await sleep(TICK)
            assert scene.looked is None
        async with create_task_group() as tasks:
            tasks.start_soon(glimpse, 0)
            tasks.start_soon(ask, 0.5)
            tasks.start_soon(glimpse, 1.2)
            tasks.start_soon(ask, 2)
        await sleep(1 + TICK)
        assert scene.looked is None

    observed(watch, backend)
