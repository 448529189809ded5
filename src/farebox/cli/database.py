"""`farebox db`: the schema of the books."""

import typer

from farebox.cli.session import AsJson, DatabaseUrl, clear_errors, fail, print_json
from farebox.settings import load
from farebox.store.prepare import HEAD, prepare, schema_of, shown

db_app = typer.Typer(no_args_is_help=True, help="The schema of the books.")


@db_app.command("current")
def current(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Say which schema the books have, and which one this version is for."""
    with clear_errors():
        url = load(database_url=database_url).database_url
        found = schema_of(url)
    if as_json:
        print_json({"database": shown(url), "schema": found, "expected": HEAD})
    else:
        typer.echo(f"{shown(url)}: schema {found or 'none yet'}; this version is for {HEAD}")


@db_app.command("check")
def check(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Exit 1 unless the books have the schema that this version is for."""
    with clear_errors():
        url = load(database_url=database_url).database_url
        found = schema_of(url)
    if as_json:
        print_json({"database": shown(url), "schema": found, "expected": HEAD, "is_current": found == HEAD})
    if found != HEAD:
        fail(f"{shown(url)} has schema {found or 'none yet'}, and this version is for {HEAD}: `farebox db upgrade`")


@db_app.command("upgrade")
def upgrade(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Make the books, or bring them to the schema of this version. Servers of the version before go on serving."""
    with clear_errors():
        url = load(database_url=database_url).database_url
        before = schema_of(url)
        prepare(url)
    if as_json:
        print_json({"database": shown(url), "before": before, "schema": HEAD})
    else:
        typer.echo(f"{shown(url)}: schema {HEAD}" + ("" if before == HEAD else f", before {before or 'none'}"))
