"""N1: what is said of a job in one object, as upstream does today."""

from typing import Any

import anyio
import pytest

from support.workers import Helper, running
from workerbus import JobError, JobGroupParams, JobParams, JobTimeoutError

WAYS = ("job", "job_group", "request_job", "request_job_group", "create_job_group_and_request_job")


async def ask(asker: Any, way: str, params: Any, **kwargs: Any) -> Any:
    """Ask ``one`` in one of the ways, and return its group or context."""
    if way in ("job", "job_group"):
        context = getattr(asker, way)("one", params=params, **kwargs)
        async with context:
            pass
        return context
    if way == "create_job_group_and_request_job":
        group = await asker.create_job_group_and_request_job(["one"], params=params, **kwargs)
    else:
        job_id = await getattr(asker, way)("one", params=params, **kwargs)
        group = asker.job_groups[job_id]
    await group.wait()
    return group


def kind_for(way: str) -> type[JobParams]:
    return JobParams if way in ("job", "request_job") else JobGroupParams


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_is_asked_for_with_all_that_its_parameters_say(way: str) -> None:
    """N1"""
    one, asker = Helper("one"), Helper("asker")
    async with running(one, asker):
        params = kind_for(way)(name="echo", payload={"n": 1}, timeout=5, label="a title", cancellable=False)
        group = await ask(asker, way, params)
        response = group.response if way == "job" else group.responses["one"]
        assert response == {"worker": "one", "payload": {"n": 1}}
        if way not in ("job", "job_group"):
            assert (group.label, group.cancellable) == ("a title", False)


@pytest.mark.parametrize("way", WAYS)
async def test_the_timeout_of_the_parameters_counts(way: str) -> None:
    """N1, J6"""
    one, asker = Helper("one"), Helper("asker")
    async with running(one, asker):
        begun = anyio.current_time()
        with pytest.raises(TimeoutError):
            await ask(asker, way, kind_for(way)(name="wait", timeout=0.5))
        assert anyio.current_time() - begun == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("way", [way for way in WAYS if kind_for(way) is JobGroupParams])
async def test_a_group_goes_on_after_an_error_if_its_parameters_say_so(way: str) -> None:
    """N1, J11"""
    one, asker = Helper("one"), Helper("asker")
    async with running(one, asker):
        group = await ask(asker, way, JobGroupParams(name="fail", cancel_on_error=False))
        assert group.statuses == {"one": "error"}


@pytest.mark.parametrize("way", WAYS)
async def test_parameters_are_given_in_one_way_only(way: str) -> None:
    """N1, N8: the error names what came twice; headers go beside them."""
    one, asker = Helper("one"), Helper("asker")
    params = kind_for(way)(name="echo")
    async with running(one, asker):
        with pytest.raises(TypeError, match="pass either params or name, timeout, not both"):
            await ask(asker, way, params, name="echo", timeout=3)
        with pytest.raises(TypeError, match=f"params is a {kind_for(way).__name__}, not {{}}"):
            await ask(asker, way, {})
        await ask(asker, way, params, headers={"a": "b"})


async def test_a_runner_takes_parameters_too() -> None:
    """N1, R7"""
    async with running(Helper("one")) as runner:
        assert (await runner.job("one", params=JobParams(name="echo", payload={"n": 1})))["payload"] == {"n": 1}
        with pytest.raises(JobTimeoutError):
            await runner.job("nobody", params=JobParams(timeout=0.1))
        with pytest.raises(JobError):
            await runner.job("one", params=JobParams(name="fail"))
