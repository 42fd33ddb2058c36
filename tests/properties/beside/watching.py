"""Features of looking at a program: statistics, dumps, health, the log, who asks for what in which job; open jobs."""

from typing import Any

from anyio import create_task_group, sleep

from properties.beside.buses import Nested
from properties.beside.harness import Side, feature
from properties.beside.jobs import Server, fails
from properties.beside.lives import Member, end
from properties.beside.streams import Asker, Streamer
from workerbus import BaseWorker, BusJobRequestMessage, JobStatus, WorkerRunner, dump, job
from workerbus.runner._reporter import Reporter


@feature()
async def statistics_of_a_worker(side: Side) -> Any:
    """O2: its jobs with age, deadline and who asked; its counts by outcome, which only go up."""
    server, asker = await side.hire(Server, "server"), await side.hire(Asker, "asker")
    await asker.request_job(server.name, name="turn", payload={"seconds": 0.9, "tag": 1})
    await sleep(0.1)
    await asker.request_job(server.name, name="turn", payload={"seconds": 0.9, "tag": 2}, timeout=1.0)
    await asker.request_job(server.name, name="later", payload={"seconds": 0.8, "tag": 3})
    await asker.request_job(server.name, name="refuse", payload={"tag": 4})
    await sleep(0.2)
    for _ in range(2):
        told = side.runner.statistics().workers[server.name]
        jobs = [
            (
                each.name,
                each.requester,
                each.state,
                round(each.age, 6),
                each.seconds_left and round(each.seconds_left, 6),
            )
            for each in told.jobs
        ]
        counts = {status: number for status, number in told.jobs_answered.items() if number}
        side.see(jobs, told.phase, told.active, counts, told.jobs_requested, told.lanes)
        side.see(side.runner.statistics().workers[asker.name].jobs_requested, asker.statistics())
        await sleep(1.5)
    return side.in_order()


@feature()
async def what_a_dump_says(side: Side) -> Any:
    """O6: of each worker that does something, what that is; the others are idle."""
    server, asker = await side.hire(Server, "server"), await side.hire(Asker, "asker")
    async with create_task_group() as tasks:
        for tag in range(2):
            ask = side.runner.job(server.name, name="turn", payload={"seconds": 1.0, "tag": tag}, timeout=5.0)
            tasks.start_soon(fails, side, ask)
            await sleep(0.1)
        await asker.request_job(server.name, name="later", payload={"seconds": 0.5, "tag": 2})
        await sleep(0.1)
        lines = dump().splitlines()
        first = next(number for number, line in enumerate(lines) if f"worker {server.name!r} " in line)
        asked = next(number for number, line in enumerate(lines) if f"worker {asker.name!r} " in line)
        hosts = [line.replace("'host0'", "it").replace("'host1'", "it") for line in lines[first : first + 4]]
        side.see(hosts, lines[asked : asked + 2])
    return side.in_order()


@feature()
async def what_is_logged_of_a_life(side: Side) -> Any:
    """R8: its start, its end, and of what it has failed."""
    worker = await side.hire(Member, "member", side)
    await end(side, worker, "enough")
    broken = await side.hire(Member, "broken", side)
    await fails(side, side.runner.job(broken.name, name="break"))
    await broken.wait()
    await sleep(0.1)
    return side.lines("worker"), side.errors()


@feature()
async def how_a_runner_is(side: Side) -> Any:
    """O5: which workers are starting, and which have failed."""
    health = side.runner.health
    await side.runner.add_workers(Member(side.name("late"), side, fails_at="start"), Member(side.name("other"), side))
    side.hired += [worker for name in ("other",) if (worker := side.runner.get_worker(side.name(name))) is not None]
    await sleep(0.05)
    side.see([name for name in health().starting if name.endswith(side.mark)])
    await sleep(0.2)
    side.see([name for name in health().starting if name.endswith(side.mark)])
    side.see([name for name in health().failed if name.endswith(side.mark)])
    again = await side.hire(Member, "late", side)
    await sleep(0.1)
    side.see([name for name in health().failed if name.endswith(side.mark)], again.active)
    return side.in_order()


@feature()
async def who_asks_in_which_job(side: Side) -> Any:
    """O4: each request that a handler makes is in the job of that handler."""
    first, second = await side.hire(Nested, "first"), await side.hire(Nested, "second")
    reporter = Reporter(side.runner)
    looker = reporter.observe("all")
    try:
        async with create_task_group() as tasks:
            for asker, whom, seconds in ((first, second, 0.4), (second, first, 0.2), (first, second, 0.3)):
                payload = {"whom": whom.name, "seconds": seconds}
                tasks.start_soon(fails, side, side.runner.job(asker.name, name="ask", payload=payload))
                await sleep(0.01)
        reporter.look()
        notes = [note for note in looker.report().notes if (note.target or "").endswith(side.mark)]
        names = {note.job_id: (note.target, note.text) for note in notes if note.kind == "asked"}
        side.see([(note.text, note.target, names.get(note.parent or "")) for note in notes if note.kind == "asked"])
    finally:
        looker.end()
    return side.in_order()


