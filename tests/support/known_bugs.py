"""Known kinds of bugs, each as small as it can be: programs that pass in the default order of tasks, and not always.

Each scenario runs on either backend, makes everything anew, and fails by raising or by never coming to its end.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

Scenario = Callable[[], Awaitable[None]]


async def bystander() -> None:
    """Be ready often, and change nothing."""
    for _ in range(6):
        await checkpoint()


async def lost_update() -> None:
    """Two deposits, of which the second one may read what the first one has not written yet."""
    balance = 0

    async def deposit(after: int) -> None:
        nonlocal balance
        for _ in range(after):
            await checkpoint()
        before = balance
        await checkpoint()
        balance = before + 10

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(bystander)
        for number in range(4):
            group.start_soon(deposit, number)
    assert balance > 20, f"four deposits of 10 have made {balance}"


async def double_answer() -> None:
    """An answer and a time-out; both look whether there is an answer, and both give one."""
    answers: list[str] = []

    async def answer(text: str, after: int) -> None:
        for _ in range(after):
            await checkpoint()
        if not answers:
            await checkpoint()
            answers.append(text)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(bystander)
        group.start_soon(answer, "done", 2)
        group.start_soon(answer, "time is up", 3)
    assert len(answers) == 1, f"the requester was told {' and '.join(answers)}"


async def missed_wake_up() -> None:
    """A waiter that looks, and only then says that it waits; who sets the flag in between wakes nobody."""
    is_set = False
    waiting: list[anyio.Event] = []

    async def wait() -> None:
        for _ in range(3):
            await checkpoint()
        if not is_set:
            await checkpoint()
            waiting.append(event := anyio.Event())
            await event.wait()

    async def set_flag() -> None:
        nonlocal is_set
        for _ in range(3):
            await checkpoint()
        is_set = True
        for event in waiting:
            event.set()

    async with anyio.create_task_group() as group:
        group.start_soon(bystander)
        group.start_soon(set_flag)
        group.start_soon(bystander)
        group.start_soon(wait)


async def deadlock_in_a_circle() -> None:
    """Three tasks that take two of three locks each, in a circle; the third one is late."""
    locks = [anyio.Lock() for _ in range(3)]

    async def eat(number: int, after: int) -> None:
        for _ in range(after):
            await checkpoint()
        async with locks[number], locks[(number + 1) % 3]:
            await checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(eat, number, number)
            group.start_soon(bystander)


async def cancel_against_answer() -> None:
    """A requester that is cancelled while it takes the answer, which then nobody has."""
    answers: list[str] = []
    taken: list[str] = []

    async def take() -> None:
        for _ in range(3):
            await checkpoint()
        if answers:
            answer = answers.pop()
            await checkpoint()
            taken.append(answer)

    async def answer() -> None:
        for _ in range(2):
            await checkpoint()
        answers.append("done")

    async def cancel(scope: anyio.CancelScope) -> None:
        for _ in range(4):
            await checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(bystander)
        group.start_soon(answer)
        async with anyio.create_task_group() as inner:
            inner.start_soon(take)
            group.start_soon(cancel, inner.cancel_scope)
    assert answers or taken, "the answer is lost"


async def aba_of_names() -> None:
    """A worker that gives its name back late, when another one of that name may have come."""
    registry = {"worker": "first"}

    async def stop() -> None:
        for _ in range(2):
            await checkpoint()
        if registry.get("worker") == "first":
            await checkpoint()
            registry.pop("worker", None)

    async def fail() -> None:
        for _ in range(2):
            await checkpoint()
        registry.pop("worker", None)
        await checkpoint()
        registry.setdefault("worker", "second")

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(bystander)
        group.start_soon(fail)
        group.start_soon(stop)
    assert registry.get("worker") == "second", "the second worker has lost its name to the end of the first"


async def starvation() -> None:
    """Two clients of which one is served at a time; one gives up when the other was quicker eight times in a row."""
    served: set[int] = set()
    missed = 0

    async def patient() -> None:
        nonlocal missed
        for turn in range(8):
            if turn in served:
                missed += 1
            served.add(turn)
            await checkpoint()

    async def urgent() -> None:
        for turn in range(8):
            served.add(turn)
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(bystander)
        group.start_soon(patient)
        group.start_soon(urgent)
    assert missed < 8, "a client was never served"


KNOWN_BUGS: Final[tuple[Scenario, ...]] = (
    lost_update,
    double_answer,
    missed_wake_up,
    deadlock_in_a_circle,
    cancel_against_answer,
    aba_of_names,
    starvation,
)
