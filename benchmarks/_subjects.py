"""What is measured: each subject says what every side does, so that a reader can judge whether it is fair.

A contender is a subclass of `Subjects` that overrides what it has; what it does not override it does not have, and the
tables show a dash. Setting up and tearing down are outside the clock, where not said otherwise. Messages are made
before the clock starts. Everybody starts with a tenth of the work, or one of it, unmeasured, and everybody on an event
loop waits with the same tool.
"""

from typing import Any

from benchmarks._growth_subjects import GrowthSubjects
from benchmarks._run import Run
from benchmarks._subject import JOBS, MESSAGES, PIPELINES, WORKERS, MissingError, Subject, Value, seconds, subject


class Subjects(GrowthSubjects):
    """All subjects, and a contender that has none of them.

    Args:
        backend: asyncio or trio.
    """

    packages: tuple[str, ...] = ()

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def has(self, name: str) -> bool:
        """Whether this contender has a subject."""
        return getattr(type(self), name) is not getattr(Subjects, name)

    @subject(MESSAGES, seconds("flood at a subscriber", "message"), full={1: 20_000}, quick={1: 4_000})
    async def flood(self, run: Run) -> None:
        """One sender sends as fast as it can to one subscriber, which counts; until all are counted.

        workerbus, Pipecat: ``bus.send`` to a `BusSubscriber` whose ``on_bus_message`` counts. autogen: published on a
        topic to which one agent subscribes. pykka: ``tell``. Floor, anyio: a memory object stream, read in batches
        (``receive``, then ``receive_nowait`` until it is empty). Floor, asyncio: a queue, read in the same way.
        """
        raise MissingError

    @subject(MESSAGES, seconds("flood at a worker", "message"), full={1: 20_000}, quick={1: 4_000})
    async def flood_worker(self, run: Run) -> None:
        """The same to a worker, which counts in its ``on_bus_message``.

        workerbus, Pipecat: a `BaseWorker`. Floors: the same as for the subscriber. autogen and pykka have agents and
        actors alone: the subject above.
        """
        raise MissingError

    @subject(MESSAGES, seconds("idle wake at a subscriber", "message"), full={1: 2_000}, quick={1: 300})
    async def wake(self, run: Run) -> None:
        """Send one message, wait until it was handled, send the next: nothing is ever queued.

        The handler sets an event that the sender waits for. Otherwise as in the flood. Floors: a task that reads a
        stream or a queue, and sets the event.
        """
        raise MissingError

    @subject(MESSAGES, seconds("idle wake at a worker", "message"), full={1: 2_000}, quick={1: 300})
    async def wake_worker(self, run: Run) -> None:
        """The same with a worker."""
        raise MissingError

    @subject(MESSAGES, seconds("a hook for each message", "hook"), full={1: 5_000}, quick={1: 1_000})
    async def hooks(self, run: Run) -> None:
        """A job's handler reports its progress as fast as it can; the asker's hook counts; until all are counted.

        workerbus, Pipecat: ``send_job_update`` in the handler, an overridden ``on_job_update``, which counts. The
        handler answers when all are sent, and the answer is not waited for. Nobody else has hooks.
        """
        raise MissingError

    @subject(
        MESSAGES,
        seconds("broadcast to {}", "broadcast"),
        full={1: 5_000, 10: 1_000, 100: 200, 1_000: 20},
        quick={1: 500, 10: 100, 100: 20},
    )
    async def broadcast(self, run: Run) -> None:
        """One sender broadcasts as fast as it can to that many subscribers; until each has counted all.

        workerbus, Pipecat: a message without a target, plain subscribers. autogen: agents of that many types subscribe
        to one topic. pykka: ``ActorRegistry.broadcast``. Floors: each has a stream or a queue, and a task that reads
        it in batches.
        """
        raise MissingError

    @subject(
        MESSAGES,
        seconds("broadcast to idle {}", "broadcast"),
        full={1: 500, 10: 200, 100: 50, 1_000: 5},
        quick={1: 100, 10: 50, 100: 10},
    )
    async def broadcast_wake(self, run: Run) -> None:
        """The same, but each broadcast is sent when everybody has counted the one before: nothing is ever queued."""
        raise MissingError

    @subject(
        MESSAGES,
        seconds("targeted, one of {}", "message"),
        full={1: 5_000, 10: 5_000, 100: 3_000, 1_000: 2_000},
        quick={1: 500, 10: 500, 100: 500},
    )
    async def targeted(self, run: Run) -> None:
        """One sender sends to one of that many subscribers as fast as it can; until that one has counted all.

        workerbus: subscribers with ``receives = "own"``, as workers have it. Pipecat: subscribers get everything, and
        leave what is not for them in ``accepts_bus_message``. autogen: each agent subscribes to a topic of its own.
        pykka: ``tell``. Floors: a dict of streams or queues.
        """
        raise MissingError

    @subject(
        MESSAGES,
        Value("ahead", "overtaking at a subscriber", "data messages first, of {}", "count", compares=False),
        full={2_000: 1},
        quick={2_000: 1},
    )
    async def overtake(self, run: Run) -> None:
        """How many data messages a subscriber handles between the sending and the handling of a system message.

        The handler never suspends, but for the first message, while the others are sent: so 2,000 are queued. The
        handler of the 100th sends the system message. There is nothing to compare it with elsewhere.
        """
        raise MissingError

    @subject(
        MESSAGES,
        Value("ahead", "overtaking at a worker", "data messages first, of {}", "count", compares=False),
        full={2_000: 1},
        quick={2_000: 1},
    )
    async def overtake_worker(self, run: Run) -> None:
        """The same with a worker's ``on_bus_message``."""
        raise MissingError

    @subject(
        MESSAGES,
        Value("p99", "lag p99, fan-out {}", "of the loop, in broadcasts"),
        Value("p50", "lag p50, fan-out {}", "of the loop, in broadcasts", compares=False),
        Value("most", "longest lag, fan-out {}", "of the loop, in broadcasts", compares=False),
        full={100: 20_000, 1_000: 3_000},
        quick={100: 500, 1_000: 100},
    )
    async def lag(self, run: Run) -> None:
        """How late the event loop wakes a task that sleeps for a millisecond, again and again, meanwhile.

        One sender broadcasts as fast as it can to that many subscribers, and everything is delivered, as in the
        broadcast; the sender pauses when the library does, or never. Floors: the sender lets the others run after each
        broadcast. asyncio itself may wake a task a millisecond late.
        """
        raise MissingError

    @subject(
        MESSAGES,
        Value("queued", "a queued message", "message and entry, of {}", "bytes"),
        Value("message", "a message", "the object alone", "bytes"),
        full={100_000: 1},
        quick={2_000: 1},
        fresh=True,
    )
    async def queued(self, run: Run) -> None:
        """What is allocated for each message that waits for a busy subscriber, by ``tracemalloc``.

        Each is made, sent and forgotten by its sender, which leaves it in the queue. The handler waits in the first.
        Source and target are the same for all, and there is no payload. Floors: a message is a tuple of two strings,
        put into a stream or a queue.
        """
        raise MissingError

    @subject(JOBS, seconds("job round trip", "job"), full={1: 1_000}, quick={1: 200})
    async def job(self, run: Run) -> None:
        """A worker asks another for a job and awaits the answer, one job after the other.

        workerbus, Pipecat: an ``@job`` handler; ``async with asker.job(…)``. In workerbus it returns the answer, in
        Pipecat it sends it. autogen: ``send_message``, from outside, to a handler that returns the answer. pykka:
        ``ask``, from outside. Floors: a task is started, sets an event, and the asker waits for it.
        """
        raise MissingError

    @subject(
        JOBS,
        seconds("job, beside the least", "job"),
        Value("message", "of that: a message", "per job", compares=False),
        Value("scope", "of that: a cancel scope", "per job", compares=False),
        Value("deadline", "of that: a look at the deadline", "per job", compares=False),
        Value("passes", "of that: two passes of the loop", "per job", compares=False),
        full={1: 1_000},
        quick={1: 200},
    )
    async def job_least(self, run: Run) -> None:
        """The same as the round trip, beside a floor that does what nobody can do without.

        workerbus: the round trip, as it is. Floor, anyio: a task that is used again answers, so there are two passes of
        the loop; one message is made, one cancel scope entered and left, and the deadline of all scopes around looked
        at. A message is a frozen attrs class with slots and the six fields of a job request. Each of the four is
        measured alone, too. What is between the floor and workerbus is the library's own.
        """
        raise MissingError

    @subject(JOBS, seconds("job with a timeout", "job"), full={1: 1_000}, quick={1: 200})
    async def job_timeout(self, run: Run) -> None:
        """The same with a timeout of 10 seconds, which nobody reaches.

        workerbus, Pipecat, pykka: the ``timeout`` of the job or of ``ask``. autogen: ``asyncio.timeout``, as it has
        none of its own. Floors: ``anyio.fail_after`` or ``asyncio.timeout`` around the wait.
        """
        raise MissingError

    @subject(JOBS, seconds("100 jobs in flight", "job"), full={100: 1_000}, quick={100: 300})
    async def in_flight(self, run: Run) -> None:
        """100 tasks of one worker ask another, each for one job after the other: there are always 100 under way.

        The asking tasks are started before the clock. pykka: one thread asks for 100 with ``block=False``, gets all,
        and again. Floors: the 100 tasks start a task for each job and wait for its event.
        """
        raise MissingError

    @subject(JOBS, seconds("pool of {}, 100 ask", "job"), full={20: 1_000, 1_000: 1_000}, quick={20: 300})
    async def pool(self, run: Run) -> None:
        """100 tasks of one worker ask for one job after the other, which so many workers share.

        workerbus: a `WorkerPool`; what no member is free for waits. Pipecat, autogen, pykka: workers, agents or actors,
        asked in turn, as they have no pools. pykka: one thread asks for 100 with ``block=False``, and again. Floors: a
        limiter, or a semaphore, of so many, around the start of a task for each job and the wait for its event.
        """
        raise MissingError

    @subject(
        JOBS,
        seconds("group of {}", "group"),
        full={10: 50, 100: 10, 1_000: 1},
        quick={10: 10, 100: 3},
    )
    async def group(self, run: Run) -> None:
        """A worker asks that many at once, and awaits all answers.

        workerbus, Pipecat: ``async with asker.job_group(…)``. autogen: ``send_message`` to each in ``asyncio.gather``.
        pykka: ``ask(block=False)`` of each, then ``get_all``. Floors: a task group of as many tasks.
        """
        raise MissingError

    @subject(
        JOBS,
        seconds("cancel a group of {}", "group"),
        full={100: 1, 1_000: 1},
        quick={100: 1},
    )
    async def cancel(self, run: Run) -> None:
        """All handlers of a group sleep; it is cancelled; until every handler has unwound.

        workerbus: the scope around ``async with asker.job_group(…)`` is cancelled, and left when all have unwound and
        answered. Pipecat: ``cancel_job_group``, until the last ``finally`` block has run; answers are not waited for.
        autogen: the token is cancelled to which each handler has linked what it awaits, with the same end. pykka
        cannot. Floors: a task group of as many sleeping tasks is cancelled.
        """
        raise MissingError

    @subject(JOBS, seconds("stream, as fast as it goes", "partial result"), full={1_000: 1_000}, quick={1_000: 1_000})
    async def stream(self, run: Run) -> None:
        """A handler streams 1,000 partial results as fast as it can; the asker iterates over them.

        workerbus, Pipecat: ``send_job_stream_start``, ``…_data``, ``…_end``; ``async for event in job``. Floors: a task
        puts them into a stream or a queue without a bound, and the other iterates.
        """
        raise MissingError

    @subject(JOBS, seconds("stream, paced", "partial result"), full={1_000: 1_000}, quick={1_000: 1_000})
    async def stream_paced(self, run: Run) -> None:
        """The same, but the handler lets the event loop run once after each (``sleep(0)``)."""
        raise MissingError

    @subject(
        JOBS,
        Value("ratio", "job {} beside early ones", "its time", "ratio", compares=False),
        Value("grown", "memory grown meanwhile", "resident", "bytes", compares=False),
        Value("jobs", "jobs done in 90 seconds", "of {}", "count", compares=False),
        full={1_000_000: 1_000_000},
        quick={2_000: 2_000},
        fresh=True,
    )
    async def late(self, run: Run) -> None:
        """One job after the other, up to number 1,000,000 (``--quick``: 2,000), in a process of its own.

        Each hundred is timed, by processor time: the median of the last 20 hundreds beside the median of those from
        1,000 to 3,000; and by how much the resident memory has grown from there to the end. ``--quick`` takes what
        there is. Everybody asks as in the round trip; after 90 seconds nobody is asked for more, and the last hundreds
        are those before that.
        """
        raise MissingError

    @subject(
        JOBS,
        Value("queued", "a queued sequential job", "at its worker, of {}", "bytes"),
        Value("asked", "a queued sequential job", "with what its asker keeps", "bytes"),
        full={10_000: 1},
        quick={500: 1},
        fresh=True,
    )
    async def queued_job(self, run: Run) -> None:
        """What is allocated for each job that waits for its turn, by ``tracemalloc``.

        The handler is sequential, and busy with the first. At its worker: `BusJobRequestMessage`s are sent to it, by
        nobody who waits for an answer. With what its asker keeps: ``request_job``.
        """
        raise MissingError

    @subject(
        WORKERS,
        Value("seconds", "start and stop of {}", "in all"),
        full={10: 10, 100: 1, 1_000: 1},
        quick={10: 3, 100: 1},
    )
    async def start_stop(self, run: Run) -> None:
        """From nothing to that many workers that are all ready, then to their end and the end of what ran them.

        workerbus, Pipecat: workers are made, added to a runner, ``run()``; at ``on_ready`` the runner is told to end;
        until ``run()`` has returned. autogen: agents are registered and made, the runtime is started, stopped and
        closed. pykka: actors are started, one question is answered by each, and all are stopped. Floors: twice as many
        tasks that do nothing. Ten are started and stopped to warm up.
        """
        raise MissingError

    @subject(
        WORKERS,
        Value("bytes", "memory", "per worker, of {}", "bytes"),
        full={1_000: 1},
        quick={100: 1},
        fresh=True,
    )
    async def memory(self, run: Run) -> None:
        """By how much the resident memory grows from before 1,000 workers are made to when all are ready, for each.

        In a process of its own, after ten of them were started and stopped. ``--quick`` has 100, too few to say much.
        Everybody has one kind of worker with a handler or two. Floors: as many tasks that wait for an event.
        """
        raise MissingError

    @subject(
        WORKERS,
        Value("passes", "wake-ups of {} that are idle", "passes of the loop", "count", compares=False),
        Value("switches", "idle: context switches", "voluntary ones, of {}", "count", compares=False),
        Value("spent", "idle: processor time", "in all, of {}", compares=False),
        full={1_000: 10},
        quick={100: 1},
        fresh=True,
        counted=True,
    )
    async def idle(self, run: Run) -> None:
        """What 1,000 workers do that have nothing to do, in 10 seconds (``--quick``: 100 in one).

        Passes of the event loop and switches are those of their own: less what a wait takes when there are no workers.
        A pass asks once what is ready. Floor, anyio: as many tasks that wait for an event.
        """
        raise MissingError

    @subject(
        WORKERS,
        Value("seconds", "import", "in a fresh interpreter"),
        Value("trio", "trio imported by that", "whether", "flag", compares=False),
        full={1: 1},
        quick={1: 1},
        fresh=True,
    )
    async def importing(self, run: Run) -> None:
        """The time that the import statement takes in an interpreter that has imported nothing else.

        workerbus: ``import workerbus``. Pipecat: `BaseWorker`, `WorkerRunner` and `job`, from where they are
        documented. Floor, anyio: ``import anyio, attrs``. Others: the package. Starting and ending the interpreter is
        not in it.
        """
        raise MissingError

    @subject(
        PIPELINES,
        seconds("frames through {}", "frame"),
        full={1: 10_000, 5: 5_000, 20: 1_500},
        quick={1: 2_000, 5: 800, 20: 200},
    )
    async def frames(self, run: Run) -> None:
        """Frames are queued at a pipeline of that many processors, all at once; until the last one has counted all.

        workerbus, Pipecat: ``queue_frames`` of a `PipelineWorker` that runs; processors that override
        ``process_frame``, call ``super()`` and push on. Pipecat's without its extras for speech: no RTVI, no turn
        tracking, no idle timeout. Floors: a row of tasks with a stream or a queue between each two, read in batches.
        """
        raise MissingError

    @subject(
        PIPELINES,
        seconds("a frame through idle {}", "frame"),
        full={1: 1_000, 5: 500, 20: 200},
        quick={1: 200, 5: 100, 20: 40},
    )
    async def frames_wake(self, run: Run) -> None:
        """The same, but each frame is queued when the one before has been counted: nothing ever waits in a queue."""
        raise MissingError


def _subjects() -> dict[str, Subject]:
    methods = [*vars(Subjects).values(), *vars(GrowthSubjects).values()]
    marked: list[Any] = [getattr(method, "subject", None) for method in methods]
    return {each.name: each for each in marked if isinstance(each, Subject)}


SUBJECTS: dict[str, Subject] = _subjects()
