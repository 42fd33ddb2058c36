"""Cutting a piece of a program wherever it can be cut."""
