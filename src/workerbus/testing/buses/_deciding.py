"""Who decides what befalls a message, where that is not drawn: a run that `workerbus.testing.explore` looks into."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol


class Decider(Protocol):
    """Decides what befalls messages."""

    def fault(self, point: str, kinds: Sequence[str], words: Callable[[], str]) -> str | None:
        """Return what befalls a message; None for nothing.

        Args:
            point: Which message it is, in a name that stays the same when tasks run in another order.
            kinds: What may befall it.
            words: Returns what the message is called.
        """
        ...


_deciders: Final[list[Decider]] = []


@contextmanager
def decided_by(decider: Decider | None) -> Iterator[None]:
    """Have all that befalls messages within decided by somebody; None for as their buses draw it."""
    if decider is None:
        yield
        return
    _deciders.append(decider)
    try:
        yield
    finally:
        _deciders.remove(decider)


def current_decider() -> Decider | None:
    """Return who decides now; None where it is drawn."""
    return _deciders[-1] if _deciders else None
