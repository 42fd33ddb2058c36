"""Tasks that wait for each other in a circle."""

from collections.abc import Mapping, Sequence


def circles_in(waits: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """Return circles among waits; each task is in one at most.

    Args:
        waits: Task to the tasks all of which it waits for.

    Returns:
        Each circle from its first task on; the last one waits for the first.
    """
    found: list[list[int]] = []
    done: set[int] = set()
    for start in waits:
        path, ahead = [start], [iter(waits[start])]
        while ahead and start not in done:
            task = next(ahead[-1], None)
            if task is None:
                ahead.pop()
                done.add(path.pop())
            elif task in path:
                circle = path[path.index(task) :]
                first = circle.index(min(circle))
                found.append(circle[first:] + circle[:first])
                done.update(path)
            elif task not in done:
                path.append(task)
                ahead.append(iter(waits.get(task, ())))
    return found
