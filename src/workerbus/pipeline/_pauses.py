"""Which of a processor's two lanes are held, and what ends that (P1).

A lane that is held begins no frame; what comes waits there. Who has paused a lane twice resumes it once. Before the
processor's pipeline runs there is nothing to hold, and nothing happens.
"""

from collections.abc import Callable

from workerbus.pipeline._frame_lane import FrameLane


class Pauses:
    """What holds the lanes of one processor."""

    __slots__ = ("_holds", "_lanes", "_paused")

    def __init__(self) -> None:
        self._lanes: tuple[FrameLane, ...] = ()
        self._paused: set[FrameLane] = set()
        self._holds: list[Callable[[], None]] = []

    def open(self, system: FrameLane, data: FrameLane) -> None:
        """Note the lanes, which are there from now on."""
        self._lanes = data, system

    def pause(self, *, system: bool) -> None:
        """Begin no frame of a lane, until `resume`; nothing happens where it is paused already.

        Args:
            system: Whether it is the lane of the system frames.
        """
        lane = self._lanes[system]
        if lane not in self._paused:
            self._paused.add(lane)
            lane.held += 1

    def resume(self, *, system: bool) -> None:
        """Go on with the frames of a lane that is paused.

        Args:
            system: Whether it is the lane of the system frames.
        """
        if self._lanes and self._lanes[system] in self._paused:
            lane = self._lanes[system]
            self._paused.remove(lane)
            lane.release()

    def hold(self) -> Callable[[], None]:
        """Begin no frame of either lane; returns what ends that, once. A cancel ends it, too."""
        for lane in self._lanes:
            lane.held += 1

        def go_on() -> None:
            if go_on in self._holds:
                self._holds.remove(go_on)
                for lane in self._lanes:
                    lane.release()

        self._holds.append(go_on)
        return go_on

    def halt(self) -> None:
        """Let the system lane go on, which is to handle the `CancelFrame`; and end all that holds both."""
        self.resume(system=True)
        for go_on in list(self._holds):
            go_on()
