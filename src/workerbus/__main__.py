"""``python -m workerbus …`` does what ``workerbus …`` does."""

import sys

from workerbus.cli import main

if __name__ == "__main__":
    sys.exit(main())
