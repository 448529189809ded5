"""The `farebox` command."""

import sys

from farebox import __version__


def main() -> None:
    """Run the command that argv names. To say its version, it loads no command; a server that the settings alone
    describe carries neither typer nor what that is made of, 10 MB."""
    match sys.argv[1:]:
        case ["--version"]:
            sys.stdout.write(f"farebox {__version__}\n")
        case ["serve"]:
            _serve()
        case _:
            # Only here: even the tree without its commands brings typer along.
            from farebox.cli.commands import app

            try:
                app()
            except OSError as error:
                # A full disk under what is printed, a file that may not be read: each names itself.
                sys.stderr.write(f"farebox: {error}\n")
                raise SystemExit(1) from error


def _serve() -> None:
    from farebox.cli.opening import serve
    from farebox.cli.trouble import MENDABLE, worded

    try:
        serve()
    except MENDABLE as error:
        said, code = worded(error)
        sys.stderr.write(f"{said}\n")
        raise SystemExit(code) from error
