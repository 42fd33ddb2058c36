"""Every exception that this library raises of its own, one class per fault (J8, L6, N8, N9).

All of them derive from `WorkerBusError` and, where Python has a name for the fault, from that built-in too, so that
``except ValueError`` and ``except workerbus.NameTakenError`` both do what they say. An error keeps its data as
attributes; the sentence is built here and nowhere else.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

BRIEF: Final = 1_000
"""So many characters of an error are told to other processes."""


class WorkerBusError(Exception):
    """The root of all errors that workerbus raises.

    Each survives `copy` and `pickle`, as to another process: with its class, its text and its attributes.

    Guarantees: N9.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # By default the class would be called with the text alone, which is not what its __init__ takes.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[WorkerBusError], args: tuple[Any, ...], attributes: dict[str, Any]) -> WorkerBusError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def text_of(exc: BaseException) -> str:
    """Return an exception's text; its own ``__str__`` is the user's code, and may fail."""
    try:
        return encodable(str(exc))
    except Exception:  # noqa: BLE001 - whatever it was
        return "an error without a text"


def encodable(text: str) -> str:
    """Return a text as it can be written as UTF-8: lone surrogates, as names of files may have, become escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def describe(exc: BaseException) -> str:
    """Return an exception in words: its class and its text."""
    return f"{type(exc).__name__}: {text_of(exc)}"


def brief(exc: BaseException) -> str:
    """Describe an exception for others, who keep that: no longer than a thousand characters."""
    text = describe(exc)
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}…"


def near_names(name: str, known: Iterable[str]) -> str:
    """Say which known names look like ``name``, as the end of a sentence."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    if names:
        shown = ", ".join(map(repr, names[:5]))
        return f"known are {shown}{', …' if len(names) > 5 else ''}"
    return "no names are known"


def shown(names: Sequence[str]) -> str:
    """Return the first names of many, quoted, for a sentence."""
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class NotRunningError(WorkerBusError, RuntimeError):
    """Something was asked of an object that cannot be done yet, or not any more.

    Guarantees: W1, J14, R1, R3.
    """


class RunCancelled(WorkerBusError):  # noqa: N818 - not an error of anybody's: somebody has asked for it
    """The block of a runner was cut short by a `cancel`, of the runner's or of one of its workers'.

    Attributes:
        reason: Why, in words; None where none was given.
        runner_name: The name of the runner.

    Guarantees: R5.
    """

    def __init__(self, reason: str | None, runner_name: str = "") -> None:
        who = f"runner {runner_name!r}" if runner_name else "the runner"
        super().__init__(f"{who} was cancelled{f': {reason}' if reason else ''}")
        self.reason = reason
        self.runner_name = runner_name


class WrongTaskError(WorkerBusError, RuntimeError):
    """Something was entered in one task and left in another, which cannot leave it properly. It is closed all the same.

    Attributes:
        what: What was left.

    Guarantees: L7.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was entered in one task and left in another: an 'async with' is left in the task that has entered "
            "it, so enter and leave it in one function, without a task, a wait_for() or a fixture in between"
        )
        self.what = what


class WrongLoopError(WorkerBusError, RuntimeError):
    """Something was used from another thread, or in another event loop, than the one that it belongs to.

    Attributes:
        what: What was used.

    Guarantees: L7.
    """

    def __init__(self, what: str, where: str) -> None:
        super().__init__(
            f"{what} belongs to another {where}: to get in from a worker thread of that event loop call "
            "anyio.from_thread.run(), from any other thread use an anyio.from_thread.BlockingPortal"
        )
        self.what = what


class NotInitializedError(WorkerBusError, RuntimeError):
    """A class has an ``__init__`` that does not call ``super().__init__()``, or not before it uses the object.

    Attributes:
        class_name: The name of the class.

    Guarantees: N8.
    """

    def __init__(self, class_name: str) -> None:
        super().__init__(f"{class_name} was not initialized: its __init__() has to call super().__init__() first")
        self.class_name = class_name


class NameTakenError(WorkerBusError, ValueError):
    """Another object has this name already.

    Attributes:
        name: The name that was asked for.

    Guarantees: B5, R3.
    """

    def __init__(self, name: str, where: str) -> None:
        super().__init__(f"the name {name!r} is taken on {where}: give this one another name, or stop the other first")
        self.name = name


class BusUnavailable(WorkerBusError, ConnectionError):  # noqa: N818 - says what the bus is, as the contract names it
    """A message could not be stored in time, or could not be sent at all now; or a bus could not be opened.

    Attributes:
        bus: The name of the bus.
        maybe_stored: Whether the message may have been stored all the same. If not, it certainly was not.

    Guarantees: X2.
    """

    def __init__(self, bus: str, why: str, *, maybe_stored: bool, doing: str | None = None) -> None:
        may = "it may have been stored all the same" if maybe_stored else "it was not stored, and may be sent again"
        text = f"could not send the message: {why}; {may}" if doing is None else f"could not {doing}: {why}"
        super().__init__(f"bus {bus!r} {text}")
        self.bus = bus
        self.maybe_stored = maybe_stored


class ParentError(WorkerBusError, ValueError):
    """A worker was to become the child of a second parent, or its own ancestor.

    Attributes:
        name: The name of the worker that was to be added.

    Guarantees: W5.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"worker {name!r} cannot be added as a child: {why}")
        self.name = name


