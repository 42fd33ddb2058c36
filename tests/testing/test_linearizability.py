"""`linearizable`: histories of jobs and other calls, judged by a sequential model."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from workerbus import BaseWorker, BusJobRequestMessage, JobError, JobFailure, JobStatus, WorkerPool, WorkerRunner, job
from workerbus.testing import (
    Behaviour,
    History,
    NotLinearizableError,
    Operation,
    ScriptedWorker,
    exhaustive,
    explore,
    linearizable,
    pct,
    run,
)
from workerbus.testing.invariants import _ordering
from workerbus.testing.invariants._linearizing import _tell
from workerbus.testing.invariants._ordering import can_be_ordered, fits, orders, smallest_part, step

DONE = JobStatus.COMPLETED


class Register:
    """A value that is written and read."""

    def __init__(self) -> None:
        self.value = 0

    def write(self, value: int) -> None:
        self.value = value

    def read(self, payload: None) -> int:
        return self.value

    def take(self, payload: None) -> int:
        if not self.value:
            raise JobFailure("it is empty", at=0)
        value, self.value = self.value, 0
        return value


def write(value: int, called: int, returned: int | None) -> Operation:
    return Operation("write", value, "w", called, None if returned is None else DONE, None, returned)


def read(value: int, called: int, returned: int) -> Operation:
    return Operation("read", None, "r", called, DONE, value, returned)


# --- what can be ordered


@pytest.mark.parametrize(
    ("operations", "ordered"),
    [
        ([], True),
        ([write(1, 0, 1), read(1, 2, 3)], True),
        ([write(1, 0, 1), read(0, 2, 3)], False),
        ([write(1, 0, 3), read(0, 1, 2)], True),
        ([write(1, 0, 5), read(1, 1, 2), read(0, 3, 4)], False),
        ([write(1, 0, 5), read(0, 1, 2), read(1, 3, 4)], True),
        ([write(1, 0, 3), write(2, 1, 2), read(1, 4, 5)], True),
        ([write(1, 0, 3), write(2, 1, 2), read(2, 4, 5)], True),
        ([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)], False),
    ],
)
def test_what_was_answered_first_comes_first_and_of_the_others_any(operations: list[Operation], ordered: bool) -> None:
    """T4."""
    assert can_be_ordered(operations, Register) is ordered


def test_what_has_no_answer_comes_at_any_time_after_its_call_or_never() -> None:
    """T4."""
    assert can_be_ordered([write(1, 0, None), read(0, 1, 2)], Register)
    assert can_be_ordered([write(1, 0, None), read(1, 1, 2)], Register)
    assert can_be_ordered([write(1, 0, None), read(0, 1, 2), read(1, 3, 4)], Register)
    assert not can_be_ordered([write(1, 0, None), read(1, 1, 2), read(0, 3, 4)], Register)
    assert not can_be_ordered([read(1, 0, 1), write(1, 2, None)], Register)
    lost = Operation("write", 1, "w", 0, JobStatus.ERROR, {"error": "it is gone"}, 1)
    assert can_be_ordered([lost, read(0, 2, 3), read(1, 4, 5)], Register)


def test_a_failure_is_an_answer() -> None:
    """T4."""
    empty = {"error": "it is empty", "type": "JobFailure", "at": 0}
    assert can_be_ordered([Operation("take", None, "", 0, JobStatus.FAILED, empty, 1)], Register)
    assert not can_be_ordered([Operation("take", None, "", 0, DONE, 1, 1)], Register)
    taken = Operation("take", None, "", 2, JobStatus.FAILED, empty, 3)
    assert not can_be_ordered([write(1, 0, 1), taken], Register)


def brute(operations: Sequence[Operation], model: Callable[[], Any]) -> bool:
    """The same by looking at all orders of all choices of those without an answer."""
    known = [each for each in operations if each.status is DONE]
    unknown = [each for each in operations if each.status is not DONE]
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *chosen]):
                in_time = all(
                    later.returned is None or later.returned > sooner.called
                    for index, sooner in enumerate(order)
                    for later in order[index + 1 :]
                )
                state, right = model(), in_time
                for each in order if in_time else ():
                    state, reply = step(state, each)
                    right = right and fits(each, reply)
                if right:
                    return True
    return False


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    count = draw(st.integers(1, 5))
    moments = draw(st.permutations(range(2 * count)))
    made = []
    for index in range(count):
        called, returned = sorted(moments[2 * index : 2 * index + 2])
        value = draw(st.integers(0, 2))
        kind = draw(st.sampled_from(["write", "read", "lost"]))
        end = None if kind == "lost" else returned
        made.append(read(value, called, returned) if kind == "read" else write(value, called, end))
    return sorted(made, key=lambda each: each.called)


@given(histories())
def test_it_says_the_same_as_looking_at_all_orders(operations: list[Operation]) -> None:
    """T4: and the smallest part is such, for which each of its answers is needed."""
    ordered = can_be_ordered(operations, Register)
    assert ordered is brute(operations, Register)
    if not ordered:
        fewest, others = smallest_part(operations, Register)
        assert fewest
        together = [*fewest, *others]
        assert not brute(together, Register)
        for each in fewest:
            without = [_ordering.forget(other) if other is each else other for other in together]
            assert brute(without, Register)


def test_the_orders_that_are_told_are_those_that_time_allows() -> None:
    """T4."""
    assert list(orders([write(1, 0, 1), write(2, 2, 3)])) == [(0, 1)]
    assert list(orders([write(1, 0, 2), write(2, 1, 3)])) == [(0, 1), (1, 0)]


# --- jobs


class AccountWorker(BaseWorker):
    balance = 0

    @job(name="deposit")
    async def deposit(self, message: BusJobRequestMessage) -> dict[str, int]:
        before = self.balance
        await checkpoint()
        self.balance = before + message.payload["amount"]
        return {"balance": self.balance}

    @job(name="deposit-in-turn", sequential=True)
    async def deposit_in_turn(self, message: BusJobRequestMessage) -> dict[str, int]:
        return await self.deposit(message)

    @job(name="withdraw")
    async def withdraw(self, message: BusJobRequestMessage) -> dict[str, int]:
        if self.balance < message.payload["amount"]:
            raise JobFailure("not enough", balance=self.balance)
        self.balance -= message.payload["amount"]
        return {"balance": self.balance}

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        raise ValueError("nobody knows what for")


class Account:
    def __init__(self) -> None:
        self.balance = 0

    def deposit(self, payload: dict[str, int]) -> dict[str, int]:
        self.balance += payload["amount"]
        return {"balance": self.balance}

    deposit_in_turn = deposit

    def withdraw(self, payload: dict[str, int]) -> dict[str, int]:
        if self.balance < payload["amount"]:
            raise JobFailure("not enough", balance=self.balance)
        self.balance -= payload["amount"]
        return {"balance": self.balance}

    def on_job_request(self, payload: dict[str, int]) -> None:
        raise AssertionError("it has no answer that counts")


async def two_deposits(name: str) -> None:
    async with WorkerRunner(name="bank") as runner:
        history = History(runner.bus, worker="account")
        await runner.add_workers(AccountWorker("account"))

        async def ask(amount: int) -> None:
            await runner.job("account", name=name, payload={"amount": amount})

        async with anyio.create_task_group() as group:
            group.start_soon(ask, 1)
            group.start_soon(ask, 2)
    assert len(history.operations) == 2
    linearizable(history, Account)


def test_jobs_that_overlap_are_found_out(backend: str) -> None:
    """T4: by the answers alone."""
    report = explore(lambda: two_deposits("deposit"), backend=backend, raises=False)
    assert report.failure is not None
    error = report.failure.error
    assert isinstance(error, NotLinearizableError)
    assert str(error).splitlines() == [
        "no order of 2 operations gives the answers of Account: not even these 2 can be ordered",
        "  1. bank: deposit({'amount': 1}) → {'balance': 1}   ├───┤",
        "  2. bank: deposit({'amount': 2}) → {'balance': 2}     ├───┤",
        "",
        "  1 then 2: the answer to 2 would be {'balance': 3}",
        "  2 then 1: the answer to 1 would be {'balance': 3}",
    ]
    assert [each.payload["amount"] for each in error.operations] == [1, 2]
    assert error.others == ()


def test_jobs_in_turn_are_not(backend: str) -> None:
    """T4."""
    explore(lambda: two_deposits("deposit-in-turn"), strategy=pct(3), budget=8, backend=backend)


async def test_each_job_is_noted_with_its_answer() -> None:
    """T4: those of other workers are not; a failure is an answer, and an error is none that counts."""
    async with WorkerRunner(name="bank") as runner:
        history, all_of_it = History(runner.bus, worker="account"), History(runner.bus)
        await runner.add_workers(AccountWorker("account"), AccountWorker("other"))
        await runner.job("account", name="deposit", payload={"amount": 5})
        await runner.job("other", name="deposit", payload={"amount": 7})
        with pytest.raises(JobError):
            await runner.job("account", name="withdraw", payload={"amount": 50})
        with pytest.raises(JobError):
            await runner.job("account")
    deposit, withdraw, unnamed = history.operations
    assert deposit == Operation("deposit", {"amount": 5}, "bank", 0, DONE, {"balance": 5}, 1)
    assert withdraw.status is JobStatus.FAILED
    assert withdraw.answer == {"error": "not enough", "type": "JobFailure", "balance": 5}
    assert (unnamed.name, unnamed.status) == (None, JobStatus.ERROR)
    assert len(all_of_it.operations) == 4
    linearizable(history, Account)


async def test_a_job_that_has_not_been_answered_is_pending() -> None:
    """T4."""

    class Slow(BaseWorker):
        @job(name="work")
        async def work(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep(60)

    async with WorkerRunner() as runner:
        history = History(runner.bus)
        await runner.add_workers(Slow("slow"))
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: runner.job("slow", name="work"))
            await anyio.sleep(1)
            (pending,) = history.operations
            group.cancel_scope.cancel()
    assert (pending.status, pending.returned) == (None, None)
    assert history.operations[0].status is JobStatus.CANCELLED


@pytest.mark.parametrize("worker", [None, "bank", "bank@berlin"])
async def test_a_job_of_a_pool_that_shares_its_name_is_noted_with_its_answer(worker: str | None) -> None:
    """T4, S2: whichever of its names is given."""
    async with WorkerRunner(name="asker") as runner:
        history = History(runner.bus, worker=worker)
        await runner.add_workers(WorkerPool("bank", AccountWorker, size=1, shared="berlin"), AccountWorker("other"))
        await runner.registry.wait_for("bank@berlin")
        await runner.job("bank", name="deposit", payload={"amount": 5})
    (deposit,) = history.operations
    assert deposit == Operation("deposit", {"amount": 5}, "asker", 0, DONE, {"balance": 5}, 1)


async def test_a_job_that_ends_with_its_stream_is_noted_with_its_answer() -> None:
    """T4, J14"""
    async with WorkerRunner(name="asker") as runner:
        history = History(runner.bus)
        await runner.add_workers(ScriptedWorker("teller", Behaviour(chunks=[{"n": 1}], response={"balance": 5})))
        await runner.job("teller", name="tell")
    (told,) = history.operations
    assert told == Operation("tell", {}, "asker", 0, DONE, {"balance": 5}, 1)


# --- calls by hand


async def cached_reads(refreshes: bool) -> None:
    stored, cached = 0, 0
    history = History()

    async def put(value: int) -> None:
        nonlocal stored, cached
        with history.call("write", value, by="writer"):
            stored = value
            if refreshes:
                cached = value
            await checkpoint()

    async def get() -> None:
        for _ in range(2):
            with history.call("read", by="reader") as call:
                await checkpoint()
                call.answer = cached

    async with anyio.create_task_group() as group:
        group.start_soon(put, 1)
        group.start_soon(get)
    linearizable(history, Register)


def test_a_program_without_jobs_notes_its_calls(backend: str) -> None:
    """T4."""
    assert explore(lambda: cached_reads(True), strategy=exhaustive(2), budget=5_000, backend=backend).exhausted
    with pytest.raises(NotLinearizableError) as caught:
        explore(lambda: cached_reads(False), backend=backend)
    assert "writer: write(1) → None" in str(caught.value)
    assert "reader: read() → 0" in str(caught.value)


def test_a_call_that_raises_has_no_answer_unless_it_is_a_failure() -> None:
    """T4."""
    history = History()
    with pytest.raises(ValueError, match="lost"), history.call("write", 1):
        raise ValueError("lost")
    with pytest.raises(JobFailure), history.call("take"):
        raise JobFailure("it is empty", at=0)
    lost, failed = history.operations
    assert lost.status is None
    assert failed.status is JobStatus.FAILED
    linearizable(history, Register)


def test_several_things_are_judged_each_alone() -> None:
    """T4."""
    history = History()
    for key in "cba":
        with history.call("write", 1, by=key):
            pass
        with history.call("read", by=key) as call:
            call.answer = 1
    linearizable(history, Register, by=lambda operation: operation.by)
    with history.call("read", by="a") as call:
        call.answer = 0
    with pytest.raises(NotLinearizableError) as caught:
        linearizable(history, Register, by=lambda operation: operation.by)
    assert {each.by for each in caught.value.operations} == {"a"}


# --- what is told


def test_the_smallest_part_is_told_and_what_else_there_was() -> None:
    """T4."""
    history = History()
    for value in range(1, 10):
        with history.call("write", value, by="w"):
            pass
    with history.call("read", by="r") as call:
        call.answer = 8
    for value in range(5):
        with history.call("write", value, by="later"):
            pass
    with pytest.raises(NotLinearizableError) as caught:
        linearizable(history, Register)
    told = str(caught.value)
    assert "no order of 15 operations gives the answers of Register" in told
    assert {each.by for each in caught.value.operations} == {"w", "r"}
    assert len(caught.value.operations) == 3  # the write of 8, that of 9, the read
    assert "later" not in told
    assert "… whatever was done, and when, of: write(1); write(2); write(3); write(4); write(5); write(6); …" in told


def test_of_many_orders_the_first_ones_are_told() -> None:
    """T4: and of an order that only fails because of the others, that."""
    told = _tell([*[write(value, value, 10 + value) for value in range(4)], read(9, 20, 21)], [], Register, 5)
    assert told[7] == "  1 then 2 then 3 then 4 then 5: the answer to 5 would be 3"
    assert told[-1] == "  … and so on, in each order"
    assert len(told) == 14
    assert _tell([write(1, 0, 1)], [read(1, 2, 3)], Register, 2)[3:] == [
        "  1: only without the others",
        "  … whatever was done, and when, of: read()",
    ]


# --- mistakes


def test_a_model_has_a_method_for_each_job_and_holds_plain_data() -> None:
    """T4."""
    history = History()
    with history.call("clear"):
        pass
    with pytest.raises(TypeError, match="the model Register has no method 'clear'"):
        linearizable(history, Register)

    class Odd:
        def __init__(self) -> None:
            self.function = lambda: None

        def clear(self, payload: None) -> None:
            self.cleared = True

    with pytest.raises(TypeError, match="what the model Odd holds has to be plain data"):
        linearizable(history, Odd)


def test_too_many_orders_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """T4."""
    monkeypatch.setattr(_ordering, "MOST_STATES", 50)
    operations = [write(value, value, 100 + value) for value in range(20)]
    with pytest.raises(ValueError, match="21 operations have too many orders to look at"):
        can_be_ordered([*operations, read(99, 200, 201)], Register)


def test_of_two_ways_to_the_same_state_one_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """T4."""
    steps = 0

    def counted(model: Any, operation: Operation) -> Any:
        nonlocal steps
        steps += 1
        return step(model, operation)

    monkeypatch.setattr(_ordering, "step", counted)
    assert not can_be_ordered([*[write(1, number, 10 + number) for number in range(6)], read(9, 20, 21)], Register)
    assert steps < 6 * 2**6  # and not as many as there are orders


def test_a_long_history_one_after_the_other_is_quick() -> None:
    """T4."""

    async def scenario() -> None:
        history = History()
        for value in range(300):
            with history.call("write", value):
                await checkpoint()
        linearizable(history, Register)

    run(scenario)
