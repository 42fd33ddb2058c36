"""What the library adds to anyio: lanes, room, sorted failures, the owners of tasks and shields."""
