"""Scenarios that are explored to the end of a bound."""

from collections.abc import Awaitable, Callable

from workerbus.testing import exhaustive, explore

Scenario = Callable[[], Awaitable[None]]


def name_of(scenario: Scenario) -> str:
    """The name of a scenario, as the id of a test; empty if it has none."""
    return getattr(scenario, "__name__", "")


def holds(scenario: Scenario, backend: str, switches: int) -> bool:
    """Whether all runs with at most so many switches were made; one that fails raises its error."""
    return explore(scenario, strategy=exhaustive(switches), budget=5_000, backend=backend).exhausted


def holds_with_a_fault(scenario: Scenario, backend: str, *, budget: int = 5_000) -> bool:
    """The same for all runs with at most one switch and one message that meets a fault."""
    strategy = exhaustive(1, reduction=False)  # where most is run once, states take longer than they save
    return explore(scenario, strategy=strategy, faults=1, budget=budget, backend=backend).exhausted
