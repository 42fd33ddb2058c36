"""N6, N8: names in the classes of users."""

from typing import Any, Generic, TypeVar

import pytest

from workerbus import BaseWorker, ReservedNameError, WorkerReadyData, WorkerRunner, worker_ready
from workerbus._worker_types import INTERNAL, PARTS


@pytest.mark.parametrize("name", sorted(INTERNAL))
def test_a_worker_class_that_takes_a_name_of_the_librarys_is_refused_where_it_is_written(name: str) -> None:
    """W7 could not be kept for it: the library's parts know each other by these names."""
    with pytest.raises(ReservedNameError, match=f"Mine has an attribute '{name}', which every worker has for itself"):
        type("Mine", (BaseWorker,), {name: lambda self: None})


@pytest.mark.parametrize("name", PARTS)
async def test_a_worker_that_assigns_over_a_part_of_the_librarys_is_refused_when_it_is_added(name: str) -> None:
    worker = BaseWorker("mine")
    setattr(worker, name, [])
    async with WorkerRunner() as runner:
        with pytest.raises(TypeError) as caught:
            await runner.add_workers(worker)
        assert isinstance(caught.value, ReservedNameError)
        assert (caught.value.class_name, caught.value.name) == ("BaseWorker", name)


def test_every_attribute_of_a_worker_without_an_underscore_is_watched_over() -> None:
    assert {name for name in vars(BaseWorker("mine")) if not name.startswith("_")} == set(PARTS)


def test_a_watch_takes_no_name_of_the_librarys() -> None:
    """N1: as no job handler does."""
    with pytest.raises(ReservedNameError, match="Starts has an attribute 'start'"):

        class Starts(BaseWorker):
            @worker_ready(name="other")
            async def start(self, data: WorkerReadyData) -> None:  # type: ignore[override]  # on purpose
                pass


T = TypeVar("T")


def test_a_worker_class_may_have_other_bases_with_wishes_of_their_own() -> None:
    """N1: a subclass is a class like any other."""
    made: list[str] = []

    class Labelled:
        def __init_subclass__(cls, *, label: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            made.append(label)

    class Labels(BaseWorker, Labelled, label="here"):
        pass

    class Typed(BaseWorker, Generic[T]):
        pass

    assert made == ["here"]
    assert Typed[int]("typed").name == "typed"
    with pytest.raises(TypeError, match="takes no keyword arguments"):
        type("Wrong", (BaseWorker,), {}, colour="red")
