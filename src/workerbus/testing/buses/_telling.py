"""Messages in words, for the stories that the buses of this package tell.

Names and job ids that the library makes up become small numbers, so that one program tells one story.
"""

from collections.abc import Callable, Iterable
from reprlib import Repr
from typing import Any, Final

from workerbus.messages import (
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobStreamWaitingMessage,
    BusJobStreamWindowMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    BusObservationMessage,
    BusObserveMessage,
    BusPoolLoadMessage,
    BusTTSSpeakMessage,
    BusWorkerErrorMessage,
    BusWorkerGoneMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    BusWorkerRestartingMessage,
)
from workerbus.recording._naming import Naming

_FROM_REQUESTER: Final = (
    BusJobRequestMessage,
    BusJobCancelMessage,
    BusJobUpdateRequestMessage,
    BusJobStreamWindowMessage,
)

_short: Final = Repr()
_short.maxstring = _short.maxother = 80
_short.maxdict = _short.maxlist = _short.maxtuple = 4
_short.maxlevel = 3


class Teller(Naming):
    """Finds words for messages, and small numbers for made-up names and job ids."""

    def job(self, message: BusMessage) -> str | None:
        """Return which job a message is about: its id, or ``front-1`` for the first that ``front`` asked for."""
        job_id = getattr(message, "job_id", None)
        if not isinstance(job_id, str):
            return None
        return self.job_id(job_id, message.source if isinstance(message, _FROM_REQUESTER) else message.target)

    def way(self, message: BusMessage) -> str:
        """Return from whom to whom a message goes: ``front -> tts``."""
        target = "all" if message.target is None else self.name(message.target)
        return f"{self.name(message.source)} -> {target}"

    def says(self, message: BusMessage) -> str:
        """Return what a message says, as a sentence without its subject, which is the sender: ``activates it``."""
        verb = _VERBS.get(type(message))
        text = f"sends {_shown(message)}" if verb is None else verb(self, message)
        return self.text(text)

    def calls(self, message: BusMessage) -> str:
        """Return what a message is, as the subject of a sentence: ``the answer of 'b' to 'a' (job a-1)``."""
        noun = _NOUNS.get(type(message), type(message).__name__)
        target = "all" if message.target is None else repr(self.name(message.target))
        job = self.job(message)
        return f"the {noun} of {self.name(message.source)!r} to {target}{f' (job {job})' if job is not None else ''}"


