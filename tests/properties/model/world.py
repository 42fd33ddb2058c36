"""What a model is made of: workers, their jobs, groups, and what can be seen of them."""

from enum import Enum
from math import inf
from typing import Any, Final

from attrs import Factory, define, field, frozen

from properties.model.steps import Ask

Answer = tuple[str, dict[str, Any] | None]
"""A status and, where it is known, the response."""


class At(Enum):
    """Where a job is, at its worker."""

    QUEUED = "waiting for its turn"
    RUNNING = "its handler runs"
    ENDING = "its handler has said how it ends, and leaves the contexts in it"
    UNWINDING = "its handler is being cancelled"
    DEFERRED = "its handler has left it open"
    OVER = "no handler runs, and it is answered"


HANDLER_RUNS: Final = (At.RUNNING, At.ENDING, At.UNWINDING)


@define(eq=False)
class Worker:
    name: str
    life: int = 0
    active: bool = True
    stopping: bool = False
    gone: bool = False
    bound: float = inf
    verdict: str = "cancelled"
    line: "list[Job]" = Factory(list)

    @property
    def failed(self) -> bool:
        """Whether it has gone by a crash, which whoever asks it is told."""
        return self.gone and self.verdict == "error"


@define(eq=False)
class Job:
    group: "Group"
    worker: Worker
    life: int
    deadline: float
    at: At = At.OVER
    starts: int = 0
    turned: bool = False
    """Whether the one before it in the line has made place for it."""
    hasty: bool = False
    """Whether it was cancelled in the very moment in which it had its turn: its handler may have begun."""
    answered: bool = False
    verdict: str | None = None
    result: Answer | None = None
    slow: bool = False
    told: str | None = None
    """The reason that `on_job_cancelled` is told, if it is."""
    updates: int = 0


@define(eq=False)
class Group:
    ask: Ask
    owner: Worker | None
    parent: Job | None
    deadline: float
    own_deadline: float
    within: float
    state: str = "open"
    seen: int = 0
    """How many of the workers have been there."""
    asked: set[str] = Factory(set)
    sent: bool = False
    statuses: dict[str, str] = Factory(dict)
    responses: dict[str, dict[str, Any] | None] = Factory(dict)
    events: list[tuple[str, str, int]] = Factory(list)
    hooks: list[tuple[str, str]] = Factory(list)
    may: list[tuple[str, str]] = Factory(list)
    looping: bool = field(init=False)
    body: str = "open"
    bound: float = inf
    left_at: float = inf
    late: set[str] = Factory(set)
    vague: bool = False
    """Whether it is open which hooks run."""

    def __attrs_post_init__(self) -> None:
        self.looping = self.ask.loop

    @property
    def in_context(self) -> bool:
        return self.ask.form != "hooks"

    @property
    def attended(self) -> bool:
        """Whether code waits in it: in a context, or until the requests have been sent."""
        return self.left_at == inf and (self.in_context or (not self.sent and self.state == "open"))

    @property
    def in_body(self) -> bool:
        """Whether its body waits to be told what to do."""
        begun = self.ask.form in ("group", "single") and self.sent and not self.looping and self.body == "open"
        return begun and self.left_at == inf and self.state in ("open", "completed")

    @property
    def unanswered(self) -> list[str]:
        return [name for name in self.ask.workers if name in self.asked and name not in self.statuses]

    @property
    def end(self) -> str | None:
        """How its context was left, or what came of it where there is none; None while it has not been."""
        if self.attended:
            return None
        if self.state == "open":
            return "asked"
        if self.body in ("raise", "cancelled"):
            return self.body
        return {"error by worker": "error", "cancelled by request": "error"}.get(self.state, self.state)


@frozen
class Snapshot:
    """What can be seen when nothing moves."""

    result: object
    ends: dict[int, str | None]
    """How each group's context was left; None while it has not been."""
    answers: dict[int, dict[str, Answer]]
    late: dict[int, set[str]]
    """Whose answers come at the very instant at which their requester gives up: they may be among them, or not."""
    events: dict[int, list[tuple[str, str, int]]]
    hooks: dict[int, tuple[list[tuple[str, str]], list[tuple[str, str]]]]
    """Those of the requester that must have run, and those that may."""
    handlers: dict[tuple[int, str], tuple[tuple[int, ...], bool]]
    """How often each may have begun, and whether it runs."""
    told: dict[tuple[int, str], tuple[str | None, int]]
    """Whether the worker's hook was told of the cancel, and why; and how often it was asked for an update."""
    tables: dict[str, tuple[int, int]]
    """How many jobs, and how many groups, each living worker has."""
