"""Messages, tasks and effects that get lost, or come twice."""

import anyio
from anyio.lowlevel import checkpoint

from support.known_bugs._bystanders import heartbeat


async def iteration_while_changed(*, mended: bool = False) -> None:
    """A broadcast over clients of which one leaves while another is written to (aio-libs/sockjs#218)."""
    clients = dict.fromkeys(["ann", "ben", "cid"])

    async def broadcast() -> None:
        for _ in list(clients) if mended else clients:
            await anyio.sleep(1)

    async def leave(name: str) -> None:
        await anyio.sleep(3)
        clients.pop(name)

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(broadcast)
        group.start_soon(heartbeat)
        group.start_soon(leave, "ben")


async def message_before_the_subscription(*, mended: bool = False) -> None:
    """A first message that comes before its handler is in the table (FreeOpcUa/opcua-asyncio#11)."""
    handlers: dict[int, list[str]] = {}
    early: dict[int, list[str]] = {}
    got: list[str] = []

    async def subscribe() -> None:
        number = 7
        await anyio.sleep(1)
        handlers[number] = got
        got.extend(early.pop(number, []))

    async def receive(number: int, text: str) -> None:
        await anyio.sleep(1)
        if number in handlers:
            handlers[number].append(text)
        elif mended:
            early.setdefault(number, []).append(text)

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(subscribe)
        group.start_soon(heartbeat)
        group.start_soon(receive, 7, "the first value")
    assert got, "the first message was for nobody"


async def shutdown_before_the_last_message(*, mended: bool = False) -> None:
    """A consumer that looks whether it is to stop before it looks whether there is something left."""
    queue: list[str] = []
    handled: list[str] = []
    stopping = False
    news = anyio.Event()

    async def consume() -> None:
        nonlocal news
        while not stopping or (mended and queue):
            handled.extend(queue)
            queue.clear()
            news = anyio.Event()
            if not stopping:
                await news.wait()

    async def produce() -> None:
        await anyio.sleep(1)
        queue.append("last")
        news.set()

    async def stop() -> None:
        nonlocal stopping
        await anyio.sleep(1)
        await checkpoint()
        stopping = True
        news.set()

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        group.start_soon(heartbeat)
        group.start_soon(produce)
        group.start_soon(stop)
    assert handled == ["last"], f"stopped with {queue} in the queue"


async def dropped_exception(*, mended: bool = False) -> None:
    """Two tasks in the background that say they are over before they say what has gone wrong."""
    over = anyio.Event()
    errors: list[str] = []
    outcome = ""

    async def work(disk: str) -> None:
        try:
            await anyio.sleep(1)
            raise ValueError(f"no space left on {disk}")
        except ValueError as exc:
            if mended:
                errors.append(str(exc))
            over.set()
            await checkpoint()
            if not mended:
                errors.append(str(exc))

    async def supervise() -> None:
        nonlocal outcome
        await over.wait()
        outcome = "failed" if errors else "done"

    async with anyio.create_task_group() as group:
        group.start_soon(work, "a")
        group.start_soon(heartbeat)
        group.start_soon(work, "b")
        group.start_soon(supervise)
    assert outcome == "failed", f"the work is said to be {outcome}, and has raised {errors}"


async def retry_doubles_an_effect(*, mended: bool = False) -> None:
    """A broker that delivers again what was done, and not yet acknowledged (celery's visibility timeout)."""
    acknowledged = False
    charged: list[str] = []

    async def work(order: str) -> None:
        nonlocal acknowledged
        await anyio.sleep(1)
        if not mended or order not in charged:
            charged.append(order)
        await anyio.sleep(1)
        acknowledged = True

    async def deliver_again(order: str) -> None:
        await anyio.sleep(2)
        if not acknowledged:
            await work(order)

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(work, "order 7")
        group.start_soon(heartbeat)
        group.start_soon(deliver_again, "order 7")
    assert charged == ["order 7"], f"charged {len(charged)} times"
