"""Looking for the order of tasks under which a program fails: strategies, shrinking, and words for what was found."""
