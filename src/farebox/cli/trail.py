"""`farebox trail`: who changed what."""

from typing import Annotated

import typer

from farebox.accounts import Accounts
from farebox.cli.books import Since, Until, period_of
from farebox.cli.session import AsCsv, AsJson, DatabaseUrl, print_rows, with_books
from farebox.core.books import LAST_US
from farebox.core.trail import Told, TrailFilter
from farebox.store.books import SqlStore
from farebox.trail import by_name, line


def trail(
    since: Since = None,
    until: Until = None,
    account: Annotated[str | None, typer.Option(help="Of this account alone.")] = None,
    key: Annotated[str | None, typer.Option(help="Of this key alone: itself, its number, or its hint.")] = None,
    who: Annotated[str | None, typer.Option(help="By those whose name has this in it.")] = None,
    what: Annotated[
        str | None, typer.Option(help="Of this kind, such as key.revoked, or of this thing, such as key.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the latest ones.", min=1, max=1_000_000)] = 100,
    database_url: DatabaseUrl = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show who changed what of accounts, keys, limits, money, presets and plans: when, which way, from what to what and
    why; the latest first."""
    since_us, until_us = period_of(since, until, None)

    async def read(store: SqlStore, accounts: Accounts) -> list[Told]:
        account_id = None if account is None else (await accounts.find(account)).id
        key_id = None if key is None else (await accounts.find_key(key))[1].id
        wanted = TrailFilter(since_us, until_us, account_id, key_id, who, what)
        return await store.entries(wanted, LAST_US, limit)

    found = with_books(database_url, read)
    rows: list[dict[str, object]] = [dict(line(told, None)) for told in found]
    if as_json:
        for row, told in zip(rows, found, strict=True):
            row["changes"] = by_name(told.entry.change.members)
    heads = ("TIME", "WHO", "WAY", "WHAT", "ACCOUNT", "KEY", "CHANGES", "WHY")
    names = ("time", "who", "way", "what", "account", "key", "changes", "reason")
    print_rows(heads, rows, names, as_json=as_json, as_csv=as_csv)
