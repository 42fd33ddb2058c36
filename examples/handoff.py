"""Two workers take turns at answering you: one knows sums, the other one words. Neither knows the other's matter.

    python examples/handoff.py                      a short conversation, to be read
    python examples/handoff.py -                    a conversation with you, or with whatever is piped into it
    python examples/handoff.py FILE --backend trio  the lines of a file

How it works:

* The front is a pipeline of three processors: a reader, a bridge to the bus, and a page. A `Line` that comes to the
  bridge goes out to the bus; a `Reply` that comes from there is pushed on to the page.
* The page asks for the next line by a frame that travels upstream. The bridge excludes it, so it stays in the front.
* Both others are `bridged`: what is on the bus comes into their pipelines, and what leaves those goes out. Only the one
  that is active gets lines, so each line is answered once.
* A worker that cannot answer hands over: `activate_worker(…, deactivate_self=True)` is one step, and takes the line
  along. What each has seen it keeps: ask the words again after a few sums.
* An error in a pipeline would not end it, and leave a line without an answer; so it ends the conversation.
* At the end of the input the reader asks the front for its end, and the two others, which are its children, end first.
"""

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports: there is nothing to clean up yet
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import ast
import operator
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from rich.console import Console
from rich.text import Text

from workerbus import BusBridgeProcessor, PipelineWorker, WorkerActivationArgs, WorkerRunner
from workerbus.pipeline import (
    ControlFrame,
    DataFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    Pipeline,
    frame_type,
)

CONVERSATION = """\
12 * (3 + 4)
ans / 7
To be, or not to be, that is the question
The rest is silence
2 ** 100
ans % 1000
1 / (ans - 376)
Brevity is the soul of wit
"""

COLOURS = {"sums": "cyan", "words": "magenta"}

NextLine = Callable[[], Awaitable[str | None]]
"""Gives the next line of the input, or None at its end."""


# --- frames


@frame_type
class Line(DataFrame):
    """What somebody has said."""

    text: str
    handed_over: bool = False


@frame_type
class Reply(DataFrame):
    """What a worker says to that; one that is not `last` is followed by another."""

    text: str
    speaker: str
    last: bool = True


class Proceed(ControlFrame):
    """Travels upstream: the page is ready for the next line."""


# --- the front


class Reader(FrameProcessor):
    """Pushes the next line when it is asked for one, and asks for the end when there is none."""

    def __init__(self, next_line: NextLine, *, prompt: bool) -> None:
        super().__init__("reader")
        self._next_line = next_line
        self._prompt = prompt

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, Proceed):
            await self._proceed()
        else:
            await self.push_frame(frame, direction)

    async def _proceed(self) -> None:
        line = ""
        while not line.strip():
            if self._prompt:
                print("> ", end="", flush=True)
            given = await self._next_line()
            if given is None:
                await self.push_frame(EndFrame("no more lines"), FrameDirection.UPSTREAM)
                return
            line = given
        if not self._prompt:
            print(f"> {line}", flush=True)
        await self.push_frame(Line(line))


class Page(FrameProcessor):
    """Writes replies down, and asks for the next line."""

    def __init__(self, console: Console) -> None:
        super().__init__("page")
        self._console = console

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, Reply):
            await self.push_frame(frame, direction)
            return
        speaker = Text(f"{frame.speaker:>7}", COLOURS.get(frame.speaker, ""))
        self._console.print(speaker.append(f"  {frame.text}", "dim" if not frame.last else "default"), soft_wrap=True)
        if frame.last:
            await self.push_frame(Proceed(), FrameDirection.UPSTREAM)


# --- those who answer


class Matter(FrameProcessor):
    """Answers lines about one matter, and hands over where it cannot."""

    matter = ""
    other = ""

    def __init__(self) -> None:
        super().__init__(self.matter)
        self.answered = self.handed_over = 0

    def answer(self, line: str) -> str | None:
        """Return the answer, or None if the line is about something else."""
        raise NotImplementedError

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, Line):
            await self.push_frame(frame, direction)
            return
        answer = self.answer(frame.text)
        if answer is not None or frame.handed_over:
            self.answered += 1
            await self.push_frame(Reply(answer or "that is a matter for neither of us", self.matter))
            return
        self.handed_over += 1
        await self.push_frame(Reply(f"not my matter: over to {self.other}", self.matter, last=False))
        taken_along = WorkerActivationArgs(metadata={"line": frame.text})
        await self.worker.activate_worker(self.other, args=taken_along, deactivate_self=True)


class Expert(PipelineWorker):
    """A worker for one matter; begins with the line that it has been handed."""

    def __init__(self, matter: Matter, *, active: bool) -> None:
        super().__init__(Pipeline([matter]), name=matter.matter, active=active, bridged=())
        self._other = matter.other

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        if args is None:
            await self.queue_frame(Reply(f"tell me something: if it is about {self._other}, I hand over", self.name))
        else:
            await self.queue_frame(Line(args["metadata"]["line"], handed_over=True))


Number = int | float

