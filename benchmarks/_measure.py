"""The rounds: in each, every subject at every size, and all contenders one after the other.

Their order is drawn anew each time, from a fixed seed. A contender whose measurement has failed is not asked for it
again, and one that takes long gets fewer rounds; the tables say so in either case.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from attrs import define, field, frozen

from benchmarks._contenders import Contender
from benchmarks._processes import Child, FailedError, child_of, time_import
from benchmarks._results import Cell, Results
from benchmarks._subject import Subject
from benchmarks._subjects import SUBJECTS

Progress = Callable[[str], None]


@frozen
class Plan:
    """What is to be done.

    Args:
        contenders: Who is measured.
        subjects: What.
        rounds: How often.
        quick: Whether to take the small sizes and counts.
        limit: How many seconds one measurement may take, its setting up included.
        patience: After how many seconds for one contender, subject and size it is left at the rounds that it has had.
        seed: Of the order of the contenders.
        seconds: No further round begins that would probably not be over by then.
        renew: After how many rounds each contender gets a new process; 0 for never. A process has its own luck with
            where things lie in memory, which is a few percent.
    """

    contenders: Sequence[Contender]
    subjects: Sequence[Subject]
    rounds: int
    quick: bool = False
    limit: float = 180.0
    patience: float = 10.0
    seed: int = 1
    seconds: float = math.inf
    renew: int = 0


@define
class _Measuring:
    plan: Plan
    results: Results
    progress: Progress
    children: list[Child] = field(factory=list)
    spent: dict[Cell, float] = field(factory=dict)

    async def introduce(self, stack: AsyncExitStack) -> None:
        for contender in self.plan.contenders:
            self.progress(f"starting {contender.name}")
            child = await stack.enter_async_context(child_of(contender))
            try:
                await child.start()
            except FailedError as error:
                self.results.left_out[contender.name] = f"could not be started: {error}"
                continue
            said = child.introduction
            if said.missing is not None:
                who = contender.needs or contender.module
                self.results.left_out[contender.name] = f"{who} is not installed (no module {said.missing})"
                continue
            self.results.versions |= said.versions
            self.results.sources[contender.name] = said.source
            self.results.took_part.append(contender.name)
            self.children.append(child)

    async def renew(self) -> None:
        for child in self.children:
            await child.end()

    async def round(self, number: int, order: random.Random) -> None:
        for subject in self.plan.subjects:
            for size, count in (subject.quick if self.plan.quick else subject.full).items():
                children = list(self.children)
                order.shuffle(children)
                for child in children:
                    cell = Cell(subject.name, size, child.contender.name)
                    self.progress(f"round {number + 1}: {subject.name} {size:,}, {child.contender.name}")
                    await self.measure(child, subject, cell, number, count)

    async def measure(self, child: Child, subject: Subject, cell: Cell, number: int, count: int) -> None:
        if cell in self.results.failed or self.spent.get(cell, 0.0) > self.plan.patience:
            return
        request = {"subject": subject.name, "size": cell.size, "count": count}
        start = time.perf_counter()
        try:
            if subject.name == "importing" and child.contender.imports:
                values = await time_import(child.contender, self.plan.limit)
            elif subject.name not in child.introduction.has:
                return
            elif subject.fresh:
                async with child_of(child.contender) as fresh:
                    values = await fresh.ask(request, self.plan.limit)
            else:
                values = await child.ask(request, self.plan.limit)
        except FailedError as error:
            self.results.failed[cell] = str(error)
        else:
            self.results.add(cell, number, values)
        finally:
            self.spent[cell] = self.spent.get(cell, 0.0) + time.perf_counter() - start


async def measure(plan: Plan, results: Results, progress: Progress) -> None:
    """Measure everything, into ``results``, which are usable at any time."""
    measuring = _Measuring(plan, results, progress)
    async with AsyncExitStack() as stack:
        await measuring.introduce(stack)
        order = random.Random(plan.seed)  # noqa: S311 - an order, not a secret
        start = time.perf_counter()
        for number in range(plan.rounds):
            if number and (time.perf_counter() - start) * (1 + 1 / number) > plan.seconds:
                break
            if plan.renew and number and number % plan.renew == 0:
                await measuring.renew()
            await measuring.round(number, order)
            results.rounds = number + 1


def choose(names: Sequence[str], groups: Sequence[str] = ()) -> list[Subject]:
    """Return the subjects of these names, or of these groups, or all of them.

    Raises:
        LookupError: There is no such subject or group.
    """
    known = dict.fromkeys(each.group.lower() for each in SUBJECTS.values())
    for what, given, there in (("subject", names, SUBJECTS), ("group", groups, known)):
        for name in given:
            if name not in there:
                raise LookupError(f"there is no {what} {name!r}; there are {', '.join(there)}")
    if not names and not groups:
        return list(SUBJECTS.values())
    return [each for each in SUBJECTS.values() if each.name in names or each.group.lower() in groups]
