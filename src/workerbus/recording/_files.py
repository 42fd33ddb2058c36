"""All that can be written of recordings, by the names of the formats: for programs and for tests."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from workerbus.bus._taps import TapNewBuses
from workerbus.recording._recording import LIMIT, Recording

_PICTURES: Final[Mapping[str, tuple[str, Callable[[Recording], str]]]] = {
    "mermaid": (".mmd", Recording.mermaid),
    "sequence": (".sequence.svg", Recording.sequence_svg),
    "timeline": (".timeline.svg", Recording.timeline_svg),
    "chrome": (".trace.json", Recording.chrome_trace),
}
FORMATS: Final = ("records", *_PICTURES)
"""The formats that there are: the recording itself, and what is drawn from it."""
MOST_BUSES: Final = 50
"""Of how many buses `Recordings` keeps recordings by default."""


class Recordings:
    """Records every bus that is made during the block, anywhere in the process, each separately.

    ::

        with Recordings() as recordings:
            main()
        recordings.save("out", "main")

    Args:
        limit: How many records are kept of each bus; beyond that the oldest are dropped.
        payloads: Whether to keep the payloads, too.
        buses: How many recordings are kept, one for each bus; beyond that those of the first buses are dropped.

    Raises:
        ValueError: ``limit`` or ``buses`` is less than 1.

    Guarantees: O1, O3.
    """

    def __init__(self, *, limit: int = LIMIT, payloads: bool = False, buses: int = MOST_BUSES) -> None:
        Recording(limit=limit)
        if buses < 1:
            raise ValueError(f"buses is at least 1, not {buses!r}")
        self._limit = limit
        self._payloads = payloads
        self._buses = buses
        self._made: deque[tuple[Any, Recording]] = deque()
        self._dropped = 0
        self._new_buses = TapNewBuses(self._make)

    def _make(self, bus: Any) -> Recording:
        recording = Recording(limit=self._limit, payloads=self._payloads)
        self._made.append((bus, recording))
        if len(self._made) > self._buses:
            first, dropped = self._made.popleft()
            first.remove_tap(dropped)
            self._dropped += 1
        return recording

    def __enter__(self) -> Self:
        """Begin to record the buses that are made."""
        self._new_buses.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Record no more; what was recorded stays."""
        self._new_buses.__exit__(exc_type, exc, traceback)
        for bus, recording in self._made:
            bus.remove_tap(recording)

    @property
    def recordings(self) -> list[Recording]:
        """One recording for each bus on which anything has passed, in the order in which the buses were made."""
        return [recording for _, recording in self._made if len(recording)]

    @property
    def dropped(self) -> int:
        """How many of the first buses were dropped because there were more than are kept."""
        return self._dropped

    def save(self, directory: str | Path, stem: str, formats: Sequence[str] = FORMATS) -> list[Path]:
        """Write the recordings, and pictures of them; see `write`."""
        return write(self.recordings, directory, stem, formats)


def write(
    recordings: Iterable[Recording], directory: str | Path, stem: str, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write recordings, and pictures of them, into a directory, which is created if necessary.

    Args:
        recordings: The recordings.
        directory: The directory.
        stem: What the names of the files begin with; those of a second recording begin with ``STEM-2``.
        formats: What to write: ``"records"`` (``.jsonl``), ``"mermaid"`` (``.mmd``), ``"sequence"``
            (``.sequence.svg``), ``"timeline"`` (``.timeline.svg``), ``"chrome"`` (``.trace.json``); all by default.

    Returns:
        The files that were written.

    Raises:
        ValueError: There is no such format.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ValueError(f"the formats are {', '.join(FORMATS)}, not {', '.join(unknown)}")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for place, recording in enumerate(recordings, 1):
        name = stem if place == 1 else f"{stem}-{place}"
        if "records" in formats:
            written.append(folder / f"{name}.jsonl")
            recording.save(written[-1])
        for kind, (suffix, draw) in _PICTURES.items():
            if kind in formats:
                written.append(folder / f"{name}{suffix}")
                written[-1].write_text(draw(recording), encoding="utf-8")
    return written


def file_stem(text: str, most: int = 120) -> str:
    """Return a text as the beginning of a file's name: with nothing in it that a file system could take amiss."""
    return re.sub(r"[^\w.=+-]+", "-", text).strip("-.")[-most:] or "run"
