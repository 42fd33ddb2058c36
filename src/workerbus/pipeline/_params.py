"""How a pipeline is run: what its user says in one object, and what its session is told (N1, P6)."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from workerbus._values import check_number


def _more_than_zero(_instance: object, attribute: Any, value: float) -> None:
    check_number(attribute.name, value)
    if not value > 0:
        raise ValueError(f"{attribute.name} is a number of seconds, more than 0; not {value!r}")


@frozen(kw_only=True)
class PipelineParams:
    """Settings of a pipeline: heartbeats, and the metadata of the `StartFrame`.

    Args:
        enable_heartbeats: Whether a `HeartbeatFrame` is sent through again and again.
        heartbeats_period_secs: How long to wait between two heartbeats, in seconds.
        heartbeats_monitor_secs: After how many seconds without a heartbeat at the sink a warning is logged.
        start_metadata: The ``metadata`` of the `StartFrame`.

    Raises:
        ValueError: A number of seconds is not more than 0.

    Guarantees: P6.
    """

    enable_heartbeats: bool = False
    heartbeats_period_secs: float = field(default=1.0, validator=_more_than_zero)
    heartbeats_monitor_secs: float = field(default=10.0, validator=_more_than_zero)
    start_metadata: Mapping[str, Any] = field(factory=dict)


START_TIMEOUT_SECONDS: Final = 20.0
"""How long, in seconds, ``setup()`` of the processors may take, and then the `StartFrame`, unless the worker says."""


@frozen
class SessionOptions:
    """How a session starts, is watched, and ends.

    Args:
        params: What goes through the pipeline beside its user's frames.
        setup_timeout: How long ``setup()`` of the processors may take, in seconds; None for as long as it likes.
        start_timeout: How long the `StartFrame` may take, the same.
        idle_timeout: After how many seconds without a frame that counts the worker is idle; None for never.
        cancel_timeout: How long a `CancelFrame` may take to come through, in seconds.
        cancel_on_idle_timeout: Whether the worker is cancelled when it is idle.
        cancel_runner_on_idle_timeout: Whether everything that its runner runs is cancelled with it.
    """

    params: PipelineParams
    setup_timeout: float | None
    start_timeout: float | None
    idle_timeout: float | None
    cancel_timeout: float
    cancel_on_idle_timeout: bool
    cancel_runner_on_idle_timeout: bool
