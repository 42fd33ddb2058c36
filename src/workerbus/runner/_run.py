"""One run: the task group that everything hangs in, the shield around it, and the order of the wind-down (L3, L4, L6).

`Run.open` starts one task, the core, and in it a shield: a cancellation from outside does not reach the core, but only
whoever awaits the run, and comes with that to `Run.close`. There the run is wound down:

1. What is served is told to cancel. Workers finish from the leaves up, then their dispatchers, then the bus.
2. All of that has one deadline (L4). After it the shield is open, and what is left is cancelled where it stands.
3. When nothing is left, the cancellation goes on its way.

The module knows a bus, which it opens if nobody else has (R6), and something to serve once (R1), but no workers.
"""

import math
from collections.abc import Awaitable, Callable

from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class
from anyio.abc import TaskGroup

from workerbus._concurrency.failures import unwrap_group
from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus._concurrency.waiting import Wait, waits
from workerbus.bus._bus import WorkerBus
from workerbus.errors import NotRunningError


class Run:
    """One run of a runner.

    Args:
        name: The runner's name.
        bus: The bus; opened for the run, unless the program has opened it.
        clean_up: The clock of the wind-down, and its shields.
        serve: Awaited in the core, with the tasks of the run; the run is over when it returns.
        wind_down: Tells what is served to cancel, and why; called when an exception ends the run.

    Attributes:
        tasks: The tasks of the run, while it lasts.
        failure: The exception that has ended the core, if one has; `close` raises it.
        body: The scope of the body that runs meanwhile, where the run is an ``async with``.
        done: Set when nothing of the run is left.
    """

    def __init__(
        self,
        name: str,
        bus: WorkerBus,
        clean_up: CleanUp,
        serve: Callable[[TaskHost], Awaitable[None]],
        wind_down: Callable[[str], None],
    ) -> None:
        self._name = name
        self._bus = bus
        self._clean_up = clean_up
        self._serve = serve
        self._wind_down = wind_down
        self._opened = False
        self._owns_bus = False
        self._group: TaskGroup | None = None
        self._shield: CancelScope | None = None
        self._ready = Event()
        self.tasks: TaskHost | None = None
        self.failure: BaseException | None = None
        self.body: CancelScope | None = None
        self.done: Event = Event()

    async def open(self, listen: Callable[[TaskGroup], None]) -> None:
        """Start the core, and wait until it serves.

        Args:
            listen: Begins to listen to signals, in a task group that is closed last.

        Raises:
            NotRunningError: There was a run already, or the bus is open for another runner alone.
        """
        if self._opened:
            raise NotRunningError(f"runner {self._name!r} has run: a runner runs once, make another")
        bus = self._bus
        if bus.opened_by is not None:
            raise NotRunningError(
                f"bus {bus.name!r} is open for runner {bus.opened_by!r} alone: "
                "to share it, open it around both, with 'async with bus:'"
            )
        self._opened = True
        self._owns_bus = not bus.is_open
        if self._owns_bus:
            bus.opened_by = self._name  # before anything waits: another runner may start at this very moment
        group = self._group = create_task_group()
        await group.__aenter__()
        group.start_soon(self._core, listen, name=f"runner {self._name}")
        try:
            await self._ready.wait()
        except BaseException as exc:
            await self.close(exc)
            raise
        if self.failure is not None:
            await self.close(None)

    def start_in_words(self) -> Wait:
        """Return what those wait for who wait for the run to begin."""
        return Wait(1, f"for runner {self._name!r} to start")

    def serving(self) -> None:
        """Note that the core has begun to serve."""
        self._ready.set()

    @property
    def opened(self) -> bool:
        """Whether there was an attempt to run."""
        return self._opened

    def cancel_opening(self) -> None:
        """Give up a start that is under way: a bus that does not connect, for instance."""
        # Nothing runs yet that would have to be wound down, so the shield itself is cancelled.
        if self._shield is not None and not self._ready.is_set():
            self._shield.cancel()

    def limit(self, deadline: float) -> bool:
        """Let the core be cancelled at a deadline, in seconds of the loop's clock.

        Returns:
            Whether it had none before; the first one counts.
        """
        if self._shield is None or self._shield.deadline != math.inf:
            return False
        self._shield.deadline = deadline
        return True

    async def close(self, exc: BaseException | None) -> bool:
        """Wait until nothing is left; with an exception, wind down first.

        Returns:
            Whether the exception is the run's own business and goes no further.

        Raises:
            BaseException: What ended the core, as it was raised there.
        """
        if exc is not None:
            self._interrupted(exc)
        exc = await self.wait(exc)
        try:
            return await self._close_group(exc)
        finally:
            if self.failure is not None:
                raise self.failure

    async def wait(self, exc: BaseException | None = None) -> BaseException | None:
        """Wait until nothing is left; returns with what to go on, given what there was before."""
        # Whatever interrupts the wait, it goes on until nothing is left:
        # 1. It is shielded. A cancelled scope around the run has shown itself before, and would do so again with each
        #    pass of the loop; an exit, or a native cancellation, still comes through.
        # 2. After a signal it is not shielded: whoever interrupts now insists, and the wind-down's shields are opened.
        # 3. Of several exceptions the last one goes on from here, except that a cancellation takes the place of an
        #    error only, not of an earlier cancellation and not of an exit.
        while not self.done.is_set():
            try:
                with CancelScope(shield=not self._clean_up.interruptible):
                    await self.done.wait()
            except BaseException as late:  # noqa: BLE001 - raised again below
                if exc is None or isinstance(exc, Exception) or not isinstance(late, get_cancelled_exc_class()):
                    exc = late
                self._interrupted(late)
        return exc

    def _interrupted(self, exc: BaseException) -> None:
        if isinstance(exc, Exception):
            self._wind_down(f"the runner's body failed: {exc!r}")
        elif not self._clean_up.interrupt():
            self._wind_down("the runner was cancelled")

    async def _close_group(self, exc: BaseException | None) -> bool:
        group, self._group = self._group, None
        assert group is not None
        if isinstance(exc, get_cancelled_exc_class()):
            # Only the group can tell whether this is the cancellation of its own scope, which ends here.
            return bool(await group.__aexit__(type(exc), exc, exc.__traceback__))
        # The group is left without the error, so that this goes on as itself and not in an exception group. Where a
        # scope of the program's own is open above it, it cannot be left, and the error is of that, or was before it.
        try:
            await group.__aexit__(None, None, None)
        except RuntimeError:
            if exc is None:
                raise
        if exc is not None:
            raise exc
        return False

    async def leave_group(self) -> None:
        """Leave the group in the task that has entered it, when the run is over, and was not left there."""
        await self._close_group(None)

    # --- the core

    async def _core(self, listen: Callable[[TaskGroup], None]) -> None:
        try:
            with CancelScope(shield=True) as self._shield:
                self._clean_up.shields.add(self._shield)
                # From before the bus is opened, which may take long, until it is closed.
                async with create_task_group() as listening:
                    listen(listening)
                    if self._owns_bus:
                        await self._open_bus()
                    else:
                        await self._serve_in_group()
                    listening.cancel_scope.cancel()
        except get_cancelled_exc_class():
            raise
        except BaseException as exc:  # noqa: BLE001 - raised by close()
            self.failure = unwrap_group(exc)
        finally:
            # Set in any case: `open` may still wait for the one, and `close` for the other. A body hears of a failure
            # by being cancelled, since it waits for neither.
            self._ready.set()
            self.done.set()
            if self.failure is not None and self.body is not None:
                self.body.cancel()

    async def _open_bus(self) -> None:
        bus = self._bus
        bus.clean_up = self._clean_up
        try:
            async with bus:
                await self._serve_in_group()
        finally:
            bus.opened_by = None

    async def _serve_in_group(self) -> None:
        group = create_task_group()
        tasks = TaskHost(group, self._clean_up)
        try:
            async with group:
                self.tasks = tasks
                try:
                    await self._serve(tasks)
                finally:
                    self.tasks = None  # what is being closed takes nothing new
                    group.cancel_scope.cancel()
        finally:
            self.tasks = None
            tasks.raise_fatal()


waits(Run.open, lambda its: its["self"].start_in_words())
