"""`farebox account ...`, `farebox key ...` and `farebox management-key ...`."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import typer

from farebox import clock
from farebox.accounts import Accounts
from farebox.cli.session import (
    AsCsv,
    AsJson,
    DatabaseUrl,
    fail,
    moment,
    nanos_of,
    print_json,
    print_rows,
    print_table,
    read_moment,
    with_books,
)
from farebox.core.allowances import LIMIT_NAMES, Allowance, LimitChanges, Limits, limits_by_name, usage_by_name
from farebox.core.books import Balance
from farebox.core.callers import Account, Key, ManagementKey
from farebox.core.money import format_usd
from farebox.store.books import SqlStore

account_app = typer.Typer(help="Who pays.", no_args_is_help=True)
key_app = typer.Typer(help="Credentials of accounts.", no_args_is_help=True)
management_app = typer.Typer(help="Credentials of who manages accounts and keys over HTTP.", no_args_is_help=True)

LIFTED = "none"
Given = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[LIMIT=VALUE]...", help=f"One or more of {', '.join(LIMIT_NAMES)}; `{LIFTED}` lifts a limit."
    ),
]
Name = Annotated[str, typer.Argument(help="The account's name.")]
NameOrAll = Annotated[str | None, typer.Argument(help="The account's name; all where absent.")]
CacheSeconds = Annotated[
    int | None, typer.Option(help="For how long answers to its orders are kept for the same orders again.")
]
Expires = Annotated[
    str | None, typer.Option(metavar="MOMENT", help="When it stops being good, such as 2027-01-31; in UTC.")
]
Storing = Literal["on", "off"]
KeyNamed = Annotated[str, typer.Argument(help="The key, its number, or its hint as the list shows it.")]


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
    limit_nanos = (None if limit is None else nanos_of(limit)) if postpaid else 0
    paid_in = 0 if prepaid is None else nanos_of(prepaid)

    async def create_account(_: SqlStore, accounts: Accounts) -> tuple[Account, Balance]:
        account = await accounts.create(name, plan, limit_nanos, paid_in)
        return account, await accounts.balance(account)

    show_account(*with_books(database_url, create_account), as_json=as_json)


@account_app.command("top-up")
def top_up(
    name: Name,
    amount: Annotated[str, typer.Argument(metavar="USD", help="How much, such as 5 or 0.25.")],
    idempotency_key: Annotated[
        str | None, typer.Option(help="Your own name for this top-up: under it, it is booked once.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="Kept with the transfer.")] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Pay money into an account."""
    nanos = nanos_of(amount)

    async def pay_in(_: SqlStore, accounts: Accounts) -> tuple[Account, Balance]:
        paid_in = await accounts.top_up(name, nanos, idempotency_key, note)
        return paid_in.account, paid_in.balance

    show_account(*with_books(database_url, pay_in), as_json=as_json)


