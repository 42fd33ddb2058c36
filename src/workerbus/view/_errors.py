"""What is raised where a view cannot be served."""

from workerbus.errors import WorkerBusError


class UnprotectedViewError(WorkerBusError, ValueError):
    """A view was to be served without a token at an address that others may reach.

    Attributes:
        host: The address.

    Guarantees: O5.
    """

    def __init__(self, host: str) -> None:
        super().__init__(
            f"a view at {host!r} could be read by everybody who reaches it: serve it with token=…, "
            "or at 127.0.0.1, which is the default"
        )
        self.host = host

    def __reduce__(self) -> tuple[type["UnprotectedViewError"], tuple[str]]:
        """Return what it is made of again, in another process for instance."""
        return (type(self), (self.host,))
