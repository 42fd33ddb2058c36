"""autogen-core: its runtime in one process, and agents that route by the type of the message."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from autogen_core import (
    AgentId,
    CancellationToken,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    TypeSubscription,
    message_handler,
)

from benchmarks._late import LateJobs
from benchmarks._run import Countdown, Run, resident
from benchmarks._subject import ASKING, TIMEOUT
from benchmarks._subjects import Subjects

ALL = TopicId("all", "default")


@dataclass
class Note:
    """What is counted."""

    number: int


@dataclass
class Echo:
    """What is answered."""

    number: int


@dataclass
class Sleep:
    """What is slept upon."""


class Agent(RoutedAgent):
    """Counts, answers, and sleeps."""

    countdown = Countdown(0)
    asleep = Countdown(0)
    unwound = Countdown(0)

    def __init__(self) -> None:
        super().__init__("measured")

    @message_handler
    async def count(self, message: Note, ctx: MessageContext) -> None:
        """Count."""
        self.countdown.tick()

    @message_handler
    async def echo(self, message: Echo, ctx: MessageContext) -> Echo:
        """Answer at once."""
        return message

    @message_handler
    async def sleep(self, message: Sleep, ctx: MessageContext) -> None:
        """Sleep until it is cancelled."""
        future = asyncio.get_running_loop().create_future()
        ctx.cancellation_token.link_future(future)
        try:
            Agent.asleep.tick()
            await future
        finally:
            Agent.unwound.tick()


@asynccontextmanager
async def running(names: Sequence[str]) -> AsyncIterator[SingleThreadedAgentRuntime]:
    """Run agents; all are made in the body. Each subscribes to its own topic and to the one of all."""
    runtime = SingleThreadedAgentRuntime()
    for name in names:
        await Agent.register(runtime, name, Agent)
        await runtime.add_subscription(TypeSubscription(name, name))
        await runtime.add_subscription(TypeSubscription(ALL.type, name))
        await runtime.get(name, lazy=False)
    runtime.start()
    yield runtime
    await runtime.stop()
    await runtime.close()


def names_of(size: int) -> list[str]:
    """Return names."""
    return [f"agent_{number}" for number in range(size)]


class Contender(Subjects):
    """autogen-core."""

    packages = ("autogen-core",)

    async def _flood(self, run: Run, size: int, topic: TopicId, readers: int) -> None:
        async with running(names_of(size)) as runtime:
            for count in run.counts:
                Agent.countdown = Countdown(count * readers)
                messages = [Note(number) for number in range(count)]
                with run.clock():
                    for message in messages:
                        await runtime.publish_message(message, topic)
                    await Agent.countdown.done.wait()

    async def flood(self, run: Run) -> None:
        await self._flood(run, 1, TopicId("agent_0", "default"), 1)

    async def broadcast(self, run: Run) -> None:
        await self._flood(run, run.size, ALL, run.size)

    async def broadcast_wake(self, run: Run) -> None:
        async with running(names_of(run.size)) as runtime:
            for count in run.counts:
                messages = [Note(number) for number in range(count)]
                with run.clock():
                    for message in messages:
                        Agent.countdown = Countdown(run.size)
                        await runtime.publish_message(message, ALL)
                        await Agent.countdown.done.wait()

    async def targeted(self, run: Run) -> None:
        await self._flood(run, run.size, TopicId(f"agent_{run.size - 1}", "default"), 1)

    async def wake(self, run: Run) -> None:
        async with running(names_of(1)) as runtime:
            for count in run.counts:
                messages = [Note(number) for number in range(count)]
                with run.clock():
                    for message in messages:
                        Agent.countdown = Countdown(1)
                        await runtime.publish_message(message, ALL)
                        await Agent.countdown.done.wait()

    async def job(self, run: Run) -> None:
        async with running(names_of(1)) as runtime:
            agent = AgentId("agent_0", "default")
            for count in run.counts:
                with run.clock():
                    for number in range(count):
                        await runtime.send_message(Echo(number), agent)

    async def job_timeout(self, run: Run) -> None:
        async with running(names_of(1)) as runtime:
            agent = AgentId("agent_0", "default")
            for count in run.counts:
                with run.clock():
                    for number in range(count):
                        async with asyncio.timeout(TIMEOUT):
                            await runtime.send_message(Echo(number), agent)

    async def in_flight(self, run: Run) -> None:
        await self._in_flight(run, run.size, 1)

    async def pool(self, run: Run) -> None:
        await self._in_flight(run, ASKING, run.size)

    async def _in_flight(self, run: Run, asking: int, asked_in_turn: int) -> None:
        gate, asked, over = asyncio.Event(), Countdown(asking), Countdown(asking)
        names = names_of(asked_in_turn)
        turns = itertools.cycle([AgentId(name, "default") for name in names])

        async def ask() -> None:
            await runtime.send_message(Echo(0), next(turns))
            asked.tick()
            await gate.wait()
            for number in range(run.count // asking):
                await runtime.send_message(Echo(number), next(turns))
            over.tick()

        async with running(names) as runtime, asyncio.TaskGroup() as tasks:
            for _ in range(asking):
                tasks.create_task(ask())
            await asked.done.wait()
            with run.clock():
                gate.set()
                await over.done.wait()

    async def group(self, run: Run) -> None:
        names = names_of(run.size)
        agents = [AgentId(name, "default") for name in names]
        async with running(names) as runtime:
            for count in run.counts:
                with run.clock():
                    for number in range(count):
                        await asyncio.gather(*[runtime.send_message(Echo(number), agent) for agent in agents])

    async def cancel(self, run: Run) -> None:
        names = names_of(run.size)
        agents = [AgentId(name, "default") for name in names]
        async with running(names) as runtime:
            for _ in run.counts:
                Agent.asleep, Agent.unwound, token = Countdown(run.size), Countdown(run.size), CancellationToken()
                asking = [runtime.send_message(Sleep(), agent, cancellation_token=token) for agent in agents]
                asked = asyncio.gather(*asking, return_exceptions=True)
                await Agent.asleep.done.wait()
                with run.clock():
                    token.cancel()
                    await Agent.unwound.done.wait()
                await asked

    async def late(self, run: Run) -> None:
        async with running(names_of(1)) as runtime:
            agent = AgentId("agent_0", "default")
            for hundred in LateJobs(run):
                for number in hundred:
                    await runtime.send_message(Echo(number), agent)

    async def start_stop(self, run: Run) -> None:
        for size, count in ((10, 1), (run.size, run.count)):
            with run.clock():
                for _ in range(count):
                    async with running(names_of(size)):
                        pass

    async def memory(self, run: Run) -> None:
        async with running(names_of(10)):
            pass
        before = resident()
        async with running(names_of(run.size)):
            run.values["bytes"] = (resident() - before) / run.size
