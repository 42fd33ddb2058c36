"""Ready-made workers for tests: one that follows a script, and one that echoes.

They keep what has happened, so that a test can wait for it (``until…``) and assert about it afterwards. None of them
knows virtual time: their seconds are those of the clock that the test runs under.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from anyio import CancelScope, get_cancelled_exc_class, sleep
from anyio.abc import TaskGroup

from workerbus._values import JobStatus
from workerbus.errors import UnknownJobError
from workerbus.jobs._streaming import streamed
from workerbus.messages import BusJobCancelMessage, BusJobRequestMessage
from workerbus.testing.workers._behaviour import Behaviour
from workerbus.testing.workers._endings import end_of_script
from workerbus.testing.workers._recording import RecordingWorker, news_of
from workerbus.worker._types import WorkerParams

Script = Behaviour | Sequence[Behaviour]
"""What to do with one job, or one attempt at a job, after the other; the last is for all further ones, too."""


class ScriptedWorker(RecordingWorker):
    """A worker that takes any job and handles it as its script says.

    ::

        async def test_the_second_attempt_is_answered():
            worker = ScriptedWorker("flaky", [Behaviour("raise"), Behaviour(response={"pages": 3})])
            async with WorkerRunner() as runner:
                await runner.add_workers(worker)
                with pytest.raises(JobError, match="scripted"):
                    await runner.job("flaky", name="crawl")
                assert await runner.job("flaky", name="crawl") == {"pages": 3}
            assert [message.job_name for message in worker.requests] == ["crawl", "crawl"]

    The test itself may answer a job, when it has seen enough::

        async def test_a_job_is_answered_by_hand():
            worker = ScriptedWorker("human", {"approve": Behaviour("defer")})
            async with WorkerRunner() as runner:
                await runner.add_workers(worker)
                async with runner.job("human", name="approve") as job:
                    await worker.until_requested()
                    await worker.answer(response={"approved": True})
                assert job.response == {"approved": True}

    Args:
        name: The name of the worker, unique on the bus; made up by default.
        script: What the worker does. A `Behaviour`, for every job; several of them, for one job or attempt after the
            other, the last one for all further ones; or a mapping from job names to either, where a job of another name
            is answered ERROR. By default every job is answered at once, COMPLETED with ``{}``.
        active: Whether the worker is active from its start on.

    Attributes:
        requests: The requests of the jobs that have begun, in order.
        cancelled: The ids of the jobs that were cancelled under way, or while they were deferred.
        running: By job id, the requests whose handlers run now; `active_jobs` has the jobs that are open.
        peak: The largest number of handlers that ran at the same time.

    Raises:
        TypeError: The script contains something other than behaviours.
        ValueError: The script has no behaviour.
    """

    def __init__(
        self, name: str | None = None, script: Script | Mapping[str, Script] | None = None, *, active: bool = True
    ) -> None:
        super().__init__(name, active=active)
        self.__scripts: dict[str | None, Script] = {}
        if isinstance(script, Mapping):
            self.__scripts.update(script)
        else:
            self.__scripts[None] = Behaviour() if script is None else script
        for script_of_a_job in self.__scripts.values():
            behaviours = [script_of_a_job] if isinstance(script_of_a_job, Behaviour) else list(script_of_a_job)
            if not behaviours:
                raise ValueError("a script has at least one behaviour")
            if wrong := [each for each in behaviours if not isinstance(each, Behaviour)]:
                raise TypeError(f"a script is made of behaviours, as Behaviour('hang') is one, not of {wrong[0]!r}")
        self.__turns: dict[str | None, int] = {}
        self.__group: TaskGroup | None = None
        self.requests: list[BusJobRequestMessage] = []
        self.cancelled: list[str] = []
        self.running: dict[str, BusJobRequestMessage] = {}
        self.peak: int = 0

    async def answer(
        self,
        job_id: str | None = None,
        response: dict[str, Any] | None = None,
        *,
        status: JobStatus = JobStatus.COMPLETED,
        urgent: bool = False,
    ) -> None:
        """Answer an open job, whatever the script says about it.

        Args:
            job_id: The id of the job; by default, of the one that has been open for longest.
            response: The answer, as a dict.
            status: The status of the answer.
            urgent: Whether the answer overtakes the data messages that wait at the requester.

        Raises:
            UnknownJobError: The job is not open; a `RuntimeError`.
            LookupError: No job is open.
        """
        if job_id is None:
            open_jobs = self.active_jobs
            job_id = next((message.job_id for message in self.requests if message.job_id in open_jobs), None)
        if job_id is None:
            raise LookupError(f"worker {self.name!r} has no open job to answer; it was asked for {len(self.requests)}")
        await self.send_job_response(job_id, response, status=status, urgent=urgent)

    async def until_requested(self, count: int = 1) -> BusJobRequestMessage:
        """Wait until ``count`` jobs have begun here; if they already have, return at once.

        Args:
            count: How many jobs.

        Returns:
            The request of the ``count``-th job.

        Raises:
            AssertionError: The worker has finished before that.
        """
        await news_of(self).until(lambda: len(self.requests) >= count, f"{count} jobs have begun")
        return self.requests[count - 1]

    async def until_cancelled(self, count: int = 1) -> str:
        """Wait until ``count`` jobs have been cancelled here; if they already have, return at once.

        Their handlers may still be cleaning up.

        Args:
            count: How many jobs.

        Returns:
            The id of the ``count``-th job.

        Raises:
            AssertionError: The worker has finished before that.
        """
        await news_of(self).until(lambda: len(self.cancelled) >= count, f"{count} jobs have been cancelled")
        return self.cancelled[count - 1]

    def response_to(self, message: BusJobRequestMessage, behaviour: Behaviour) -> dict[str, Any]:
        """Return the response to a request, as a dict; override it where the response depends on the payload.

        Args:
            message: The request.
            behaviour: What the script says.
        """
        return behaviour.response or {}

    async def run(self, params: WorkerParams) -> None:
        """Run until the worker is to stop, or a job's script makes it crash."""
        self.__group = params.task_group
        await super().run(params)

    async def on_job_request(self, message: BusJobRequestMessage) -> dict[str, Any] | None:
        """Do with the job what the script says."""
        behaviour = self.__behaviour(message.job_name)
        self.requests.append(message)
        self.running[message.job_id] = message
        self.peak = max(self.peak, len(self.running))
        news_of(self).tell()
        try:
            return await self.__play(behaviour, message)
        except get_cancelled_exc_class():
            self.__was_cancelled(message.job_id)
            if not behaviour.generator:  # it has done so before it was closed
                await self.__unwind(behaviour, message)
            raise
        finally:
            del self.running[message.job_id]

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        """Note that the job was cancelled; a deferred one has no handler any more that would notice."""
        self.__was_cancelled(message.job_id)
        await super().on_job_cancelled(message)

    def __was_cancelled(self, job_id: str) -> None:
        if job_id not in self.cancelled and any(message.job_id == job_id for message in self.requests):
            self.cancelled.append(job_id)
            news_of(self).tell()

    def __behaviour(self, job_name: str | None) -> Behaviour:
        key = job_name if job_name in self.__scripts else None
        script = self.__scripts.get(key)
        if script is None:
            names = ", ".join(repr(name) for name in self.__scripts)
            raise LookupError(f"worker {self.name!r} is scripted for the jobs {names}, not for {job_name!r}")
        if isinstance(script, Behaviour):
            return script
        turn = self.__turns.get(key, 0)
        self.__turns[key] = turn + 1
        return script[min(turn, len(script) - 1)]

    async def __play(self, behaviour: Behaviour, message: BusJobRequestMessage) -> dict[str, Any] | None:
        if behaviour.generator:
            await streamed(self, message, self.__yields(behaviour, message))
            return None
        job_id, started = message.job_id, behaviour.chunks is None
        for kind, data in behaviour.sends:
            if not started and (kind == "chunk" or behaviour.alternate):
                started = True
                await self.send_job_stream_start(job_id)
            await _pass(behaviour.every)
            if kind == "update":
                await self.send_job_update(job_id, data, urgent=behaviour.urgent_updates)
            else:
                await self.send_job_stream_data(job_id, data)
        if not started:
            await self.send_job_stream_start(job_id)
        await _pass(behaviour.after)
        if behaviour.end == "answer":
            return await self.__answer(behaviour, message)
        await end_of_script(self, behaviour, self.__group)
        return None

    async def __yields(
        self, behaviour: Behaviour, message: BusJobRequestMessage
    ) -> AsyncGenerator[dict[str, Any], None]:
        try:
            for kind, data in behaviour.sends:
                await _pass(behaviour.every)
                if kind == "chunk":
                    yield data
                else:
                    await self.send_job_update(message.job_id, data, urgent=behaviour.urgent_updates)
            await _pass(behaviour.after)
            if behaviour.end != "answer":
                await end_of_script(self, behaviour, self.__group)
        except (GeneratorExit, get_cancelled_exc_class()):  # closed where it has yielded, or cancelled elsewhere
            await self.__unwind(behaviour, message)
            raise

    async def __answer(self, behaviour: Behaviour, message: BusJobRequestMessage) -> dict[str, Any] | None:
        response = self.response_to(message, behaviour)
        if behaviour.status is not JobStatus.COMPLETED or behaviour.urgent:
            await self.send_job_response(message.job_id, response, status=behaviour.status, urgent=behaviour.urgent)
        elif behaviour.chunks is not None:
            await self.send_job_stream_end(message.job_id, response)
        else:
            return response
        return None

    async def __unwind(self, behaviour: Behaviour, message: BusJobRequestMessage) -> None:
        with CancelScope(shield=True):  # a behaviour's clean-up is a number of seconds: it ends
            await _pass(behaviour.clean_up)
            if behaviour.insists:
                with suppress(UnknownJobError):  # the worker ended, and has answered for it
                    await self.send_job_response(message.job_id, self.response_to(message, behaviour))


class EchoWorker(ScriptedWorker):
    """A worker that answers each job, whatever its name, with its payload.

    ::

        async def test_an_echo_comes_back():
            async with WorkerRunner() as runner:
                await runner.add_workers(EchoWorker("echo"))
                assert await runner.job("echo", payload={"n": 1}) == {"n": 1}

    Args:
        name: The name of the worker, unique on the bus; made up by default.
        after: How many seconds pass before the answer.
        active: Whether the worker is active from its start on.
    """

    def __init__(self, name: str | None = None, *, after: float = 0.0, active: bool = True) -> None:
        super().__init__(name, Behaviour(after=after), active=active)

    def response_to(self, message: BusJobRequestMessage, behaviour: Behaviour) -> dict[str, Any]:
        """Return a copy of the request's payload.

        Args:
            message: The request.
            behaviour: What the script says.
        """
        return dict(message.payload or {})


async def _pass(seconds: float) -> None:
    if seconds:
        await sleep(seconds)
