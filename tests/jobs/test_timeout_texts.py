"""J8: what the error of a timeout says."""

import pytest

from workerbus import WorkerRunner
from workerbus.testing import Behaviour, EchoWorker, ScriptedWorker, run


@pytest.mark.parametrize("seed", range(6))
def test_a_timeout_says_who_has_not_answered_whoever_saw_it_first(backend: str, seed: int) -> None:
    async def main() -> None:
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(ScriptedWorker("poll", Behaviour("hang")), EchoWorker("echo"))
            async with runner.job_group("poll", "echo", timeout=3):
                pass

    with pytest.raises(TimeoutError, match=r": timeout \(no answer from 'poll'\)\n"):
        run(main, backend=backend, seed=seed)
