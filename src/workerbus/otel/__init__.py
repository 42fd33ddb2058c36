"""Traces and metrics by OpenTelemetry, the extra ``otel`` (O1-O3, X8).

::

    from workerbus.otel import instrument

    async with WorkerRunner() as runner:
        instrument(runner)

It stands on a tap: whoever does not instrument a bus pays nothing for it. Which names are used says `Names`. Payloads
are not exported, and neither are the texts of errors, which may have something of them.
"""

from workerbus.errors import MissingExtraError

try:
    import opentelemetry.trace  # noqa: F401 - to say what to install, at the earliest point
except ImportError:
    raise MissingExtraError("traces and metrics", "opentelemetry-api", "otel") from None

from workerbus.otel._instrument import Instrumentation, instrument
from workerbus.otel._names import Names

__all__ = ["Instrumentation", "Names", "instrument"]
