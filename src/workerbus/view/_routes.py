"""What is at which path of a view (O4, O5, O7, O9)."""

from collections.abc import Callable, Container
from functools import partial
from importlib.resources import files
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, unquote

from workerbus.runner._notes import MessagesWanted
from workerbus.view._guard import PROBES, SAFE, Guard, refused
from workerbus.view._http import Answer, Request
from workerbus.view._metrics import KIND, OWN, as_text
from workerbus.view._observer import Observer, encode

_PAGE: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/view.css": ("view.css", "text/css; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
    "/lists.js": ("lists.js", "text/javascript; charset=utf-8"),
    "/drawing.js": ("drawing.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
_JSON: Final = ("Content-Type", "application/json")
_EVENTS: Final = ("Content-Type", "text/event-stream")


class Health(Protocol):
    """How what is shown is."""

    @property
    def live(self) -> bool:
        """Whether it works at all."""

    @property
    def ready(self) -> bool:
        """Whether it can take work."""


class Routes:
    """Answers requests.

    Args:
        guard: Who may ask.
        observer: What there is to see.
        health: How it is.
        payloads: Whether payloads are told to those who ask for them.
        more_metrics: Returns further metrics, given the names of those that there are.
    """

    def __init__(
        self,
        guard: Guard,
        observer: Observer,
        health: Callable[[], Health],
        *,
        payloads: bool,
        more_metrics: Callable[[Container[str]], str] | None,
    ) -> None:
        self._more_metrics = more_metrics
        self._health = health
        self._payloads = payloads
        self._guard = guard
        self._observer = observer
        folder = files("workerbus.view") / "page"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _PAGE.items()}

    async def respond(self, request: Request) -> Answer:
        """Return the answer to a request."""
        refusal = self._guard.refusal(request)
        path, _, query = request.target.partition("?")
        return refusal if refusal is not None else await self._found(path, query)

    async def _found(self, path: str, query: str) -> Answer:
        if path in self._files:
            body, kind = self._files[path]
            return Answer(200, (*SAFE, ("Content-Type", kind)), body)
        if path in PROBES:
            health = self._health()
            return _probed(path, health.live if path == "/healthz" else health.ready)
        if path == "/api/state":
            return _json(await self._observer.state())
        if path == "/api/events":
            return Answer(200, (*SAFE, _EVENTS), stream=self._observer.tell)
        if path == "/api/messages":
            return self._passing(query)
        if path == "/metrics":
            text = as_text(await self._observer.state())
            if self._more_metrics is not None:
                text += self._more_metrics(OWN)
            return Answer(200, (*SAFE, ("Content-Type", KIND)), text.encode())
        if path.startswith("/api/jobs/"):
            told = self._observer.story(unquote(path.removeprefix("/api/jobs/")))
            return refused(404, "that job is not remembered") if told is None else _json(told)
        return refused(404, "there is nothing here")

    def _passing(self, query: str) -> Answer:
        wanted: MessagesWanted = "payloads" if parse_qs(query).get("payloads") == ["1"] else "all"
        if wanted == "payloads" and not self._payloads:
            return refused(403, "this view tells no payloads: see payloads=")
        return Answer(200, (*SAFE, _EVENTS), stream=partial(self._observer.tell_messages, wanted=wanted))


def _probed(path: str, well: bool) -> Answer:
    word = "live" if path == "/healthz" else "ready"
    return Answer(200, (*SAFE, _TEXT), f"{word}\n".encode()) if well else refused(503, f"not {word}")


def _json(value: Any) -> Answer:
    return Answer(200, (*SAFE, _JSON), encode(value))
