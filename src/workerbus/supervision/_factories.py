"""What `supervise` is given, checked: its arguments, and what a factory returns (N8, S1)."""

import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from workerbus._backoff import Backoff
from workerbus._slot import HasCore, core_of
from workerbus._values import check_number
from workerbus.errors import FactoryError

Factory = Callable[[], Any]
_ADVICE: Final = "make a new one in each call, as lambda: Fetcher('a') does"


def made(factory: Factory, name: str | None = None) -> Any:
    """Have a factory make a worker, with a certain name if there was one before.

    Raises:
        FactoryError: It has returned something else, or a worker that cannot be the next one.
    """
    worker = factory()
    if isinstance(worker, Coroutine):
        worker.close()
        text = f"a factory is a plain function that returns a new worker, not an async one, as {factory!r}"
        raise FactoryError(name, text)
    if not isinstance(worker, HasCore) or not hasattr(core_of(worker), "lifecycle"):
        raise FactoryError(name, f"a factory returns a worker, not {worker!r}: {_ADVICE}")
    state = core_of(worker).state
    if name is not None and state.name != name:
        raise FactoryError(name, f"the factory of worker {name!r} has made one called {state.name!r}: its name stays")
    if not state.is_unstarted:
        text = (
            f"the factory of worker {state.name!r} has returned one that was used before: a worker object runs once, "
            f"so {_ADVICE}"
        )
        raise FactoryError(name, text)
    return worker


def check_arguments(
    factories: Sequence[Callable[..., Any]],
    strategy: str,
    restart: str,
    max_restarts: int,
    within: float,
    backoff: object,
) -> None:
    """Raise `TypeError` or `ValueError` where `supervise` was given something else than it takes."""
    if not factories:
        raise TypeError("supervise() takes at least one factory: a function that returns a new worker")
    for factory in factories:
        if not callable(factory):
            raise TypeError(f"a factory is a function that returns a new worker, not {factory!r}")
    if strategy not in ("one_for_one", "all_for_one"):
        raise ValueError(f"strategy is 'one_for_one' or 'all_for_one', not {strategy!r}")
    if restart not in ("never", "on_failure", "always"):
        raise ValueError(f"restart is 'never', 'on_failure' or 'always', not {restart!r}")
    if isinstance(max_restarts, bool) or not isinstance(max_restarts, int):
        raise TypeError(f"max_restarts is a whole number, not {max_restarts!r}")
    if max_restarts < 0:
        raise ValueError(f"max_restarts is at least 0, not {max_restarts!r}")
    check_number("within", within)
    if not 0 < within < math.inf:
        raise ValueError(f"within is a number of seconds, more than 0 and finite, not {within!r}")
    if backoff is not None and not isinstance(backoff, Backoff):
        raise TypeError(f"backoff is a Backoff, not {backoff!r}")
