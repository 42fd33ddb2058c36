"""Bugs of three or four steps that have to come in one order: each of them is a race of its own, and harmless alone."""

import anyio
from anyio.lowlevel import checkpoint

from support.known_bugs._bystanders import bystander, heartbeat


async def hand_over_cut_twice(*, mended: bool = False) -> None:
    """A frame that each of three hosts has just left, one after the other, and that is sent on twice at the most.

    After calls that are lost when two hand-overs follow each other, as with the redirections of a cluster: clients
    follow only so many of them.
    """
    active = "a"
    heard: list[str] = []

    async def deliver() -> None:
        target = active
        for _ in range(9 if mended else 3):
            await anyio.sleep(1)
            if target == active:
                heard.append(target)
                return
            target = active

    async def hand_over(to: str, at: float) -> None:
        nonlocal active
        await anyio.sleep(at)
        active = to

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(deliver)
        group.start_soon(heartbeat)
        for at, name in enumerate("bcd", 1):
            group.start_soon(hand_over, name, at)
    assert heard, "the frame was sent on twice, and is with nobody"


async def stampede_with_invalidation(*, mended: bool = False) -> None:
    """Two readers load at once, since the cache was emptied meanwhile; the one with the old value fills it last.

    After "Scaling Memcache at Facebook" (NSDI 2013), which has leases against it: who fills says what the miss was.
    """
    stored, lease = "old", 0
    cache: dict[str, str] = {}
    got: list[str] = []

    async def read(at: float, seconds: float) -> None:
        nonlocal lease
        await anyio.sleep(at)
        if "x" not in cache:
            lease += 1
            mine, loaded = lease, stored
            await anyio.sleep(seconds)
            if not mended or mine == lease:
                cache["x"] = loaded
        got.append(cache.get("x", stored))

    async def write(at: float) -> None:
        nonlocal stored, lease
        await anyio.sleep(at)
        stored = "new"
        await anyio.sleep(1)
        cache.clear()
        lease += 1

    async def expire(at: float) -> None:
        await anyio.sleep(at)
        cache.clear()

    async with anyio.create_task_group() as group:
        group.start_soon(write, 1)
        group.start_soon(heartbeat)
        group.start_soon(read, 1, 2)
        group.start_soon(heartbeat)
        group.start_soon(read, 2, 1)
        group.start_soon(expire, 4)
        group.start_soon(read, 4, 1)
    assert got[-1] == "new", f"the cache gives the {got[-1]} value for good"


async def two_producers_and_a_consumer(*, mended: bool = False) -> None:
    """A ring of two places: a producer has taken a place and not filled it, another one says how many are filled.

    After the rule of rings with several producers (the Disruptor, DPDK's rte_ring): who publishes waits for those
    whose places are before his own.
    """
    ring = ["", ""]
    taken, filled, read = 0, 0, 0
    got: list[str] = []

    async def produce(item: str, after: int, slow: int) -> None:
        nonlocal taken, filled
        for _ in range(after):
            await checkpoint()
        place, taken = taken, taken + 1
        for _ in range(slow):
            await checkpoint()
        ring[place % 2] = item
        await checkpoint()
        while mended and filled != place:
            await checkpoint()
        filled = max(filled, place + 1)

    async def consume() -> None:
        nonlocal read
        for _ in range(4):
            await checkpoint()
            if read < filled:
                got.append(ring[read % 2])
                read += 1

    async with anyio.create_task_group() as group:
        group.start_soon(bystander)
        group.start_soon(produce, "a", 1, 1)
        group.start_soon(consume)
        group.start_soon(bystander)
        group.start_soon(produce, "b", 1, 0)
    assert "" not in got, "the consumer has taken an item out of a place that nobody had filled"


async def leader_with_an_old_lease(*, mended: bool = False) -> None:
    """A leader whose lease was over as it renewed it writes over what the next one wrote, and somebody reads that.

    After Kleppmann's "How to do distributed locking" (2016), of HBase: only the storage can refuse it, by a token.
    """
    leader, lease = "old", 1
    stored, seen = (0, ""), (0, "")

    def write(token: int, value: str) -> None:
        nonlocal stored
        if not mended or token >= stored[0]:
            stored = token, value

    async def old() -> None:
        nonlocal lease
        await anyio.sleep(1)
        lease = 9
        await anyio.sleep(1)
        if leader != "new":
            await anyio.sleep(1)
            write(1, "by the old one")

    async def new() -> None:
        nonlocal leader
        await anyio.sleep(1)
        if lease > 1:
            return
        await anyio.sleep(1)
        leader = "new"
        await anyio.sleep(1)
        write(2, "by the new one")
        await anyio.sleep(1)
        write(2, "by the new one")

    async def read() -> None:
        nonlocal seen
        await anyio.sleep(4)
        seen = stored

    async with anyio.create_task_group() as group:
        for each in (heartbeat, old, heartbeat, new, read):
            group.start_soon(each)
    assert leader == "old" or seen[0] != 1, f"there is a new leader, and what is read was written {seen[1]}"


async def audit_of_moving_money(*, mended: bool = False) -> None:
    """Accounts are added up one after the other while money moves on from each to the next, and too much is counted.

    Read skew, as in "A Critique of ANSI SQL Isolation Levels" (Berenson et al., 1995).
    """
    accounts = [100, 100, 100, 100]
    total = 0

    async def move(number: int) -> None:
        await anyio.sleep(number + 1)
        accounts[number] -= 10
        accounts[number + 1] += 10

    async def audit() -> None:
        nonlocal total
        for number in range(4):
            await anyio.sleep(1)
            if not mended:
                total += accounts[number]
        if mended:
            total = sum(accounts)

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        for number in range(3):
            group.start_soon(move, number)
        group.start_soon(audit)
    assert total <= 420, f"the accounts have 400, and {total} were counted"
