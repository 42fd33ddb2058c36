"""Runs: their schedules, which come from a seed, what comes out, and what they refuse."""

from itertools import permutations
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from trio._core import _run as scheduler

from workerbus import BaseWorker, BusJobRequestMessage, BusMessage, MemoryBus, WorkerRunner, job
from workerbus.testing import DeadlockError, run


async def order_of(*names: str) -> str:
    order: list[str] = []

    async def step(name: str) -> None:
        await anyio.lowlevel.checkpoint()
        order.append(name)

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(step, name)
    return "".join(order)


def test_a_seed_gives_the_same_schedule_again(backend: str) -> None:
    for seed in range(20):
        assert len({run(order_of, *"abcdef", backend=backend, seed=seed) for _ in range(3)}) == 1


def test_seeds_give_every_order(backend: str) -> None:
    orders = {run(order_of, *"abc", backend=backend, seed=seed) for seed in range(200)}
    assert orders == {"".join(order) for order in permutations("abc")}


def test_without_a_seed_asyncio_keeps_its_own_order() -> None:
    assert {run(order_of, *"abcdef", backend="asyncio", seed=None) for _ in range(3)} == {"abcdef"}


def test_a_programs_messages_come_in_the_same_order_for_the_same_seed(backend: str) -> None:
    class Echo(BaseWorker):
        @job(name="echo")
        async def echo(self, message: BusJobRequestMessage) -> dict[str, str]:
            return {"name": self.name}

    class Recorder(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            seen.append(f"{type(message).__name__} from {message.source}")
            await super().publish(message)

    async def main() -> None:
        async with WorkerRunner(name="runner", bus=Recorder(), handle_sigint=False) as runner:
            await runner.add_workers(*(Echo(name) for name in "abc"))
            async with runner.job_group("a", "b", "c", name="echo"):
                pass

    runs: list[list[str]] = []
    for _ in range(3):
        seen: list[str] = []
        run(main, backend=backend, seed=5)
        runs.append(seen)
    assert runs[0] == runs[1] == runs[2]
    assert any("BusJobResponseMessage" in each for each in runs[0])


def test_trios_own_schedule_is_put_back() -> None:
    before = scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    run(order_of, "a", "b", backend="trio", seed=1)
    assert (scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before


def test_a_run_leaves_trios_scheduler_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", False)
    run(checkpoint, backend="trio", seed=7)
    assert not scheduler._ALLOW_DETERMINISTIC_SCHEDULING


# --- what comes out


def test_the_result_comes_out_and_so_does_an_error_with_backend_and_seed(backend: str) -> None:
    async def main(text: str) -> str:
        if not text:
            raise ValueError("no text")
        return text.upper()

    assert run(main, "yes", backend=backend) == "YES"
    with pytest.raises(ValueError, match="no text") as caught:
        run(main, "", backend=backend, seed=42)
    assert caught.value.__notes__ == [f"in workerbus.testing.run(…, backend={backend!r}, seed=42)"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError()])
def test_whatever_leaves_a_run_says_under_which_seed_it_was(backend: str, error: BaseException) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run(fail, backend=backend, seed=7)
    assert any(f"backend={backend!r}, seed=7" in line for line in caught.value.__notes__)


def test_a_deadlock_says_under_which_seed_it_was(backend: str) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(anyio.sleep_forever, backend=backend, seed=7)
    assert any(f"backend={backend!r}, seed=7" in line for line in caught.value.__notes__)


def test_a_program_that_wrecks_trios_loop_says_under_which_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out of trio then is an error of its own, caused by that of the clock."""

    def wrecked(*_: object, **__: object) -> None:
        raise trio.TrioInternalError("internal error") from DeadlockError("stuck for good", (), 0.0)

    monkeypatch.setattr("workerbus.testing.clock._run.anyio_run", wrecked)
    with pytest.raises(DeadlockError, match="stuck for good") as caught:
        run(checkpoint, backend="trio", seed=7)
    assert any("backend='trio', seed=7" in line for line in caught.value.__notes__)


# --- what is refused


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"backend": "curio"}, "backend must be one of 'asyncio', 'trio', not 'curio'"),
        ({"limit": 0}, "limit must be a number of seconds above 0, not 0"),
        ({"limit": float("nan")}, "limit must be"),
        ({"patience": -1}, "patience must be a number of real seconds, not -1"),
        ({"patience": float("inf")}, "patience must be"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(options: dict[str, Any], text: str) -> None:
    async def main() -> None:
        raise AssertionError

    with pytest.raises(ValueError, match=text):
        run(main, **options)


async def nothing(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"seed": "x"}, TypeError, "seed must be a whole number, or None for the backend's own order, not 'x'"),
        ({"seed": (1,)}, TypeError, "seed must be a whole number"),
        ({"limit": "5"}, ValueError, "limit must be a number of seconds above 0, not '5'"),
        ({"limit": None}, ValueError, "limit must be a number of seconds above 0, not None"),
        ({"patience": "5"}, ValueError, "patience must be a number of real seconds, not '5'"),
    ],
)
def test_what_is_no_number_is_refused(values: dict[str, Any], error: type[Exception], text: str, backend: str) -> None:
    with pytest.raises(error, match=text):
        run(nothing, backend=backend, **values)


def test_a_function_that_is_not_async_is_named(backend: str) -> None:
    def plain() -> int:
        return 1

    with pytest.raises(TypeError, match=r"run takes an async function, and <function .*plain at .* has returned 1"):
        run(plain, backend=backend)  # type: ignore[arg-type]  # on purpose


def test_a_coroutine_is_not_taken_for_a_function(backend: str) -> None:
    coroutine: Any = order_of("a")
    with pytest.raises(TypeError, match=r"run takes an async function and its arguments"):
        run(coroutine, backend=backend)
    coroutine.close()
