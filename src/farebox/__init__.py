"""Farebox: an LLM gateway that charges the exact fare."""

__version__ = "0.1.0"
