"""Who takes part, in the order of the tables."""

from pathlib import Path
from typing import Literal

from attrs import frozen

Role = Literal["ours", "peer", "floor", "other"]


@frozen
class Contender:
    """Somebody who is measured, in a process of its own.

    Args:
        name: What ``--contender`` takes.
        title: The head of its column.
        role: workerbus, a peer, the floor, or another workerbus.
        module: Where its class ``Contender`` is.
        backend: asyncio or trio.
        imports: The statement that is timed as its import; none, if empty.
        needs: The distribution without which it is left out.
        path: A directory that comes first where its process looks for modules.
    """

    name: str
    title: str
    role: Role
    module: str
    backend: str = "asyncio"
    imports: str = ""
    needs: str = ""
    path: str = ""

    @property
    def short(self) -> str:
        """Its name without what it runs on."""
        return self.title.partition("\n")[0]

    def comparable(self, ours: "Contender") -> bool:
        """Whether ``ours`` is measured by it: peers always, the floor and another workerbus on the same backend."""
        same = self.backend == ours.backend
        return self.role == "peer" or (self.role in ("floor", "other") and same)


OURS = "benchmarks.contenders.workerbus_"
IMPORT_OURS, IMPORT_BARE = "import workerbus", "import anyio, attrs"
IMPORT_PIPECAT = (
    "from pipecat.pipeline.job_decorator import job; from pipecat.workers.base_worker import BaseWorker; "
    "from pipecat.workers.runner import WorkerRunner"
)
_HERE = "benchmarks.contenders"

CONTENDERS: tuple[Contender, ...] = (
    Contender("workerbus-asyncio", "workerbus\nasyncio", "ours", OURS, "asyncio", IMPORT_OURS, "workerbus"),
    Contender("workerbus-trio", "workerbus\ntrio", "ours", OURS, "trio", IMPORT_OURS, "workerbus[trio]"),
    Contender("pipecat", "Pipecat\nasyncio", "peer", f"{_HERE}.pipecat_", "asyncio", IMPORT_PIPECAT, "pipecat-ai"),
    Contender(
        "autogen", "autogen\nasyncio", "peer", f"{_HERE}.autogen_", "asyncio", "import autogen_core", "autogen-core"
    ),
    Contender("pykka", "pykka\nthreads", "peer", f"{_HERE}.pykka_", "asyncio", "import pykka", "pykka"),
    Contender("anyio-asyncio", "anyio\nasyncio", "floor", f"{_HERE}.anyio_", "asyncio", IMPORT_BARE, "anyio"),
    Contender("anyio-trio", "anyio\ntrio", "floor", f"{_HERE}.anyio_", "trio", IMPORT_BARE, "trio"),
    Contender("asyncio", "asyncio", "floor", f"{_HERE}.asyncio_", "asyncio", "import asyncio"),
)


def beside(path: str) -> tuple[Contender, ...]:
    """Return workerbus from another source tree.

    Args:
        path: The directory in which its package is, or one above ``src``.
    """
    source = Path(path).resolve()
    label = (source.parent if source.name == "src" else source).name
    source = source / "src" if (source / "src").is_dir() else source
    return tuple(
        Contender(f"{label}-{backend}", f"{label}\n{backend}", "other", OURS, backend, IMPORT_OURS, path=str(source))
        for backend in ("asyncio", "trio")
    )


def also(module: str) -> Contender:
    """Return a contender of somebody's own, as a peer.

    Args:
        module: Where its class ``Contender`` is.
    """
    name = module.rpartition(".")[2]
    return Contender(name, f"{name}\nasyncio", "peer", module)
