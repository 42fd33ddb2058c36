"""Restarting workers: who is made anew, when, and how often (S1). It knows hosts, and no runner."""
