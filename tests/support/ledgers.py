"""Who has received which of the numbered messages: were any lost or doubled, and did they keep their order?"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any


class Ledger:
    """What one destination has received, per sender.

    The senders number their messages from 1, for each destination. A sender that lives again is another one, and so is
    a destination.
    """

    def __init__(self) -> None:
        self.received: defaultdict[str, list[int]] = defaultdict(list)

    def note(self, sender: str, number: int) -> None:
        self.received[sender].append(number)

    def report(self) -> dict[str, Any]:
        """What there is to say of each sender, as JSON."""
        return {sender: account(numbers) for sender, numbers in self.received.items()}


def account(numbers: Iterable[int]) -> dict[str, Any]:
    """Check the numbers that have come from one sender, in their order.

    Returns:
        ``last``, the highest; ``lost``, those below it that are missing; ``doubled``, those that came more than once;
        ``overtaken``, those that came after a higher one. A complete account has only ``last``.
    """
    counts, highest = Counter[int](), 0
    overtaken: list[int] = []
    for number in numbers:
        if number < highest and number not in counts:
            overtaken.append(number)
        highest = max(highest, number)
        counts[number] += 1
    found = {
        "lost": [number for number in range(1, highest + 1) if number not in counts],
        "doubled": [number for number, count in counts.items() if count > 1],
        "overtaken": overtaken,
    }
    return {"last": highest, **{name: those for name, those in found.items() if those}}


def complete(report: Mapping[str, Any], sender: str, last: int) -> bool:
    """Whether all of a sender's messages have come, each once and in order."""
    return report.get(sender) == {"last": last}
