"""J4, S1: jobs for workers that are being restarted, here or under another runner."""

from typing import Any

import anyio
import pytest
from anyio import current_time

from support.conditions import eventually
from support.peers import bus_of, processes
from support.requesters import outcome_of
from support.restarts import LATE, SOON, Fragile, Lingering, begin_to_fail, count_anew, fail, fragile, which
from support.shared_buses import NETWORKS, Linked, two_runners
from support.subscribers import Plain
from workerbus import (
    BaseWorker,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRestartingMessage,
    JobError,
    JobStatus,
    WorkerRunner,
    job,
)

pytestmark = pytest.mark.anyio
BROKEN = "worker 'w' has failed: ValueError: broken"
LIMIT = (
    "worker 'w' has failed: RestartLimitError: worker 'w' has gone once more than 0 restarts in 5 s allow for; its "
    "last failure is the cause of this error"
)


@pytest.fixture(autouse=True)
def _count_anew() -> None:
    count_anew()


class Asking(BaseWorker):
    """Asks others for what it is asked for."""

    @job(name="which")
    async def which(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return await self.job(message.payload["of"], name="which", timeout=100)


async def test_a_job_that_comes_while_a_failed_worker_still_goes_waits_for_the_next_one() -> None:
    """J4, S1: the one that was under way has got its ERROR; it makes no difference who asks."""
    async with WorkerRunner() as runner:
        await runner.add_workers(Asking("other"))
        await runner.supervise(fragile(kind=Lingering), backoff=SOON)
        await which(runner)
        before = current_time()
        await begin_to_fail(runner)
        assert current_time() == before
        assert await runner.job("other", name="which", payload={"of": "w"}) == {"number": 2}
        assert current_time() - before == pytest.approx(1.5)
        await begin_to_fail(runner)
        assert await which(runner) == 3


async def test_it_waits_no_longer_than_its_timeout() -> None:
    """J4, J8: and says why."""
    async with WorkerRunner() as runner:
        await runner.supervise(fragile(kind=Lingering), backoff=SOON)
        await begin_to_fail(runner)
        with pytest.raises(JobError, match=r"timeout after 0\.5 seconds \(worker 'w' is being restarted\)$"):
            await runner.job("w", name="which", timeout=0.5)


async def test_all_jobs_that_were_under_way_get_their_error_of_the_worker_itself() -> None:
    """J4: those that it does, and those that wait for it to begin, too."""
    async with WorkerRunner() as runner, anyio.create_task_group() as group:
        await runner.supervise(fragile(kind=Lingering), backoff=SOON)
        await which(runner)
        outcomes: list[Any] = []

        async def ask() -> None:
            outcomes.append(await outcome_of(runner, "w", name="wait"))

        for _ in range(3):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        before = current_time()
        await begin_to_fail(runner)
        await anyio.wait_all_tasks_blocked()
        assert current_time() == before
        assert outcomes == [(JobStatus.ERROR, {"error": "broken", "type": "ValueError"})] * 3


async def test_a_job_for_a_child_waits_too() -> None:
    """J4, S1, W5: one that its own parent asks for, when it hears of the end."""

    class Parent(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            await self.supervise(fragile("child", Lingering), backoff=SOON)

        async def on_worker_gone(self, data: Any) -> None:
            heard.append(data.error)
            heard.append((await self.job("child", name="which"))["number"])

    heard: list[Any] = []
    async with WorkerRunner() as runner:
        await runner.add_workers(Parent("parent"), wait=True)
        await begin_to_fail(runner, "child")
        assert await which(runner, "child") == 2
        await anyio.wait_all_tasks_blocked()
        assert heard == ["ValueError: broken", 2]


@pytest.mark.parametrize("how", ["stop", "end"])
async def test_a_job_that_comes_while_a_worker_ends_waits_where_that_is_always_made_anew(how: str) -> None:
    """J4, S1: by its own `stop()`, or because it was told to end."""
    async with WorkerRunner(job_grace=5) as runner:
        await runner.supervise(fragile(kind=Lingering), restart="always", backoff=SOON)
        worker = runner.get_worker("w")
        assert worker is not None
        await which(runner)
        if how == "stop":
            await runner.job("w", name="stop")
        else:
            await runner.bus.send(BusEndWorkerMessage(source="me", target="w"))
        await anyio.wait_all_tasks_blocked()
        assert await which(runner) == 2


async def test_a_worker_that_is_not_made_anew_any_more_says_so_at_once() -> None:
    """J4, S1: beyond the limit, while it goes as well as when it has gone."""
    async with WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.supervise(fragile(kind=Lingering), max_restarts=0)
        await which(runner)
        before = current_time()
        await begin_to_fail(runner)
        assert await outcome_of(runner, "w", name="which") == (
            JobStatus.ERROR,
            {"error": "broken", "type": "ValueError"},
        )
        assert current_time() == before
        await anyio.sleep(2)
        assert await outcome_of(runner, "w", name="which") == (
            JobStatus.ERROR,
            {"error": LIMIT, "type": "WorkerFailed"},
        )


@pytest.mark.parametrize("network", NETWORKS)
async def test_jobs_of_another_runner_wait_for_a_worker_that_is_restarted(network: str) -> None:
    """J4, S1: while it goes, and in the wait; the one that was under way has got its ERROR."""
    async with two_runners(network) as (here, there):
        supervision = await here.supervise(fragile(kind=Lingering), backoff=SOON)
        assert await which(there) == 1
        before = current_time()
        with pytest.raises(JobError, match="raised ValueError: broken"):
            await there.job("w", name="break")
        assert here.get_worker("w") is not None
        assert current_time() == before
        assert await which(there) == 2
        assert current_time() - before == pytest.approx(1.5)
        with pytest.raises(JobError, match="raised ValueError: broken"):
            await there.job("w", name="break")
        await anyio.sleep(1.2)
        assert (supervision.states, here.get_worker("w")) == ({"w": "restarting"}, None)
        with pytest.raises(JobError, match=r"timeout .* \(worker 'w' is being restarted\)"):
            await there.job("w", name="which", timeout=0.01)
        assert await which(there) == 3
        assert here.registry.restarting == {}
        assert there.registry.restarting == {}


@pytest.mark.parametrize("when", ["in the wait", "while it goes"])
@pytest.mark.parametrize("why", ["the supervision", "the runner", "the limit"])
@pytest.mark.parametrize("network", NETWORKS)
async def test_jobs_that_wait_are_told_at_once_when_the_worker_is_given_up(network: str, why: str, when: str) -> None:
    """J4, S1: under each runner, with what it has failed of last."""
    outcomes: dict[str, Any] = {}
    lives = 0

    def factory() -> Fragile:
        nonlocal lives
        lives += 1
        if lives > 1 and why == "the limit":
            raise OSError("no device")
        return Lingering("w")

    async with two_runners(network) as (here, there), anyio.create_task_group() as group:
        supervision = await here.supervise(
            factory, max_restarts=1, within=60, backoff=SOON if why == "the limit" else LATE
        )
        await which(there)
        await begin_to_fail(here)
        if when == "in the wait":
            await anyio.sleep(1.2)

        async def ask(runner: WorkerRunner) -> None:
            outcomes[runner.name] = (await outcome_of(runner, "w", name="which"), current_time())

        group.start_soon(ask, there)
        if why != "the runner":
            group.start_soon(ask, here)
        await anyio.wait_all_tasks_blocked()
        assert outcomes == {}
        before = current_time()
        if why == "the supervision":
            await supervision.stop()
        elif why == "the runner":
            await here.end()
            await anyio.sleep(1)
        else:
            await anyio.sleep(2)
        await anyio.wait_all_tasks_blocked()
        told = {name: outcome for name, (outcome, _) in outcomes.items()}
        if why == "the runner":
            assert told["B"] == (JobStatus.ERROR, {"error": BROKEN, "type": "WorkerFailed"})
        elif why == "the supervision":
            assert told == dict.fromkeys("AB", (JobStatus.ERROR, {"error": BROKEN, "type": "WorkerFailed"}))
        else:
            text = LIMIT.replace(" 0 ", " 1 ").replace(" 5 ", " 60 ")
            assert told == dict.fromkeys("AB", (JobStatus.ERROR, {"error": text, "type": "WorkerFailed"}))
        assert all(at - before <= 2 for _, at in outcomes.values())


@pytest.mark.parametrize("network", NETWORKS)
async def test_others_see_the_worker_go_and_come_once(network: str) -> None:
    """S1, W9, G4: it is not ready any more when it begins to go, has gone when its jobs are answered, and is ready."""

    class Watching(BaseWorker):
        async def on_worker_ready(self, data: Any) -> None:
            seen.append((self.name, "ready"))

        async def on_worker_gone(self, data: Any) -> None:
            seen.append((self.name, data.error))

    seen: list[Any] = []
    async with two_runners(network) as (here, there):
        for runner in (here, there):
            watching = Watching(f"watches at {runner.name}")
            await runner.add_workers(watching, wait=True)
            await watching.watch_workers("w")
        await here.supervise(fragile(kind=Lingering), backoff=SOON)
        await which(there)
        await begin_to_fail(here)
        await anyio.wait_all_tasks_blocked()
        assert [runner.registry.get("w") for runner in (here, there)] == [None, None]
        assert len(seen) == 2
        await which(there)
        await which(here)
        await anyio.wait_all_tasks_blocked()
        for runner in (here, there):
            mine = [what for name, what in seen if name == f"watches at {runner.name}"]
            assert mine == ["ready", "ValueError: broken", "ready"]


async def test_a_runner_that_comes_in_between_waits_as_well() -> None:
    """J4, G4: it does not hear of a worker that takes no more jobs."""
    async with two_runners("two buses") as (here, _):
        await here.supervise(fragile(kind=Lingering), backoff=SOON)
        await which(here)
        await begin_to_fail(here)
        async with WorkerRunner(bus=Linked(here.bus.network), handle_sigint=False) as late:  # type: ignore[attr-defined]  # a Linked
            assert await which(late) == 2


async def test_what_is_announced_of_a_restart_comes_in_this_order() -> None:
    """S1, L8: and observers see it on any bus."""
    async with WorkerRunner() as runner:
        observer = Plain("observer")
        await runner.bus.subscribe(observer)
        await runner.supervise(fragile(kind=Lingering), backoff=SOON)
        await which(runner)
        await begin_to_fail(runner)
        await which(runner)
        kinds = (BusWorkerReadyMessage, BusWorkerRestartingMessage, BusWorkerGoneMessage)
        news = [message for message in observer.got if isinstance(message, kinds) and message.source == "w"]
        assert [type(message) for message in news] == [kinds[0], kinds[1], kinds[2], kinds[0]]
        numbers = [message.number for message in news]
        assert numbers == sorted(numbers, key=lambda number: number or 0)
        gone = news[2]
        assert isinstance(gone, BusWorkerGoneMessage)
        assert (gone.restarting, gone.error) == (True, "ValueError: broken")


async def test_a_worker_that_fails_in_its_start_is_never_ready() -> None:
    """S1, W9: nor when it starts after its failure, and a job waits for the next one."""

    class Starting(Fragile):
        async def run(self, params: Any) -> None:
            if self.number < 3:
                params.task_group.start_soon(self.fail_now)
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.2)
                    await self.start()
                    await anyio.sleep(0.2)
            await super().run(params)

        async def fail_now(self) -> None:
            raise ValueError("too early")

    async with WorkerRunner() as runner:
        observer = Plain("observer")
        await runner.bus.subscribe(observer)
        await runner.supervise(fragile(kind=Starting), backoff=SOON)
        await anyio.sleep(0.3)
        assert runner.registry.get("w") is None
        assert await which(runner) == 3
        ready = [message for message in observer.got if isinstance(message, BusWorkerReadyMessage)]
        assert len(ready) == 1


async def test_a_name_that_is_restarted_is_kept_from_other_supervisions_too() -> None:
    """R3, S1: only the supervision whose worker it is brings the next one."""
    async with WorkerRunner() as runner:
        await runner.supervise(fragile(), backoff=SOON)
        await fail(runner)
        with pytest.raises(ValueError, match="the name 'w' is taken"):
            await runner.supervise(fragile())
        assert await which(runner) == 3


async def test_nothing_is_kept_of_what_a_lost_process_was_about_to_restart() -> None:
    """R9, J4, X4: who waits for one of them hears that it is not restarted any more."""
    async with processes("asker", "host") as [asker, host]:
        for name in "abc":
            await host.supervise(fragile(name), backoff=LATE)
            await asker.registry.wait_for(name)
            await fail(host, name)
        await eventually(lambda: set(asker.registry.restarting) == set("abc"))
        bus_of(host).kill()
        await eventually(lambda: not bus_of(asker).peers)
        assert not asker.registry.restarting
