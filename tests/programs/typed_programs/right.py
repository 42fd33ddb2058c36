"""A program that both type checkers accept in their strict modes."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

from attrs import frozen

from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    JobAnswer,
    JobGroupContext,
    JobProgress,
    WorkerPool,
    WorkerRunner,
    every,
    job,
    rich_progress,
)


@frozen
class Words:
    text: str


@dataclass
class Count:
    words: int


class Box(TypedDict):
    side: float


class Counter(BaseWorker):
    @job(name="count", limit=4, rate=10)
    async def count(self, words: Words) -> Count:
        return Count(len(words.text.split()))

    @job(name="each")
    async def each(self, words: Words) -> AsyncIterator[Count]:
        for word in words.text.split():
            yield Count(len(word))

    @job(name="box")
    async def box(self, box: Box) -> Box:
        return {"side": box["side"] * 2}

    @job(name="loose")
    async def loose(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"n": message.payload["n"]}

    @job(name="mapping")
    async def mapping(self, payload: Mapping[str, Any]) -> dict[str, int]:
        return {"n": len(payload)}

    @every(60)
    async def refresh(self) -> None: ...


async def main() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Counter("left"), Counter("right"))
        count = await runner.job("left", Counter.count, payload=Words("to be"), timeout=5, attempts=3)
        assert_type(count, Count)
        async with runner.job("left", Counter.each, payload=Words("to be")) as asked:
            async for each in asked.stream():
                assert_type(each, Count)
        assert_type(await runner.job("left", Counter.box, payload=Box(side=2.0)), Box)
        assert_type(await runner.job("left", Counter.loose, payload={"n": 3}), dict[str, Any])
        assert_type(await runner.job("left", Counter.mapping, payload={"n": 3}), dict[str, int])
        loose = await runner.job("left", name="count", payload={"text": "to be"})
        assert_type(loose, dict[str, Any])
        counts = await runner.job_group("left", "right", handler=Counter.count, payload=Words("to be"))
        assert_type(counts, dict[str, Count])
        own = runner.job_group(handler=Counter.count, payloads={"left": Words("a"), "right": Words("b")})
        assert_type(await own.first(), JobAnswer)
        assert_type(await rich_progress(runner.job("left", Counter.count, payload=Words("a"))), Count)
        async with rich_progress(runner.job("left", Counter.each, payload=Words("to be"))) as asked:
            async for each in asked.stream():
                assert_type(each, Count)
        async with rich_progress(runner.job_group("left", handler=Counter.count, payload=Words("a"))) as group:
            assert_type(group, JobGroupContext[Count])
            async for now in group.progress():
                assert_type(now, JobProgress)
        pool = WorkerPool("counters", Counter, size=4)
        own_pool = WorkerPool("others", lambda name: Counter(name, active=False), size=4, concurrency=2)
        await runner.add_workers(pool, own_pool)
        assert_type(await pool.job(Counter.count, payload=Words("to be"), priority=2), Count)
        assert_type(await pool.job(name="count", payload={"text": "to be"}), dict[str, Any])
        assert_type(await pool.job("left", Counter.count, payload=Words("to be")), Count)
        async with pool.map(Counter.count, map(Words, ["to", "be"]), ordered=True, attempts=3) as answers:
            async for answer in answers:
                assert_type(answer.payload, Words)
                assert_type(answer.response, Count)
        async with pool.map(Counter.loose, [{"n": 3}]) as loosely:
            async for loose_answer in loosely:
                assert_type(loose_answer.response, dict[str, Any])
        async with pool.map("count", [{"text": "to be"}], cancel_on_error=False) as by_name:
            async for named in by_name:
                assert_type(named.response, dict[str, Any])
        for member in pool.statistics().members.values():
            assert_type(member.running, int)
