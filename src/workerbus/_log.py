"""What log records say they are about (R8).

There is one logger for each part of the library, below ``workerbus``. Nothing is configured here or anywhere else in
the library. What is logged below WARNING is asked for with `isEnabledFor` first, since it is said of every job.
"""


def about(**names: str | None) -> dict[str, str]:
    """Return the attributes of a log record: ``runner``, ``worker``, ``job``, as far as they are known."""
    return {kind: name for kind, name in names.items() if name is not None}
