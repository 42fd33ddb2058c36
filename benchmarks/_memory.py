"""What is allocated, by Python's own account."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def allocating() -> Iterator[Callable[[], int]]:
    """Keep account in a ``with`` block; what it yields returns how many bytes more there are than at its beginning."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    def more() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    try:
        yield more
    finally:
        tracemalloc.stop()
