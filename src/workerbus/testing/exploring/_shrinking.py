"""Delta debugging: the fewest of some items with which something still fails."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrink(items: Sequence[T], fails: Callable[[Sequence[T]], Sequence[T] | None], most: int) -> tuple[T, ...]:
    """Leave out as many items as possible.

    Args:
        items: Items with which it fails.
        fails: Tries other items; returns those among them that took part if it failed, or None if it did not.
        most: How often to try.

    Returns:
        Items with which it fails. If ``most`` was enough, it fails with none of them left out.
    """
    left = tuple(items)
    size = len(left)
    tries = 0
    while left and size:
        position = 0
        shrunk = False
        while position < len(left) and tries < most:
            tries += 1
            took_part = fails(left[:position] + left[position + size :])
            if took_part is None:
                position += size
            elif len(took_part) < len(left):
                left, shrunk = tuple(took_part), True
            else:
                position += size
        if tries >= most:
            break
        size = min(size, len(left)) // 2 if size > 1 or not shrunk else 1
    return left
