"""Runs in several processes, forked from this one, so that a scenario may be any function.

The orders of a round are dealt out in turn, and what is kept of the runs comes back in their order: it is the same
whichever process has made which. Each process is told the states that have become known since the last round.
"""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

from workerbus.testing.exploring._bounded import States
from workerbus.testing.exploring._coverage import Turn
from workerbus.testing.exploring._runs import Known, Order, OwnProcess, Ran, Runs, Scenario, sendable

SECONDS_TO_END: Final = 5.0
"""How long a process has to end when it is told so."""


def runs_in(processes: int, scenario: Scenario, known: Known, *, coverage: bool) -> Runs:
    """Return what runs orders.

    Args:
        processes: In how many processes.
        scenario: What is run.
        known: The states from which all has been run.
        coverage: Whether every state is to be noted.

    Raises:
        TypeError: ``processes`` is not a whole number.
        ValueError: It is less than 1, or more than 1 where processes cannot be forked.
    """
    if isinstance(processes, bool) or not isinstance(processes, int):
        raise TypeError(f"processes must be a whole number, not {processes!r}")
    if processes < 1:
        raise ValueError(f"processes must be at least 1, not {processes!r}")
    if processes == 1:
        return OwnProcess(scenario, known, {} if coverage else None)
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ValueError(
            "several processes are forked from this one, which this system cannot do: leave processes at 1"
        )
    return Processes(processes, scenario, known, coverage=coverage)


class Processes:
    """Runs orders in several processes.

    Args:
        count: How many.
        scenario: What is run.
        known: The states from which all has been run.
        coverage: Whether every state is to be noted.
    """

    def __init__(self, count: int, scenario: Scenario, known: Known, *, coverage: bool) -> None:
        self._known = known
        self._told = 0
        context = multiprocessing.get_context("fork")
        self._workers: list[tuple[Any, Connection]] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            others = [connection for _, connection in self._workers]
            process = context.Process(target=_work, args=(scenario, coverage, theirs, [ours, *others]), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours))

    def run(self, orders: Sequence[Order]) -> Iterator[Ran]:
        """Yield what is kept of each; who asks may stop in between."""
        log = self._known.log if isinstance(self._known, States) else []
        news, self._told = log[self._told :], len(log)
        count = len(self._workers)
        for number, (_, connection) in enumerate(self._workers):
            connection.send((news, orders[number::count]))
        try:
            answers = [connection.recv() for _, connection in self._workers]
        except EOFError:
            raise RuntimeError(
                "a process that ran schedules has ended by itself; with processes=1 you see why"
            ) from None
        for number in range(len(orders)):
            yield answers[number % count][number // count]

    def close(self) -> None:
        """End the processes."""
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            process.join(SECONDS_TO_END)
            if process.is_alive():
                process.kill()
                process.join()


def _work(scenario: Scenario, coverage: bool, connection: Connection, others: Sequence[Connection]) -> None:
    # Ends of other pipes were inherited: as long as they are open here, nobody there would see that ours is closed.
    for other in others:
        other.close()
    known = States()
    led_to: dict[Turn, bytes] | None = {} if coverage else None
    with suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        while True:
            news, orders = connection.recv()
            for digest, used in news:
                known.add(digest, used)
            connection.send([sendable(_try(scenario, order, known, led_to)) for order in orders])


def _try(scenario: Scenario, order: Order, known: States, led_to: dict[Turn, bytes] | None) -> Ran:
    try:
        return scenario.try_order(order, known, led_to)
    except (KeyboardInterrupt, SystemExit) as exc:  # out of the scenario: it is raised where the order is run again
        return Ran((), (), (), (), "", {}, RuntimeError(f"interrupted: {exc!r}"))
