"""Streams: read from each format, event by event, and written."""
