"""Tasks that wait for each other in a circle."""

from collections.abc import Mapping, Sequence


def circles_in(waits: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """Return the circles among waits; each task is in one circle at most.

    Args:
        waits: For each task, by number, the tasks all of which it waits for.

    Returns:
        Each circle as a list of tasks, each of which waits for the next one, and the last for the first. It begins with
        its lowest number.
    """
    # A depth-first search without recursion, since chains of waits can be long: `path` is the chain from the start to
    # where the search is, `ahead` what is still to be looked at for each task of it. A task that is met again on the
    # path closes a circle, which is taken off the path: the search goes on where it was before. What is done is in a
    # circle, or in none but with tasks that are.
    found: list[list[int]] = []
    done: set[int] = set()
    for start in waits:
        path, ahead = ([], []) if start in done else ([start], [iter(waits[start])])
        while path:
            task = next(ahead[-1], None)
            if task is None:
                ahead.pop()
                done.add(path.pop())
            elif task in path:
                begin = path.index(task)
                circle = path[begin:]
                first = circle.index(min(circle))
                found.append(circle[first:] + circle[:first])
                done.update(circle)
                del path[begin:], ahead[begin:]
            elif task not in done:
                path.append(task)
                ahead.append(iter(waits.get(task, ())))
    return found
