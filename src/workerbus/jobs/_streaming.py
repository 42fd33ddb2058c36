"""Handlers that are async generators: what they yield is the stream of their job (J18)."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from workerbus._concurrency.generators import close_generator
from workerbus.messages import BusJobRequestMessage


async def streamed(
    worker: Any,
    message: BusJobRequestMessage,
    chunks: AsyncGenerator[Any, None],
    plain: Callable[[Any], Any] | None = None,
) -> None:
    """Send what a generator yields, and end the stream when it ends.

    However the job ends, the generator has been closed before it is answered.
    """
    job_id = message.job_id
    try:
        await worker.send_job_stream_start(job_id)
        async for yielded in chunks:
            chunk = yielded if plain is None else plain(yielded)
            if not (chunk is None or isinstance(chunk, dict)):
                kind = type(chunk).__name__
                raise TypeError(f"the handler of job {message.job_name!r} yielded {kind}; yield dicts, or None")
            await worker.send_job_stream_data(job_id, chunk)
    finally:
        await close_generator(chunks)
    await worker.send_job_stream_end(job_id)