@feature()
async def handlers_that_take_long(side: Side) -> Any:
    """R8: a runner that was asked to tells of each that takes longer than it may, and how many have waited longer."""
    async with WorkerRunner(name=side.name("second"), bus=side.bus, handle_sigint=False, slow_seconds=0.5) as runner:
        await runner.add_workers(Server(side.name("server")), Server(side.name("other")), wait=True)
        names = [side.name("server"), side.name("other")]
        payloads = {names[0]: {"seconds": 0.6}, names[1]: {"seconds": 0.3}}
        await runner.job_group(*names, name="sleep", payloads=payloads)
        async with create_task_group() as tasks:
            for seconds in (0.4, 0.2):
                payload = {"seconds": seconds, "tag": "it"}
                tasks.start_soon(fails, side, side.runner.job(names[0], name="turn", payload=payload))
                await sleep(0.01)
        told = runner.statistics()
        side.see(told.slow_handlers, told.jobs_waited_longer)
    return side.in_order(), side.lines("has taken")


class Plainest(BaseWorker):
    """Has no hooks and no handlers."""


@feature()
async def the_grace_of_who_asks(side: Side) -> Any:
    """R2: jobs that a worker has asked for get the grace, whether it has hooks or not."""
    server = await side.hire(Server, "server")
    async with create_task_group() as tasks:
        async with WorkerRunner(name=side.name("second"), bus=side.bus, handle_sigint=False, job_grace=0.5) as runner:
            plain, asker = Plainest(side.name("plain")), Asker(side.name("asker"))
            await runner.add_workers(plain, asker, wait=True)
            for seconds in (0.35, 0.8):
                ask = plain.job(server.name, name="sleep", payload={"seconds": seconds, "cleaning": 0.1})
                tasks.start_soon(fails, side, ask)
            job_id = await asker.request_job(server.name, name="sleep", payload={"seconds": 0.45})
            await sleep(0.05)
            await runner.end()
        side.see(asker.heard(side, job_id))
    return side.in_order()


@feature(shares=True)
async def two_loops_over_one_job(side: Side) -> Any:
    """J7: they share its events, and both end; a loop over a job that is over ends at once."""
    streamer = await side.hire(Streamer, "streamer")
    seen: list[int] = []

    async def read(events: Any) -> None:
        seen.extend([event.data["step"] async for event in events])

    async with side.runner.job(streamer.name, name="report", payload={"tag": "it"}) as asked:
        async with create_task_group() as tasks:
            tasks.start_soon(read, asked)
            tasks.start_soon(read, asked)
        side.see(sorted(seen))
        await read(asked)
    side.see(asked.response, len(seen))
    return side.in_order()


class Opened(BaseWorker):
    """Leaves its jobs open, and answers by hand."""

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        pass

    @job(name="panic")
    async def panic(self, message: BusJobRequestMessage) -> None:
        await sleep(0.2)
        raise GeneratorlessPanic("it is broken for good")


class GeneratorlessPanic(BaseException):
    """Is no `Exception`."""


@feature()
async def a_panic(side: Side) -> Any:
    """J2: it ends that worker alone, and all its jobs are answered ERROR."""
    worker, other = await side.hire(Opened, "opened"), await side.hire(Server, "server")
    async with create_task_group() as tasks:
        tasks.start_soon(fails, side, side.runner.job(worker.name, name="open"))
        tasks.start_soon(fails, side, side.runner.job(worker.name, name="panic"))
        tasks.start_soon(fails, side, side.runner.job(other.name, name="sleep", payload={"seconds": 0.5}))
    await worker.wait()
    await sleep(0.1)
    return side.in_order(), side.errors()


@feature()
async def open_jobs_of_one_that_stops(side: Side) -> Any:
    """W6, J14: an answer by hand counts until the end; what is open then is CANCELLED."""
    worker, asker = await side.hire(Opened, "opened"), await side.hire(Asker, "asker")
    jobs = [await asker.request_job(worker.name, name=name) for name in ("one", "two", "three")]
    await sleep(0.1)
    await worker.send_job_response(jobs[1], {"by": "hand"}, status=JobStatus.FAILED)
    await sleep(0.1)
    await worker.stop()
    await sleep(0.1)
    return [asker.heard(side, job_id) for job_id in jobs]