def listed(names: Iterable[str]) -> str:
    """Return names as a list in words: ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def in_seconds(value: float) -> str:
    """Return a number of seconds in words, rounded to the millisecond."""
    return f"{round(value, 3):g} s"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 message``, ``2 messages``; by default the plural is the singular with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _shown(message: BusMessage) -> str:
    name = type(message).__name__
    fields: Any = getattr(type(message), "__attrs_attrs__", ())
    own = [each.name for each in fields if each.name not in ("source", "target", "headers")]
    return f"{name}({', '.join(f'{each}={_short.repr(getattr(message, each, None))}' for each in own)})"


def _tail(data: object) -> str:
    return "" if data is None or data == {} else f" {_short.repr(data)}"


def _why(reason: object) -> str:
    return "" if reason is None else f": {reason}"


def _of_job(verb: str, content: str | None = None) -> Callable[[Teller, Any], str]:
    def says(teller: Teller, message: Any) -> str:
        return f"{verb} job {teller.job(message)}{_tail(getattr(message, content)) if content else ''}"

    return says


def _because(verb: str) -> Callable[[Teller, Any], str]:
    return lambda _, message: f"{verb}{_why(message.reason)}"


def _requests(teller: Teller, message: BusJobRequestMessage) -> str:
    name = "a job" if message.job_name is None else f"job {message.job_name!r}"
    limit = "" if message.seconds_left is None else f" within {in_seconds(message.seconds_left)}"
    return f"asks for {name} ({teller.job(message)}){limit}{_tail(message.payload)}"


def _answers(urgently: str) -> Callable[[Teller, Any], str]:
    def says(teller: Teller, message: Any) -> str:
        return f"answers job {teller.job(message)}{urgently}: {message.status}{_tail(message.response)}"

    return says


def _snapshot(teller: Teller, message: BusWorkerRegistryMessage) -> str:
    names = [teller.name(entry.name) for entry in message.workers]
    return f"has {f'workers {listed(names)}' if names else 'no workers'}"


_VERBS: Final[dict[type[BusMessage], Callable[[Teller, Any], str]]] = {
    BusActivateWorkerMessage: lambda _, message: f"activates it{_tail(message.args)}",
    BusDeactivateWorkerMessage: lambda _, __: "deactivates it",
    BusEndMessage: _because("asks for an end"),
    BusEndWorkerMessage: _because("tells it to end"),
    BusCancelMessage: _because("asks for an end at once"),
    BusCancelWorkerMessage: _because("tells it to cancel"),
    BusAddWorkerMessage: lambda _, message: f"adds a worker: {_short.repr(message.worker)}",
    BusWorkerErrorMessage: lambda _, message: f"reports an error: {message.error}",
    BusWorkerLocalErrorMessage: lambda _, message: f"reports an error: {message.error}",
    BusWorkerRegistryMessage: _snapshot,
    BusWorkerReadyMessage: lambda teller, message: f"is ready, under runner {teller.name(message.runner)!r}",
    BusWorkerRestartingMessage: lambda _, __: "takes no more jobs, since it is restarted",
    BusWorkerGoneMessage: lambda teller, message: f"has finished, under runner {teller.name(message.runner)!r}",
    BusPoolLoadMessage: lambda _, message: f"has {message.taken} jobs, and {message.places} places for them",
    BusObserveMessage: lambda _, message: "looks at it" if message.number else "looks at it no more",
    BusObservationMessage: lambda _, message: "tells what it does" + (", in part" if message.more else ""),
    BusJobRequestMessage: _requests,
    BusJobResponseMessage: _answers(""),
    BusJobResponseUrgentMessage: _answers(" urgently"),
    BusJobUpdateMessage: _of_job("reports on", "update"),
    BusJobUpdateUrgentMessage: _of_job("reports urgently on", "update"),
    BusJobUpdateRequestMessage: _of_job("asks for news of"),
    BusJobCancelMessage: lambda teller, message: f"cancels job {teller.job(message)}{_why(message.reason)}",
    BusJobStreamStartMessage: _of_job("opens the stream of", "data"),
    BusJobStreamDataMessage: _of_job("streams for", "data"),
    BusJobStreamEndMessage: _of_job("ends the stream of", "data"),
    BusJobStreamWaitingMessage: lambda teller, message: (
        f"waits after {message.sent} chunks of job {teller.job(message)}"
    ),
    BusJobStreamWindowMessage: lambda teller, message: f"takes {message.until} chunks of job {teller.job(message)}",
    BusTTSSpeakMessage: lambda _, message: f"asks to say {_short.repr(message.text)}",
}

_NOUNS: Final[dict[type[BusMessage], str]] = {
    BusActivateWorkerMessage: "activation",
    BusDeactivateWorkerMessage: "deactivation",
    BusEndMessage: "end",
    BusEndWorkerMessage: "end",
    BusCancelMessage: "cancel",
    BusCancelWorkerMessage: "cancel",
    BusWorkerErrorMessage: "error report",
    BusWorkerRegistryMessage: "list of workers",
    BusWorkerReadyMessage: "arrival",
    BusWorkerRestartingMessage: "restart",
    BusWorkerGoneMessage: "departure",
    BusPoolLoadMessage: "load",
    BusObserveMessage: "question",
    BusObservationMessage: "report",
    BusJobRequestMessage: "request",
    BusJobResponseMessage: "answer",
    BusJobResponseUrgentMessage: "urgent answer",
    BusJobUpdateMessage: "update",
    BusJobUpdateUrgentMessage: "urgent update",
    BusJobUpdateRequestMessage: "question",
    BusJobCancelMessage: "cancel",
    BusJobStreamStartMessage: "stream start",
    BusJobStreamDataMessage: "stream data",
    BusJobStreamEndMessage: "stream end",
    BusJobStreamWaitingMessage: "stream wait",
    BusJobStreamWindowMessage: "stream window",
}
