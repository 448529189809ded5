"""Every command, in one tree. Nothing else parses argv."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from farebox import __version__

PLACES = {
    "serve": "serve.serve",
    "simulate": "serve.simulate",
    "batch": "batch.batch",
    "statement": "books.statement",
    "activity": "books.activity",
    "reconcile": "books.reconcile",
    "refund": "changes.refund",
    "correct": "changes.correct",
    "audit": "books.audit",
    "trail": "trail.trail",
    "account": "bringing.account_app",
    "key": "bringing.key_app",
    "end-user": "end_users.end_user_app",
    "management-key": "accounts.management_app",
    "alert": "alerts.alert_app",
    "prices": "prices.prices_app",
    "upstream": "upstreams.upstream_app",
    "db": "database.db_app",
    "import": "importing.import_app",
    "backup": "keeping.backup",
    "restore": "keeping.restore",
    "doctor": "doctor.doctor",
    "config": "config.config",
    "completion": "completion.completion",
}
"""Where each command is: its module is loaded when it is run, or its help is shown."""


HELP_COLUMNS_MAX = 120
"""Help is as wide as the terminal, and no wider than can be read."""


class _Commands(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update((name, TyperCommand(name)) for name in PLACES)  # for their names alone

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in PLACES:
            return None
        module, name = PLACES[cmd_name].split(".")
        found = getattr(import_module(f"farebox.cli.{module}"), name)
        tree = typer.Typer(rich_markup_mode=None)
        if isinstance(found, typer.Typer):
            tree.add_typer(found, name=cmd_name)
        else:
            tree.command(cmd_name)(found)
        return get_group(tree).commands[cmd_name]


app = typer.Typer(
    cls=_Commands,
    name="farebox",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": HELP_COLUMNS_MAX},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"farebox {__version__}")
        raise typer.Exit


@app.callback()
def _options(version: bool = typer.Option(False, "--version", callback=_version, help="Show the version.")) -> None:
    """An LLM gateway that charges the exact fare."""
