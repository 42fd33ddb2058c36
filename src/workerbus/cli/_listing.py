"""The list of `workerbus top`, as a widget: draws only the rows that are in sight, so a thousand cost as much as ten.

With textual. Its title and the heads of its columns stay where they are while it scrolls.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from workerbus.cli._rows import GAP, Cell, Choice, Column, Placed, head, laid_out, line

LOOKS: Final = {
    "": Style(),
    "dim": Style(dim=True),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red"),
    "strong": Style(bold=True),
}
"""Look of a cell to its style: the terminal's own colours, which fit to its background."""
_CURSOR: Final = Style(reverse=True)
_FIXED: Final = 2
"""Lines that do not scroll: the title, and the heads of the columns."""


def strip(cells: Sequence[Cell], width: int, style: Style | None = None) -> Strip:
    """Return cells as a line of a width."""
    over = style or Style()
    drawn = Strip([Segment(text, LOOKS[look] + over) for text, look in cells])
    return drawn.adjust_cell_length(width, over)


class Listing(ScrollView, can_focus=True):
    """A list of rows with a cursor.

    Args:
        columns: Its columns.
        choice: How it is sorted, and so on.
        **kwargs: For textual.

    Attributes:
        choice: The same, as it is now.
        placed: The rows at their places.
        label: The cells of its title.
    """

    DEFAULT_CSS = "Listing { height: 1fr; scrollbar-size-vertical: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "move(-1000000)", show=False),
        Binding("end,G", "move(1000000)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Opened(Message):
        """Somebody wants to know more of a row."""

        def __init__(self, listing: "Listing", key: str) -> None:
            super().__init__()
            self.listing: Listing = listing
            self.key: str = key

    class Sorted(Message):
        """Somebody has chosen by which column it is to be sorted."""

        def __init__(self, listing: "Listing", key: str) -> None:
            super().__init__()
            self.listing: Listing = listing
            self.key: str = key

    def __init__(self, columns: Sequence[Column], choice: Choice, *, id: str) -> None:  # noqa: A002 - as textual has it
        super().__init__(id=id)
        self.columns: Sequence[Column] = columns
        self.choice: Choice = choice
        self.placed: list[Placed] = []
        self.label: list[Cell] = []
        self.nothing: str = ""
        self._at = 0
        self._room = 0
        self._widths: list[int] = []
        self._seen: list[Column] = []

    # --- what is shown

    @property
    def chosen(self) -> Placed | None:
        """The row at the cursor; None where there is none."""
        return self.placed[self._at] if self.placed else None

    def put(self, placed: list[Placed], label: list[Cell], nothing: str) -> None:
        """Show rows; the cursor stays at the row where it is, wherever that goes.

        Args:
            placed: The rows.
            label: The title.
            nothing: What is shown where there are none.
        """
        key = self.chosen.row.key if self.chosen is not None else None
        self.placed, self.label, self.nothing = placed, label, nothing
        places = [n for n, each in enumerate(placed) if each.row.key == key] if self._at else []
        self._at = places[0] if places else max(0, min(self._at, len(placed) - 1))
        self._lay_out()
        if places:
            self._show_cursor()
        self.refresh()

    def _lay_out(self) -> None:
        self._room = self.scrollable_content_region.width
        self._seen, self._widths = laid_out(self.columns, self.placed, self._room, tree=self.choice.tree)
        self.virtual_size = Size(0, len(self.placed) + _FIXED)

    def on_resize(self) -> None:
        """Lay it out for the new size."""
        self._lay_out()
        self._show_cursor()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        width = self.scrollable_content_region.width
        if width != self._room:  # a scrollbar has come or gone
            self._lay_out()
        if y == 0:
            return strip(self.label, width)
        if y == 1:
            return strip(head(self._seen, self._widths, self.choice), width)
        number = y - _FIXED + self.scroll_offset.y
        if number >= len(self.placed):
            empty = not self.placed and number == 0
            return strip([(self.nothing, "dim")] if empty else [], width)
        cells = line(self._seen, self.placed[number], self._widths, tree=self.choice.tree)
        return strip(cells, width, _CURSOR if number == self._at and self.has_focus else None)

    # --- what people do

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self._at = max(0, min(self._at + by, len(self.placed) - 1))
        self._show_cursor()
        self.refresh()

    def action_page(self, by: int) -> None:
        """Move the cursor by a screen."""
        self.action_move(by * max(1, self.size.height - _FIXED))

    def action_open(self) -> None:
        """Tell more of the row at the cursor."""
        if self.chosen is not None:
            self.post_message(self.Opened(self, self.chosen.row.key))

    def on_click(self, event: events.Click) -> None:
        """Choose a row, tell more of it at the second click, or sort by the column whose head it is."""
        if event.y == 1:
            begun = 0
            for column, width in zip(self._seen, self._widths, strict=True):
                if begun <= event.x < begun + width + GAP:
                    self.post_message(self.Sorted(self, column.key))
                    return
                begun += width + GAP
        number = event.y - _FIXED + self.scroll_offset.y
        if event.y >= _FIXED and number < len(self.placed):
            self._at = number
            self.refresh()
            if event.chain > 1:
                self.action_open()

    def leave_below(self) -> None:
        """Move the cursor to the row above, in the tree, of the one where it is."""
        here = self.placed[self._at].level if self.placed else 0
        above = (n for n in range(self._at, -1, -1) if self.placed and self.placed[n].level < here)
        self.action_move(next(above, self._at) - self._at)

    def _show_cursor(self) -> None:
        room = max(1, self.size.height - _FIXED)
        top = self.scroll_offset.y
        wanted = min(max(top, self._at - room + 1), self._at)
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, immediate=True)
