"""For web applications: a block that is cancelled when its client has gone (R10).

Knows of ASGI that a client which has gone is a message from ``receive``, and no more: so it does for every framework
and server that speaks it, and for websockets, too.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Final, Self

from anyio import CancelScope, create_task_group
from anyio.abc import TaskGroup

from workerbus.errors import NotRunningError

__all__ = ["ClientScope", "cancel_on_disconnect"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_GONE: Final = frozenset({"http.disconnect", "websocket.disconnect"})


class ClientScope:
    """A block that is cancelled when its client has gone; made by `cancel_on_disconnect`.

    Attributes:
        disconnected: Whether the client has gone, which is why the block was cancelled.

    Guarantees: R10.
    """

    def __init__(self, receive: Receive) -> None:
        self.disconnected: bool = False
        self._receive = receive
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        """Begin to listen.

        Raises:
            NotRunningError: It was entered before; a `RuntimeError`.
        """
        if self._tasks is not None:
            raise NotRunningError("this block was entered before: call cancel_on_disconnect for each")
        self._tasks = create_task_group()
        await self._tasks.__aenter__()
        self._scope = CancelScope()
        self._scope.__enter__()
        self._tasks.start_soon(self._listen, name="listens whether the client has gone")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Listen no more. What the block has raised goes through as it is."""
        assert self._tasks is not None
        swallowed = bool(self._scope.__exit__(exc_type, exc, traceback))
        self._tasks.cancel_scope.cancel("the block was left")
        await self._tasks.__aexit__(None, None, None)  # what the block has raised is no error of the group's
        return swallowed

    async def _listen(self) -> None:
        while (await self._receive())["type"] not in _GONE:
            pass  # what is left of the request's body, or what a websocket says
        self.disconnected = True
        self._scope.cancel("the client has gone")


def cancel_on_disconnect(receive: Receive) -> ClientScope:
    """Return a block that is cancelled when the client of a web application goes away.

    ::

        async def report(request):
            async with cancel_on_disconnect(request.receive):
                return JSONResponse(await request.state.runner.job("writer", name="report"))
            return Response(status_code=499)  # nobody reads it

    A job that the block has asked for is cancelled, and the block ends when its handler has unwound; then the program
    goes on behind the block. Nothing else may call ``receive`` during the block, so read the request's body, or the
    websocket's first messages, before it. What a client sends during the block is dropped.

    Args:
        receive: The ASGI callable; in Starlette and FastAPI, ``request.receive`` or ``websocket.receive``.

    Returns:
        The block, for ``async with``. Its ``disconnected`` says whether the client has gone.

    Guarantees: R10.
    """
    return ClientScope(receive)
