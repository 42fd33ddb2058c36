"""The deprecated name of `WorkerRunner` (N1)."""

import warnings
from typing import Any

from workerbus.runner._runner import WorkerRunner


class PipelineRunner(WorkerRunner):
    """The deprecated name of `WorkerRunner`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warnings.warn("PipelineRunner is deprecated: use WorkerRunner", DeprecationWarning, stacklevel=2)
        super().__init__(*args, **kwargs)
