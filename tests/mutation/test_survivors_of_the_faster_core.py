"""What waiting requests, early timeouts, counts and cancelled lanes do where changing code had turned no test red."""

import anyio

from support.workers import Helper, running

# --- workers


async def test_the_built_in_clean_up_stops_no_worker_that_runs() -> None:
    """W6: only `stop()` does."""
    helper = Helper("helper")
    async with running(helper) as runner:
        with anyio.move_on_after(1):
            await helper.cleanup()
        assert await runner.job("helper", name="echo") == {"worker": "helper", "payload": None}
