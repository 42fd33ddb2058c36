"""The messages of pipelines: frames, and what is to be spoken (B9, L8)."""

from typing import Any, ClassVar

from attrs import field

from workerbus._message_base import BusDataMessage, bus_message
from workerbus._values import IF_SET


@bus_message
class BusFrameMessage(BusDataMessage):
    """Carries a frame from one pipeline to another.

    Args:
        frame: A `workerbus.pipeline.Frame`, which the core does not inspect. All receivers get the same object, so each
            takes a copy.
        direction: The `workerbus.pipeline.FrameDirection` in which the frame travels there: DOWNSTREAM frames come in
            at the first processor, UPSTREAM frames at the last.
        bridge: The name of the bridge that the frame belongs to, if there are several.
        late_since: The number of its sender's deactivation, if the sender lets the frame out after that; else None. A
            bridged worker that has become active since then ignores the frame.
        process: The id of the process whose order that number belongs to; None for the receiver's process.

    Guarantees: L8.
    """

    confirmed: ClassVar[bool] = False

    frame: Any
    direction: Any
    bridge: str | None = None
    late_since: int | None = field(default=None, metadata={IF_SET: True})
    process: str | None = field(default=None, metadata={IF_SET: True})


@bus_message
class BusTTSSpeakMessage(BusDataMessage):
    """Asks a pipeline worker to speak.

    Args:
        text: What to say.
        append_to_context: Whether the text becomes part of the conversation; None leaves it to the pipeline.
    """

    text: str
    append_to_context: bool | None = None
