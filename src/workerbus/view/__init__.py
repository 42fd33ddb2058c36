"""A live view of a runner in the browser; needs the extra `view`."""

from workerbus.view._errors import UnprotectedViewError
from workerbus.view._serve import View, serve_view

__all__ = ["UnprotectedViewError", "View", "serve_view"]