class RestartLimitError(WorkerBusError, RuntimeError):
    """A supervised worker has failed more often than its supervision restarts it; the last failure is its cause.

    Attributes:
        worker: The name of the worker.
        max_restarts: How many restarts there may be.
        within: In how many seconds.

    Guarantees: S1.
    """

    def __init__(self, worker: str, max_restarts: int, within: float) -> None:
        self.worker: str = worker
        self.max_restarts: int = max_restarts
        self.within: float = within
        super().__init__(f"worker {worker!r} has gone once more than {max_restarts} restarts in {within:g} s allow for")


class FactoryError(WorkerBusError, TypeError):
    """A factory that `supervise` was given does not return what can be the next worker; trying again would not help.

    Attributes:
        worker: The name of the worker that was to be made; None for the first one.

    Guarantees: S1.
    """

    def __init__(self, worker: str | None, text: str) -> None:
        super().__init__(text)
        self.worker: str | None = worker


class UnknownWorkerError(WorkerBusError, LookupError):
    """Neither the runner nor the registry knows a worker of this name.

    Attributes:
        name: The name that was asked for.
        failure: What a worker of this name has failed of, in words; None if none is known to have failed.

    Guarantees: W3.
    """

    def __init__(self, name: str, known: Iterable[str], *, failure: str | None = None) -> None:
        text = near_names(name, known) if failure is None else f"it has failed: {failure}"
        super().__init__(f"there is no worker {name!r}; {text}")
        self.name = name
        self.failure = failure


class UnknownJobError(WorkerBusError, RuntimeError):
    """A worker was to send something for a job that it does not have, or has no more.

    Attributes:
        job_id: The id that was given.
        worker_name: The name of the worker that was to send.

    Guarantees: J14.
    """

    def __init__(self, job_id: str, worker_name: str) -> None:
        super().__init__(
            f"worker {worker_name!r} has no open job {job_id!r}: it was never asked for it, or the job is over; a @job "
            "handler that answers after it has returned is declared with deferred=True"
        )
        self.job_id = job_id
        self.worker_name = worker_name


class UnknownEventError(WorkerBusError, ValueError):
    """There is no event of this name.

    Attributes:
        name: The name that was given.

    Guarantees: N3.
    """

    def __init__(self, name: str, owner: str, known: Iterable[str]) -> None:
        super().__init__(f"{owner} has no event {name!r}; {near_names(name, known)}")
        self.name = name


class MessageTypeError(WorkerBusError, TypeError):
    """Something that is no proper bus message was defined, built or sent.

    Guarantees: N5.
    """


class FrameTypeError(WorkerBusError, TypeError):
    """A class of frames was declared in a way that cannot work.

    Guarantees: P1.
    """


