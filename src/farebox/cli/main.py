"""Every command, in one tree. Nothing else parses argv."""

import typer

from farebox import __version__
from farebox.cli import accounts, books, limits, serve
from farebox.cli.batch import batch
from farebox.cli.database import db_app

app = typer.Typer(
    name="farebox",
    help="An LLM gateway that charges the exact fare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("serve")(serve.serve)
app.command("simulate")(serve.simulate)
app.command("batch")(batch)
accounts.account_app.command("limit")(limits.limit_account)
accounts.key_app.command("limit")(limits.limit_key)
app.add_typer(accounts.account_app, name="account")
app.add_typer(accounts.key_app, name="key")
app.add_typer(accounts.management_app, name="management-key")
app.command("statement")(books.statement)
app.command("activity")(books.activity)
app.command("reconcile")(books.reconcile)
app.command("audit")(books.audit)
app.add_typer(db_app, name="db")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"farebox {__version__}")
        raise typer.Exit


@app.callback()
def _options(version: bool = typer.Option(False, "--version", callback=_version, help="Show the version.")) -> None:
    """An LLM gateway that charges the exact fare."""
