"""Programs in virtual time: one module for each backend, and what they share."""
