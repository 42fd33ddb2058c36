"""One worker, one job."""

from support.workers import Helper, running


async def test_a_job_is_answered() -> None:
    async with running(Helper("helper")) as runner:
        response = await runner.job("helper", name="echo", payload={"n": 1})
    assert response == {"worker": "helper", "payload": {"n": 1}}
