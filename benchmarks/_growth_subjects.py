"""What can be many: each of these is measured at a size, twice, four and eight times that, with the collector off.

What is timed is everything, divided by the number of items, so a time that stays the same is linear growth. It is
processor time: nothing of this waits for a clock. Each starts with an eighth of its size, unmeasured.
"""

from collections.abc import Callable, Mapping

from benchmarks._run import Run
from benchmarks._subject import GROWTH, Method, MissingError, Value, subject


def doublings(size: int, power: int = 1) -> Mapping[int, int]:
    """Return a size and its doublings, each with the number of its items."""
    return {size * factor: (size * factor) ** power for factor in (1, 2, 4, 8)}


def growing(title: str, per: str, full: int, quick: int, power: int = 1) -> Callable[[Method], Method]:
    """Mark a method as a subject of growth.

    Args:
        title: What there are many of.
        per: What is one of them.
        full: The smallest size.
        quick: The same for ``--quick``.
        power: There are ``size ** power`` items.
    """
    return subject(
        GROWTH,
        Value("cpu", title, f"per {per}"),
        full=doublings(full, power),
        quick=doublings(quick, power),
        collector=False,
        power=power,
    )


class GrowthSubjects:
    """What can be many."""

    @growing("backlog of one subscriber", "message", 5_000, 500)
    async def many_messages(self, run: Run) -> None:
        """That many messages are sent to a subscriber whose handler waits in the first; then it handles them all."""
        raise MissingError

    @growing("subscribers of a broadcast", "subscriber", 250, 25)
    async def many_subscribers(self, run: Run) -> None:
        """64 broadcasts, as fast as it goes, to that many subscribers; until each has counted all."""
        raise MissingError

    @growing("names in a registry", "name", 1_000, 100)
    async def many_names(self, run: Run) -> None:
        """A `WorkerRegistry`: each name is registered, under one of ten runners, looked up, and unregistered."""
        raise MissingError

    @growing("workers, start and stop", "worker", 250, 12)
    async def many_starts(self, run: Run) -> None:
        """From nothing to that many workers that are all ready, then to the end of what ran them.

        Floor: twice as many tasks that do nothing.
        """
        raise MissingError

    @growing("workers, cancelled", "worker", 250, 12)
    async def many_cancelled(self, run: Run) -> None:
        """From ``runner.cancel()`` to the end of that many workers, each with a job whose handler sleeps.

        Floor: a task group of as many tasks that sleep is cancelled.
        """
        raise MissingError

    @growing("children, start", "child", 250, 12)
    async def many_children_start(self, run: Run) -> None:
        """A parent that runs adds that many children; until all are ready."""
        raise MissingError

    @growing("children, stop", "child", 250, 12)
    async def many_children_stop(self, run: Run) -> None:
        """From ``parent.stop()`` to the parent's end, after that of its children."""
        raise MissingError

    @growing("departures, groups open", "departure", 200, 12)
    async def many_departures(self, run: Run) -> None:
        """One worker has that many jobs open at another, which sleeps in them; that many others stop meanwhile."""
        raise MissingError

    @growing("runners on one bus", "announcement", 50, 5, power=2)
    async def many_runners(self, run: Run) -> None:
        """That many runners on one bus, with a worker each, until every runner knows every worker, and to their end.

        Each hears from each: the items are what they announce, the square of their number.
        """
        raise MissingError

    @growing("jobs in flight", "job", 500, 25)
    async def many_in_flight(self, run: Run) -> None:
        """As many tasks ask a worker for a job each; its handlers wait until all are there, and answer.

        Floor: as many tasks wait for an event each, and as many set one each when all are there.
        """
        raise MissingError

    @growing("group", "member", 250, 12)
    async def many_members(self, run: Run) -> None:
        """A worker asks that many at once, in ``async with job_group(…)``, and awaits all answers.

        Floor: a task group of as many tasks.
        """
        raise MissingError

    @growing("group, cancelled", "member", 250, 12)
    async def many_members_cancelled(self, run: Run) -> None:
        """The scope around a context of a group is cancelled while all handlers sleep; until all have unwound.

        Floor: a task group of as many tasks that sleep is cancelled.
        """
        raise MissingError

    @growing("cancel without a context", "member", 250, 12)
    async def many_members_no_context(self, run: Run) -> None:
        """``cancel_job_group`` of a group without a context while all handlers sleep; until all have answered."""
        raise MissingError

    @growing("sequential jobs: asked for", "job", 1_000, 50)
    async def many_waiting(self, run: Run) -> None:
        """A worker asks for that many jobs, by ``request_job``, of a sequential handler that is busy with another."""
        raise MissingError

    @growing("sequential jobs: cancelled", "job", 1_000, 50)
    async def many_waiting_cancelled(self, run: Run) -> None:
        """Each of them is cancelled by ``cancel_job_group``, in random order; until all have been answered."""
        raise MissingError

    @growing("sequential jobs: in turn", "job", 1_000, 50)
    async def many_in_turn(self, run: Run) -> None:
        """The busy handler gives way instead, and each has its turn; until all have been answered."""
        raise MissingError

    @growing("deferred jobs", "job", 500, 25)
    async def many_deferred(self, run: Run) -> None:
        """A worker asks for that many; the handler of each returns, unanswered; when all have, each is answered."""
        raise MissingError

    @growing("results that nobody reads", "result", 2_000, 100)
    async def many_results(self, run: Run) -> None:
        """A handler streams that many; the asker begins to read when they have been sent, or as many as it may."""
        raise MissingError
