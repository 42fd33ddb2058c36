"""A cancellation comes at the one moment for which nobody has written clean-up."""

import anyio
from anyio.lowlevel import checkpoint

from support.known_bugs._bystanders import bystander, heartbeat


async def cancel_against_answer(*, mended: bool = False) -> None:
    """A requester that is cancelled while it takes the answer, which then nobody has."""
    answers: list[str] = []
    taken: list[str] = []

    async def take() -> None:
        for _ in range(3):
            await checkpoint()
        if mended:
            await checkpoint()
            taken.extend(answers)
        elif answers:
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


async def lost_item(*, mended: bool = False) -> None:
    """A receiver that is cancelled with an item in its hands (agronholm/anyio#146, python/asyncio#201)."""
    items: list[str] = []
    received: list[str] = []
    scope = anyio.CancelScope()
    news = anyio.Event()

    async def receive() -> None:
        with scope:
            await news.wait()
            if mended:
                await checkpoint()
            item = items.pop()
            if not mended:
                await checkpoint()
            received.append(item)

    async def send() -> None:
        await anyio.sleep(1)
        items.append("item")
        news.set()

    async def give_up() -> None:
        await anyio.sleep(1)
        for _ in range(2):
            await checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        group.start_soon(heartbeat)
        group.start_soon(send)
        group.start_soon(give_up)
    assert items or received, "the item is neither in the queue nor with its receiver"


async def leaked_permit(*, mended: bool = False) -> None:
    """A semaphore that hands its permits to waiters who are cancelled before they know (python/asyncio#270)."""
    free = 0
    waiting: list[anyio.Event] = []

    async def acquire() -> None:
        waiting.append(handed := anyio.Event())
        await handed.wait()
        try:
            await checkpoint()
        except BaseException:
            if mended:
                release()
            raise

    def release() -> None:
        nonlocal free
        if waiting:
            waiting.pop(0).set()
        else:
            free += 1

    async def hold() -> None:
        await anyio.sleep(1)
        release()
        release()

    async def work(scope: anyio.CancelScope) -> None:
        with scope:
            await acquire()
            try:
                await anyio.sleep(1)
            finally:
                release()

    async def give_up(scope: anyio.CancelScope) -> None:
        await anyio.sleep(1)
        for _ in range(2):
            await checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        for scope in (anyio.CancelScope(), anyio.CancelScope()):
            group.start_soon(heartbeat)
            group.start_soon(work, scope)
            group.start_soon(give_up, scope)
    assert free, "nobody holds one of the two permits, and none is free"


async def leaked_connection(*, mended: bool = False) -> None:
    """A request that is cancelled while it connects, and leaves its place in the pool taken (encode/httpcore#1093)."""
    pool: dict[str, str] = {}

    async def request(host: str, scope: anyio.CancelScope) -> None:
        with scope:
            pool[host] = "connecting"
            try:
                await anyio.sleep(1)
                await checkpoint()
            except BaseException:
                if mended:
                    del pool[host]
                raise
            pool[host] = "active"
            try:
                await anyio.sleep(1)
            finally:
                del pool[host]

    async def give_up(scope: anyio.CancelScope) -> None:
        await anyio.sleep(1)
        await checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as group:
        for host in ("a", "b"):
            scope = anyio.CancelScope()
            group.start_soon(heartbeat)
            group.start_soon(request, host, scope)
            group.start_soon(give_up, scope)
    assert len(pool) < 2, f"no request is under way, and the two places of the pool are taken: {pool}"


class Connection:
    """Answers come one after the other, without numbers."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.news = anyio.Event()

    def put(self, answer: str) -> None:
        """Let an answer come."""
        self.answers.append(answer)
        self.news.set()

    async def next(self) -> str:
        """Wait for the next answer."""
        while not self.answers:
            self.news = anyio.Event()
            await self.news.wait()
        return self.answers.pop(0)


async def answer_of_a_cancelled_request(*, mended: bool = False) -> None:
    """A connection goes back to its pool with an answer that nobody has read (redis/redis-py#2624)."""
    connection = Connection()
    scope = anyio.CancelScope()

    async def server(command: str, seconds: float, to: Connection) -> None:
        await anyio.sleep(seconds)
        to.put(f"answer to {command}")

    async def client() -> None:
        nonlocal connection
        group.start_soon(server, "GET a", 2, connection)
        group.start_soon(give_up)
        with scope:
            await connection.next()
        if scope.cancelled_caught and mended:
            connection = Connection()
        group.start_soon(server, "GET b", 2, connection)
        answer = await connection.next()
        assert answer == "answer to GET b", f"GET b has got the {answer}"

    async def give_up() -> None:
        await anyio.sleep(2)
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        group.start_soon(client)
        group.start_soon(heartbeat)


async def answer_with_a_used_id(*, mended: bool = False) -> None:
    """The late answer to a request that was given up is taken for that of the next one, which has the same number."""
    waiting: dict[int, list[str]] = {}
    asked: list[tuple[int, str]] = []

    async def server() -> None:
        for turn in range(2):
            await anyio.sleep(2)
            number, answer = asked[turn]
            if number in waiting:
                waiting[number].append(answer)

    async def request(command: str, at: float, patience: float) -> None:
        await anyio.sleep(at)
        number = len(asked) if mended else next(free for free in range(9) if free not in waiting)
        answers = waiting[number] = list[str]()
        asked.append((number, f"answer to {command}"))
        await anyio.sleep(patience)
        del waiting[number]
        assert answers in ([], [f"answer to {command}"]), f"{command} has got {answers}"

    async with anyio.create_task_group() as group:
        group.start_soon(server)
        group.start_soon(heartbeat)
        group.start_soon(request, "a", 0, 1)
        group.start_soon(request, "b", 2, 3)
