"""Something is looked at, something is awaited, and then it is acted on as if nothing had changed."""

import anyio
from anyio.lowlevel import checkpoint

from support.known_bugs._bystanders import bystander, heartbeat, locked
from workerbus.testing import History, always, linearizable


async def lost_update(*, mended: bool = False) -> None:
    """Four deposits, of which one may read what another one has not written yet."""
    balance = 0
    lock = anyio.Lock()

    async def deposit(after: int) -> None:
        nonlocal balance
        for _ in range(after):
            await checkpoint()
        async with locked(lock, mended):
            before = balance
            await checkpoint()
            balance = before + 10

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(bystander)
        for number in range(4):
            group.start_soon(deposit, number)
    assert balance > 20, f"four deposits of 10 have made {balance}"


async def double_answer(*, mended: bool = False) -> None:
    """An answer and a time-out; both look whether there is an answer, and both give one."""
    answers: list[str] = []

    async def answer(text: str, after: int) -> None:
        for _ in range(after):
            await checkpoint()
        if not answers:
            if not mended:
                await checkpoint()
            answers.append(text)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(bystander)
        group.start_soon(answer, "done", 2)
        group.start_soon(answer, "time is up", 3)
    assert len(answers) == 1, f"the requester was told {' and '.join(answers)}"


async def aba_of_names(*, mended: bool = False) -> None:
    """A worker that gives its name back late, when another one of that name may have come."""
    registry = {"worker": "first"}

    async def stop() -> None:
        for _ in range(2):
            await checkpoint()
        if registry.get("worker") == "first":
            if not mended:
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


async def stale_cache(*, mended: bool = False) -> None:
    """A reader that puts into the cache what it has loaded before it was invalidated."""
    stored, version = 0, 0
    cache: dict[str, int] = {}
    history = History()

    async def read(at: float) -> None:
        await anyio.sleep(at)
        with history.call("read", by=f"reader {at:g}") as call:
            if "x" not in cache:
                loaded, seen = stored, version
                await anyio.sleep(1)
                if not mended or seen == version:
                    cache["x"] = loaded
            call.answer = cache.get("x", stored)

    async def write(value: int, at: float) -> None:
        nonlocal stored, version
        await anyio.sleep(at)
        with history.call("write", value, by="writer"):
            stored, version = value, version + 1
            cache.pop("x", None)

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(read, 1)
        group.start_soon(write, 7, 2)
        group.start_soon(read, 3)
    linearizable(history, Register)


class Register:
    """The model of the cache: a value that is written and read."""

    def __init__(self) -> None:
        self.value = 0

    def write(self, value: int) -> None:
        """Keep it."""
        self.value = value

    def read(self, payload: None) -> int:
        """Return what was kept."""
        return self.value


async def two_leaders(*, mended: bool = False) -> None:
    """A leader that writes after its lease, when the next one has already written.

    As Kleppmann tells it in "How to do distributed locking" (2016).
    """
    lease_ends, tokens = 3, [0]
    always(lambda: tokens == sorted(tokens))

    def store(token: int) -> None:
        if not mended or token > tokens[-1]:
            tokens.append(token)

    async def old_leader() -> None:
        await anyio.sleep(2)
        if anyio.current_time() < lease_ends:
            await anyio.sleep(1)
            store(1)

    async def new_leader() -> None:
        await anyio.sleep(3)
        if anyio.current_time() >= lease_ends:
            store(2)

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(old_leader)
        group.start_soon(heartbeat)
        group.start_soon(new_leader)


async def double_close(*, mended: bool = False) -> None:
    """A connection that is closed by its reader and by a time-out, and flushed in between."""
    is_open, closed = True, 0

    async def close(at: float) -> None:
        nonlocal is_open, closed
        await anyio.sleep(at)
        if is_open:
            if mended:
                is_open = False
            await anyio.sleep(1)
            is_open = False
            closed += 1

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(close, 1)
        group.start_soon(heartbeat)
        group.start_soon(close, 2)
    assert closed == 1, f"the file descriptor was closed {closed} times; who has it now?"


async def use_after_close(*, mended: bool = False) -> None:
    """A connector that takes its resolver away before it says that it is closed (aio-libs/aiohttp#12497)."""
    resolver: list[str] | None = ["127.0.0.1"]
    is_closed = False

    async def close() -> None:
        nonlocal resolver, is_closed
        await anyio.sleep(2)
        is_closed = mended
        resolver = None
        await anyio.sleep(1)
        is_closed = True

    async def request() -> None:
        await anyio.sleep(1)
        if is_closed:
            return
        await anyio.sleep(1)
        if not is_closed:
            assert resolver is not None, "a connector that is open has no resolver"
            resolver.copy()

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(request)
        group.start_soon(close)


async def timer_against_completion(*, mended: bool = False) -> None:
    """A watchdog that sees work under way, writes that down, and calls it late when it is done."""
    state = "running"

    async def work() -> None:
        nonlocal state
        await anyio.sleep(2)
        if state == "running":
            state = "done"

    async def watchdog() -> None:
        nonlocal state
        await anyio.sleep(2)
        if state == "running":
            if not mended:
                await anyio.sleep(1)
            state = "late" if state == "running" else f"{state} and late"

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(work)
        group.start_soon(heartbeat)
        group.start_soon(watchdog)
    assert state in ("done", "late"), f"the work is {state}"
