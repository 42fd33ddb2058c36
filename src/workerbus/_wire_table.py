"""Which classes may travel to other processes, and under which tags (X1).

Two tables: of messages, and of the frames that some of them carry. They are closed: what is not in them does not
travel, and a tag from the wire is looked up here and nowhere else. Knows nothing of how anything is encoded, so that
whoever has classes can put them in without the library that does it.
"""

from typing import Any, Final

from workerbus.errors import RegistrationError, TagTakenError


def place_of(cls: type[Any]) -> str:
    """Return where a class is defined, and its name."""
    return f"{cls.__module__}.{cls.__qualname__}"


class TagTable:
    """Tags and the classes that they stand for, one for one.

    Attributes:
        by_tag: The class of each tag.
        by_class: The tag of each class.
    """

    def __init__(self) -> None:
        self.by_tag: dict[str, type[Any]] = {}
        self.by_class: dict[type[Any], str] = {}

    def add(self, tag: str, cls: type[Any]) -> None:
        """Let a tag stand for a class. One of the same place is replaced: its module was run again.

        Raises:
            TagTakenError: The tag stands for another class; a `ValueError`.
            RegistrationError: The class has another tag; a `TypeError`.
        """
        known = self.by_tag.get(tag)
        if known is not None and place_of(known) != place_of(cls):
            raise TagTakenError(tag, place_of(known), place_of(cls))
        if self.by_class.get(cls, tag) != tag:
            raise RegistrationError(cls.__name__, f"it is registered already, as {self.by_class[cls]!r}")
        if known is not None:
            del self.by_class[known]
        self.by_tag[tag] = cls
        self.by_class[cls] = tag


class FrameTable(TagTable):
    """The table of frames.

    Attributes:
        base: The class that all frames derive from; None as long as nobody has any.
        directions: The enum of the ways in which they travel; None as long as nobody has any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.base: type[Any] | None = None
        self.directions: type[Any] | None = None


MESSAGES: Final = TagTable()
FRAMES: Final = FrameTable()
