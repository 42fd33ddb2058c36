"""Runners: what hosts workers, for as long as they live."""
