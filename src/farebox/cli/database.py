"""`farebox db`: the schema of the books."""

from typing import Annotated

import typer

from farebox.cli.session import AsJson, DatabaseUrl, clear_errors, fail, print_json, with_books
from farebox.core.allowances import date_of
from farebox.settings import load
from farebox.store.copy import copy as copy_books
from farebox.store.prepare import HEAD, place, prepare, refuse_newer, schema_of, shown

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
        typer.echo(f"{place(url)}: schema {found or 'none yet'}; this version is for {HEAD}")


@db_app.command("check")
def check(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Exit 1 unless the books have the schema that this version is for."""
    with clear_errors():
        url = load(database_url=database_url).database_url
        found = schema_of(url)
        if as_json:
            print_json({"database": shown(url), "schema": found, "expected": HEAD, "is_current": found == HEAD})
        refuse_newer(url, found)
    if found != HEAD:
        fail(f"{place(url)} has schema {found or 'none yet'}, and this version is for {HEAD}: `farebox db upgrade`")


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
        typer.echo(f"{place(url)}: schema {HEAD}" + ("" if before == HEAD else f", before {before or 'none'}"))


@db_app.command("recount")
def recount(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Sum the totals of all days again from their fares, while servers go on. Needed once after an upgrade during which
    servers of an earlier version (schema 0013 or before) went on serving: those keep no totals."""
    days = [date_of(day) for day in with_books(database_url, lambda store, _: store.recount())]
    if as_json:
        print_json({"corrected": days})
    else:
        typer.echo(f"{len(days)} days were corrected" + (f": {', '.join(days)}" if days else ""))


@db_app.command("copy")
def copy(
    source_url: Annotated[str, typer.Argument(help="The books that are: sqlite:///PATH.", metavar="SQLITE_URL")],
    target_url: Annotated[str, typer.Argument(help="An empty database: postgresql://...", metavar="POSTGRES_URL")],
    as_json: AsJson = False,
) -> None:
    """Move books from a file into PostgreSQL, all rows or none, and audit both. Stop the servers on the file first."""
    copied: dict[str, int] = {}
    with clear_errors():
        before, after = copy_books(source_url, target_url, copied.__setitem__)
    if as_json:
        print_json({"rows": copied, "differences": {"before": before.differences, "after": after.differences}})
    else:
        typer.echo(f"{sum(copied.values())} rows copied, {copied['transfer']} of them transfers.")
        typer.echo(f"differences: {len(before.differences)} before, {len(after.differences)} after")
    if after.differences:
        raise typer.Exit(1)
