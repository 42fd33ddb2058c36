"""The wire: messages as bytes, and back, for buses that reach other processes (X1, X8).

`Wire` encodes and decodes; `register` lets own classes of messages and frames travel. The format is JSON::

    {"v": 1, "t": "bus.job_request", "m": {"source": "planner", "target": "counter", "job_id": "…", …}}

``v`` is the version of the format, ``t`` the tag of a class in a closed table, ``m`` the message's fields. Nothing is
imported or called by a name from the wire, and fields that are not known are ignored.

What is sent comes back equal, or is refused where it is sent. The wire knows no bus and no network. It needs msgspec,
which the extra ``redis`` brings.
"""

from workerbus.errors import MissingExtraError, RegistrationError, TagTakenError, WireError

try:
    import msgspec  # noqa: F401 - whether it is there
except ImportError:
    raise MissingExtraError("messages that travel to other processes", "msgspec", "redis") from None

from workerbus.wire._register import register
from workerbus.wire._wire import MAX_MESSAGE_SIZE, VERSION, Wire

__all__ = [
    "MAX_MESSAGE_SIZE",
    "VERSION",
    "RegistrationError",
    "TagTakenError",
    "Wire",
    "WireError",
    "register",
]
