"""The application of `workerbus top`, with textual, which runs on asyncio alone (O8).

All that it shows is made elsewhere; here is when it is drawn, and what the keys do. It looks at the state again and
again, and never waits for it.
"""

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from anyio import open_signal_receiver
from rich.text import Text
from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input, Static
from textual.worker import Worker, WorkerState

from workerbus.cli._commands import INTERRUPTED, CommandError
from workerbus.cli._details import Lines, error_lines, help_lines, job_lines, worker_lines
from workerbus.cli._listing import LOOKS, Listing, strip
from workerbus.cli._lists import ERRORS, JOBS, WORKERS, Rates, error_rows, job_rows, worker_rows
from workerbus.cli._rows import Cell, Choice
from workerbus.cli._summary import numbers, remarks, title
from workerbus.cli._watch import State, Watch, empty, in_known_form
from workerbus.cli._words import bars, cells, fitted, one_line

WIDE = 120
"""From so many columns on all lists are shown at once."""
TERMINATED = 143
"""The exit code after SIGTERM."""
PANES = ("workers", "jobs", "errors")
LETTERS = {"N": "name", "J": "jobs", "W": "wait", "S": "rate", "D": "done", "B": "bad", "R": "restarts"}


class Head(Widget):
    """The title, and below it the numbers, four in a line, with curves where there is room."""

    DEFAULT_CSS = "Head { height: 4; }"

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[list[Cell]] = [[]]

    def put(self, name: str, link: Cell, state: State) -> None:
        """Show what is looked at, how that goes, and the numbers of a state."""
        width = self.size.width
        words = link[0]
        top: list[Cell] = [
            ("workerbus top  ", "strong"),
            (fitted(name, width - 15 - cells(words) - 1), ""),
            (" ", ""),
            link,
        ]
        room = max(16, width // 4)
        lines: list[list[Cell]] = [top, [], [], []]
        for n, each in enumerate(numbers(state)):
            text = f"{each.title} {each.text}"
            curve = bars(each.curve, max(0, room - 25)) if each.curve and room >= 30 else ""
            gap = " " * max(1, room - cells(text) - len(curve) - 2)
            lines[1 + n % 3] += [
                (f"{each.title} ", "dim"),
                (each.text, each.look),
                (gap, ""),
                (curve, "good"),
                ("  ", ""),
            ]
        self._lines = lines
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        return strip(self._lines[y] if y < len(self._lines) else [], self.size.width)


class Details(ModalScreen[None]):
    """More of one thing, above the lists.

    Args:
        name: What it is about.
        tell: Returns its lines, and whether these change.
    """

    DEFAULT_CSS = """
    Details { align: center middle; background: ansi_default; }
    Details VerticalScroll {
        width: 100%; max-width: 120; height: 100%; max-height: 44; padding: 0 1;
        border: round ansi_default; background: ansi_default;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "leave", show=False),
        Binding("j", "scroll(1)", show=False),
        Binding("k", "scroll(-1)", show=False),
    ]

    def __init__(self, name: str, tell: Callable[[], Awaitable[tuple[Lines, bool]]]) -> None:
        super().__init__()
        self._title = one_line(name)
        self._tell = tell

    def compose(self) -> ComposeResult:
        """Make its widgets."""
        box = VerticalScroll(Static(id="told"))
        box.border_title = Text(self._title)
        box.border_subtitle = Text("Esc closes")
        yield box

    async def on_mount(self) -> None:
        """Show what there is to say, and again each second while that changes."""
        if await self._show():
            self._timer = self.set_interval(1.0, self._again)

    async def _again(self) -> None:
        if not await self._show():
            self._timer.stop()

    async def _show(self) -> bool:
        lines, more = await self._tell()
        parts = [part for line in lines for part in (*((text, LOOKS[look]) for text, look in line), ("\n", LOOKS[""]))]
        self.query_one("#told", Static).update(Text.assemble(*parts))
        return more

    def action_leave(self) -> None:
        """Go back to the lists."""
        self.dismiss()

    def action_scroll(self, by: int) -> None:
        """Scroll by a line."""
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)


class TopApp(App[CommandError | None]):
    """`workerbus top` in a terminal.

    Args:
        watch: What is looked at.
        choice: How the workers are sorted at first, and what is looked for.
        delay: Seconds between two pictures.
    """

    TITLE = "workerbus top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #side { width: 2fr; } #workers { width: 3fr; }
    .wide #side { margin-left: 2; } .wide #workers, .wide #jobs, .wide #errors { display: block; }
    .narrow #side { display: none; } .narrow Listing { display: none; }
    .narrow.shows-workers #workers { display: block; width: 1fr; }
    .narrow.shows-jobs #side, .narrow.shows-jobs #jobs { display: block; }
    .narrow.shows-errors #side, .narrow.shows-errors #errors { display: block; }
    .narrow.shows-jobs #workers, .narrow.shows-errors #workers { display: none; }
    .narrow #side { width: 1fr; }
    #foot { height: 1; }
    #filter { height: 1; border: none; padding: 0; display: none; background: ansi_default; color: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,f10", "quit", show=False),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False),
        Binding("question_mark,h,f1", "help", show=False),
        Binding("slash,f3,f4", "filter", show=False),
        Binding("escape", "clear_filter", show=False),
        Binding("p,Z", "pause", show=False),
        Binding("1", "pane('workers')", show=False),
        Binding("2", "pane('jobs')", show=False),
        Binding("3", "pane('errors')", show=False),
        Binding("tab", "next_pane(1)", show=False, priority=True),
        Binding("shift+tab", "next_pane(-1)", show=False, priority=True),
        Binding("less_than_sign,comma", "sort_beside(-1)", show=False),
        Binding("greater_than_sign,full_stop,f6", "sort_beside(1)", show=False),
        Binding("I", "reverse", show=False),
        Binding("t,f5", "tree", show=False),
        Binding("space", "fold", show=False),
        Binding("left", "fold(True)", show=False),
        Binding("right", "fold(False)", show=False),
        Binding("plus,asterisk", "fold_all(False)", show=False),
        Binding("minus", "fold_all(True)", show=False),
        *(Binding(letter, f"sort({key!r})", show=False) for letter, key in LETTERS.items()),
    ]

    def __init__(self, watch: Watch, choice: Choice, delay: float) -> None:
        super().__init__(ansi_color=True)
        self._watch = watch
        self._delay = delay
        self._rates = Rates()
        self._state: State = empty()
        self._now = 0.0
        self._paused = False
        self._pane = "workers"
        self._shown = (-1, 0.0)
        self._wide = False
        self._head = Head()
        self._foot = Static(id="foot")
        self._field = Input(choice.wanted, placeholder="text to look for", select_on_focus=False, id="filter")
        self.wanted: str = choice.wanted
        self.lists: dict[str, Listing] = {
            "workers": Listing(WORKERS, choice, id="workers"),
            "jobs": Listing(JOBS, Choice("age", tree=False), id="jobs"),
            "errors": Listing(ERRORS, Choice("name", tree=False), id="errors"),
        }
        side = Vertical(self.lists["jobs"], self.lists["errors"], id="side")
        self._body = Horizontal(self.lists["workers"], side)

    def compose(self) -> ComposeResult:
        """Make its widgets."""
        yield self._head
        yield self._body
        yield self._foot
        yield self._field

    def on_mount(self) -> None:
        """Begin to look."""
        self._arrange()
        self.lists["workers"].focus()
        self.run_worker(self._watch.run(), name="watch", exit_on_error=False)
        self.run_worker(self._end_by_signal(), name="signals", exit_on_error=False)
        self.run_worker(self._begin(), name="begin", exit_on_error=False)
        self.set_interval(self._delay, self.look)
        self.look()

    def on_resize(self, event: events.Resize) -> None:
        """Show all lists, or one of them."""
        self._arrange(event.size.width)
        self.call_after_refresh(self.draw)

    async def _begin(self) -> None:
        await self._watch.begun.wait()
        self.look()

    async def _end_by_signal(self) -> None:
        with open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
            async for _ in signals:
                self.exit(return_code=TERMINATED)

    @on(Worker.StateChanged)
    def _watch_failed(self, event: Worker.StateChanged) -> None:
        if event.state is WorkerState.ERROR and event.worker.name == "watch":
            if not isinstance(event.worker.error, CommandError):
                raise event.worker.error or RuntimeError("the watch has ended")
            self.exit(event.worker.error)

    # --- drawing

    def look(self) -> None:
        """Take what there is to see, and draw it."""
        with self._ended_by_another_form():
            self._rates.learn(self._watch.at, self._watch.state)
            if not self._paused:
                self._state, self._now = self._watch.state, self._watch.now()
            self._draw()

    def draw(self) -> None:
        """Draw what was seen last."""
        with self._ended_by_another_form():
            self._draw()

    @contextmanager
    def _ended_by_another_form(self) -> Iterator[None]:
        try:
            with in_known_form(self._watch.shown):
                yield
        except CommandError as error:
            self.exit(error)

    def _draw(self) -> None:
        state, now = self._state, self._now
        self._head.put(title(self._watch), self._link(), state)
        rows = {
            "workers": worker_rows(state, self._rates, now, self._choice("workers")),
            "jobs": job_rows(state, now, self._choice("jobs")),
            "errors": error_rows(state, now, self._choice("errors")),
        }
        totals = {
            "workers": state["about"].get("workers", 0),
            "jobs": state["about"].get("jobs", 0),
            "errors": len(state["errors"]),
        }
        for name, listing in self.lists.items():
            nothing = "nothing that has this text" if self.wanted else f"no {name}"
            listing.put(rows[name], self._label(name, totals), nothing if self._watch.begun.is_set() else "connecting")
        self._draw_foot()

    def _choice(self, name: str) -> Choice:
        return self.lists[name].choice._replace(wanted=self.wanted.strip().lower())

    def _link(self) -> Cell:
        if self._watch.link == "lost":
            return f"lost: {one_line(self._watch.why)}", "bad"
        return (
            ("paused", "warn") if self._paused else (self._watch.link, "good" if self._watch.link == "live" else "warn")
        )

    def _label(self, name: str, totals: dict[str, int]) -> list[Cell]:
        found: list[Cell] = []
        for number, each in enumerate(PANES, 1):
            if not self._wide or each == name:
                look = "strong" if each == self._pane else "dim"
                found += [(f"{number} {each.capitalize()} {totals[each]:,}", look), ("   ", "")]
        return found

    def _draw_foot(self) -> None:
        told: list[Cell] = [(f"filter: {one_line(self.wanted)} (Esc clears it)  ", "warn")] if self.wanted else []
        told += [(f"{one_line(each)}  ", "warn") for each in remarks(self._state)]
        keys = "/ filter  < > sort  t tree  Space fold  Enter more  p pause  ? help  q quit"
        told.append((keys, "dim"))
        self._foot.update(Text.assemble(*((text, LOOKS[look]) for text, look in told), no_wrap=True))

    def _arrange(self, width: int | None = None) -> None:
        self._wide = (self.size.width if width is None else width) >= WIDE
        self._body.set_class(self._wide, "wide")
        self._body.set_class(not self._wide, "narrow")
        for each in PANES:
            self._body.set_class(each == self._pane, f"shows-{each}")

    # --- what people do

    @property
    def _listing(self) -> Listing:
        return self.lists[self._pane]

    def _choose(self, listing: Listing, choice: Choice) -> None:
        listing.choice = choice
        self.draw()

    def action_pane(self, name: str) -> None:
        """Go to a list."""
        self._pane = name
        self._arrange()
        self._listing.focus()
        self.call_after_refresh(self.draw)

    def action_next_pane(self, by: int) -> None:
        """Go to the next list, or to the one before."""
        self.action_pane(PANES[(PANES.index(self._pane) + by) % len(PANES)])

    def on_descendant_focus(self) -> None:
        """A click may have gone to another list."""
        if isinstance(self.focused, Listing) and self.focused.id != self._pane:
            self.action_pane(str(self.focused.id))

    def action_sort(self, key: str) -> None:
        """Sort the workers by a column, or the other way round where they are already."""
        self._sort(self.lists["workers"], key)

    @on(Listing.Sorted)
    def _sort_clicked(self, event: Listing.Sorted) -> None:
        self._sort(event.listing, event.key)

    def _sort(self, listing: Listing, key: str) -> None:
        choice = listing.choice
        self._choose(listing, choice._replace(sort=key, reverse=choice.sort == key and not choice.reverse))

    def action_sort_beside(self, by: int) -> None:
        """Sort by the column beside."""
        listing = self._listing
        keys = [each.key for each in listing.columns]
        place = (keys.index(listing.choice.sort) + by) % len(keys)
        self._choose(listing, listing.choice._replace(sort=keys[place], reverse=False))

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._choose(self._listing, self._listing.choice._replace(reverse=not self._listing.choice.reverse))

    def action_tree(self) -> None:
        """Show the workers as a tree, or as a list."""
        listing = self.lists["workers"]
        self._choose(listing, listing.choice._replace(tree=not listing.choice.tree))

    def action_fold(self, shut: bool | None = None) -> None:
        """Hide what is below the chosen worker, or show it."""
        listing = self.lists["workers"]
        if self._pane != "workers" or listing.chosen is None:
            return
        if listing.chosen.below and listing.chosen.shut is not shut:
            self._fold([listing.chosen.row.key])
        elif shut:
            listing.leave_below()

    def action_fold_all(self, shut: bool) -> None:
        """Hide all that is below others, or show it."""
        if self._pane == "workers":
            self._fold([each.row.key for each in self.lists["workers"].placed if each.below and each.shut is not shut])

    def _fold(self, keys: list[str]) -> None:
        listing = self.lists["workers"]
        self._choose(listing, listing.choice._replace(folded=frozenset(listing.choice.folded) ^ frozenset(keys)))

    def action_pause(self) -> None:
        """Draw nothing new, or go on."""
        self._paused = not self._paused
        if self._paused:
            self._state = {section: dict(rows) for section, rows in self._state.items()}
        self.look()

    def action_filter(self) -> None:
        """Ask what is looked for."""
        self._foot.display, self._field.display = False, True
        self._field.focus()

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        self.wanted = event.value
        self.draw()

    @on(Input.Submitted, "#filter")
    def _filter_kept(self) -> None:
        self._foot.display, self._field.display = True, False
        self._listing.focus()

    def action_clear_filter(self) -> None:
        """Look for nothing in particular."""
        self._field.value = ""
        self._filter_kept()

    @on(Listing.Opened)
    def _open(self, event: Listing.Opened) -> None:
        key, kind = event.key, event.listing.id

        async def tell() -> tuple[Lines, bool]:
            if kind == "workers":
                return worker_lines(self._state, key, self._now), True
            if kind == "jobs":
                return job_lines(await self._watch.story(key.partition("@")[0]))
            return error_lines(self._state, key, self._now), False

        name = {"workers": key, "jobs": f"job {key.partition('@')[0]}", "errors": "error"}[str(kind)]
        self.push_screen(Details(name, tell))

    def action_help(self) -> None:
        """Say which keys there are."""

        async def tell() -> tuple[Lines, bool]:
            return help_lines(), False

        self.push_screen(Details("Keys and columns", tell))

    def action_interrupt(self) -> None:
        """Quit."""
        self.exit(return_code=INTERRUPTED)


def show(watch: Watch, choice: Choice, delay: float) -> int:
    """Show what there is to see in the terminal, until somebody quits; returns the exit code.

    Raises:
        CommandError: There is nothing to see.
    """
    app = TopApp(watch, choice, delay)
    failed = app.run()
    if failed is not None:
        raise failed
    return app.return_code or 0
