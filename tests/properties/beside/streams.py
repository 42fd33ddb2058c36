"""Features of what comes before an answer: updates, streams, windows, progress; and of the hooks of who asks."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
from anyio import CancelScope, create_task_group, sleep

from properties.beside.harness import Side, feature
from properties.beside.jobs import Server, fails
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusJobUpdateUrgentMessage,
    JobGroupResponse,
    JobStatus,
    job,
)


@dataclass
class Count:
    to: int
    every: float = 0.0
    cleaning: float = 0.0


@dataclass
class Number:
    number: int


class Streamer(BaseWorker):
    """Streams numbers in several ways, and takes down how far it has come, by job."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.made: dict[str, int] = {}
        self.cancelled: dict[str, list[Any]] = {}
        self.closed: list[float] = []

    @job(name="count")
    async def count(self, what: Count) -> AsyncIterator[Number]:
        try:
            for number in range(what.to):
                await sleep(what.every)
                yield Number(number)
        finally:
            with CancelScope(shield=True):
                await sleep(what.cleaning)
            self.closed.append(anyio.current_time())

    @job(name="by hand")
    async def by_hand(self, message: BusJobRequestMessage) -> None:
        """Send as much as the reader lets it, and end with a stream's end."""
        await self.send_job_stream_start(message.job_id, {"tag": message.payload["tag"]})
        for number in range(message.payload["to"]):
            self.made[message.payload["tag"]] = number + 1
            await self.send_job_stream_data(message.job_id, {"number": number})
        await self.send_job_stream_end(message.job_id, {"sent": message.payload["to"]})

    @job(name="report")
    async def report(self, message: BusJobRequestMessage) -> dict[str, Any]:
        for step in range(3):
            await self.send_job_update(message.job_id, {"step": step, "tag": message.payload["tag"]})
            await sleep(0.2)
        return {"tag": message.payload["tag"]}

    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        await self.send_job_update(message.job_id, {"asked": True})

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        seen = self.cancelled.setdefault(message.job_id, [])
        seen.append((anyio.current_time(), message.reason))


