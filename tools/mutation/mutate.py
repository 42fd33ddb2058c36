"""Mutation testing: mutmut, and beside its own kinds of mutants those that decide most in this library.

    python tools/mutation/mutate.py run                            all of it, or what has changed since the last time
    python tools/mutation/mutate.py run "workerbus.jobs._client.*"
    python tools/mutation/mutate.py results                        what has survived; `show NAME` shows one

mutmut leaves alone whether a condition holds at all, whether a statement is there, and what a property returns. It also
leaves alone what takes several steps to be seen: a loop that goes round once, or sees the first of several; a counter
that does not count; clean-up that an exception passes by; a condition that is asked before a wait instead of after it.
Of a text, one change is as good as three. With ``MUTATION_SECONDS=5`` in the environment, a mutant gets no more than
about that much testing, by the cheap tests first: good for a first look, since most mutants die at once.
"""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

import libcst as cst
import mutmut.__main__ as command
from libcst import matchers as m
from mutmut.core import MutmutCallStack
from mutmut.mutation import file_mutation, mutators
from mutmut.state import state

SECONDS: Final = float(os.environ.get("MUTATION_SECONDS", "inf"))
_PROPERTY = m.Decorator(decorator=m.Name("property"))

# --- kinds of mutants


def without_statement(node: cst.Expr) -> Iterable[cst.Pass]:
    """Leave out a call."""
    if not isinstance(node.value, cst.BaseString | cst.Ellipsis | cst.Yield):
        yield cst.Pass()


def left_out(_node: cst.CSTNode) -> Iterable[cst.Pass]:
    """Leave out a ``del``, an increment or a ``raise``."""
    yield cst.Pass()


def decided(node: cst.If) -> Iterable[cst.If]:
    """Let a condition always hold, and never."""
    for value in ("True", "False"):
        if not m.matches(node.test, m.Name(value)):
            yield node.with_changes(test=cst.Name(value))


def never(node: cst.While) -> Iterable[cst.While]:
    """Skip a loop."""
    if not m.matches(node.test, m.Name("True")):
        yield node.with_changes(test=cst.Name("False"))


def without_result(node: cst.Return) -> Iterable[cst.Return]:
    """Return None."""
    if node.value is not None and not m.matches(node.value, m.Name("None")):
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=cst.SimpleWhitespace(" "))


def once(node: cst.While) -> Iterable[cst.For]:
    """Go round a loop once."""
    held = cst.Call(cst.Name("bool"), [cst.Arg(node.test)])
    round_once = cst.Call(cst.Name("range"), [cst.Arg(held)])
    yield cst.For(target=cst.Name("_"), iter=round_once, body=node.body, orelse=node.orelse)


def first_alone(node: cst.For) -> Iterable[cst.For]:
    """Let a loop see the first of several."""
    if node.asynchronous is None:
        several = cst.Call(cst.Name("list"), [cst.Arg(node.iter)])
        yield node.with_changes(iter=cst.Subscript(several, [cst.SubscriptElement(cst.Slice(None, cst.Integer("1")))]))


def not_counted(node: cst.AugAssign) -> Iterable[cst.Assign]:
    """Count to one, and back to zero."""
    if m.matches(node, m.AugAssign(operator=m.AddAssign() | m.SubtractAssign(), value=m.Integer("1"))):
        value = cst.Integer("1" if isinstance(node.operator, cst.AddAssign) else "0")
        yield cst.Assign([cst.AssignTarget(node.target)], value)


def without_finally(node: cst.Try) -> Iterable[cst.If]:
    """Do what comes in the end only if nothing is raised."""
    if node.finalbody is not None and not node.handlers and node.orelse is None:
        body = cst.IndentedBlock([*node.body.body, *node.finalbody.body.body])
        yield cst.If(cst.Name("True"), body)


def asked_before(node: cst.IndentedBlock) -> Iterable[cst.IndentedBlock]:
    """Ask a condition before the wait that it comes after."""
    for number, (waits, asks) in enumerate(pairwise(node.body)):
        if (
            isinstance(asks, cst.If)
            and m.findall(waits, m.Await())
            and not m.findall(asks.test, m.Await() | m.NamedExpr())
        ):
            asked = {name.value for name in m.findall(asks.test, m.Name()) if isinstance(name, cst.Name)}
            if not asked & _bound_in(waits):
                before = cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(cst.Name("_before"))], asks.test)])
                after = asks.with_changes(test=cst.Name("_before"))
                yield node.with_changes(
                    body=[*node.body[:number], before, waits, after, *node.body[number + 2 :]],
                )


