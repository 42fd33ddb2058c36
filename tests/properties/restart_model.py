"""Supervised workers as a small sequential model: who runs, how often they were restarted, and who has failed (S1).

It knows no tasks, no tables and no library: each thing that happens is one call, at one moment.
"""

from collections.abc import Iterator

from attrs import define, field


@define
class Unit:
    """Workers that are restarted together."""

    names: list[str]
    counted: list[float] = field(factory=list)
    due: float | None = None


class RestartModel:
    """What is to become of supervised workers."""

    def __init__(self, names: list[str], strategy: str, restart: str, most: int, within: float, delay: float) -> None:
        self.restart, self.most, self.within, self.delay = restart, most, within, delay
        self.state = dict.fromkeys(names, "running")
        self.restarts = dict.fromkeys(names, 0)
        self.reported: list[tuple[str, str]] = []
        self.faults: dict[str, list[str]] = {name: [] for name in names}
        self.over = False
        together = [list(names)] if strategy == "all_for_one" else [[name] for name in names]
        self.units = [Unit(each) for each in together]

    @property
    def running(self) -> list[str]:
        return [name for name, state in self.state.items() if state == "running"]

    def goes(self, name: str, now: float, *, failed: bool) -> None:
        """A worker fails, or ends by itself."""
        wanted = self.restart == "always" or (self.restart == "on_failure" and failed)
        unit = next(unit for unit in self.units if name in unit.names)
        if wanted and not self.over:
            self._restart(unit, name, now, "RestartLimitError")
        else:
            self.state[name] = "ended"
            if failed:
                self.reported.append((name, "ValueError"))

    def time_passes(self, now: float) -> None:
        """Whatever is due until now, in its order."""
        while due := min(self._due(now), default=None, key=lambda each: each[0]):
            self._make(due[1], due[0])

    def stop(self) -> None:
        """The supervision is stopped, or its host ends."""
        self.over = True
        for name, state in self.state.items():
            if state in ("running", "restarting"):
                self.state[name] = "ended"

    def _due(self, now: float) -> Iterator[tuple[float, Unit]]:
        for unit in self.units:
            if unit.due is not None and unit.due <= now and not self.over:
                yield unit.due, unit

    def _restart(self, unit: Unit, name: str, now: float, failure: str) -> None:
        if len([at for at in unit.counted if now - at <= self.within]) >= self.most:
            self._give_up(unit, name, failure)
            return
        unit.counted.append(now)
        unit.due = now + self.delay
        for each in unit.names:
            self.state[each] = "restarting"

    def _give_up(self, unit: Unit, name: str, failure: str) -> None:
        unit.due = None
        self.reported.append((name, failure))
        for each in unit.names:
            if each == name or self.state[each] == "restarting":
                self.state[each] = "failed"
            elif self.state[each] == "running":
                self.state[each] = "ended"

    def _make(self, unit: Unit, now: float) -> None:
        unit.due = None
        for name in unit.names:
            if self.faults[name]:
                if self.faults[name].pop(0) == "raises":
                    self._restart(unit, name, now, "RestartLimitError")
                else:
                    self._give_up(unit, name, "FactoryError")
                return
            self.state[name] = "running"
            self.restarts[name] += 1