OPERATORS: Final[dict[type[ast.AST], Callable[..., Number]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
BITS: Final = 10_000
"""Larger numbers are not worked out."""


class Sums(Matter):
    """Works out arithmetic; ``ans`` is the last result."""

    matter, other = "sums", "words"

    def __init__(self) -> None:
        super().__init__()
        self._last: Number = 0

    def answer(self, line: str) -> str | None:
        try:
            tree = ast.parse(line.strip(), mode="eval").body
            self._last = self._value(tree)
        except ArithmeticError as exc:
            return f"cannot be worked out: {exc}"
        except (SyntaxError, LookupError, ValueError, RecursionError, MemoryError):
            return None
        return f"= {self._last:,}"

    def _value(self, node: ast.AST) -> Number:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return number
            case ast.Name(id="ans"):
                return self._last
            case ast.UnaryOp(op=op, operand=operand):
                return OPERATORS[type(op)](self._value(operand))
            case ast.BinOp(left=left, op=op, right=right):
                one, two = self._value(left), self._value(right)
                if isinstance(op, ast.Pow):
                    check_power(one, two)
                return OPERATORS[type(op)](one, two)
        raise LookupError(type(node).__name__)


def check_power(base: Number, exponent: Number) -> None:
    if isinstance(base, int) and exponent * base.bit_length() > BITS:
        raise OverflowError("that would be a very large number")
    if base < 0 and exponent != int(exponent):
        raise ArithmeticError("a root of a negative number")


LOOKS_LIKE_A_SUM: Final = re.compile(r"(?:[\d\s.()+*/%-]|\bans\b)+")


class Words(Matter):
    """Counts words, and knows which of them it has seen before."""

    matter, other = "words", "sums"

    def __init__(self) -> None:
        super().__init__()
        self._seen: Counter[str] = Counter()

    def answer(self, line: str) -> str | None:
        words = [word.lower() for word in re.findall(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*", line)]
        if not words or LOOKS_LIKE_A_SUM.fullmatch(line):
            return None
        known = sorted({word for word in words if self._seen[word]})
        self._seen.update(words)
        answer = f"{len(words)} word{'s' * (len(words) > 1)}, the longest is {max(words, key=len)!r}"
        if known:
            answer += f"; heard before: {', '.join(known)}"
        return f"{answer} ({len(self._seen)} different ones so far)"


# --- the program around them


async def run(next_line: NextLine, console: Console, *, prompt: bool) -> int:
    """Hold the conversation; returns the program's exit code."""
    runner, errors = WorkerRunner(), []

    async def give_up(_worker: PipelineWorker, frame: ErrorFrame) -> None:
        errors.append(frame.error)
        await runner.cancel(reason=frame.error)

    bridge = BusBridgeProcessor(bus=runner.bus, worker_name="front", exclude_frames=(Proceed,))
    front = PipelineWorker(Pipeline([Reader(next_line, prompt=prompt), bridge, Page(console)]), name="front")
    sums, words = Sums(), Words()
    experts = Expert(sums, active=True), Expert(words, active=False)
    for worker in (front, *experts):
        worker.add_event_handler("on_pipeline_error", give_up)
    await front.add_workers(*experts)
    await runner.add_workers(front)
    await runner.run()
    if prompt:
        print()
    if runner.signal is not None:
        return 130
    if not errors:
        answered = f"{sums.answered} by sums, {words.answered} by words"
        print(f"answered: {answered}; handed over: {sums.handed_over + words.handed_over}")
    return 1 if errors else 0


def lines_of(text: str) -> NextLine:
    lines = iter(text.splitlines())

    async def next_line() -> str | None:
        return next(lines, None)

    return next_line


class StandardInput:
    """The lines of the standard input, as they come. A terminal and a pipe are waited for; a file always has more."""

    def __init__(self) -> None:
        self._got = b""
        self._over = False

    async def __call__(self) -> str | None:
        while b"\n" not in self._got and not self._over:
            with suppress(OSError):  # neither a terminal nor a pipe
                await anyio.wait_readable(0)
            chunk = os.read(0, 65536)
            self._got += chunk
            self._over = not chunk
        if not self._got:
            return None
        line, _, self._got = self._got.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")


def main() -> int:
    parser = argparse.ArgumentParser(description="Two workers take turns at answering lines of text.")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="lines of text; - for the standard input")
    parser.add_argument("--backend", choices=anyio.get_available_backends(), default="asyncio")
    given = parser.parse_args()
    if given.file is None:
        next_line = lines_of(CONVERSATION)
    elif str(given.file) == "-":
        if sys.stdin is None:
            parser.exit(2, f"{parser.prog}: there is no standard input\n")
        next_line = StandardInput()
    else:
        try:
            next_line = lines_of(given.file.read_text(errors="replace"))
        except OSError as exc:
            parser.exit(2, f"{parser.prog}: {exc}\n")
    prompt = str(given.file) == "-" and sys.stdin.isatty()
    console = Console(markup=False, emoji=False, highlight=False)
    return anyio.run(partial(run, next_line, console, prompt=prompt), backend=given.backend)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody reads on: `… | head`
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # from before the runner listens, or the second one
        sys.exit(130)
