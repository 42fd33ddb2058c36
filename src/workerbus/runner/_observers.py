"""Tells those who look from other processes what a runner does, for as long as they ask (O3, O4, O7).

It is a conversation in which every word is an answer:

1. An observer asks. It gets one report, at once if it has had none, else when its interval is over.
2. It asks again when it has read that. So whoever is slow gets less, and nothing piles up for it.
3. Each report has what has changed since the one before. The first one, and one that is asked for anew, has everything.
4. A report is as many messages as it takes for each to be small.
5. Whoever says that it looks no more, whose session is over, or who has not asked again in time, is forgotten in that
   step. With the last one, nothing is left: no tap, no task, nobody who listens to what is logged.

What it costs to look and to tell has a bound: so much later the next report comes, that this takes a hundredth of the
processor, however many there are who ask.
"""

import json
import logging
import math
from collections.abc import Iterator
from time import monotonic, thread_time
from typing import Any, Final, Literal, NamedTuple, Protocol

from anyio import Event, current_time, move_on_after

from workerbus._concurrency.lifetime import TaskHost
from workerbus._log import about
from workerbus._message_base import peer_of
from workerbus._values import Peer
from workerbus.bus._peer_bus import PeerBus
from workerbus.messages import BusObservationMessage, BusObserveMessage
from workerbus.runner._notes import LEVELS, MessagesWanted
from workerbus.runner._reporter import Observation, ObservedRunner, Report, Reporter

logger = logging.getLogger("workerbus.runner")

KEEP: Final = 10.0
"""Seconds after which one who has got a report and has not asked for the next one is forgotten."""
SHORTEST: Final = 0.1
"""Seconds between two reports, at least."""
LONGEST: Final = 60.0
"""Seconds between two reports, at most."""
SHARE: Final = 100
"""Looking and telling may take one such part of the time."""
ENDED: Final = json.dumps({"ended": True})
"""What is told by one who tells nothing more, or nothing at all."""
PART: Final = 48 * 1024
"""How many characters of JSON are in one message, at most; less where the network takes less."""


class RunningRunner(ObservedRunner, Protocol):
    """A runner, as it is looked at from elsewhere."""

    @property
    def tasks(self) -> TaskHost:
        """Where its tasks run."""


class _Observer:
    """One who looks from elsewhere.

    Attributes:
        name: The name that answers go to.
        peer: Where it is.
        observation: What it was told.
        asked: The number of the question that has no answer yet; None where all have.
        asked_at: When that came, by the process's monotonic clock.
        told_at: When it got its last report, by the clock of the event loop.
        interval: Seconds that it wants between two reports.
        pause: Seconds that are between them at least, since so much work was the last one.
        until: When it is forgotten, unless it asks.
    """

    def __init__(self, name: str, peer: Peer, observation: Observation) -> None:
        self.name: str = name
        self.peer: Peer = peer
        self.observation: Observation = observation
        self.asked: int | None = None
        self.asked_at: float = 0.0
        self.told_at: float = -math.inf
        self.interval: float = 0.0
        self.pause: float = 0.0
        self.until: float = 0.0

    @property
    def due(self) -> float:
        """When the next report is due, at the earliest."""
        return self.told_at + max(self.interval, self.pause)


class _Atom(NamedTuple):
    """The least that a report can be split into."""

    section: str
    key: str | None
    row: Any


