"""``workerbus record``, which runs a program and draws what passed, and ``workerbus draw`` (O1, O3)."""

import argparse
import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from workerbus.cli._commands import USAGE, CommandError, Commands, whole
from workerbus.errors import RecordingError
from workerbus.recording import FORMATS, LIMIT, Recording, Recordings, write

_OWN_FRAMES: Final = frozenset({__file__, runpy.__file__, "<frozen runpy>"})


def add_record(commands: Commands) -> None:
    """Add the command ``record``."""
    parser = commands.add_parser(
        "record",
        help="run a program, and draw what passed on its buses",
        description="Run a Python program with every bus recorded, and write the recording and pictures of it when the"
        " program has ended, also when it has failed. The exit code is the program's.",
        epilog="What stands behind -- are the program's own arguments.",
    )
    parser.add_argument("program", metavar="PROGRAM.py", type=Path, help="the program")
    _add_output(parser)
    parser.add_argument(
        "--limit",
        metavar="N",
        type=whole,
        default=LIMIT,
        help="records of each bus, the last ones; default: %(default)s",
    )
    parser.add_argument("--payloads", action="store_true", help="keep payloads, too, in the file of the records")
    parser.set_defaults(run=record)


def add_draw(commands: Commands) -> None:
    """Add the command ``draw``."""
    parser = commands.add_parser(
        "draw",
        help="draw a recording that was saved",
        description="Write pictures of a recording that was saved, by 'workerbus record' or by Recording.save.",
    )
    parser.add_argument("recording", metavar="RUN.jsonl", type=Path, help="the recording")
    _add_output(parser)
    parser.set_defaults(run=draw, formats=None)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("recording"), help="default: %(default)s")
    parser.add_argument(
        "--format", action="append", choices=FORMATS, dest="formats", help="may be given several times; default: all"
    )


def record(given: argparse.Namespace) -> int:
    """Run a program with every bus recorded, and write what was recorded."""
    if not given.program.is_file():
        raise CommandError(f"{str(given.program)!r} is no file", USAGE)
    _make(given.out)
    with Recordings(limit=given.limit, payloads=given.payloads) as recordings:
        exit_code = _run(given.program, given.rest)
    _write(recordings.recordings, given.out, given.program.stem, given.formats or FORMATS)
    if recordings.dropped:
        sys.stderr.write(f"workerbus: {recordings.dropped} earlier buses are not kept\n")
    return exit_code


def draw(given: argparse.Namespace) -> int:
    """Draw a recording that was saved."""
    try:
        recording = Recording.load(given.recording)
    except RecordingError as exc:
        raise CommandError(str(exc)) from None
    except OSError as exc:
        raise CommandError(f"{str(given.recording)!r} cannot be read: {exc.strerror}", USAGE) from None
    _make(given.out)
    formats = given.formats or [kind for kind in FORMATS if kind != "records"]
    _write([recording], given.out, given.recording.stem, formats)
    return 0


def _make(folder: Path) -> None:
    # Before the program runs: afterwards it would be too late to say so.
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise CommandError(f"--out: {str(folder)!r} cannot be made: {exc.strerror}", USAGE) from None


def _write(recordings: Sequence[Recording], folder: Path, stem: str, formats: Sequence[str]) -> None:
    if not recordings:
        sys.stderr.write("workerbus: nothing was recorded: nothing has passed on a bus of this process\n")
        return
    try:
        written = write(recordings, folder, stem, formats)
    except OSError as exc:
        raise CommandError(f"{exc.filename!r} cannot be written: {exc.strerror}") from None
    for path in written:
        sys.stderr.write(f"workerbus: wrote {path}\n")


def _run(program: Path, arguments: Sequence[str]) -> int:
    """Run a program as Python would; returns its exit code."""
    before = sys.argv, sys.path[:]
    sys.argv = [str(program), *arguments]
    sys.path.insert(0, str(program.parent.absolute()))
    try:
        runpy.run_path(str(program), run_name="__main__")
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return exc.code or 0
        sys.stderr.write(f"{exc.code}\n")
        return 1
    except KeyboardInterrupt as exc:
        _show(exc)
        return 130
    except BaseException as exc:  # noqa: BLE001 - as Python would; the recording is written all the same
        _show(exc)
        return 1
    finally:
        sys.argv, sys.path[:] = before
    return 0


def _show(exc: BaseException) -> None:
    frame = exc.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename in _OWN_FRAMES:
        frame = frame.tb_next
    traceback.print_exception(type(exc), exc, frame)
