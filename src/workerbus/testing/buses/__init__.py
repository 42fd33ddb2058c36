"""Buses for tests: one that records, one that is late, doubles, loses and splits."""
