"""Networks that are no good, who hears what comes over them, and runners at their ends."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from anyio import current_time, sleep
from anyio.abc import TaskGroup
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from support.leaks import task_ids
from support.messages import alarm, note
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    BusSubscriber,
    MemoryBus,
    WorkerBus,
    WorkerRunner,
    job,
)
from workerbus._concurrency.lane import Lane
from workerbus.bus._inbox import Inbox, InboxHost, make_inbox
from workerbus.testing import FaultyBus, settle

laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


seeds = st.integers(0, 10_000)


def announcement(message: BusMessage) -> bool:
    return message.announcement


class Taker(BusSubscriber):
    """Keeps what arrives with its time, in the step in which it arrives, whatever its lane."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.got: list[tuple[float, BusMessage]] = []

    @property
    def name(self) -> str:
        return self._name

    def messages(self, source: str | None = None) -> list[Any]:
        return [message for _, message in self.got if source in (None, message.source)]

    def times(self, message: BusMessage) -> list[float]:
        return [time for time, each in self.got if each is message]


class _Taking(Inbox):
    depth = 0

    def __init__(self, taker: Taker) -> None:
        super().__init__(taker.name, receives="all")
        self._taker = taker

    def take(self, message: BusMessage) -> None:
        self._taker.got.append((current_time(), message))

    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        return None

    def open(self, host: object) -> None: ...

    def close(self) -> None: ...


@make_inbox.register
def _(taker: Taker, _bus: InboxHost) -> Inbox:
    return _Taking(taker)


@asynccontextmanager
async def network(*names: str, bus: WorkerBus | None = None, **kwargs: Any) -> AsyncIterator[list[FaultyBus]]:
    """Open the ends of a network, and see to it that nothing is left of it (L1)."""
    before, wrapped = task_ids(), bus or MemoryBus()
    first = FaultyBus(wrapped, name=names[0], **kwargs)
    async with AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(end) for end in (first, *(first.end(name) for name in names[1:]))]
        yield ends
    assert task_ids() == before
    assert not any(each.is_open for each in (wrapped, *ends))
    assert wrapped.statistics().subscribers == {}


@asynccontextmanager
async def runners(
    left: WorkerBus, right: WorkerBus, *workers: BaseWorker, **kwargs: Any
) -> AsyncIterator[tuple[WorkerRunner, WorkerRunner]]:
    """A runner on each end; the right one has the workers, and the left one knows of them."""
    asker = WorkerRunner(bus=left, name="asker", handle_sigint=False, **kwargs)
    host = WorkerRunner(bus=right, name="host", handle_sigint=False, **kwargs)
    async with host, asker:
        await host.add_workers(*workers)
        for worker in workers:
            await asker.registry.wait_for(worker.name)
        await settle()
        yield asker, host
    assert left.statistics().subscribers == right.statistics().subscribers == {}


@asynccontextmanager
async def another_runner(bus: WorkerBus, *workers: BaseWorker, **kwargs: Any) -> AsyncIterator[WorkerRunner]:
    """One more runner."""
    async with WorkerRunner(bus=bus, name="another", handle_sigint=False, **kwargs) as runner:
        await runner.add_workers(*workers)
        yield runner


def kinds(bus: FaultyBus) -> list[str]:
    return [fault.kind for fault in bus.records]


class Speaker(BaseWorker):
    """Streams words, takes its time, and counts how often it was asked."""

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        super().__init__(name)
        self.seconds = seconds
        self.asked: Counter[str] = Counter()

    @job(name="say")
    async def say(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.asked[message.job_id] += 1
        await sleep(self.seconds)
        return {"said": (message.payload or {}).get("text"), "by": self.name}

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(message.job_id, {})
        for n in range(3):
            await self.send_job_stream_data(message.job_id, {"n": n})
        await self.send_job_stream_end(message.job_id, {"total": 3})


Script = list[tuple[int, float, bool]]


async def play(group: TaskGroup, ends: list[FaultyBus], script: Script) -> dict[str, list[tuple[float, BusMessage]]]:
    """Let three senders, at all ends, send notes and alarms with pauses. Returns who sent what, and when."""
    sent: dict[str, list[tuple[float, BusMessage]]] = {f"s{n}": [] for n in range(3)}

    async def sender(number: int) -> None:
        source = f"s{number}"
        for n, (who, pause, urgent) in enumerate(script):
            await sleep(pause)
            if who == number:
                message = alarm(n, source=source) if urgent else note(n, source=source)
                sent[source].append((current_time(), message))
                await ends[number % len(ends)].send(message)

    for number in range(3):
        group.start_soon(sender, number)
    return sent


scripts = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.0, 0.1, 0.5]), st.booleans()), max_size=15)
