"""`Recording`: a tap that keeps what has passed, in a bounded store (O1, O3).

What is drawn from it is the subject of other modules: `_jobs` what became of each job, and `_sequence`, `_timeline` and
`_chrome` the pictures.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar, Token
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from workerbus._concurrency.backend import running_backend
from workerbus.bus._bus import WorkerBus
from workerbus.messages import BusJobRequestMessage, BusMessage
from workerbus.recording._chrome import chrome_trace
from workerbus.recording._file import load, save
from workerbus.recording._jobs import RecordedJob, jobs_of
from workerbus.recording._mermaid import mermaid
from workerbus.recording._records import BEGINS, ENDS, Record, read
from workerbus.recording._sequence import MOST_STEPS
from workerbus.recording._sequence_svg import sequence_svg
from workerbus.recording._timeline import MOST_JOBS
from workerbus.recording._timeline_svg import timeline_svg
from workerbus.runner._runner import WorkerRunner

LIMIT: Final = 100_000
"""How many records a recording keeps by default."""

_Job = tuple[str, str]
_NO_ROW: Final = (None, None, None, 0, None, None, 1)


class Recording:
    """A tap that keeps what passes on a bus, to be looked at, saved and drawn.

    ::

        with Recording(bus) as recording:
            ...
        Path("run.svg").write_text(recording.timeline_svg())

    or, for as long as the bus lives, ``bus.add_tap(recording)``. A recording is for one bus. It keeps the time, the
    class of the message, sender and receiver, the job, how it ended, and the size of the payload. Beyond the limit the
    oldest records are dropped, and pictures say so.

    Args:
        bus: The bus to record in the block of ``with``; None for a tap that is added by hand.
        limit: How many records are kept.
        payloads: Whether to keep the payloads, too. They are not copied: a payload that is changed later is shown
            changed.

    Raises:
        TypeError: ``bus`` is not a bus.
        ValueError: ``limit`` is less than 1.

    Guarantees: O1, O3.
    """

    def __init__(self, bus: WorkerBus | None = None, *, limit: int = LIMIT, payloads: bool = False) -> None:
        if bus is not None and not isinstance(bus, WorkerBus):
            raise TypeError(f"bus is a WorkerBus, not {bus!r}: of a runner it is runner.bus, or use record(runner)")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit is a whole number of records, at least 1, not {limit!r}")
        self._bus = bus
        self._limit = limit
        self._payloads = payloads
        self._kept: deque[tuple[Any, ...]] = deque(maxlen=limit)
        self._dropped = 0
        self._seen = 0
        self._clock: Callable[[], float] | None = None
        # The job whose handler runs here: what it asks for is nested in it.
        self._within: ContextVar[_Job] = ContextVar("workerbus.recording.within")
        self._tokens: dict[_Job, Token[_Job]] = {}

    def __repr__(self) -> str:
        return f"<Recording, {len(self._kept)} records>"

    # --- keeping

    def __enter__(self) -> Self:
        """Begin to record the bus.

        Raises:
            TypeError: The recording was given no bus.
        """
        if self._bus is None:
            raise TypeError("this recording was given no bus: Recording(bus), or bus.add_tap(recording)")
        self._bus.add_tap(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Record no more; what was recorded stays."""
        if self._bus is not None:
            self._bus.remove_tap(self)

    def __call__(self, message: BusMessage) -> None:
        """Keep what is to be known of a message; called by the bus."""
        row, payload = read(message)
        if type(message) is BusJobRequestMessage:
            within = self._within.get(None)
            if within is not None:
                row = (*row[:5], within, *row[6:])
        self._seen += 1
        kept = (self._now(), type(message).__name__, message.source, message.target)
        self._kept.append((*kept, *row, payload) if self._payloads else (*kept, *row))

    def job_begins(self, worker: str, request: BusJobRequestMessage) -> None:
        """Keep that a handler begins; called by the bus."""
        job = request.job_id, worker
        self._tokens[job] = self._within.set((request.job_id, request.target or worker))
        self._keep_handler(BEGINS, worker, request)

    def job_ends(self, worker: str, request: BusJobRequestMessage) -> None:
        """Keep that a handler has ended; called by the bus."""
        token = self._tokens.pop((request.job_id, worker), None)
        if token is not None:
            self._within.reset(token)
            self._keep_handler(ENDS, worker, request)

    def _keep_handler(self, kind: str, worker: str, request: BusJobRequestMessage) -> None:
        self._seen += 1
        self._kept.append((self._now(), kind, worker, request.target, request.job_id, *_NO_ROW))

    def _now(self) -> float:
        try:
            if self._clock is not None:
                return self._clock()
        except RuntimeError:  # the bus is in another event loop now, of the other backend
            pass
        clock: Callable[[], float] = running_backend().current_time
        self._clock = clock
        return clock()

    # --- asking

    @property
    def records(self) -> list[Record]:
        """The records, in the order in which they passed."""
        return [Record(*kept) for kept in self._kept]

    @property
    def jobs(self) -> list[RecordedJob]:
        """What became of each job whose request is among the records, in the order of asking."""
        return jobs_of(self.records)

    @property
    def dropped(self) -> int:
        """How many of the oldest records were dropped because there were more than the limit."""
        return self._dropped + self._seen - len(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __bool__(self) -> bool:
        return True

    # --- pictures

    def mermaid(self, *, most: int = MOST_STEPS) -> str:
        """Return a sequence diagram as the text of a Mermaid diagram, which GitHub and many editors draw.

        Args:
            most: How many arrows it has at most; the first ones.
        """
        return mermaid(self.records, dropped=self.dropped, most=most)

    def sequence_svg(self, *, most: int = MOST_STEPS) -> str:
        """Return a sequence diagram as SVG: a lifeline for each worker, an arrow for each message.

        Args:
            most: How many arrows it has at most; the first ones.
        """
        return sequence_svg(self.records, dropped=self.dropped, most=most)

    def timeline_svg(self, *, most: int = MOST_JOBS) -> str:
        """Return a timeline as SVG: a row for each worker, a bar for each job, from its request to its answer.

        Args:
            most: How many jobs it has at most; the first ones.
        """
        return timeline_svg(self.records, dropped=self.dropped, most=most)

    def chrome_trace(self) -> str:
        """Return the run in Chrome's trace event format, as JSON; open it in https://ui.perfetto.dev."""
        return chrome_trace(self.records, dropped=self.dropped)

    # --- files

    def save(self, path: str | Path) -> None:
        """Write the recording to a file of JSON lines, which `load` reads.

        Payloads are in it if they were asked for; values that JSON cannot represent are written as their ``repr``.

        Args:
            path: The file; an existing one is overwritten.

        Guarantees: O3.
        """
        save(Path(path), self.records, dropped=self.dropped, payloads=self._payloads)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a recording from a file that `save` has written.

        Args:
            path: The file.

        Raises:
            RecordingError: The file is not a recording; a `ValueError`.
        """
        rows, dropped, payloads = load(Path(path))
        loaded = cls(limit=max(1, len(rows)), payloads=payloads)
        loaded._refill(rows, dropped)
        return loaded

    def _refill(self, rows: Iterable[Sequence[Any]], dropped: int) -> None:
        self._kept.extend(tuple(row) for row in rows)
        self._seen = len(self._kept)
        self._dropped = dropped


def record(on: WorkerRunner | WorkerBus, *, limit: int = LIMIT, payloads: bool = False) -> Recording:
    """Return a recording of a runner's bus, or of a bus, for ``with``.

    ::

        async with WorkerRunner() as runner:
            with record(runner) as recording:
                await runner.job("echo", payload={"n": 1})

    Args:
        on: The runner, or the bus.
        limit: How many records are kept; beyond that the oldest are dropped.
        payloads: Whether to keep the payloads, too.

    Raises:
        TypeError: It is neither a runner nor a bus.

    Guarantees: O1, O3.
    """
    return Recording(on.bus if isinstance(on, WorkerRunner) else on, limit=limit, payloads=payloads)
