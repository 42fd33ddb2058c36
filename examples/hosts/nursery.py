"""A plain trio program: the runner is around its nursery. Ctrl-C and SIGTERM end both in order.

python examples/hosts/nursery.py rye wheat spelt
"""

import sys

import trio

from workerbus import BaseWorker, BusJobRequestMessage, WorkerRunner, job


class Baker(BaseWorker):
    """Bakes two loaves at once, each in a second."""

    @job(name="bake", limit=2)
    async def bake(self, message: BusJobRequestMessage) -> dict[str, str]:
        """Bake one loaf."""
        await trio.sleep(1)
        return {"bread": f"{message.payload['dough']} bread"}


async def buy(runner: WorkerRunner, dough: str, counter: trio.MemorySendChannel[str]) -> None:
    """Ask for a loaf, and wait for it no longer than two and a half seconds."""
    async with counter:
        with trio.move_on_after(2.5) as patience:  # the baker is told, and stops
            answer = await runner.job("baker", name="bake", payload={"dough": dough})
            await counter.send(answer["bread"])
        if patience.cancelled_caught:
            await counter.send(f"no {dough} bread")


async def main(doughs: list[str]) -> None:
    """Have a customer for each dough, and say what they get."""
    async with WorkerRunner(name="bakery", handle_sigterm=True) as runner, trio.open_nursery() as nursery:
        await runner.add_workers(Baker("baker"))
        send, receive = trio.open_memory_channel[str](0)
        async with send:
            for dough in doughs:
                nursery.start_soon(buy, runner, dough, send.clone())
        async for bought in receive:
            print(bought, flush=True)


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
