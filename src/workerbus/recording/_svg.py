"""SVG as text: elements whose texts are escaped, one style for light and dark, and nothing that is loaded."""

import re
from collections.abc import Iterable
from typing import Final

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

STYLE: Final = """\
svg { --paper: #ffffff; --ink: #1f2328; --faint: #656d76; --line: #d0d7de; --shade: #f6f8fa;
  --completed: #1a7f37; --failed: #9a6700; --error: #cf222e; --cancelled: #6e7781; --open: #0969da; --wait: #8250df; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #0d1117; --ink: #e6edf3; --faint: #8d96a0; --line: #30363d; --shade: #161b22;
    --completed: #3fb950; --failed: #d29922; --error: #f85149; --cancelled: #8b949e; --open: #58a6ff; --wait: #bc8cff; }
}
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink); }
.faint { fill: var(--faint); font-size: 11px; }
.paper { fill: var(--paper); } .shade { fill: var(--shade); } .line { stroke: var(--line); fill: none; }
.completed { --c: var(--completed); } .failed { --c: var(--failed); } .error { --c: var(--error); }
.cancelled { --c: var(--cancelled); } .open { --c: var(--open); } .wait { --c: var(--wait); } .ink { --c: var(--ink); }
"""


def escaped(text: str) -> str:
    """Return a text as it is written in XML; what XML has no character for becomes a replacement character."""
    text = _NOT_XML.sub("\ufffd", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def number(value: float) -> str:
    """Return a number as short as a picture needs it."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def element(tag: str, *held: str, title: str | None = None, **attributes: object) -> str:
    """Return an element.

    Args:
        tag: Its name.
        held: What is in it, as XML.
        title: What a browser shows while the pointer is over it.
        attributes: Its attributes; an underscore stands for a hyphen, one at the end for nothing.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = ("" if title is None else f"<title>{escaped(title)}</title>") + "".join(held)
    return f"<{tag}{given}>{inside}</{tag}>" if inside else f"<{tag}{given}/>"


def _value(value: object) -> str:
    return number(value) if isinstance(value, float) else escaped(str(value))


def text(content: str, x: float, y: float, *, title: str | None = None, **attributes: object) -> str:
    """Return a text that begins at a place, or ends or is centred there with ``text_anchor``."""
    return element("text", escaped(content), title=title, x=float(x), y=float(y), **attributes)


def document(width: float, height: float, what: str, parts: Iterable[str], style: str = "") -> str:
    """Return a whole picture.

    Args:
        width: Its width.
        height: Its height.
        what: What it shows, for those who cannot see it.
        parts: What is in it, as XML.
        style: The rules of its own.
    """
    body = "\n".join(parts)
    size = f'width="{number(width)}" height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escaped(what)}">\n'
        f"<style>\n{STYLE}{style}</style>\n"
        f'<rect class="paper" width="100%" height="100%"/>\n{body}\n</svg>\n'
    )


def shortened(content: str, width: float, per_character: float = 6.4) -> str:
    """Return a text that is about as wide as there is room, with an ellipsis where it had to be cut."""
    room = int(width / per_character)
    if len(content) <= room:
        return content
    return content[: max(0, room - 1)] + "…" if room > 1 else ""


def in_time(seconds: float) -> str:
    """Return a number of seconds in words: ``0``, ``250 ms``, ``3.2 s``, ``2 min 5 s``."""
    if seconds == 0:
        return "0"
    if abs(seconds) < 0.001:
        return f"{seconds * 1e6:.3g} µs"
    if abs(seconds) < 1:
        return f"{seconds * 1e3:.3g} ms"
    if abs(seconds) < 120:
        return f"{round(seconds, 2):g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def in_bytes(size: int) -> str:
    """Return a number of bytes in words."""
    return f"{size} bytes" if size < 10_000 else f"{size / 1000:,.0f} kB"
