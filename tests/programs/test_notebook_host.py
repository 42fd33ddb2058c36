"""J5, L3, L7: examples/hosts/notebook.ipynb, executed in a Jupyter kernel."""

import asyncio
import atexit
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient", reason="nbclient is not installed: pip install '.[hosts]'")
pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install '.[hosts]'")

import nbformat
from nbclient import NotebookClient

from support.conditions import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),  # of jupyter_client's own
]

NOTEBOOK = Path(__file__).parents[2] / "examples" / "hosts" / "notebook.ipynb"
PATIENCE = 60


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's are not typed


def code(source: str) -> Any:
    """A new cell."""
    fields: dict[str, Any] = {"id": "new", "metadata": {}, "outputs": [], "execution_count": None}
    return nbformat.from_dict({"cell_type": "code", "source": source, **fields})  # type: ignore[no-untyped-call]  # the same


def printed(cell: Any) -> str:
    """What a cell has printed, in however many pieces."""
    return "".join(each.text for each in cell.get("outputs", []) if each.output_type == "stream")


class Notebook:
    """The notebook, in a kernel.

    Attributes:
        cells: Its cells.
    """

    def __init__(self, client: NotebookClient) -> None:
        self._client = client
        self.cells: list[Any] = client.nb.cells

    async def execute(self, cell: Any) -> tuple[str, str]:
        """Execute a cell; returns what it has printed, and the name of what it has raised."""
        places = [place for place, each in enumerate(self.cells) if each is cell]
        if not places:
            self.cells.append(cell)
        await self._client.async_execute_cell(cell, places[0] if places else len(self.cells) - 1)
        return printed(cell), "".join(each.ename for each in cell.outputs if each.output_type == "error")

    async def play(self, *, up_to: str = "") -> None:
        """Execute the notebook's cells, as far as the first one in which a text stands."""
        for cell in list(self.cells):
            if up_to and up_to in cell.source:
                return
            if cell.cell_type == "code":
                cell.outputs = []
                assert (await self.execute(cell))[1] == ""

    async def interrupt(self) -> None:
        kernel: Any = self._client.km  # nbclient makes one whose methods are async
        await kernel.interrupt_kernel()


@asynccontextmanager
async def opened() -> AsyncIterator[Notebook]:
    client = NotebookClient(read(), timeout=PATIENCE, allow_errors=True)
    try:
        async with client.async_setup_kernel():
            yield Notebook(client)
    finally:
        atexit.unregister(client._cleanup_kernel)  # it has ended


def test_the_notebook_prints_what_it_shows() -> None:
    """L7, R7: a runner in one cell, and one in the background of several."""

    async def scenario() -> None:
        async with opened() as notebook:
            await notebook.play()
            assert [printed(cell) for cell in notebook.cells] == [printed(cell) for cell in read().cells]

    asyncio.run(scenario())


def test_a_kernel_that_is_interrupted_cancels_the_job_of_the_cell_alone() -> None:
    """J5, L3: the worker has stopped, and the runner goes on."""

    async def scenario() -> None:
        async with opened() as notebook:
            await notebook.play(up_to="cut_short, ")
            long = code(
                'async with runner.job("counter", name="count", payload={"to": 1000}) as counting:\n'
                "    async for event in counting:\n"
                '        print("counted", flush=True)'
            )
            waiting = asyncio.create_task(notebook.execute(long))
            await until(lambda: printed(long))
            await notebook.interrupt()
            assert (await waiting)[1] == "CancelledError"
            ask = 'await runner.job("counter", name="count", payload={"to": 1})'
            short = code(f"print({ask}, counter.cut_short, background.done())")
            assert await notebook.execute(short) == ("{'counted': 1} 1 False\n", "")

    asyncio.run(scenario())


def test_a_runner_that_one_cell_has_entered_is_not_left_in_another() -> None:
    """L7: the error says so, and the runner has ended."""

    async def scenario() -> None:
        async with opened() as notebook:
            enter = "from workerbus import WorkerRunner\nmine = await WorkerRunner(name='mine').__aenter__()"
            assert await notebook.execute(code(enter)) == ("", "")
            assert await notebook.execute(code("await mine.__aexit__(None, None, None)")) == ("", "WrongTaskError")
            assert await notebook.execute(code("print(mine.health().ended)")) == ("True\n", "")

    asyncio.run(scenario())
