"""All errors that users may meet."""

from collections.abc import Iterator

import workerbus
from workerbus import errors, pipeline, redis, testing, view


def public_errors() -> Iterator[type[BaseException]]:
    """Yield the public classes of errors of all packages, some of them more than once."""
    for module in (workerbus, errors, pipeline, redis, testing, view):
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, BaseException) and not name.startswith("_"):
                yield value
