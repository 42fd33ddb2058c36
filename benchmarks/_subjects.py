"""What is measured: each subject says what every side does, so that a reader can judge whether it is fair.

A contender is a subclass of `Subjects` that overrides what it has; what it does not override it does not have, and the
tables show a dash. Setting up and tearing down are outside the clock, where not said otherwise. Messages are made
before the clock starts. Everybody starts with a tenth of the work, or one of it, unmeasured, and everybody on an event
loop waits with the same tool.
"""

from collections.abc import Awaitable, Callable, Mapping
from inspect import getdoc
from typing import Any, Literal, TypeVar

from attrs import field, frozen

from benchmarks._run import Run

Kind = Literal["time", "bytes", "count", "ratio", "flag"]


@frozen
class Value:
    """One number that a subject gives, and a row in a table.

    Args:
        key: What the measurement calls it.
        title: What the row says.
        what: Of what it is, in words.
        kind: Its unit.
        compares: Whether it makes sense to divide it by another contender's.
    """

    key: str
    title: str
    what: str
    kind: Kind = "time"
    compares: bool = True


@frozen
class Subject:
    """Something to measure.

    Args:
        name: What ``--only`` takes.
        group: The table in which it stands.
        values: What it gives.
        full: Each size with how often it is done in one measurement.
        quick: The same for ``--quick``.
        fresh: Whether each measurement has a process of its own.
        about: What every side does.
    """

    name: str
    group: str
    values: tuple[Value, ...]
    full: Mapping[int, int]
    quick: Mapping[int, int]
    fresh: bool = False
    about: str = field(default="", repr=False)

    @property
    def sized(self) -> bool:
        """Whether it is measured at several sizes."""
        return len(self.full) > 1


Method = TypeVar("Method", bound=Callable[..., Awaitable[None]])


def subject(
    group: str,
    *values: Value,
    full: Mapping[int, int],
    quick: Mapping[int, int],
    fresh: bool = False,
) -> Callable[[Method], Method]:
    """Mark a method of `Subjects` as one."""

    def mark(method: Method) -> Method:
        about = getdoc(method) or ""
        vars(method)["subject"] = Subject(method.__name__, group, values, full, quick, fresh, about)
        return method

    return mark


def seconds(title: str, per: str) -> Value:
    """Return the value of a subject that is measured with the clock."""
    return Value("seconds", title, f"per {per}")


class MissingError(NotImplementedError):
    """A contender does not have what is to be measured."""


TIMEOUT = 10.0
"""Seconds, for jobs that have a timeout: nobody reaches it."""

MESSAGES, JOBS, WORKERS, PIPELINES = "Messages", "Jobs", "Workers", "Pipelines"


class Subjects:
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

    @subject(JOBS, seconds("job round trip", "job"), full={1: 1_000}, quick={1: 200})
    async def job(self, run: Run) -> None:
        """A worker asks another for a job and awaits the answer, one job after the other.

        workerbus, Pipecat: an ``@job`` handler; ``async with asker.job(…)``. In workerbus it returns the answer, in
        Pipecat it sends it. autogen: ``send_message``, from outside, to a handler that returns the answer. pykka:
        ``ask``, from outside. Floors: a task is started, sets an event, and the asker waits for it.
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
        Value("jobs", "jobs done in 45 seconds", "of {}", "count", compares=False),
        full={100_000: 100_000},
        quick={2_000: 2_000},
        fresh=True,
    )
    async def late(self, run: Run) -> None:
        """One job after the other, up to number 100,000 (``--quick``: 2,000), in a process of its own.

        Each hundred is timed, by processor time: the median of the last 20 hundreds beside the median of those from
        1,000 to 3,000; and by how much the resident memory has grown from there to the end. ``--quick`` takes what
        there is. Everybody asks as in the round trip; after 45 seconds nobody is asked
        for more, and the last hundreds are those before that.
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
    marked: list[Any] = [getattr(method, "subject", None) for method in vars(Subjects).values()]
    return {each.name: each for each in marked if isinstance(each, Subject)}


SUBJECTS: dict[str, Subject] = _subjects()
