"""What programs show in a terminal; needs the extra `cli`."""

from workerbus.cli._progress import RichProgress, rich_progress

__all__ = ["RichProgress", "rich_progress"]
