"""What code of the user's has raised is sorted by one table (L3, L6, W7, J2)."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Self

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from workerbus._concurrency.failures import Failure, Kind, own_error, sort_failure


class Panic(BaseException):
    """What a native extension may raise."""


async def a_cancellation() -> BaseException:
    """Return one as the running backend raises it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except BaseException as exc:
            return exc
    raise AssertionError


def group(*exceptions: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("several", list(exceptions))


class OwnGroup(ExceptionGroup[Exception]):
    """One that cannot be split: its `derive` does not know how it is made."""

    def __new__(cls, exceptions: list[Exception]) -> Self:
        return super().__new__(cls, "its own", exceptions)

    def derive(self, excs: Any) -> Any:
        return type(self)(self.message, excs)  # type: ignore[arg-type,call-arg]  # which is the mistake


class OwnBaseGroup(BaseExceptionGroup[BaseException]):
    """The same, with anything in it."""

    def derive(self, excs: Any) -> Any:
        raise ValueError("derive")


def raised_in(code: Callable[[], object]) -> BaseException:
    try:
        code()
    except BaseException as exc:
        return exc
    raise AssertionError


def raises_generator_exit() -> None:
    raise GeneratorExit("raised")


def closed_while_it_waits() -> BaseException:
    """Return what the interpreter raises in a coroutine that is closed."""
    seen = list[BaseException]()

    class Suspended:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def suspends() -> None:
        try:
            await Suspended()
        except BaseException as exc:
            seen.append(exc)
            raise

    coroutine = suspends()
    coroutine.send(None)
    coroutine.close()
    return seen[0]


ERROR, OTHER_ERROR, EXIT, PANIC = ValueError("x"), KeyError("y"), KeyboardInterrupt(), Panic("z")
CLOSED, RAISED = closed_while_it_waits(), raised_in(raises_generator_exit)
OWN_GROUP = OwnGroup([ERROR, OTHER_ERROR])
Make = Callable[[BaseException], BaseException]

ALWAYS: list[tuple[str, Make, Kind, BaseException]] = [
    ("an error", lambda _: ERROR, Kind.ERROR, ERROR),
    ("an error in a group", lambda _: group(ERROR), Kind.ERROR, ERROR),
    ("an error in a group in a group", lambda _: group(group(ERROR)), Kind.ERROR, ERROR),
    ("an error beside a cancellation", lambda cancel: group(cancel, ERROR), Kind.ERROR, ERROR),
    ("an error beside groups of cancellations", lambda c: group(group(c, c), group(c, ERROR)), Kind.ERROR, ERROR),
    ("an exit", lambda _: EXIT, Kind.EXIT, EXIT),
    ("an exit beside an error", lambda _: group(ERROR, EXIT), Kind.EXIT, EXIT),
    ("two exits", lambda _: group(EXIT, SystemExit()), Kind.EXIT, EXIT),
    ("two exits in groups", lambda c: group(group(ERROR, c), group(group(EXIT), SystemExit())), Kind.EXIT, EXIT),
    ("an exit in a group that cannot be split", lambda c: OwnBaseGroup("own", [ERROR, c, EXIT]), Kind.EXIT, EXIT),
    ("an exit beside a cancellation", lambda cancel: group(cancel, EXIT), Kind.EXIT, EXIT),
    ("a panic", lambda _: PANIC, Kind.PANIC, PANIC),
    ("a panic in a group", lambda _: group(PANIC), Kind.PANIC, PANIC),
    ("a coroutine that is closed", lambda _: CLOSED, Kind.CLOSED, CLOSED),
    ("a coroutine that is closed, in a group", lambda _: group(CLOSED), Kind.CLOSED, CLOSED),
    ("what only looks like being closed", lambda _: RAISED, Kind.PANIC, RAISED),
    ("a group of the user's own", lambda _: OWN_GROUP, Kind.ERROR, OWN_GROUP),
    ("such a group beside a cancellation", lambda cancel: group(cancel, OWN_GROUP), Kind.ERROR, OWN_GROUP),
    ("a panic beside a cancellation", lambda cancel: group(cancel, PANIC), Kind.PANIC, PANIC),
]


async def sorted_in(exc: BaseException, *, cancelled: bool) -> Failure:
    failures: list[Failure] = []

    async def sort() -> None:
        failures.append(sort_failure(exc))

    with anyio.CancelScope() as scope:
        if cancelled:
            scope.cancel()
        await sort()
    return failures[0]


@pytest.mark.parametrize("cancelled", [False, True], ids=["not cancelled", "cancelled"])
@pytest.mark.parametrize(("make", "kind", "cause"), [row[1:] for row in ALWAYS], ids=[row[0] for row in ALWAYS])
async def test_what_is_raised_has_a_kind_and_a_cause(
    make: Make, kind: Kind, cause: BaseException, cancelled: bool
) -> None:
    raised = make(await a_cancellation())
    assert await sorted_in(raised, cancelled=cancelled) == Failure(kind, raised, cause)


async def test_several_errors_stay_a_group_without_the_cancellations() -> None:
    cancel = await a_cancellation()
    failure = await sorted_in(group(ERROR, cancel, group(cancel, OTHER_ERROR)), cancelled=True)
    assert failure.kind is Kind.ERROR
    assert isinstance(failure.cause, ExceptionGroup)
    assert failure.cause.subgroup(lambda each: each is cancel) is None
    assert failure.cause.subgroup(ValueError) is not None
    assert failure.cause.subgroup(KeyError) is not None


async def test_several_errors_stay_together_though_their_group_cannot_be_split() -> None:
    cancel = await a_cancellation()
    failure = await sorted_in(OwnBaseGroup("own", [ERROR, cancel, group(OTHER_ERROR, cancel)]), cancelled=True)
    assert failure.kind is Kind.ERROR
    assert isinstance(failure.cause, ExceptionGroup)
    assert (failure.cause.message, failure.cause.exceptions[0]) == ("own", ERROR)
    rest = failure.cause.exceptions[1]
    assert isinstance(rest, ExceptionGroup)
    assert rest.exceptions == (OTHER_ERROR,)


@pytest.mark.parametrize(
    "shape", [lambda c: c, lambda c: group(c), lambda c: group(c, group(c, c)), lambda c: group(group(c, c), c)]
)
async def test_a_cancellation_from_outside_is_let_through_alone(shape: Make) -> None:
    """L3: whatever groups it came in."""
    cancel = await a_cancellation()
    failure = await sorted_in(shape(cancel), cancelled=True)
    assert failure.kind is Kind.CANCELLED
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(type(cancel)):
            await failure.pass_on()
        await checkpoint()
    assert scope.cancelled_caught


async def test_a_cancellation_without_a_cancelled_scope_is_the_codes_own() -> None:
    cancel = await a_cancellation()
    failure = sort_failure(cancel)
    assert failure == Failure(Kind.NATIVE, cancel, cancel)
    await failure.pass_on()
    assert isinstance(failure.error, RuntimeError)
    assert failure.error.__cause__ is cancel


async def test_a_group_of_cancellations_without_a_cancelled_scope_is_an_error() -> None:
    cancel = await a_cancellation()
    failure = sort_failure(group(cancel, group(cancel)))
    assert failure.kind is Kind.ERROR
    assert str(failure.error) == "it let a cancellation of something else through"


async def test_what_is_not_the_codes_own_fault_is_raised() -> None:
    """R5: an exit out of a group, as itself."""
    with pytest.raises(KeyboardInterrupt):
        await own_error(group(ERROR, EXIT))
    with pytest.raises(GeneratorExit):
        await own_error(CLOSED)
    assert await own_error(PANIC) is PANIC
    assert await own_error(group(ERROR)) is ERROR


async def test_a_cancellation_beside_an_error_comes_again_after_the_report() -> None:
    """W7: the error is reported, and then what is cancelled goes."""
    cancel = await a_cancellation()
    with anyio.CancelScope() as scope:
        scope.cancel()
        failure = sort_failure(group(cancel, ERROR))
        await failure.pass_on()
        with pytest.raises(type(cancel)):
            await failure.let_cancel()
        await checkpoint()
    await failure.let_cancel()
    await sort_failure(ERROR).let_cancel()


def test_a_native_cancellation_is_known_as_one() -> None:
    """L3: on asyncio, somebody has cancelled this very task."""
    kinds: list[Kind] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError as exc:
            kinds.append(sort_failure(exc).kind)

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(main())
    assert kinds == [Kind.NATIVE]


async def test_an_exit_in_a_group_is_raised_although_the_scope_is_cancelled() -> None:
    """L6: it ends the program, and a cancellation only the scope."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(KeyboardInterrupt):
            await sort_failure(group(ERROR, EXIT)).pass_on()


def test_a_native_cancellation_in_a_group_gives_way_to_that_of_the_cancelled_scope() -> None:
    """L3: the scope would not take it for its own."""

    async def example() -> bool:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await sort_failure(group(asyncio.CancelledError())).pass_on()
        return scope.cancelled_caught

    assert clock.run(example, backend="asyncio") is True


async def test_an_error_alone_lets_no_cancellation_come_before_its_time() -> None:
    """J2: whoever reports it goes on to where it waits next."""
    went_on = False
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sort_failure(ERROR).let_cancel()
        went_on = True
    assert went_on


async def test_a_cancellation_that_is_an_error_says_which() -> None:
    """W7: with the cancellation as its cause."""
    cancellation = await a_cancellation()
    alone = sort_failure(cancellation).error
    assert (str(alone), alone.__cause__) == ("a cancellation of its own task", cancellation)
    several = group(cancellation, cancellation)
    of_others = sort_failure(several).error
    assert str(of_others) == "it let a cancellation of something else through"
    assert of_others.__cause__ is several


async def test_a_panic_beside_an_error_is_one_and_both_are_told() -> None:
    """J2, L6"""
    failure = sort_failure(group(ERROR, await a_cancellation(), PANIC))
    assert failure.kind is Kind.PANIC
    assert isinstance(failure.error, BaseExceptionGroup)
    assert failure.error.exceptions == (ERROR, PANIC)
