"""The names of workers that this process has claimed, or gives back (X5).

1. A name that is given back goes out with the next batch of messages, in one transaction. Who hears that a worker has
   gone may have its name; who has got it, and says so, says it behind that.
2. A claim takes back what is still to be given back. Where that is on its way, the claim waits until it is settled.
3. A claim that was cut short may reach the server yet. Such a name is given back behind it, on the same connection.
4. With a life go its claims, and all that was to be given back.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from anyio import Event, Lock

from workerbus._concurrency.lifetime import TaskHost
from workerbus.redis._connection import Connection
from workerbus.redis._errors import ConnectionLost, RedisReplyError
from workerbus.redis._membership import Member, Membership
from workerbus.redis._protocol import Command


class OnServer(Protocol):
    """What does something on the server, however long that takes."""

    async def __call__(self, call: Callable[[Connection], Awaitable[Any]]) -> Any:
        """Do it, and return what it returns."""


class Names:
    """What claims names, and gives them back.

    Args:
        membership: Asks the server.
        incarnation: Returns the incarnation of this life.
        on_server: Does something on the server, on the connection that renews the lease.
        refused: Called with the server's word where it refuses to take names back.
        wake: Called when there is something to give back with the next batch.
    """

    def __init__(
        self,
        membership: Membership,
        incarnation: Callable[[], str],
        on_server: OnServer,
        refused: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        self._refused = refused
        self._membership = membership
        self._incarnation = incarnation
        self._on_server = on_server
        self._wake = wake
        self._turn = Lock()
        self._unsure: set[str] = set()  # claimed, and no answer has come
        self._behind: set[str] = set()  # to be given back behind such a claim, unless they are claimed again
        self._to_release: dict[str, str] = {}  # each with the life that has claimed it
        self._under_way: list[str] = []
        self._life = ""  # the one of which these are
        self._settled = Event()

    async def claim(self, name: str) -> Member | None:
        """Claim a name; returns who has it, if it is taken."""
        self._to_release.pop(name, None)
        self._behind.discard(name)
        while name in self._under_way:
            await self._settled.wait()
        self._unsure.add(name)

        async def claim(connection: Connection) -> Mapping[str, Member] | None:
            async with self._turn:
                return await self._membership.claim(connection, self._incarnation(), [name])

        taken = await self._on_server(claim) or {}
        self._unsure.discard(name)
        return taken.get(name) if isinstance(taken, Mapping) else None

    def release(self, name: str, tasks: TaskHost, task_name: str) -> None:
        """Give a name back: with the next batch, or in a task, where its claim was cut short."""
        if name in self._unsure:
            self._unsure.discard(name)
            self._behind.add(name)
            tasks.start(self._release_behind_claim, name, name=task_name)
        else:
            self._to_release[name] = self._incarnation()
            self._wake()

    async def _release_behind_claim(self, name: str) -> None:
        async def release(connection: Connection) -> None:
            async with self._turn:
                if name in self._behind:  # still, when its turn has come
                    await self._membership.release(connection, self._incarnation(), [name])
                    self._behind.discard(name)

        try:
            await self._on_server(release)
        except RedisReplyError as exc:
            self._behind.discard(name)  # it goes with this life
            self._refused(str(exc))
        except ConnectionLost:  # the bus is closed
            self._behind.discard(name)

    # --- with the batches of the writer

    def begin(self) -> None:
        """Forget what was on its way in another life."""
        if self._under_way and self._life != self._incarnation():
            self._settle()

    def waits(self) -> bool:
        """Whether names are to be given back."""
        return bool(self._under_way or self._to_release)

    def take(self) -> Command | None:
        """Return what gives names back, for the next batch: the same as before, until it is settled."""
        if not self._under_way and self._to_release:
            self._life = self._incarnation()
            self._under_way = [name for name, life in self._to_release.items() if life == self._life]
            self._to_release.clear()
        return self._membership.releasing(self._life, self._under_way) if self._under_way else None

    def settle(self, reply: Any) -> None:
        """Note what the server says to that."""
        if isinstance(reply, RedisReplyError):
            self._refused(str(reply))
        self._settle()

    def _settle(self) -> None:
        self._under_way = []
        self._settled.set()
        self._settled = Event()
