"""Workers whose handlers run at the same time, and forget it."""

import anyio

from workerbus import BaseWorker, BusJobRequestMessage, WorkerRunner, job


async def ask(worker: BaseWorker, name: str, *payloads: dict[str, int]) -> None:
    """Run a worker, and ask it for several jobs of one name, all at once."""
    async with WorkerRunner(handle_sigint=False) as runner:  # it has one task less, wherever the program runs
        await runner.add_workers(worker)

        async def request(payload: dict[str, int]) -> None:
            await runner.job(worker.name, name=name, payload=payload)

        async with anyio.create_task_group() as group:
            for each in payloads:
                group.start_soon(request, each)


async def check_then_act(*, mended: bool = False) -> None:
    """The last seat is sold twice: who has seen that it is free pays before taking it."""

    class Seats(BaseWorker):
        free = 1
        sold = 0

        @job(name="book", sequential=mended)
        async def book(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep(message.payload["after"])
            if self.free > 0:
                await anyio.sleep(1)
                self.free -= 1
                self.sold += 1

    seats = Seats("seats")
    await ask(seats, "book", {"after": 1}, {"after": 2})
    assert seats.sold == 1, f"one seat was sold {seats.sold} times"


async def initialised_twice(*, mended: bool = False) -> None:
    """A worker that connects when it first has to, and has to again before it is connected."""

    class Store(BaseWorker):
        is_connected = False
        connections = 0

        @job(name="read")
        async def read(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep(message.payload["after"])
            if mended:
                async with lock:
                    await self.connect()
            else:
                await self.connect()

        async def connect(self) -> None:
            if not self.is_connected:
                await anyio.sleep(1)
                self.connections += 1
                self.is_connected = True

    store, lock = Store("store"), anyio.Lock()
    await ask(store, "read", {"after": 1}, {"after": 2})
    assert store.connections == 1, f"{store.connections} connections were made; one of them is closed by nobody"


async def out_of_order_updates(*, mended: bool = False) -> None:
    """A worker that shows the update which was last to be through, and not the newest."""

    class Screen(BaseWorker):
        version = 0

        @job(name="show")
        async def show(self, message: BusJobRequestMessage) -> None:
            version = message.payload["version"]
            await anyio.sleep(message.payload["after"])
            if not mended or version > self.version:
                self.version = version

    screen = Screen("screen")
    await ask(screen, "show", {"version": 1, "after": 1}, {"version": 2, "after": 1}, {"version": 3, "after": 1})
    assert screen.version > 1, f"version 3 is the newest, and version {screen.version} is shown"
