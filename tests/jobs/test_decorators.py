"""J13, N6-N8: `@job` and `@worker_ready`: what they refuse, and which methods they find."""

from typing import Any

import anyio
import pytest

from support.requesters import outcome_of
from support.workers import Helper, running
from workerbus import BaseWorker, BusJobRequestMessage, HandlerTypeError, JobStatus, WorkerReadyData, job, worker_ready


def sync_method(self: Any, message: Any) -> None: ...


async def without_a_message(self: Any) -> None: ...


async def with_too_much(self: Any, message: Any, more: Any) -> None: ...


async def with_a_keyword(self: Any, message: Any, *, more: Any) -> None: ...


@pytest.mark.parametrize("method", [sync_method, without_a_message, with_too_much, with_a_keyword])
def test_a_method_that_cannot_be_called_with_a_request_is_refused(method: Any) -> None:
    """J2: where it is written, and not at the first job."""
    with pytest.raises(TypeError, match="'paint'"):
        job(name="paint")(method)


@pytest.mark.parametrize("method", [sync_method, without_a_message, with_too_much])
def test_a_method_that_cannot_be_called_with_ready_data_is_refused(method: Any) -> None:
    with pytest.raises(TypeError, match="'other'"):
        worker_ready(name="other")(method)


@pytest.mark.parametrize("name", ["", None, 3])
@pytest.mark.parametrize("decorator", [job, worker_ready])
def test_a_name_is_a_string_that_is_not_empty(decorator: Any, name: Any) -> None:
    with pytest.raises(ValueError, match="name"):
        decorator(name=name)


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": -1}, {"limit": 1.5}, {"sequential": True, "limit": 2}])
def test_a_limit_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    """J13: at least one, and sequential is one."""
    with pytest.raises(ValueError, match="limit"):
        job(name="paint", **options)


def test_a_name_has_one_handler() -> None:
    """J2: of two, nobody could say which is meant."""
    with pytest.raises(ValueError, match="'paint'"):

        class Twice(BaseWorker):
            @job(name="paint")
            async def one(self, message: BusJobRequestMessage) -> None: ...

            @job(name="paint")
            async def two(self, message: BusJobRequestMessage) -> None: ...


class Painter(BaseWorker):
    @job(name="paint", sequential=True)
    async def paint(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"painted by": "the base"}


async def test_handlers_are_inherited() -> None:
    class Child(Painter):
        @job(name="draw")
        async def draw(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"drawn": True}

    async with running(Child("child")) as runner:
        assert await runner.job("child", name="paint") == {"painted by": "the base"}
        assert await runner.job("child", name="draw") == {"drawn": True}


async def test_a_subclass_replaces_a_handler() -> None:
    class Child(Painter):
        @job(name="paint")
        async def paint(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"painted by": "the child"}

    async with running(Child("child"), Painter("painter")) as runner:
        assert await runner.job("child", name="paint") == {"painted by": "the child"}
        assert await runner.job("painter", name="paint") == {"painted by": "the base"}


async def test_a_subclass_renames_the_job_of_a_handler() -> None:
    class Child(Painter):
        @job(name="repaint")
        async def paint(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {}

    async with running(Child("child")) as runner:
        assert (await outcome_of(runner, "child", name="repaint"))[0] == JobStatus.COMPLETED
        assert (await outcome_of(runner, "child", name="paint"))[0] == JobStatus.ERROR


async def test_handlers_come_from_mixins_too() -> None:
    class Drawing:
        @job(name="draw")
        async def draw(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"drawn": True}

    class Both(Drawing, Painter):
        pass

    async with running(Both("both")) as runner:
        assert await runner.job("both", name="draw") == {"drawn": True}
        assert await runner.job("both", name="paint") == {"painted by": "the base"}


async def test_a_handler_can_be_called_as_the_method_that_it_is() -> None:
    painter = Painter("painter")
    assert await painter.paint(BusJobRequestMessage("id", source="me")) == {"painted by": "the base"}


async def test_job_names_are_exact() -> None:
    """J3: neither case nor blanks are guessed."""
    async with running(Painter("painter")) as runner:
        for name in ("Paint", "paint ", "pain"):
            assert (await outcome_of(runner, "painter", name=name))[0] == JobStatus.ERROR


async def test_a_worker_ready_method_is_called_for_the_worker_that_it_names() -> None:
    seen: list[WorkerReadyData] = []
    done = anyio.Event()

    class Watcher(BaseWorker):
        @worker_ready(name="painter")
        async def painter_is_ready(self, data: WorkerReadyData) -> None:
            seen.append(data)
            done.set()

    async with running(Watcher("watcher")) as runner:
        await runner.add_workers(Painter("other"), Painter("painter"))
        await done.wait()
    assert [data.worker_name for data in seen] == ["painter"]


def test_a_marked_method_that_takes_nothing_is_told_what_it_should_take() -> None:
    """J2, N3: what a user reads when the class is defined."""

    async def without(self: Any) -> None: ...

    with pytest.raises(HandlerTypeError) as caught:
        worker_ready(name="other")(without)
    assert str(caught.value).startswith("@worker_ready(name='other') goes over a method (self, data), not (self:")
    with pytest.raises(HandlerTypeError) as caught:
        job(name="do")(without)
    assert str(caught.value).startswith("@job(name='do') goes over a method (self, message), not (self:")


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_may_be_any_whole_number_from_one_on(limit: int) -> None:
    """J13."""

    class Limited(BaseWorker):
        @job(name="do", limit=limit)
        async def do(self, message: BusJobRequestMessage) -> None: ...

    assert Limited("limited").name == "limited"
    for wrong in (0, -1, 1.5, "1"):
        with pytest.raises(ValueError, match=f"limit is a whole number of at least 1, not {wrong!r}"):
            job(name="do", limit=wrong)  # type: ignore[arg-type]  # that is what is refused


async def test_every_method_that_waits_for_a_worker_is_called() -> None:
    """W2, N1: also where several wait for the same one."""
    called: list[str] = []

    class Curious(BaseWorker):
        @worker_ready(name="other")
        async def first(self, data: WorkerReadyData) -> None:
            called.append("first")

        @worker_ready(name="other")
        async def second(self, data: WorkerReadyData) -> None:
            called.append("second")

    async with running(Curious("curious")) as runner:
        await runner.add_workers(Helper("other"))
        await anyio.wait_all_tasks_blocked()
    assert sorted(called) == ["first", "second"]


def test_a_worker_may_have_attributes_that_its_class_does_not_show() -> None:
    """N1: looking for handlers asks for nothing else, and stumbles over nothing."""

    class OfInstances:
        def __get__(self, instance: object, owner: type) -> int:
            if instance is None:
                raise AttributeError("only instances have it")
            return 7

    class Odd(BaseWorker):
        seven = OfInstances()

    assert Odd("odd").seven == 7


async def test_a_class_may_get_attributes_while_they_are_looked_at() -> None:
    """N1, N6: a descriptor of a user's keeps what it has made in the class."""

    class Kept:
        def __get__(self, instance: object, owner: Any) -> str:
            owner.what_is_kept = "kept"
            return "kept"

    class Keeping(BaseWorker):
        kept = Kept()

        @job(name="show")
        async def show(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"kept": self.kept}

    async with running(Keeping("keeping")) as runner:
        assert await runner.job("keeping", name="show") == {"kept": "kept"}
