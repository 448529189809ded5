"""The `farebox` command."""

import sys

from farebox import __version__


def main() -> None:
    """Run the command that argv names; to say its version, it loads no command."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"farebox {__version__}\n")
        return
    # Only here: even the tree without its commands brings typer along.
    from farebox.cli.commands import app

    app()
