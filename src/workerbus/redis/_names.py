"""The names of workers that this process has claimed, or gives back (X5)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from anyio import Lock

from workerbus._concurrency.lifetime import TaskHost
from workerbus.redis._connection import Connection
from workerbus.redis._errors import RedisReplyError
from workerbus.redis._membership import Member, Membership


class OnServer(Protocol):
    """What does something on the server, however long that takes."""

    async def __call__(self, call: Callable[[Connection], Awaitable[Any]]) -> Any:
        """Do it, and return what it returns."""


class Names:
    """What claims names, and gives them back, in the order in which that was asked for.

    Args:
        membership: Asks the server.
        incarnation: Returns the incarnation of this life.
        on_server: Does something on the server.
        refused: Called with the server's word where it refuses to take names back.
    """

    def __init__(
        self,
        membership: Membership,
        incarnation: Callable[[], str],
        on_server: OnServer,
        refused: Callable[[str], None],
    ) -> None:
        self._refused = refused
        self._membership = membership
        self._incarnation = incarnation
        self._on_server = on_server
        self._turn = Lock()
        self._to_release: set[str] = set()
        self._releasing = False

    async def claim(self, name: str) -> Member | None:
        """Claim a name; returns who has it, if it is taken."""

        async def claim(connection: Connection) -> Mapping[str, Member] | None:
            async with self._turn:
                self._to_release.discard(name)
                return await self._membership.claim(connection, self._incarnation(), [name])

        taken = await self._on_server(claim) or {}
        return taken.get(name) if isinstance(taken, Mapping) else None

    def release(self, name: str, tasks: TaskHost, task_name: str) -> None:
        """Give a name back, in a task."""
        self._to_release.add(name)
        if not self._releasing:
            self._releasing = True
            tasks.start(self._release, name=task_name)

    async def _release(self) -> None:
        async def release(connection: Connection) -> None:
            async with self._turn:
                names = list(self._to_release)
                if names:
                    await self._membership.release(connection, self._incarnation(), names)
                self._to_release.difference_update(names)

        try:
            while self._to_release:
                await self._on_server(release)
        except RedisReplyError as exc:
            self._to_release.clear()  # they go with this life
            self._refused(str(exc))
        finally:
            self._releasing = False
