"""Taps: functions that see each message where it passes, on one bus or on every bus that is made (O1).

Knows nothing of where that is: the bus tells them, and asks first whether there are any. What no message says, when a
job is asked for and over, and when its handler begins and ends, is told to those taps that want to know it.
"""

import inspect
import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

from workerbus._concurrency.doing import Doing, tells
from workerbus._concurrency.failures import own_error_of_call
from workerbus.errors import HandlerTypeError
from workerbus.messages import BusMessage

logger = logging.getLogger("workerbus.bus")

Tap = Callable[[BusMessage], object]
"""What a bus calls with each message that passes through it: see `WorkerBus.add_tap`."""

Headers = Mapping[str, str] | None
JobEvent = Literal["job_asked", "job_sends", "job_sent", "job_over", "job_begins", "job_answered", "job_ends"]

JOB_EVENTS: Final[tuple[JobEvent, ...]] = get_args(JobEvent)
"""What a tap may have methods for. All get a name first: of the one that asks, or of the worker whose handler it is.

``job_asked(name, headers, group)`` and ``job_sends(name, headers, group, request)`` return the headers that are to
travel: with all of a job that is about to be asked for, or with one request. ``job_sent(name, request, error)`` comes
when that is sent, ``job_over(name, group)`` with the outcome. ``job_begins(name, request)`` and ``job_ends(name,
request)`` are told around a handler, in its task; ``job_answered(name, request, status, response)`` with its answer,
which may come later, or without any handler.
"""

_for_new_buses: Final[list[Callable[[Any], Tap | None]]] = []


class TapNewBuses:
    """Adds a tap to every bus that is made during the block, anywhere in the process: for tools that observe.

    ::

        def make_tap(bus):
            return lambda message: print(bus.name, message)


        with TapNewBuses(make_tap):
            runpy.run_path("program.py", run_name="__main__")

    A tap stays on its bus after the block. Blocks may be nested, and overlap.

    Args:
        make: Called with each new bus, before it is opened; returns the tap, or None for no tap.

    Guarantees: O1.
    """

    def __init__(self, make: Callable[[Any], Tap | None]) -> None:
        if not callable(make) or inspect.iscoroutinefunction(make):
            raise HandlerTypeError(f"what makes taps is a sync function that gets each new bus, not {make!r}")
        self._make = make

    def __enter__(self) -> Self:
        """Begin."""
        _for_new_buses.append(self._make)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End: buses that are made from now on get no tap."""
        _for_new_buses.remove(self._make)


class Tapped:
    """What taps can be added to.

    Args:
        name: Its name in logs.

    Attributes:
        name: Its name in logs.
        job_taps: Those of the taps that are told what becomes of jobs; always this list.
        _taps: The taps, in the order in which they were added.
    """

    name: str
    job_taps: list[Any]
    _taps: tuple[Tap, ...]

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.job_taps: list[Any] = []
        self._taps: tuple[Tap, ...] = ()
        for make in _for_new_buses:
            tap = make(self)
            if tap is not None:
                self.add_tap(tap)

    def add_tap(self, tap: Tap) -> None:
        """Call ``tap(message)`` once for each message that passes here, from now on.

        A message passes where it is handed out: in the step of whoever sends it, just before its receivers get it, or
        when it arrives over a network. One that is refused does not pass, and one that nobody here receives does. On a
        bus with a transport a message passes each time that the transport delivers it here, and not when it leaves.

        A tap is the one piece of your code that runs in a sender's step, so it has to be short: a note, a count, an
        item put into a stream with ``send_nowait``. It must not send anything, nor wait, nor change the message. One
        that raises is logged and taken off, and the message goes on. A tap stays until it is removed, also where the
        bus is closed and opened again.

        No message says when a handler begins. A tap that is an object with the methods ``job_begins(worker, request)``
        and ``job_ends(worker, request)``, both sync, is told so: in the handler's task, with the name of the worker
        that runs it, before its first step and after its last. The same rules hold for them.

        Args:
            tap: A sync function, or an object that can be called as one; one that was added before is not added again.

        Raises:
            HandlerTypeError: The tap is not a sync function; a `TypeError`.

        Guarantees: O1.
        """
        if not callable(tap) or inspect.iscoroutinefunction(tap):
            raise HandlerTypeError(f"a tap is a sync function that gets each message, not {tap!r}")
        if tap not in self._taps:
            self._taps = (*self._taps, tap)
            if any(callable(getattr(tap, event, None)) for event in JOB_EVENTS):
                self.job_taps.append(tap)

    def remove_tap(self, tap: Tap) -> None:
        """Call a tap no more, not even for a message that is passing now; nothing happens where it was not added."""
        self._taps = tuple(each for each in self._taps if each != tap)
        self.job_taps[:] = [each for each in self.job_taps if each != tap]

    def _tell_taps(self, message: BusMessage) -> None:
        for tap in self._taps:
            if tap in self._taps:  # else an earlier one has removed it
                self._call(tap, tap, message)

    def tell_of_job(self, event: JobEvent, name: str, *about: object) -> None:
        """Tell those of the taps that want to know what becomes of a job.

        Args:
            event: One of `JOB_EVENTS`.
            name: The name of the worker, or of the one that asks.
            *about: What it is about.
        """
        for tap in tuple(self.job_taps):
            function = getattr(tap, event, None)
            if function is not None and tap in self.job_taps:
                self._call(tap, function, name, *about)

    def headers_of_job(self, event: JobEvent, name: str, headers: Headers, *about: object) -> Headers:
        """Ask those of the taps that want to say it which headers are to travel, given those that were to."""
        for tap in tuple(self.job_taps):
            function = getattr(tap, event, None)
            if function is not None and tap in self.job_taps:
                headers = self._call(tap, function, name, headers, *about) or headers
        return headers

    def _call(self, tap: Tap, function: Callable[..., Any], *args: object) -> Any:
        try:
            return function(*args)
        except BaseException as exc:
            self.remove_tap(tap)  # whatever it was: what ends programs ends this one once
            error = own_error_of_call(exc)
            logger.error("a tap of bus %r failed and is taken off: %r", self.name, tap, exc_info=error)
            return None

    tells(_call, lambda its: Doing(f"a tap of bus {its['self'].name!r}: {its['tap']!r}"))