@account_app.command("list")
def list_accounts(database_url: DatabaseUrl = None, as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """Show every account and where it stands, and its fares of this UTC month."""

    async def find(_: SqlStore, accounts: Accounts) -> list[dict[str, object]]:
        return [
            {**described(*each), "month_usd": format_usd(await accounts.spent_this_month(each[0]))}
            for each in await accounts.accounts()
        ]

    found = with_books(database_url, find)
    heads, names = (*_HEADS[:-1], "THIS MONTH", "STATE"), (*_NAMES[:-1], "month_usd", "state")
    print_rows(heads, found, names, "no limit", as_json=as_json, as_csv=as_csv)


_HEADS = ("NAME", "PLAN", "TERMS", "BALANCE", "HELD", "AVAILABLE", "STATE")
_NAMES = ("name", "plan", "terms", "balance_usd", "held_usd", "available_usd", "state")


def show_account(account: Account, balance: Balance, *, as_json: bool) -> None:
    """An account, as it stands now."""
    if as_json:
        print_json(described(account, balance))
    else:
        print_table(_HEADS[:-1], [described(account, balance)], _NAMES[:-1], "no limit")


def described(account: Account, balance: Balance) -> dict[str, object]:
    return {
        "name": account.name,
        "plan": account.plan,
        "terms": "prepaid" if balance.limit_nanos == 0 else "postpaid",
        "limit_usd": None if balance.limit_nanos is None else format_usd(balance.limit_nanos),
        "balance_usd": format_usd(balance.balance_nanos),
        "held_usd": format_usd(balance.pending_nanos),
        "available_usd": None if balance.available_nanos is None else format_usd(balance.available_nanos),
        "created": moment(account.created_us),
        "closed": moment(account.closed_us),
        "state": "open" if account.closed_us is None else "closed",
    }


@key_app.command("create")
def create_key(
    name: Name,
    limits: Given = None,
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    expires: Expires = None,
    cache_seconds: CacheSeconds = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, with limits if there are any, and show it, this once: only its hash is kept."""
    expires_us = None if expires is None else read_moment(expires, "--expires")
    given = read_limits(limits or [])

    key, account, row = with_books(
        database_url, lambda _, accounts: accounts.create_key(name, label, expires_us, cache_seconds, limits=given)
    )
    show_new(key, described_key(account, row), as_json=as_json)


@key_app.command("list")
def list_keys(
    name: NameOrAll = None, database_url: DatabaseUrl = None, as_csv: AsCsv = False, as_json: AsJson = False
) -> None:
    """Show the keys of an account, or of all, with their limits, and which are good."""
    rows = [described_key(*each) for each in with_books(database_url, lambda _, accounts: accounts.keys(name))]
    if not as_json:
        for row in rows:
            row["limits"] = ", ".join(f"{limit}={shown_limit(most)}" for limit, most in row["limits"].items())
    heads = ("ID", "ACCOUNT", "KEY", "LABEL", "CREATED", "EXPIRES", "LIMITS", "STATE")
    names = ("id", "account", "hint", "label", "created", "expires", "limits", "state")
    print_rows(heads, rows, names, as_json=as_json, as_csv=as_csv)


@key_app.command("revoke")
def revoke_key(key: KeyNamed, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Revoke a key for good. Every process stops answering it within a second."""
    found = with_books(database_url, lambda _, accounts: accounts.revoke_key(key))
    _show_changed("revoked", described_key(*found), as_json=as_json)


@key_app.command("disable")
def disable_key(key: KeyNamed, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Refuse a key until it is enabled again."""
    found = with_books(database_url, lambda _, accounts: accounts.change_key(key, disabled=True))
    _show_changed("disabled", described_key(*found), as_json=as_json)


@key_app.command("enable")
def enable_key(key: KeyNamed, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Let a disabled key be good again."""
    found = with_books(database_url, lambda _, accounts: accounts.change_key(key, disabled=False))
    _show_changed("enabled", described_key(*found), as_json=as_json)


@key_app.command("cache")
def cache_for_key(
    key: KeyNamed,
    seconds: Annotated[int, typer.Argument(help="For how long; 0: no more.")],
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Keep the answers to a key's orders for the same orders again."""
    found = with_books(database_url, lambda _, accounts: accounts.change_key(key, cache_seconds=seconds))
    _show_changed("cached for", described_key(*found), as_json=as_json)


@key_app.command("store")
def storing_of_key(
    key: KeyNamed,
    may_store: Annotated[Storing, typer.Argument(help="`on`, or `off`: none is kept from now on.")],
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a key's answers on /responses may be kept for its account."""
    found = with_books(database_url, lambda _, accounts: accounts.change_key(key, may_store=may_store == "on"))
    _show_changed(f"storing is {may_store} for", described_key(*found), as_json=as_json)


@management_app.command("create")
def create_management_key(
    label: Annotated[str, typer.Option(help="Whose it is.")] = "",
    account: Annotated[
        str | None, typer.Option(help="The one account whose keys it manages; all where absent.")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make a management key and show it, this once."""
    key, row = with_books(database_url, lambda _, accounts: accounts.create_management_key(label, account))
    show_new(key, _described_manager(row), as_json=as_json)


@management_app.command("list")
def list_management_keys(database_url: DatabaseUrl = None, as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """Show the management keys."""
    rows = [
        _described_manager(each) for each in with_books(database_url, lambda _, accounts: accounts.management_keys())
    ]
    heads = ("ID", "KEY", "LABEL", "ACCOUNT", "CREATED", "REVOKED")
    names = ("id", "hint", "label", "account_id", "created", "revoked")
    print_rows(heads, rows, names, as_json=as_json, as_csv=as_csv)


@management_app.command("revoke")
def revoke_management_key(key: KeyNamed, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Revoke a management key, at once."""
    row = with_books(database_url, lambda _, accounts: accounts.revoke_management_key(key))
    _show_changed("revoked", _described_manager(row), as_json=as_json)


def show_new(key: str, described: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json({"key": key, **described})
    else:
        typer.echo(key)
        typer.echo("Keep it: it is not shown again.", err=True)


def _show_changed(what: str, described: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(described)
    else:
        whose = f" of {described['account']}" if "account" in described else ""
        typer.echo(f"{what} {described['hint']}{whose}")


def described_key(account: Account, key: Key) -> dict[str, Any]:
    """A key, as JSON has it: its limits by their names."""
    return {
        "id": key.id,
        "account": account.name,
        "hint": key.hint,
        "label": key.label,
        "created": moment(key.created_us),
        "revoked": moment(key.revoked_us),
        "disabled": key.disabled,
        "expires": moment(key.expires_us),
        "cache_seconds": key.cache_seconds,
        "may_store": key.may_store,
        "old_until": moment(key.old_until_us),
        "limits": {name: most for name, most in limits_by_name(key.limits).items() if most is not None},
        "state": _state(key, clock.now_us()),
    }


def _state(key: Key, now_us: int) -> str:
    if key.revoked_us is not None:
        return "disabled" if key.disabled else "revoked"
    if key.expires_us is not None and key.expires_us <= now_us:
        return "expired"
    if key.old_until_us is not None and key.old_until_us > now_us:
        return f"good, the old one until {moment(key.old_until_us)}"
    return "good"


def _described_manager(key: ManagementKey) -> dict[str, object]:
    return {
        "id": key.id,
        "hint": key.hint,
        "label": key.label,
        "account_id": key.account_id,
        "created": moment(key.created_us),
        "revoked": moment(key.revoked_us),
    }


@account_app.command("limit")
def limit_account(name: Name, limits: Given = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Set limits of an account, for all its keys together, and show them. They hold on every node from then on."""

    async def find(accounts: Accounts) -> tuple[Account, Key | None]:
        return await accounts.find(name), None

    _limit(find, limits or [], database_url, as_json=as_json)


@key_app.command("limit")
def limit_key(key: KeyNamed, limits: Given = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Set limits of one key, within those of its account, and show them."""
    _limit(lambda accounts: accounts.find_key(key), limits or [], database_url, as_json=as_json)


def _limit(
    find: Callable[[Accounts], Awaitable[tuple[Account, Key | None]]],
    limits: list[str],
    database_url: str | None,
    *,
    as_json: bool,
) -> None:
    given = read_limits(limits)

    async def set_and_read(_: SqlStore, accounts: Accounts) -> tuple[Account, Key | None, Limits, Allowance | None]:
        account, key = await find(accounts)
        return account, key, await accounts.limit(account, key, given), await accounts.allowance(key or account)

    account, key, limits_now, allowance = with_books(database_url, set_and_read)
    most, used = limits_by_name(limits_now), usage_by_name(allowance, clock.now_us())
    if as_json:
        whose = {"account": account.name, **({"key": key.hint} if key else {})}
        print_json({**whose, "limits": most, "used": used})
    else:
        rows = [{"limit": name, "most": shown_limit(most[name]), "used": used.get(name)} for name in LIMIT_NAMES]
        print_table(("LIMIT", "MOST", "USED"), rows, missing="-")


def read_limits(limits: list[str]) -> LimitChanges:
    """Changes of limits as they were typed. Ends the command where one is none."""
    given: dict[str, str | list[str] | None] = {}
    for each in limits:
        name, equals, value = each.partition("=")
        if not equals or not value:
            fail(f"{each!r} sets no limit; write it like requests_per_minute=60, or requests_per_minute={LIFTED}", 2)
        given[name.strip().replace("-", "_")] = None if value.strip() == LIFTED else value.strip()
    return given


def shown_limit(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
