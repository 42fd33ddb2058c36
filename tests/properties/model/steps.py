"""The steps of a script: what a test does to a runner with some workers, one after the other.

A script is a list of steps. `Model` says what comes of it, `Stage` does it with the real library.
"""

from typing import Final

from attrs import frozen

ASKER: Final = "asker"
"""A worker that asks for jobs and does none. ``RUNNER`` asks by `WorkerRunner.job_group`."""
RUNNER: Final = "runner"

JOBS: Final = ("do", "defer", "turn", "none")
"""An ordinary handler, a deferred one, a sequential one, and a job that nobody handles."""

FORMS: Final = ("group", "single", "await", "hooks")
"""`job_group` and `job` as contexts, ``await job(…)``, and `request_job_group`."""

ANSWERS: Final = ("completed", "failed", "error", "cancelled")
NEWS: Final = ("update", "urgent update", "stream start", "stream data")
SENDING: Final = (*ANSWERS, "urgent completed", "urgent failed", "stream end", *NEWS)
"""What a worker's code sends for a job, from its handler (`Tell`) or from elsewhere (`Outside`)."""
ENDINGS: Final = ("return", "return data", "return junk", "raise", "give up")
MODES: Final = ("slow", "stubborn", "broken")
"""How a handler takes its cancellation: waits for `Unwind`, returns all the same, or raises something."""


@frozen
class Ask:
    """Ask for a job: ``by`` a worker or the runner, or ``inside`` its handler of that group's job."""

    group: int
    by: str
    workers: tuple[str, ...]
    job: str = "do"
    form: str = "group"
    inside: int | None = None
    timeout: float | None = None
    within: float | None = None
    """Seconds until an enclosing scope's deadline."""
    cancel_on_error: bool = True
    cancellable: bool = True
    loop: bool = True
    """Whether the body iterates over the events, or waits for a `Body`."""


@frozen
class Tell:
    """Let a running handler send something, end, choose a mode, or stop its worker (``"stop"``)."""

    group: int
    worker: str
    what: str


@frozen
class Outside:
    """Let the worker send something for a job, from a task that is not the handler's."""

    group: int
    worker: str
    what: str


@frozen
class Unwind:
    """Let a slow handler finish its clean-up."""

    group: int
    worker: str


@frozen
class Body:
    """Let the body of a context ``leave``, ``loop`` or ``raise``; or ``cancel`` the scope around the context."""

    group: int
    what: str


@frozen
class Cancel:
    """`cancel_job_group`, or ``politely``: `request_cancel_job_group`."""

    group: int
    politely: bool = True


@frozen
class AskForUpdate:
    """`request_job_update`."""

    group: int
    worker: str


@frozen
class Intrude:
    """A stranger sends something about a job: an answer, news, the request once more, or a cancel.

    ``"answer again"`` is in the worker's name, for a job that the worker has answered already.
    """

    group: int
    worker: str
    what: str


INTRUSIONS: Final = (
    "answer",
    "answer again",
    "urgent answer",
    "update",
    "stream end",
    "request",
    "request again",
    "cancel",
)


@frozen
class Switch:
    """Activate or deactivate a worker."""

    worker: str
    active: bool


@frozen
class Stop:
    """Stop a worker, or let its ``run()`` fail."""

    worker: str
    crash: bool = False


@frozen
class Revive:
    """Add another worker under the name of one that has gone."""

    worker: str


@frozen
class Advance:
    """Let time pass."""

    seconds: float


Step = Ask | Tell | Outside | Unwind | Body | Cancel | AskForUpdate | Intrude | Switch | Stop | Revive | Advance
