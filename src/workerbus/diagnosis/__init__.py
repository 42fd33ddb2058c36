"""Who waits for what, in words."""
