"""`farebox backup` and `farebox restore`."""

from pathlib import Path
from typing import Annotated

import typer

from farebox.cli.session import AsJson, DatabaseUrl, clear_errors, fail, print_json
from farebox.settings import load
from farebox.store.backup import Copied
from farebox.store.backup import backup as back_up
from farebox.store.backup import restore as put_back
from farebox.store.prepare import is_postgres, place, shown

File = Annotated[Path, typer.Argument(help="The backup.", dir_okay=False)]


def backup(
    file: File,
    replaces: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Copy the books into one file while servers write to them, and audit the copy; exit 1 if anything differs. Books
    in PostgreSQL are its own tool's: this says how."""
    with clear_errors():
        url = load(database_url=database_url).database_url
        if is_postgres(url):
            fail(_POSTGRES.format(url=shown(url).replace(":***@", "@"), file=file))
        copied = back_up(url, file, replaces=replaces)
    _show(f"{place(url)} copied to {file}", copied, as_json=as_json)


def restore(
    file: File,
    replaces: Annotated[
        bool, typer.Option("--overwrite", help="Replace books that have accounts, and keep those under another name.")
    ] = False,
    even_if_wrong: Annotated[
        bool, typer.Option("--even-if-wrong", help="Also where an audit of the backup finds differences.")
    ] = False,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of the books, whose servers must have stopped. Orders that were under way when it was
    made are open then, and their cost is asked for when a server starts."""
    with clear_errors():
        url = load(database_url=database_url).database_url
        if is_postgres(url):
            fail(_POSTGRES.format(url=shown(url).replace(":***@", "@"), file=file))
        copied = put_back(file, url, replaces=replaces, even_if_wrong=even_if_wrong)
    _show(f"{file} restored to {place(url)}", copied, as_json=as_json)


_POSTGRES = """these books are in PostgreSQL, whose own tools copy them while servers write, in its version or newer:
  pg_dump --format=custom --no-owner --file={file} '{url}'
and back, with the servers stopped, into an empty database:
  pg_restore --no-owner --exit-on-error --dbname='{url}' {file}
Both ask for the password, or take it from PGPASSWORD; then `farebox audit`"""


def _show(said: str, copied: Copied, *, as_json: bool) -> None:
    found = copied.audit
    if as_json:
        print_json(
            {
                "file": str(copied.file),
                "bytes": copied.size_bytes,
                "schema": copied.schema,
                "set_aside": None if copied.aside is None else str(copied.aside),
                "accounts": None if found is None else found.accounts,
                "transfers": None if found is None else found.transfers,
                "orders": None if found is None else found.holds,
                "differences": None if found is None else found.differences,
            }
        )
    else:
        typer.echo(f"{said}: {copied.size_bytes / 2**20:.1f} MB")
        if copied.aside is not None:
            typer.echo(f"the books that were there are kept as {copied.aside}")
        if found is None:
            typer.echo(f"not audited: it has schema {copied.schema}, which its own version audits; it is whole")
        else:
            for difference in found.differences:
                typer.echo(difference)
            orders = ", ".join(f"{count} {state}" for state, count in found.holds.items())
            typer.echo(f"{found.accounts} accounts, {found.transfers} transfers; orders: {orders}")
            typer.echo(f"differences: {len(found.differences)}")
    if not copied.is_well:
        raise typer.Exit(1)
