"""What programs show in a terminal, and the commands of ``workerbus …``; lines of progress need the extra `cli`."""

from workerbus.cli._main import main
from workerbus.cli._progress import RichProgress, rich_progress

__all__ = ["RichProgress", "main", "rich_progress"]