class Observers:
    """Those who look at a runner from other processes.

    Args:
        runner: The runner. On a bus without peers nobody looks in this way.
        observable: Whether they may be told anything at all; ``"payloads"`` for everything.

    Raises:
        ValueError: It is another word.
    """

    def __init__(self, runner: RunningRunner, observable: bool | Literal["payloads"]) -> None:
        if observable not in (True, False, "payloads"):
            raise ValueError(f"observable is True, False or 'payloads', not {observable!r}")
        self._runner = runner
        self._most: MessagesWanted | None = None
        if observable:
            self._most = "payloads" if observable == "payloads" else "all"
        self._reporter = Reporter(runner)
        self._observers: dict[tuple[str, str], _Observer] = {}
        self._woken = Event()
        self._works = False

    def ask(self, message: BusObserveMessage) -> None:
        """Take a question of an observer."""
        peer = peer_of(message)
        if peer is None:
            return  # it was sent in this process, where one can look without messages
        key = (peer.incarnation, message.source)
        observer = self._observers.get(key)
        if message.number < 1:
            self._forget(key)
            return
        if self._most is None:
            self._tell(message.number, ENDED, message.source, peer)
            return
        wanted = self._allowed(message.messages)
        if observer is None:
            logger.info(
                "%r at peer %r looks at runner %r", message.source, peer.name, self._runner.name, extra=self._about
            )
            observer = self._observers[key] = _Observer(message.source, peer, self._reporter.observe(wanted))
        elif message.number == 1:
            observer.observation.begin_anew()
        observer.observation.want(wanted)
        now = current_time()
        observer.interval = min(max(message.interval, SHORTEST), LONGEST) if message.interval > 0 else SHORTEST
        observer.asked, observer.asked_at, observer.until = message.number, monotonic(), now + KEEP + LONGEST
        self._woken.set()
        if not self._works:
            self._works = True
            self._runner.tasks.start(self._work, name=f"{self._runner.name} observers")

    def lost(self, peer: Peer) -> None:
        """Forget those who were at a peer that is gone."""
        for key in [key for key in self._observers if key[0] == peer.incarnation]:
            self._forget(key)

    def close(self) -> None:
        """Tell those who look that the runner has ended, and forget them."""
        for key, observer in list(self._observers.items()):
            self._tell(observer.asked or 0, ENDED, observer.name, observer.peer)
            self._forget(key)

    @property
    def _about(self) -> dict[str, str]:
        return about(runner=self._runner.name)

    def _allowed(self, wanted: str) -> MessagesWanted:
        known: MessagesWanted = next((each for each in LEVELS if each == wanted), "none")
        return min(known, self._most or "none", key=LEVELS.index)

    def _forget(self, key: tuple[str, str]) -> None:
        observer = self._observers.pop(key, None)
        if observer is not None:
            observer.observation.end()
            self._woken.set()

    # --- answering

    async def _work(self) -> None:
        try:
            while self._observers:
                self._woken = Event()
                now = current_time()
                for key in [key for key, each in self._observers.items() if each.until <= now]:
                    self._forget(key)
                due = [each for each in self._observers.values() if each.asked is not None and each.due <= now]
                if due:
                    self._try_to_answer(due)
                else:
                    next_at = min(
                        (each.until if each.asked is None else each.due for each in self._observers.values()),
                        default=now,
                    )
                    with move_on_after(next_at - now):
                        await self._woken.wait()
        finally:
            self._works = False

    def _try_to_answer(self, due: list[_Observer]) -> None:
        try:
            self._answer(due)
        except Exception:
            # Whatever it was that could not be told: the runner goes on, and those who look hear no more of it.
            logger.exception("runner %r cannot tell what it does", self._runner.name, extra=self._about)
            self.close()

    def _answer(self, due: list[_Observer]) -> None:
        begun = thread_time()
        self._reporter.look()
        for observer in due:
            texts = list(parts(observer.observation.report(), self._limit, observer.asked_at))
            for number, text in enumerate(texts, 1):
                self._tell(observer.asked or 0, text, observer.name, observer.peer, more=number < len(texts))
        cost, now = thread_time() - begun, current_time()
        for observer in due:
            observer.asked, observer.told_at, observer.pause = None, now, cost * SHARE
            observer.until = now + KEEP

    @property
    def _limit(self) -> float:
        bus = self._runner.bus
        return min(PART, bus.max_message_size // 4) if isinstance(bus, PeerBus) else PART

    def _tell(self, number: int, text: str, observer: str, peer: Peer, *, more: bool = False) -> None:
        answer = BusObservationMessage(number, text, more, source=self._runner.name, target=observer)
        bus = self._runner.bus
        if isinstance(bus, PeerBus):  # who else has peers?
            bus.post_to(answer, peer)


def parts(report: Report, limit: float, asked_at: float) -> Iterator[str]:
    """Return a report as JSON texts, none of which is longer than the limit; the first one says when it was made.

    What is longer by itself is left out.
    """
    head = {"now": report.now, "asked_at": asked_at, "missed": report.missed, "sampled": report.sampled}
    atoms = [
        *(_Atom(name, key, row) for name, change in report.changes.items() for key, row in change["set"].items()),
        *(_Atom(name, None, key) for name, change in report.changes.items() for key in change["gone"]),
        *(_Atom("", None, list(note)) for note in report.notes),
    ]
    return _parts(atoms, limit, head)


def _parts(atoms: list[_Atom], limit: float, head: dict[str, Any]) -> Iterator[str]:
    text = json.dumps({**head, **_together(atoms)}, separators=(",", ":"), default=repr)
    if len(text) <= limit or not atoms:
        yield text
    elif len(atoms) == 1:
        yield from _parts([], limit, head)
    else:
        half = len(atoms) // 2
        yield from _parts(atoms[:half], limit, head)
        yield from _parts(atoms[half:], limit, {})


def _together(atoms: list[_Atom]) -> dict[str, Any]:
    changes: dict[str, dict[str, Any]] = {}
    notes: list[Any] = []
    for section, key, row in atoms:
        if not section:
            notes.append(row)
            continue
        change = changes.setdefault(section, {"set": {}, "gone": []})
        if key is None:
            change["gone"].append(row)
        else:
            change["set"][key] = row
    return {"changes": changes, "notes": notes}
