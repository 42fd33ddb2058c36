"""How a run is entered and left by whoever runs it, as a call or as a block, and what is told of it (L6, L7, R1, R5).

A block has a body. A cancel cancels it, an end lets it finish. What the block is left with is decided in this order:

1. What its body has raised, or what has interrupted the wait for the end.
2. What a signal stands for: `KeyboardInterrupt`, or `SystemExit`. A program whose work was cut short is not to go on.
3. What made workers fail.
4. `RunCancelled`, if the body was cut short.

A scope can be left only in the task that has entered it. Whoever leaves the block in another task winds the run down,
and is told so; the scopes of the first task are not touched.
"""

import gc
import logging
from collections.abc import Awaitable, Callable, Sequence, Sized
from signal import SIGINT, SIGTERM, Signals
from types import TracebackType
from typing import Literal

from anyio import CancelScope, get_cancelled_exc_class
from anyio.abc import TaskGroup

from workerbus._concurrency.left_open import LEFT_OPEN, Entry, close_left_open, entered_here, is_here, leave_open
from workerbus._concurrency.lifetime import CleanUp
from workerbus._log import about
from workerbus.bus._bus import WorkerBus
from workerbus.errors import NotRunningError, WrongTaskError
from workerbus.runner._outcome import RunOutcome, cut_short, failed
from workerbus.runner._report import RunnerReport
from workerbus.runner._run import Run
from workerbus.runner._shutdown import Asked, Shutdown
from workerbus.runner._signals import Listener, join

logger = logging.getLogger("workerbus.runner")


