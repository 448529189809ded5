"""Batches: orders from a file or a run's input, placed a few at a time, and the results of each."""
