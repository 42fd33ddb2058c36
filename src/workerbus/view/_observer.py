"""Lets those who look at the page know when there is something new, for as long as somebody does (O4, O7).

What there is to see comes from a `Scene`: one runner of this process, or a whole network. While nobody looks it is at
rest: no tap, no timer, no snapshot, no question to anybody. Who looks is told of what has changed at most four times a
second, and so seldom that telling takes a hundredth of the processor, however large the program is.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic, thread_time
from typing import Any, Final, Protocol

from anyio import Event, move_on_after, sleep

from workerbus.observing import PassedMessage, PassingMessages
from workerbus.runner._notes import LEVELS, MessagesWanted
from workerbus.runner._rows import Sections, difference

SHORTEST: Final = 0.25
"""Seconds between two looks, at least."""
SHARE: Final = 100
"""A look may take one such part of the time until the next one."""
HEARTBEAT: Final = 15.0
"""Seconds after which a viewer is told that nothing has changed."""


class Scene(Protocol):
    """What is looked at."""

    def look(self, messages: MessagesWanted) -> None:
        """Look, or go on looking, at so much of the messages that pass."""

    def rest(self) -> None:
        """Look no more, for now."""

    async def answered(self) -> None:
        """Wait until there is something to see."""

    async def glance(self) -> Sections:
        """Return what there is to see now, though nobody looks; `rest` follows."""

    def state(self) -> Sections:
        """Return what there is to see now."""

    def story(self, job_id: str) -> dict[str, Any] | None:
        """Return the story of a job; None where it is not remembered."""

    def messages(self) -> PassingMessages:
        """Return the messages that pass from now on."""

    @property
    def missed(self) -> int:
        """How many of them were not seen."""


class Observer:
    """Shows a scene to viewers.

    Args:
        scene: What is looked at.

    Attributes:
        viewers: How many look.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.viewers: int = 0
        self._levels: list[MessagesWanted] = []
        self._glances = 0
        self._state: Sections | None = None
        self._changed = Event()
        self._wanted = Event()
        self._encoded: tuple[Sections, Sections, bytes] | None = None
        self._cost = 0.0
        self._cost_of_telling = 0.0

    # --- what is asked for

    async def state(self) -> Sections:
        """Return what there is to see now."""
        if self._state is not None:
            return self._scene.state()
        self._glances += 1
        try:
            return await self._scene.glance()
        finally:
            self._glances -= 1
            self._rest()

    def story(self, job_id: str) -> dict[str, Any] | None:
        """Return the story of a job; None where it is not remembered."""
        return self._scene.story(job_id)

    async def tell(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send the state, and then what changes of it, as server-sent events, until it is cancelled or sending fails.

        A viewer that is slow misses states, and not changes: it gets the difference from what it has.
        """
        with self._looking():
            shown: Sections | None = None
            while True:
                state, changed = self._state, self._changed
                if state is not None and state is not shown:
                    await send(self._event(shown, state))
                    shown = state
                    continue
                with move_on_after(HEARTBEAT) as waiting:
                    await changed.wait()
                if waiting.cancelled_caught:
                    await send(b": nothing new\n\n")

    async def tell_messages(self, send: Callable[[bytes], Awaitable[None]], wanted: MessagesWanted) -> None:
        """Send messages as they pass, as server-sent events, until it is cancelled or sending fails."""
        with self._looking(wanted):
            passing = self._scene.messages()
            while True:
                first: list[PassedMessage] = []
                with move_on_after(HEARTBEAT):
                    first = [await anext(passing)]
                if first:
                    told = {
                        "now": round(monotonic(), 3),
                        "missed": self._scene.missed,
                        "messages": first + passing.take(),
                    }
                    await send(_event("messages", told))
                    await sleep(SHORTEST)
                else:
                    await send(b": nothing has passed\n\n")

    # --- looking

    async def look(self) -> None:
        """Look whenever somebody wants to see something, until it is cancelled."""
        while True:
            await self._wanted.wait()
            try:
                self._scene.look(self._wanted_of_messages)
                await self._scene.answered()
                while self.viewers:
                    self._scene.look(self._wanted_of_messages)
                    self._look_once()
                    await sleep(max(SHORTEST, self._cost * SHARE))
            finally:
                self._state = None
                self._rest()
            self._wanted = Event()

    def _rest(self) -> None:
        if not self._glances and not self.viewers:
            self._scene.rest()

    @property
    def _wanted_of_messages(self) -> MessagesWanted:
        return max(self._levels, key=LEVELS.index, default="jobs")

    @contextmanager
    def _looking(self, messages: MessagesWanted = "jobs") -> Iterator[None]:
        self.viewers += 1
        self._levels.append(messages)
        self._wanted.set()
        try:
            yield
        finally:
            self.viewers -= 1
            self._levels.remove(messages)

    def _look_once(self) -> None:
        # What it has cost to tell of the last one counts, too.
        begun = thread_time() - self._cost_of_telling
        self._state = self._scene.state()
        changed, self._changed = self._changed, Event()
        changed.set()
        self._cost, self._cost_of_telling = thread_time() - begun, 0.0

    # --- telling

    def _event(self, shown: Sections | None, state: Sections) -> bytes:
        begun = thread_time()
        if shown is None:
            event = _event("state", {"now": round(monotonic(), 3), "state": state})
        elif self._encoded is not None and self._encoded[0] is shown and self._encoded[1] is state:
            event = self._encoded[2]
        else:
            event = _event("changes", {"now": round(monotonic(), 3), "changes": difference(shown, state)})
            self._encoded = (shown, state, event)
        self._cost_of_telling += thread_time() - begun
        return event


def encode(value: object) -> bytes:
    """Return something as JSON, in one line."""
    return json.dumps(value, separators=(",", ":")).encode()


def _event(kind: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), encode(data))