class Block:
    """What whoever runs a runner enters and leaves.

    Args:
        name: The runner's name.
        bus: The runner's bus.
        run: The run.
        shutdown: Its end.
        workers: The workers, which are counted.
        errors: What has made workers fail and was taken by nobody.
        stop_unstarted: Stops the workers that have never been started.
        clean_up: The clock of the wind-down.
        report: Tells what the runner does, to who wants to know.
        handle_sigint: Whether SIGINT cancels the run, and whether it is taken from the program.
        handle_sigterm: Whether SIGTERM cancels the run, or ends it.
        force_gc: Whether to collect garbage after the run.

    Attributes:
        signal: The signal that the runner got, if it did.
        outcome: How the run has ended; None before.
    """

    def __init__(
        self,
        name: str,
        bus: WorkerBus,
        run: Run,
        shutdown: Shutdown,
        workers: Sized,
        errors: Sequence[BaseException],
        stop_unstarted: Callable[[], Awaitable[None]],
        clean_up: CleanUp,
        report: RunnerReport,
        *,
        handle_sigint: bool | Literal["always"],
        handle_sigterm: bool | Literal["end"],
        force_gc: bool,
    ) -> None:
        for what, word, given in (("int", "always", handle_sigint), ("term", "end", handle_sigterm)):
            if given not in (True, False, word):
                raise ValueError(f"handle_sig{what} is True, False or {word!r}, not {given!r}")
        self._name = name
        self._bus = bus
        self._run = run
        self._shutdown = shutdown
        self._workers = workers
        self._errors = errors
        self._stop_unstarted = stop_unstarted
        self._clean_up = clean_up
        self._report = report
        # Which signals it listens to, and whether it takes them from the program.
        self._signals: dict[Signals, bool] = {}
        if handle_sigint:
            self._signals[SIGINT] = handle_sigint == "always"
        if handle_sigterm:
            self._signals[SIGTERM] = True
        self._listener: Listener | None = None
        # What the body has raised that wanted something of what is over, and has not heard yet that it is cancelled.
        self._late: BaseException | None = None
        self._drains = handle_sigterm == "end"
        self._force_gc = force_gc
        self._entry: Entry = (None, 0)
        self.signal: Signals | None = None
        self.outcome: RunOutcome | None = None

    # --- entering and leaving

    async def run(self) -> None:
        """Run until the run has ended."""
        await self._open()
        outcome: BaseException | None = None
        try:
            await self._run.done.wait()
        except BaseException as exc:  # noqa: BLE001 - raised again below
            outcome = exc
        if not await self._finish(outcome) and outcome is not None:
            raise outcome

    async def enter(self) -> None:
        """Begin to run while a body runs."""
        await self._open()
        self._entry = entered_here()
        body = self._run.body = CancelScope()
        body.__enter__()
        if self._shutdown.asked is Asked.CANCEL:
            body.cancel()

    async def leave(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Leave the body, and return when everything has ended."""
        self._bus.check_loop(f"runner {self._name!r}")
        body, self._run.body = self._run.body, None
        assert body is not None
        if not is_here(self._entry):
            await self._leave_elsewhere(body)
        if LEFT_OPEN:
            await close_left_open(self._entry[1])
        cut = False
        try:
            cut = bool(body.__exit__(exc_type, exc, traceback)) and exc is not None
        except RuntimeError as misnested:  # a scope of the program's own is open in it: everything ends all the same
            exc = exc or misnested
        left_with = None if cut else exc
        if left_with is None:
            try:
                self._shutdown.finish()  # a tap may raise what ends programs, and so may Ctrl-C anywhere
                await self._run.done.wait()
            except BaseException as caught:  # noqa: BLE001 - raised again below
                left_with = caught
        if isinstance(left_with, NotRunningError) and self._shutdown.asked is Asked.CANCEL:
            self._late = left_with
        try:
            swallowed = await self._finish(left_with)
        except BaseException as error:
            if error is self._late or (left_with is None and self._interrupted and _is_failure(error)):
                raise self._cut_short() from error
            raise
        if left_with is not None and not swallowed:
            if left_with is not exc:
                raise left_with
            return None
        if cut or self._interrupted:
            raise self._cut_short() from None
        return swallowed

    async def _leave_elsewhere(self, body: CancelScope) -> None:
        async def close() -> None:
            body.__exit__(None, None, None)
            await self._run.leave_group()

        error = WrongTaskError(f"runner {self._name!r}")
        leave_open(self._entry, close)
        self._shutdown.cancel(str(error))
        late = await self._run.wait()
        await self._end(error)
        raise late or error

    async def _open(self) -> None:
        if self._run.opened:
            raise NotRunningError(f"runner {self._name!r} has run: a runner runs once, make another")
        self._bus.check_loop(f"runner {self._name!r}")
        self._report.begin()
        if self._signals:
            self._listener = join(self._signals, self._signalled, self._name)
        try:
            await self._run.open(self._listen)
        except BaseException as exc:
            await self._end(exc)
            raise

    async def _finish(self, exc: BaseException | None) -> bool:
        """Close the run, then raise what made workers fail, unless the run is left with an exception already."""
        raised = exc
        try:
            swallowed = await self._run.close(exc)
            errors = self._errors
            if errors and (exc is None or swallowed):
                raise errors[0] if len(errors) == 1 else BaseExceptionGroup("several workers failed", errors)
        except BaseException as error:
            raised = error
            raise
        finally:
            await self._end(raised)
        return swallowed

    async def _end(self, raised: BaseException | None) -> None:
        self._report.end()
        if self._listener is not None:
            self._listener.leave()
        self.outcome = self._outcome(raised)
        await self._stop_unstarted()
        if self._force_gc:
            gc.collect()

    # --- how it has ended

    def _outcome(self, raised: BaseException | None) -> RunOutcome:
        asked, reason = self._shutdown.asked, self._shutdown.reason
        if raised is not None and _is_failure(raised) and raised is not self._late:
            return failed(raised, self.signal)
        if asked is Asked.CANCEL or raised is not None:
            return RunOutcome("cancelled", reason or (None if raised is None else type(raised).__name__), self.signal)
        return RunOutcome("ended" if self._shutdown.called_for else "finished", reason, self.signal)

    @property
    def _interrupted(self) -> bool:
        return self.signal is not None and self._shutdown.asked is Asked.CANCEL

    def _cut_short(self) -> BaseException:
        assert self.outcome is not None
        return cut_short(self.outcome, self._name)

    # --- signals

    def _listen(self, group: TaskGroup) -> None:
        if self._listener is not None:
            group.start_soon(self._listener.listen, name=f"{self._name} signals")

    def _signalled(self, number: Signals) -> None:
        # The handlers from before are back: the next SIGINT is a KeyboardInterrupt, and shall open the shields.
        self.signal = number
        self._clean_up.interruptible = True
        drains = self._drains and number is SIGTERM
        what, ask = ("ends", self._shutdown.end) if drains else ("is cancelled", self._shutdown.cancel)
        workers = len(self._workers)
        text = "%s: runner %r %s, with %d workers"
        logger.info(text, number.name, self._name, what, workers, extra=about(runner=self._name))
        ask(number.name)


def _is_failure(exc: BaseException) -> bool:
    return not isinstance(exc, (get_cancelled_exc_class(), KeyboardInterrupt, SystemExit, GeneratorExit))
