"""``rich_progress``: shows how far a job or a job group is, while it runs (J20).

Knows what every user can: a job's ``progress()``. What it looks like is `_display`'s subject, which needs rich.

Two things are entered, and left in the other order: a task group for the task that draws, and in it the job, unless
that was entered before. So the line is there until the last worker has unwound.
"""

from collections.abc import Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from anyio import create_task_group, current_time, move_on_after, sleep
from anyio.abc import TaskGroup

from workerbus.errors import MissingExtraError, NotRunningError
from workerbus.jobs import JobContext, JobGroupContext, JobProgress, JobStreamContext

if TYPE_CHECKING:
    from rich.console import Console

    from workerbus.cli._display import Display

J = TypeVar("J", bound=JobContext[Any] | JobGroupContext[Any])
R_co = TypeVar("R_co", covariant=True)
Y = TypeVar("Y")

PAUSE: Final = 0.1
"""Seconds for which a line stands at least."""


GONE: Final = (OSError, ValueError, SystemExit)
"""What is raised where an output is closed, or nobody reads it: the last one by rich. It is to end nobody's work."""


class RichProgress(Generic[J, R_co]):
    """A job or a job group whose progress is shown; made by `rich_progress`.

    Guarantees: J20.
    """

    def __init__(self, job: J, display: "Display") -> None:
        self._job = job
        self._display = display
        self._owned = not _is_entered(job)
        self._works = True

    async def __aenter__(self) -> J:
        """Enter the job, unless it was entered before, and show how far it is.

        Returns:
            The job's context.

        Raises:
            JobError: The job has failed before the body could begin; `JobGroupError` for a group.
            NotRunningError: The one that asks is not running, or the job was used before; a `RuntimeError`.
        """
        self._begun = current_time()
        self._tasks: TaskGroup = create_task_group()
        await self._tasks.__aenter__()
        try:
            if self._owned:
                await self._job.__aenter__()
        except BaseException:
            await self._leave()
            raise
        self._reports = self._job.progress()
        self._tasks.start_soon(self._keep_showing, name="progress")
        return self._job

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Leave the job, if it was entered here; the last line stays."""
        try:
            return self._owned and await self._job.__aexit__(exc_type, exc, traceback)
        finally:
            try:
                await self._leave()
            finally:
                self._show(self._reports.now())
                self._draw(self._display.stop)

    async def _leave(self) -> None:
        # It is told of no error: what the body has raised is to go on as it is, and not in an exception group.
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)

    def __await__(self) -> Generator[Any, None, R_co]:
        """Show how far the job is until it is over, and return its answer, or those of the group."""
        return self._answer().__await__()

    async def _answer(self) -> Any:
        async with self as job:
            # Where the job is entered here, nobody else can take its events, and they would be kept.
            async for _ in job if self._owned else job.progress():
                pass
        return job.response if isinstance(job, JobContext) else job.responses

    async def _keep_showing(self) -> None:
        more = True
        while more:
            now: JobProgress | None = None
            with move_on_after(self._display.tick):
                now = await anext(self._reports, None)
                more = now is not None
            self._show(now or self._reports.now())
            await sleep(PAUSE)

    def _show(self, now: JobProgress) -> None:
        self._draw(lambda: self._display.show(now, self._job.waits_for, current_time() - self._begun))

    def _draw(self, draw: Callable[[], None]) -> None:
        if self._works:
            try:
                draw()
            except GONE:
                self._works = False
                with suppress(*GONE, IndexError):  # which comes from rich, where it was cut short at its start
                    self._display.stop()


def _is_entered(job: JobContext[Any] | JobGroupContext[Any]) -> bool:
    try:
        return bool(job.job_id)
    except NotRunningError:
        return False


@overload
def rich_progress(
    job: JobGroupContext[R_co], *, console: "Console | None" = None
) -> RichProgress[JobGroupContext[R_co], dict[str, R_co]]: ...
@overload
def rich_progress(
    job: JobStreamContext[Y], *, console: "Console | None" = None
) -> RichProgress[JobStreamContext[Y], dict[str, Any]]: ...
@overload
def rich_progress(
    job: JobContext[R_co], *, console: "Console | None" = None
) -> RichProgress[JobContext[R_co], R_co]: ...
def rich_progress(job: Any, *, console: "Console | None" = None) -> Any:
    """Show how far a job or a job group is, in one line; needs the extra `cli`.

    ::

        answers = await rich_progress(self.job_group(*names, name="scan"))

        async with rich_progress(self.job_group(*names, name="scan")) as group:
            async for event in group:
                ...

    In a terminal the line has a bar, how many workers have answered, how many of them have failed, which ones are
    missing, and the last update or chunk. It changes as they come; other output appears above it. Anywhere else, such
    as in a pipe, there is a plain line for each worker that has answered. It takes no event away from a loop, and the
    job goes on if the output is closed.

    Args:
        job: What ``job`` or ``job_group`` returns. If it was not entered before, it is entered and left here; otherwise
            its progress is shown while the block runs.
        console: Where to show it; by default on standard error.

    Raises:
        MissingExtraError: rich is not installed; an `ImportError`.
        TypeError: It is not a job.

    Guarantees: J20.
    """
    if not isinstance(job, JobContext | JobGroupContext):
        raise TypeError(f"progress is shown of what job() or job_group() returns, not of {job!r}")
    try:
        from workerbus.cli._display import display_on  # noqa: PLC0415 - rich is an extra
    except ImportError:
        job.close()  # never to be asked for
        raise MissingExtraError("lines of progress", "rich", "cli") from None
    return RichProgress(job, display_on(console))
