"""The process of one contender: ``python -m benchmarks._child MODULE BACKEND``.

Says on its first line what it has, then reads one request from each line of its input, measures, and answers with a
line. What libraries print goes to the standard error.
"""

import gc
import importlib
import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import anyio

from benchmarks._passes import counting
from benchmarks._run import Run
from benchmarks._subjects import SUBJECTS, Subjects


def introduce(contender: Subjects) -> dict[str, Any]:
    """Return what the contender has, and what it is made of."""
    versions = {}
    for package in contender.packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "?"
    module = sys.modules.get(contender.packages[0] if contender.packages else "")
    source = str(Path(module.__file__).resolve().parent) if module is not None and module.__file__ else ""
    return {"has": [name for name in SUBJECTS if contender.has(name)], "versions": versions, "source": source}


def measure(contender: Subjects, request: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked, in an event loop of its own."""
    run, subject = Run(request["size"], request["count"]), SUBJECTS[request["subject"]]
    options = counting(contender.backend) if subject.counted else None
    gc.collect()
    if not subject.collector:
        gc.disable()
    try:
        anyio.run(getattr(contender, subject.name), run, backend=contender.backend, backend_options=options)
    except Exception as error:  # noqa: BLE001 - reported in the table
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        return {"error": f"{type(cause).__name__}: {cause}"}
    finally:
        gc.enable()
    return {"values": run.values}


def main() -> None:
    """Serve until the input ends."""
    module, backend = sys.argv[1:3]
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(module, backend, answers)


def serve(module: str, backend: str, answers: TextIO) -> None:
    """Introduce oneself, then answer."""

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        contender: Subjects = importlib.import_module(module).Contender(backend)
    except ModuleNotFoundError as error:
        say({"missing": error.name})
        return
    gc.collect()
    gc.freeze()  # what a contender imports is no burden to its garbage collections
    say(introduce(contender))
    for line in sys.stdin:
        say(measure(contender, json.loads(line)))


if __name__ == "__main__":
    main()
