"""Runners: they host workers, open the bus, and end everything in order."""
