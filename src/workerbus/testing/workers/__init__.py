"""Workers for tests: one that records its hooks, one that follows a script, and job groups as values."""
