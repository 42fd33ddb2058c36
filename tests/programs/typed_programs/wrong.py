"""Mistakes that both type checkers find, each in the line that ends with `# wrong`."""

from attrs import frozen

from workerbus import BaseWorker, WorkerPool, WorkerRunner, job


@frozen
class Words:
    text: str


@frozen
class Count:
    words: int


class Counter(BaseWorker):
    @job(name="count")
    async def count(self, words: Words) -> Count:
        return Count(len(words.text.split()))


async def main(runner: WorkerRunner) -> None:
    await runner.job("left", Counter.count, payload=Count(3))  # wrong
    await runner.job("left", Counter.count, payload={"text": "to be"})  # wrong
    await runner.job("left", Counter.count, payload=Words("a"), timeout="5")  # wrong
    await runner.job("left", Counter.count)  # wrong
    await runner.job("left", name="count", payload=Words("a"))  # wrong
    count = await runner.job("left", Counter.count, payload=Words("a"))
    count.letters()  # wrong
    counts = await runner.job_group("left", handler=Counter.count, payload=Words("a"))
    counts["left"].letters()  # wrong
    pool = WorkerPool("counters", Counter, size="4")  # wrong
    await pool.job(Counter.count, payload=Count(3))  # wrong
    async with pool.map(Counter.count, map(Words, ["to", "be"])) as answers:
        async for answer in answers:
            answer.response.letters()  # wrong
    pool.map(Counter.count, [3])  # wrong
