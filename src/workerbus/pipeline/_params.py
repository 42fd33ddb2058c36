"""How a pipeline is run, for those who give it as one object (N1, P6)."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen


def _more_than_zero(_instance: object, attribute: Any, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} is a number of seconds, more than 0; not {value!r}")


@frozen(kw_only=True)
class PipelineParams:
    """What goes through a pipeline beside its user's frames.

    Args:
        enable_heartbeats: Whether a `HeartbeatFrame` is sent through again and again.
        heartbeats_period_secs: How long to wait between two heartbeats, in seconds.
        heartbeats_monitor_secs: After how many seconds in which none has come out at the sink the log says so.
        start_metadata: What the `StartFrame` bears as its ``metadata``.

    Raises:
        ValueError: A number of seconds is not more than 0.

    Guarantees: P6.
    """

    enable_heartbeats: bool = False
    heartbeats_period_secs: float = field(default=1.0, validator=_more_than_zero)
    heartbeats_monitor_secs: float = field(default=10.0, validator=_more_than_zero)
    start_metadata: Mapping[str, Any] = field(factory=dict)
