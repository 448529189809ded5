"""Orders from a file: read, placed one by one, and what a run of them leaves."""
