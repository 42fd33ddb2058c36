"""Tasks that wait for each other, for what has been, or for ever."""

import anyio
from anyio.lowlevel import checkpoint

from support.known_bugs._bystanders import bystander, heartbeat


async def missed_wake_up(*, mended: bool = False) -> None:
    """A waiter that looks, and only then says that it waits; who sets the flag in between wakes nobody."""
    is_set = False
    waiting: list[anyio.Event] = []

    async def wait() -> None:
        for _ in range(3):
            await checkpoint()
        if not is_set:
            if not mended:
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


async def event_cleared_too_early(*, mended: bool = False) -> None:
    """A consumer that clears its event when it has worked, and so forgets what came meanwhile."""
    items: list[int] = []
    handled: list[int] = []
    news = anyio.Event()

    async def consume() -> None:
        nonlocal news
        while len(handled) < 2:
            await news.wait()
            if mended:
                news = anyio.Event()
            handled.extend(items)
            items.clear()
            await anyio.sleep(1)
            if not mended:
                news = anyio.Event()

    async def produce(item: int) -> None:
        await anyio.sleep(item)
        items.append(item)
        news.set()

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        group.start_soon(heartbeat)
        group.start_soon(produce, 1)
        group.start_soon(heartbeat)
        group.start_soon(produce, 2)


async def condition_with_if(*, mended: bool = False) -> None:
    """Two consumers; one that was woken up does not look again whether there is something left."""
    condition = anyio.Condition()
    items: list[str] = []

    async def consume(late: bool) -> None:
        if late:
            await anyio.sleep(1)
            for _ in range(2):
                await checkpoint()
        async with condition:
            if not items:
                await condition.wait()
            while mended and not items:
                await condition.wait()
            items.pop()

    async def produce(at: float) -> None:
        await anyio.sleep(at)
        async with condition:
            items.append("item")
            condition.notify()

    async with anyio.create_task_group() as group:
        group.start_soon(consume, False)
        group.start_soon(produce, 1)
        group.start_soon(heartbeat)
        group.start_soon(consume, True)
        group.start_soon(produce, 2)


class Barrier:
    """Lets two tasks wait for each other, again and again.

    Args:
        mended: Whether it begins anew when all have come, and not when all have gone.
    """

    def __init__(self, mended: bool) -> None:
        self.mended = mended
        self.inside = 0
        self.full = anyio.Event()

    async def wait(self) -> None:
        """Wait until both are here."""
        self.inside += 1
        full = self.full
        if self.inside == 2:
            full.set()
            if self.mended:
                self.inside, self.full = 0, anyio.Event()
        await full.wait()
        if not self.mended:
            self.inside -= 1
            if not self.inside:
                self.full = anyio.Event()


async def barrier_used_again_too_early(*, mended: bool = False) -> None:
    """A barrier into which a quick task comes again before the slow one has gone."""
    barrier = Barrier(mended)
    arrived = {"slow": 0, "quick": 0}

    async def walk(name: str, seconds: float) -> None:
        for turn in (1, 2):
            arrived[name] += 1
            await barrier.wait()
            assert min(arrived.values()) >= turn, f"{name} has passed the barrier {turn} times, of {arrived}"
            if seconds:
                await anyio.sleep(seconds)

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(walk, "slow", 1)
        group.start_soon(bystander)
        group.start_soon(walk, "quick", 0)


async def lock_order_inversion(*, mended: bool = False) -> None:
    """Two transfers between two accounts, which take the locks of both in opposite orders."""
    locks = {"a": anyio.Lock(), "b": anyio.Lock()}

    async def transfer(source: str, target: str, at: float) -> None:
        await anyio.sleep(at)
        first, second = sorted([source, target]) if mended else (source, target)
        async with locks[first]:
            await anyio.sleep(1)
            async with locks[second]:
                await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(transfer, "a", "b", 1)
        group.start_soon(heartbeat)
        group.start_soon(transfer, "b", "a", 2)


async def deadlock_in_a_circle(*, mended: bool = False) -> None:
    """Three tasks that take two of three locks each, in a circle; the third one is late."""
    locks = [anyio.Lock() for _ in range(3)]

    async def eat(number: int, after: int) -> None:
        for _ in range(after):
            await checkpoint()
        first, second = number, (number + 1) % 3
        if mended:
            first, second = min(first, second), max(first, second)
        async with locks[first], locks[second]:
            await checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(eat, number, number)
            group.start_soon(bystander)


async def writer_starvation(*, mended: bool = False) -> None:
    """A lock for many readers or one writer, who looks only now and then, and finds readers each time."""
    reading, wants_to_write, wrote = 0, False, False

    async def read() -> None:
        nonlocal reading
        for _ in range(4):
            if not (mended and wants_to_write):
                reading += 1
                await anyio.sleep(1)
                reading -= 1
            await checkpoint()

    async def write() -> None:
        nonlocal wants_to_write, wrote
        wants_to_write = True
        for _ in range(4):
            await anyio.sleep(1)
            wrote = wrote or not reading

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(bystander)
        group.start_soon(write)
    assert wrote, "the writer has found readers four times in a row"


async def starvation(*, mended: bool = False) -> None:
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
            if not mended or missed < 4:
                served.add(turn)
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(bystander)
        group.start_soon(patient)
        group.start_soon(urgent)
    assert missed < 8, "a client was never served"
