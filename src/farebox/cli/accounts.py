"""`farebox account ...` and `farebox key ...`."""

from datetime import datetime
from typing import Annotated

import typer

from farebox import clock
from farebox.accounts import Accounts
from farebox.cli.session import AsJson, DatabaseUrl, fail, moment, print_json, print_table, with_books
from farebox.core.books import Balance
from farebox.core.callers import Account, Key, ManagementKey
from farebox.core.money import format_usd, parse_usd
from farebox.store.books import SqlStore

account_app = typer.Typer(help="Who pays.", no_args_is_help=True)
key_app = typer.Typer(help="Credentials of accounts.", no_args_is_help=True)
management_app = typer.Typer(help="Credentials of who manages accounts and keys over HTTP.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The account's name.", show_default=False)]
KeyNamed = Annotated[
    str, typer.Argument(help="The key, its number, or its hint as the list shows it.", show_default=False)
]


def _nanos(text: str) -> int:
    try:
        return parse_usd(text)
    except ValueError as error:
        fail(str(error), 2)


@account_app.command("create")
def create(
    name: Name,
    plan: Annotated[str, typer.Option(help="paying, free, or one of farebox.toml.")],
    prepaid: Annotated[
        str | None, typer.Option(metavar="USD", help="Pay this in now; the account never goes below zero.")
    ] = None,
    postpaid: Annotated[bool, typer.Option("--postpaid", help="Let the account go below zero.")] = False,
    limit: Annotated[
        str | None, typer.Option(metavar="USD", help="How far below zero a postpaid account may go.")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Open an account; prepaid with nothing paid in where neither --prepaid nor --postpaid is given."""
    if postpaid and prepaid is not None:
        fail("--prepaid and --postpaid exclude each other", 2)
    if limit is not None and not postpaid:
        fail("--limit goes with --postpaid; a prepaid account's limit is what was paid in", 2)
    limit_nanos = (None if limit is None else _nanos(limit)) if postpaid else 0
    paid_in = 0 if prepaid is None else _nanos(prepaid)

    async def create_account(_: SqlStore, accounts: Accounts) -> tuple[Account, Balance]:
        account = await accounts.create(name, plan, limit_nanos, paid_in)
        return account, await accounts.balance(account)

    _show([with_books(database_url, create_account)], as_json=as_json, single=True)


@account_app.command("top-up")
def top_up(
    name: Name,
    amount: Annotated[str, typer.Argument(metavar="USD", help="How much, such as 5 or 0.25.")],
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Your own name for this top-up: under it, it is booked once.", show_default=False),
    ] = None,
    note: Annotated[str | None, typer.Option(help="Kept with the transfer.", show_default=False)] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Pay money into an account."""
    nanos = _nanos(amount)

    async def pay_in(_: SqlStore, accounts: Accounts) -> tuple[Account, Balance]:
        paid_in = await accounts.top_up(name, nanos, idempotency_key, note)
        return paid_in.account, paid_in.balance

    _show([with_books(database_url, pay_in)], as_json=as_json, single=True)


@account_app.command("list")
def list_accounts(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show every account and where it stands."""
    _show(with_books(database_url, lambda _, accounts: accounts.accounts()), as_json=as_json)


def _show(accounts: list[tuple[Account, Balance]], *, as_json: bool, single: bool = False) -> None:
    rows = [
        {
            "name": account.name,
            "plan": account.plan,
            "terms": "prepaid" if balance.limit_nanos == 0 else "postpaid",
            "limit_usd": None if balance.limit_nanos is None else format_usd(balance.limit_nanos),
            "balance_usd": format_usd(balance.balance_nanos),
            "held_usd": format_usd(balance.pending_nanos),
            "available_usd": None if balance.available_nanos is None else format_usd(balance.available_nanos),
            "created": moment(account.created_us),
        }
        for account, balance in accounts
    ]
    if as_json:
        print_json(rows[0] if single else rows)
    else:
        columns = ("NAME", "PLAN", "TERMS", "BALANCE", "HELD", "AVAILABLE")
        names = ("name", "plan", "terms", "balance_usd", "held_usd", "available_usd")
        print_table(columns, [["no limit" if row[name] is None else row[name] for name in names] for row in rows])


@key_app.command("create")
def create_key(
    name: Name,
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    expires: Annotated[
        datetime | None, typer.Option(help="When it stops being good, in UTC.", show_default=False)
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once: only its hash is kept."""
    expires_us = None if expires is None else clock.us_of(expires)
    key, account, row = with_books(database_url, lambda _, accounts: accounts.create_key(name, label, expires_us))
    if as_json:
        print_json({"key": key, **_described(account, row)})
    else:
        typer.echo(key)
        typer.echo("Keep it: it is not shown again.", err=True)


@key_app.command("list")
def list_keys(
    name: Annotated[
        str | None, typer.Argument(help="The account's name; all where absent.", show_default=False)
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the keys of an account, or of all."""
    keys = [_described(*each) for each in with_books(database_url, lambda _, accounts: accounts.keys(name))]
    if as_json:
        print_json(keys)
    else:
        names = ("id", "account", "hint", "label", "created", "revoked")
        rows = [["" if key[name] is None else key[name] for name in names] for key in keys]
        print_table(("ID", "ACCOUNT", "KEY", "LABEL", "CREATED", "REVOKED"), rows)


@key_app.command("revoke")
def revoke_key(key: KeyNamed, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Revoke a key for good. Every process stops answering it within a second."""
    account, row = with_books(database_url, lambda _, accounts: accounts.revoke_key(key))
    if as_json:
        print_json(_described(account, row))
    else:
        typer.echo(f"revoked {row.hint} of {account.name}")


@key_app.command("disable")
def disable_key(key: KeyNamed, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Refuse a key until it is enabled again."""
    _changed(key, database_url, "disabled", as_json=as_json, disabled=True)


@key_app.command("enable")
def enable_key(key: KeyNamed, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Let a disabled key be good again."""
    _changed(key, database_url, "enabled", as_json=as_json, disabled=False)


def _changed(key: str, database_url: str | None, what: str, *, as_json: bool, disabled: bool) -> None:
    account, row = with_books(database_url, lambda _, accounts: accounts.change_key(key, disabled=disabled))
    if as_json:
        print_json(_described(account, row))
    else:
        typer.echo(f"{what} {row.hint} of {account.name}")


def _described(account: Account, key: Key) -> dict[str, object]:
    return {
        "id": key.id,
        "account": account.name,
        "hint": key.hint,
        "label": key.label,
        "created": moment(key.created_us),
        "revoked": moment(key.revoked_us),
        "disabled": key.disabled,
        "expires": moment(key.expires_us),
    }


@management_app.command("create")
def create_management_key(
    label: Annotated[str, typer.Option(help="Whose it is.")] = "",
    account: Annotated[
        str | None, typer.Option(help="The one account whose keys it manages; all where absent.", show_default=False)
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make a management key and show it, this once."""
    key, row = with_books(database_url, lambda _, accounts: accounts.create_management_key(label, account))
    if as_json:
        print_json({"key": key, **_manager(row)})
    else:
        typer.echo(key)
        typer.echo("Keep it: it is not shown again.", err=True)


@management_app.command("list")
def list_management_keys(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show the management keys."""
    keys = [_manager(each) for each in with_books(database_url, lambda _, accounts: accounts.management_keys())]
    if as_json:
        print_json(keys)
    else:
        names = ("id", "hint", "label", "account_id", "created", "revoked")
        rows = [["" if key[name] is None else key[name] for name in names] for key in keys]
        print_table(("ID", "KEY", "LABEL", "ACCOUNT", "CREATED", "REVOKED"), rows)


@management_app.command("revoke")
def revoke_management_key(key: KeyNamed, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Revoke a management key, at once."""
    row = with_books(database_url, lambda _, accounts: accounts.revoke_management_key(key))
    if as_json:
        print_json(_manager(row))
    else:
        typer.echo(f"revoked {row.hint}")


def _manager(key: ManagementKey) -> dict[str, object]:
    return {
        "id": key.id,
        "hint": key.hint,
        "label": key.label,
        "account_id": key.account_id,
        "created": moment(key.created_us),
        "revoked": moment(key.revoked_us),
    }
