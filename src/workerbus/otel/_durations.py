"""What takes how long, measured as jobs go by (O2)."""

from typing import Any, Final

from opentelemetry.metrics import Meter

from workerbus.otel._names import Names

_OF_A_JOB: Final = (Names.SYSTEM, Names.OPERATION, Names.DESTINATION, Names.JOB, Names.STATUS, Names.ERROR)
"""What a metric has of the attributes of its span: those of which there are few."""


class Durations:
    """What is measured as jobs go by.

    Args:
        meter: Makes the instruments.
    """

    def __init__(self, meter: Meter) -> None:
        def seconds(name: str, description: str) -> Any:
            return meter.create_histogram(name, "s", description)

        self._process = seconds(Names.PROCESS_DURATION, "How long handlers run.")
        self._send = seconds(Names.SEND_DURATION, "How long it takes to send a request.")
        self._queue = seconds(Names.QUEUE_DURATION, "How long requests wait for their handler to begin.")
        self._job = seconds(Names.JOB_DURATION, "How long jobs and groups take for the requester.")
        self._sent = meter.create_counter(Names.SENT, "{message}", "Requests that were sent.")
        self._active = meter.create_up_down_counter(Names.ACTIVE, "{job}", "Handlers that run.")

    def sent(self, seconds: float, attributes: dict[str, Any]) -> None:
        """Note that a request was sent, or not, where the attributes have an error."""
        few = _few(attributes)
        self._send.record(seconds, few)
        self._sent.add(1, few)

    def over(self, seconds: float, attributes: dict[str, Any]) -> None:
        """Note that a job or a group has its outcome."""
        self._job.record(seconds, _few(attributes))

    def begins(self, waited: float, attributes: dict[str, Any]) -> None:
        """Note that a handler begins."""
        few = _few(attributes)
        self._queue.record(waited, few)
        self._active.add(1, _place(attributes))

    def ends(self, seconds: float, attributes: dict[str, Any]) -> None:
        """Note that a handler has ended."""
        self._process.record(seconds, _few(attributes))
        self._active.add(-1, _place(attributes))


def _few(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: attributes[name] for name in _OF_A_JOB if name in attributes}


def _place(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: attributes[name] for name in (Names.SYSTEM, Names.DESTINATION) if name in attributes}