def _bound_in(statement: cst.CSTNode) -> set[str]:
    names: set[str] = set()
    for each in m.findall(statement, m.AssignTarget() | m.AnnAssign() | m.AsName() | m.For()):
        target = each.name if isinstance(each, cst.AsName) else each.target  # type: ignore[attr-defined]
        names |= {name.value for name in m.findall(target, m.Name()) if isinstance(name, cst.Name)}
    return names


def another_text(node: cst.BaseString) -> Iterable[cst.BaseString]:
    """Change a text in the first way that mutmut knows."""
    yield from list(mutators.operator_string(node))[:1]


# --- properties, which are put together from mutants that are plain methods

_arrange = file_mutation.function_trampoline_arrangement
_skip = file_mutation.MutationVisitor._skip_node_and_children


def _skips(visitor: file_mutation.MutationVisitor, node: cst.CSTNode) -> bool:
    if isinstance(node, cst.FunctionDef) and len(node.decorators) == 1 and m.matches(node.decorators[0], _PROPERTY):
        return False
    return _skip(visitor, node)


def _arranged(function: cst.FunctionDef, mutants: Iterable[Any], class_name: str | None) -> Any:
    if not (function.decorators and m.matches(function.decorators[0], _PROPERTY)):
        return _arrange(function, mutants, class_name)
    plain = function.with_changes(decorators=[])
    declared, [trampoline, *copies], assigned, names = _arrange(plain, mutants, class_name)
    assert isinstance(trampoline, cst.FunctionDef)
    whole = trampoline.with_changes(decorators=[*function.decorators, *trampoline.decorators])
    return declared, [whole, *copies], assigned, names


# --- which tests

_collect = command.collect_or_load_stats


def _collected(*args: Any, **kwargs: Any) -> None:
    _collect(*args, **kwargs)
    by_function = state().tests_by_mangled_function_name
    for name, tests in by_function.items():
        by_function[name] = some(tests)


def some(tests: Iterable[str]) -> set[str]:
    """Choose tests that take `SECONDS`: the cheap ones, and few of those that differ in their parameters alone."""
    duration = state().duration_by_test
    cases: defaultdict[str, set[str]] = defaultdict(set)
    chosen: set[str] = set()
    left = SECONDS
    for test in sorted(tests, key=duration.__getitem__):
        case = re.sub(r"\b(asyncio|trio)\b", "", test)
        alike = cases[case.partition("[")[0]]
        if duration[test] > 0.002 and (case in alike or len(alike) >= 4):
            continue
        left -= duration[test]
        if left < 0:
            break
        alike.add(case)
        chosen.add(test)
    return chosen


def main() -> None:
    """Run mutmut, extended."""
    operators: list[Any] = mutators.mutation_operators  # type: ignore[assignment]  # declared as a Sequence, is a list
    operators[:] = [(kind, another_text if use is mutators.operator_string else use) for kind, use in operators]
    operators += [
        (cst.Expr, without_statement),
        (cst.Del | cst.AugAssign | cst.Raise, left_out),
        (cst.If, decided),
        (cst.While, never),
        (cst.Return, without_result),
        (cst.While, once),
        (cst.For, first_alone),
        (cst.AugAssign, not_counted),
        (cst.Try, without_finally),
        (cst.IndentedBlock, asked_before),
    ]
    visitor: Any = file_mutation.MutationVisitor  # there is no hook for what it skips
    visitor._skip_node_and_children = _skips
    file_mutation.function_trampoline_arrangement = _arranged
    # It would set a context variable, which the pool of tasks takes for one of a handler's (W8).
    stack: Any = MutmutCallStack
    stack.get, stack.set, stack.reset = (lambda: (None, 0)), (lambda _: None), (lambda _: None)
    if math.isfinite(SECONDS):
        command.collect_or_load_stats = _collected
    command.cli()


if __name__ == "__main__":
    main()