class ProcessorInUseError(WorkerBusError, ValueError):
    """A processor or a pipeline was to stand in two places.

    Attributes:
        name: The name of the processor or pipeline.

    Guarantees: P1.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} stands in a pipeline already: a processor has one place, make another")
        self.name = name


class PipelineStartTimeoutError(WorkerBusError, TimeoutError):
    """A pipeline has not started in time: ``setup()`` of a processor hangs, or one does not push the `StartFrame` on.

    Attributes:
        worker_name: The name of the worker.
        processors: The names of the processors that it waits for.
        seconds: How long it has waited, in seconds.

    Guarantees: P6.
    """

    def __init__(self, worker_name: str, processors: Iterable[str], seconds: float, *, setting_up: bool) -> None:
        self.worker_name: str = worker_name
        self.processors: tuple[str, ...] = tuple(processors)
        self.seconds: float = seconds
        names = ", ".join(map(repr, self.processors))
        if setting_up:
            text = f"setup() of processor {names} has not returned; a slow one is given more time by setup_timeout_secs"
        else:
            text = f"processor {names} has not pushed the StartFrame on; start_timeout_secs gives it more time"
        super().__init__(f"the pipeline of worker {worker_name!r} has not started in {seconds:g} seconds: {text}")


class FlushError(WorkerBusError, RuntimeError):
    """A flush that cannot come to its end: the pipeline was cancelled, or a handler would wait for itself.

    Guarantees: P6.
    """


class FlushTimeoutError(WorkerBusError, TimeoutError):
    """What was queued before a flush has not come out in time.

    Attributes:
        worker_name: The name of the worker.
        processors: The names of the processors that are at work in its pipeline.
        seconds: The ``timeout``, in seconds.

    Guarantees: P6.
    """

    def __init__(self, worker_name: str, processors: Iterable[str], seconds: float) -> None:
        self.worker_name: str = worker_name
        self.processors: tuple[str, ...] = tuple(processors)
        self.seconds: float = seconds
        busy = ", ".join(map(repr, self.processors)) or "nobody here"
        super().__init__(
            f"what was queued at worker {worker_name!r} has not come out in {seconds:g} seconds; at work: {busy}"
        )


class HandlerTypeError(WorkerBusError, TypeError):
    """A handler has a shape that cannot be called: not async, say, or with no parameter for what it gets.

    Guarantees: N3, N8, J2.
    """


class PayloadError(WorkerBusError, TypeError):
    """The payload of a typed job does not fit its handler, or what that has answered or yielded is not what it says.

    Attributes:
        handler: The name of the handler, as in its class.
        what: ``"payload"``, ``"answer"`` or ``"chunk"``.
        path: Where in it, as in ``words[0].text``; empty where it is the whole, or where that is not known.

    Guarantees: J17.
    """

    def __init__(self, handler: str, what: str, text: str, path: str = "") -> None:
        where = f" at {path!r}" if path else ""
        super().__init__(f"the {what} of {handler} does not fit{where}: {text}")
        self.handler = handler
        self.what = what
        self.path = path


class MissingExtraError(WorkerBusError, ImportError):
    """Something needs a library that is not installed.

    Attributes:
        library: The name of the library.
        extra: The extra of this library that brings it.

    Guarantees: J17.
    """

    def __init__(self, what: str, library: str, extra: str) -> None:
        super().__init__(f"{what} need {library}: pip install 'workerbus[{extra}]'")
        self.library = library
        self.extra = extra


class WireError(WorkerBusError, ValueError):
    """A message cannot travel to another process, or one that has come from there cannot be read.

    Attributes:
        class_name: The name of the message's class; empty where that is not known.
        path: Where in the message, as in ``payload.items[3].when``; empty where it is the whole.
        reason: Why, in words.
        arrived: Whether it has come from elsewhere, and cannot be read.
        unknown_tag: The tag of a class that is not registered in this program; empty where that is not why.

    Guarantees: X1.
    """

    def __init__(
        self, reason: str, *, class_name: str = "", path: str = "", arrived: bool = False, unknown_tag: str = ""
    ) -> None:
        what = class_name or "a message"
        verb = "be read" if arrived else "travel"
        super().__init__(f"{what} cannot {verb}{f', for {path}' if path else ''}: {reason}")
        self.class_name: str = class_name
        self.path: str = path
        self.reason: str = reason
        self.arrived: bool = arrived
        self.unknown_tag: str = unknown_tag


class RecordingError(WorkerBusError, ValueError):
    """A file is no recording, or one that cannot be read.

    Attributes:
        path: The path of the file.
        reason: Why, in words.
        line: The number of the line, from 1 on; None where it is the whole.
    """

    def __init__(self, path: str, reason: str, line: int | None = None) -> None:
        where = "" if line is None else f", line {line}"
        super().__init__(f"{path}{where}: this is no recording that can be read: {reason}")
        self.path: str = path
        self.reason: str = reason
        self.line: int | None = line


class RegistrationError(WorkerBusError, TypeError):
    """A class of messages or frames cannot be registered for the wire: something of it would be lost on the way.

    Attributes:
        class_name: The name of the class.
        field_name: The name of the field because of which; None where it is the class itself.

    Guarantees: X1.
    """

    def __init__(self, class_name: str, why: str, *, field_name: str | None = None) -> None:
        where = "" if field_name is None else f", for its field {field_name!r}"
        super().__init__(f"{class_name} cannot be registered for the wire{where}: {why}")
        self.class_name: str = class_name
        self.field_name: str | None = field_name


class TagTakenError(WorkerBusError, ValueError):
    """A class was to be registered for the wire under the tag of another one.

    Attributes:
        tag: The tag.
        holder: Which class has it, with its module.
        class_name: Which class was to get it, with its module.

    Guarantees: X1.
    """

    def __init__(self, tag: str, holder: str, class_name: str) -> None:
        super().__init__(f"the tag {tag!r} of {class_name} is that of {holder}: give one of them another, tag='…'")
        self.tag: str = tag
        self.holder: str = holder
        self.class_name: str = class_name


class ReservedNameError(WorkerBusError, TypeError):
    """A worker class uses the name of a documented method or property for something else.

    Attributes:
        class_name: The name of the class.
        name: The name of the attribute.

    Guarantees: N6.
    """

    def __init__(self, class_name: str, name: str, kind: str = "name") -> None:
        self.class_name: str = class_name
        self.name: str = name
        super().__init__(
            f"{class_name} has an attribute {name!r}, which is a {kind} that every worker has: give it another name"
        )


class MisspeltHookError(WorkerBusError, TypeError):
    """A worker class has an async ``on_…`` method whose name is nearly that of a hook, and would never be called.

    Attributes:
        class_name: The name of the class.
        name: The name of the method.

    Guarantees: N8.
    """

    def __init__(self, class_name: str, name: str, near: Iterable[str]) -> None:
        super().__init__(
            f"{class_name}.{name} is no hook, and would never be called; {near_names(name, near)} "
            "If it is a method of your own, give it a name that is less like it"
        )
        self.class_name = class_name
        self.name = name


_ENDS: Final = ("raised ", "failed:", "was cancelled:", "answered ")
"""What a worker's end of a job can be: with these words a reason goes on, after the worker's name."""


class _JobOutcomeError(WorkerBusError):
    """What the two errors of a requester have in common."""

    def __init__(
        self,
        reason: str,
        *,
        job_id: str = "",
        job_name: str | None = None,
        worker_names: Sequence[str] = (),
        statuses: Mapping[str, str] | None = None,
        responses: Mapping[str, dict[str, Any]] | None = None,
        seconds: float | None = None,
        detail: str = "",
    ) -> None:
        after = "" if seconds is None else f" after {seconds:g} seconds"
        super().__init__(f"{self._title(job_name, worker_names, reason)}{after}{f' ({detail})' if detail else ''}")
        self.reason = reason
        self.job_id = job_id
        self.job_name = job_name
        self.worker_names: tuple[str, ...] = tuple(worker_names)
        self.seconds = seconds
        self.attempts: int = 1
        self.statuses: dict[str, str] = dict(statuses or {})
        self.responses: dict[str, dict[str, Any]] = dict(responses or {})

    @staticmethod
    def _title(job_name: str | None, worker_names: Sequence[str], reason: str) -> str:
        job = "job" if job_name is None else f"job {job_name!r}"
        if len(worker_names) != 1:
            return f"{job}: {reason}"
        worker = repr(worker_names[0])
        end = reason.removeprefix(f"worker {worker} ")
        if end.startswith(_ENDS):
            return f"{job} at {worker} {end}"
        return f"{job} at {worker}: {reason}"


class JobError(_JobOutcomeError):
    """A job did not complete.

    Attributes:
        reason: Why, in words; ``"timeout"`` where time ran out.
        job_id: The id of the job.
        job_name: The name of the job; None if it was asked for without one.
        worker_names: The names of the workers that were to do it.
        seconds: The ``timeout`` that was over, in seconds; None where that is not why.
        attempts: How often the job was asked for.
        statuses: Worker name to `JobStatus`, which is a `str`, of the workers that answered.
        responses: Worker name to the payload of its answer, of the same workers.

    Guarantees: J8.
    """


class JobGroupError(_JobOutcomeError):
    """A job group did not complete. The attributes are those of `JobError`.

    Guarantees: J8.
    """

    @staticmethod
    def _title(job_name: str | None, worker_names: Sequence[str], reason: str) -> str:
        job = "job group" if job_name is None else f"job group {job_name!r}"
        return f"{job}{f' of {shown(worker_names)}' if worker_names else ''}: {reason}"


class JobTimeoutError(JobError, TimeoutError):
    """The job's own ``timeout`` was over before the answer came, or before the worker did.

    Its text says what the time went by with: the wait for the worker, for its turn there, or the work.

    Guarantees: J6, J8.
    """


class JobGroupTimeoutError(JobGroupError, TimeoutError):
    """The group's own ``timeout`` was over before all answers came, or all workers did.

    Guarantees: J6, J8.
    """


class JobFailure(WorkerBusError):  # noqa: N818 - the public name: a handler raises it to say FAILED, not "error"
    """Raised by a job handler to answer FAILED: the work could not be done, for a reason that is no bug.

    The requester gets ``{"error": reason, "type": "JobFailure"}``, and whatever else was given as keyword arguments.

    Attributes:
        reason: Why, in words.
        data: What else was given as keyword arguments, a dict; it is merged into the answer.

    Guarantees: J2.
    """

    def __init__(self, reason: str, **data: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.data = data
