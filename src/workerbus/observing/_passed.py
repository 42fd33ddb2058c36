"""Messages as they have passed, for who wants to see them go by (O3, O7)."""

from typing import NamedTuple


class PassedMessage(NamedTuple):
    """A message that has passed on a bus somewhere.

    Attributes:
        at: When it was sent, in seconds by this process's monotonic clock.
        runner: The name of the runner that has told of it.
        kind: ``"asked"``, ``"answered"``, ``"update"``, ``"chunk"`` or ``"cancel"`` for those of jobs, ``"restart"``
            where a worker is being restarted; else the name of its class.
        source: Who has sent it.
        target: For whom it is; None for all.
        job_id: The id of the job that it is of; empty where it is of none.
        text: The name of the job that is asked for, the status of an answer, or the reason of a cancel; else None.
        payload: Its payload as JSON text, cut where it is long; None where it has none, or that was not asked for, or
            is not allowed.

    Guarantees: O3, O7.
    """

    at: float
    runner: str
    kind: str
    source: str
    target: str | None
    job_id: str
    text: str | None
    payload: str | None
