"""What has to hold in a program: always, eventually, and of the answers to its jobs."""
