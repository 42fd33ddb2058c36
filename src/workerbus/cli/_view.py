"""A view, over HTTP: what it shows, and the messages that it tells of (O8).

A view that goes is looked for until it is there again, and then tells all of its state anew. One that never was there
is an error, and so is one that refuses.
"""

import sys
from functools import partial
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

from anyio import sleep

from workerbus.cli._address import Address
from workerbus.cli._client import Client, Lost, connected
from workerbus.cli._commands import CommandError, one_line
from workerbus.cli._in_order import InOrder, in_order
from workerbus.cli._watch import Passed, Take, Watch, empty, in_known_form

FIRST_PAUSE: Final = 0.25
"""Seconds until a view that was lost is looked for, the first time; then twice as many, and so on."""
LONGEST_PAUSE: Final = 2.0
"""Seconds between two such looks, at most."""
HELD: Final = 1.5
"""Seconds for which a message is held, where the view is that of a network: its programs tell each second."""


class ViewWatch(Watch):
    """What a view says, over HTTP; see `Watch`.

    Args:
        address: That of the view.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address.shown)
        self._address = address
        self._offset = 0.0

    def now(self) -> float:
        """Return the time on the view's clock."""
        return super().now() + self._offset

    async def run(self) -> None:
        """Look, and look again when the view was lost."""
        pause = FIRST_PAUSE
        while True:
            try:
                async with connected(self._address) as client:
                    await client.follow("api/events")
                    while True:
                        event = await client.next_event()
                        with in_known_form(self.shown):
                            self._take(*event)
                        pause = FIRST_PAUSE
            except Lost as lost:
                if not self.begun.is_set():
                    raise CommandError(f"there is no view at {self.shown}: {lost}") from None
                self._lose(str(lost))
                self._tell()
            await sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def story(self, job_id: str) -> dict[str, Any] | None:
        """Return the story of a job."""
        try:
            async with connected(self._address) as client:
                story: dict[str, Any] | None = await client.fetch(f"api/jobs/{quote(job_id, safe='')}")
        except (Lost, CommandError):
            return None
        return story

    def _take(self, kind: str, data: Any) -> None:
        if kind == "state":
            self.state = {**empty(), **data["state"]}
        elif kind == "changes":
            for section, change in data["changes"].items():
                rows = self.state.setdefault(section, {})
                for key in change["gone"]:
                    rows.pop(key, None)
                rows.update(change["set"])
        else:
            return
        self.at = data["now"]
        self._offset = self.at - monotonic()
        self._found()
        self._tell()
        self.begun.set()


class ViewPassing:
    """The messages of which a view tells, over HTTP; one that was lost is looked for until it is there again.

    Args:
        address: That of the view.
        payloads: Whether their payloads are wanted.
    """

    def __init__(self, address: Address, *, payloads: bool) -> None:
        self._address = address
        self._path = f"api/messages{'?payloads=1' if payloads else ''}"

    async def run(self, take: Take) -> None:
        """Follow the messages."""
        pause, known, lost = FIRST_PAUSE, False, False
        while True:
            try:
                async with connected(self._address) as client:
                    await client.follow(self._path)
                    if lost:
                        _say(f"{self._address.shown} is back")
                    pause, known, lost = FIRST_PAUSE, True, False
                    await in_order(partial(_read, client, self._address.shown), take, HELD)
                    return  # there is enough: what a view tells has no end
            except Lost as error:
                if not known:
                    raise CommandError(f"there is no view at {self._address.shown}: {error}") from None
                if not lost:
                    _say(f"{self._address.shown} is lost: {error}; looking for it")
                lost = True
            await sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


async def _read(client: Client, shown: str, order: InOrder) -> None:
    missed: int | None = None
    while True:
        kind, data = await client.next_event()
        if kind == "messages":
            with in_known_form(shown):
                before, missed = missed, data["missed"]
                left_out = 0 if before is None else missed - before  # what was left out for others is not told of
                order.add([Passed(*each[:8]) for each in data["messages"]], left_out, data["now"])


def _say(text: str) -> None:
    sys.stderr.write(f"workerbus: {one_line(text)}\n")