class Asker(BaseWorker):
    """Takes down what its hooks are told of the jobs that it has asked for, by job."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.told: dict[str, list[Any]] = {}

    def tell(self, job_id: str, *what: Any) -> None:
        self.told.setdefault(job_id, []).append((anyio.current_time(), *what))

    async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        self.tell(message.job_id, "response", message.source, message.status, message.response)

    async def on_job_error(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        self.tell(message.job_id, "error", message.source, message.status)

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        self.tell(result.job_id, "completed", sorted(result.responses))

    async def on_job_update(self, message: BusJobUpdateMessage | BusJobUpdateUrgentMessage) -> None:
        self.tell(message.job_id, "update", message.source, message.update)

    def heard(self, side: Side, job_id: str) -> list[Any]:
        return [(side.at(when), *what) for when, *what in self.told.get(job_id, [])]


@feature(shares=True)
async def a_typed_stream(side: Side) -> Any:
    """J17, J18: objects go in, and objects come out."""
    streamer = await side.hire(Streamer, "streamer")
    async with side.runner.job(streamer.name, Streamer.count, payload=Count(3, 0.2)) as asked:
        async for number in asked.stream():
            side.see(number)
    side.see(asked.response)
    return side.seen


@feature()
async def a_stream_that_is_cut(side: Side) -> Any:
    """J5, J18: a generator has been closed when its job is left."""
    streamer = await side.hire(Streamer, "streamer")
    with CancelScope() as enough:
        async with side.runner.job(streamer.name, Streamer.count, payload=Count(9, 0.2, 0.3)) as asked:
            async for number in asked.stream():
                if number.number == 1:
                    enough.cancel()
    side.see([side.at(when) for when in streamer.closed])
    return side.seen


@feature(shares=True)
async def a_window(side: Side) -> Any:
    """J19: a handler is no further ahead of its reader than that lets it be."""
    streamer = await side.hire(Streamer, "streamer")
    payload = {"tag": side.mark, "to": 9}
    asked = side.runner.job(streamer.name, name="by hand", payload=payload, max_buffered_events=3)
    async with asked as one:
        most, read = 0, 0
        async for event in one:
            if event.type == "stream_data":
                await sleep(0.1)
                read += 1
                most = max(most, streamer.made[side.mark] - read)
    side.see(most <= 4, read, one.response)
    return side.seen


@feature()
async def windows_of_a_group(side: Side) -> Any:
    """J19: each worker of a group has a window of its own; one that is not read holds up no other."""
    names = [(await side.hire(Streamer, word)).name for word in ("one", "two")]
    payloads = {name: {"tag": name, "to": to} for name, to in zip(names, (4, 7), strict=True)}
    numbers: dict[str, list[int]] = {}
    async with side.runner.job_group(*names, name="by hand", payloads=payloads, max_buffered_events=2) as group:
        async for name, chunk in group.stream():
            await sleep(0.05)
            numbers.setdefault(name, []).append(chunk["number"])
    side.see(sorted(numbers.items()), group.responses)
    return side.seen


@feature(shares=True)
async def two_windows_of_one_worker(side: Side) -> Any:
    """J19: of two streams of a worker one goes on while the other one waits for its reader."""
    streamer = await side.hire(Streamer, "streamer")

    async def read(tag: str, first: float) -> None:
        payload = {"tag": side.name(tag), "to": 6}
        async with side.runner.job(streamer.name, name="by hand", payload=payload, max_buffered_events=2) as asked:
            await sleep(first)
            async for event in asked:
                if event.type == "stream_end":
                    break
        side.see(tag, asked.response)

    async with create_task_group() as tasks:
        tasks.start_soon(read, "slow", 1.0)
        tasks.start_soon(read, "quick", 0.2)
    return side.seen


@feature(shares=True)
async def updates_of_two_jobs(side: Side) -> Any:
    """J7: each context gets the updates of its own job, in order."""
    streamer = await side.hire(Streamer, "streamer")

    async def listen(tag: int) -> None:
        async with side.runner.job(streamer.name, name="report", payload={"tag": tag}) as asked:
            events = [(side.now(), event) async for event in asked]
        side.see(tag, events, asked.response)

    async with create_task_group() as tasks:
        for tag in range(2):
            tasks.start_soon(listen, tag)
            await sleep(0.05)
    return side.seen


@feature(shares=True)
async def an_update_on_request(side: Side) -> Any:
    """J7: who asks for an update of one job gets one of that."""
    streamer, asker = await side.hire(Streamer, "streamer"), await side.hire(Asker, "asker")
    group = await asker.create_job_group_and_request_job([streamer.name], name="report", payload={"tag": "it"})
    await sleep(0.1)
    await asker.request_job_update(group.job_id, streamer.name)
    await group.wait()
    await sleep(0.1)
    return asker.heard(side, group.job_id)


@feature()
async def progress_of_a_group(side: Side) -> Any:
    """J7: how many have answered, and how many failed."""
    names = [(await side.hire(Server, word)).name for word in ("one", "two", "three")]
    payloads: dict[str, Any] = {name: {"seconds": 0.2 + number / 10} for number, name in enumerate(names)}
    payloads[names[1]]["error"] = "half-way"
    label = side.name("label")
    async with side.runner.job_group(
        *names, name="sleep", payloads=payloads, cancel_on_error=False, label=label
    ) as group:
        async for report in group.progress():
            side.see(report.label, report.total, report.answered, report.failed)
    return side.seen


@feature(shares=True)
async def a_group_that_is_cancelled(side: Side) -> Any:
    """J21, J5: the answers of those that unwind come to the hook, with the reason; the group does not complete."""
    servers = [await side.hire(Server, word) for word in ("one", "two")]
    asker = await side.hire(Asker, "asker")
    names = [server.name for server in servers]
    payloads = {name: {"seconds": 3.0, "cleaning": 0.2 + number / 5} for number, name in enumerate(names)}
    other = {name: {"seconds": 0.8 + number / 5} for number, name in enumerate(names)}
    job_id = await asker.request_job_group(*names, name="sleep", payloads=payloads)
    kept = await asker.create_job_group_and_request_job(names, name="sleep", payloads=other)
    await sleep(0.3)
    await asker.cancel_job_group(job_id, reason=f"enough of {side.name('it')}")
    await kept.wait()
    await sleep(0.5)
    return asker.heard(side, job_id), asker.heard(side, kept.job_id)


@feature(shares=True)
async def a_reason_while_streaming(side: Side) -> Any:
    """J5: a handler that streams is cancelled with the reason of its own requester, once."""
    streamer, asker = await side.hire(Streamer, "streamer"), await side.hire(Asker, "asker")
    job_id = await asker.request_job(streamer.name, name="count", payload={"to": 99, "every": 0.1, "cleaning": 0.2})
    await sleep(0.35)
    await asker.cancel_job_group(job_id, reason=side.name("reason"))
    await sleep(0.5)
    cancelled = [(side.at(when), reason) for when, reason in streamer.cancelled[job_id]]
    return cancelled, asker.heard(side, job_id)


@feature(shares=True)
async def hooks_of_a_group(side: Side) -> Any:
    """J16: completed once, after all responses; an error is told of, too."""
    names = [(await side.hire(Server, word)).name for word in ("one", "two")]
    asker = await side.hire(Asker, "asker")
    both = [
        await asker.request_job_group(
            *names, name="sleep", payloads={names[0]: {"seconds": a}, names[1]: {"seconds": b}}
        )
        for a, b in ((0.4, 0.2), (0.3, 0.5))
    ]
    bad: dict[str, Any] = {names[0]: {"seconds": 0.1, "error": "bad"}, names[1]: {"seconds": 0.6}}
    failing = await asker.request_job_group(*names, name="sleep", payloads=bad)
    await sleep(1.0)
    return [asker.heard(side, job_id) for job_id in (*both, failing)]


@feature(shares=True)
async def an_answer_of_its_own(side: Side) -> Any:
    """J14: a deferred job is answered later; the second answer is refused; a timeout goes on meanwhile."""
    server = await side.hire(Server, "server")
    await fails(side, side.runner.job(server.name, name="later", payload={"seconds": 0.4, "tag": "it"}))
    await fails(side, side.runner.job(server.name, name="later", payload={"seconds": 0.9, "tag": "it"}, timeout=0.5))
    try:
        await server.send_job_response("unknown", {})
    except RuntimeError as exc:
        side.see(type(exc).__name__)
    return side.seen


@feature(shares=True)
async def an_urgent_answer(side: Side) -> Any:
    """J7: it overtakes what is still to be read."""
    worker = await side.hire(Urgent, "urgent")
    async with side.runner.job(worker.name, name="hurry") as asked:
        await sleep(0.2)
        side.see([event.type async for event in asked], asked.response)
    return side.seen


class Urgent(BaseWorker):
    @job(name="hurry", deferred=True)
    async def hurry(self, message: BusJobRequestMessage) -> None:
        await self.send_job_update(message.job_id, {"step": 1})
        await self.send_job_response(message.job_id, {"done": True}, status=JobStatus.COMPLETED, urgent=True)


@feature(shares=True)
async def headers_of_a_job(side: Side) -> Any:
    """X8: they come with the request, and back with the answer."""
    worker = await side.hire(Headed, "headed")
    headers = {"of": side.name("it")}
    answer = await side.runner.job(worker.name, name="headers", headers=headers)
    side.see(answer)
    side.see(await side.runner.job(worker.name, name="headers"))
    return side.seen


class Headed(BaseWorker):
    @job(name="headers")
    async def headers(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await sleep(0.1)
        return dict(message.headers or {})
