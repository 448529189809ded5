"""The `farebox` command."""

from farebox.cli.main import main

__all__ = ["main"]
