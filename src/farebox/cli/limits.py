"""`farebox account limit`, `farebox key limit`: what an account or a key may use, and how much of it is used."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from farebox import clock
from farebox.accounts import Accounts
from farebox.cli.accounts import KeyNamed, Name
from farebox.cli.session import AsJson, DatabaseUrl, fail, print_json, print_table, with_books
from farebox.core.allowances import LIMIT_NAMES, LimitChanges, limits_by_name, usage_by_name
from farebox.core.callers import Account, Key
from farebox.store.books import SqlStore

LIFTED = "none"

Limits = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[LIMIT=VALUE]...",
        help=f"One or more of {', '.join(LIMIT_NAMES)}; `{LIFTED}` lifts a limit.",
        show_default=False,
    ),
]
Find = Callable[[Accounts], Awaitable[tuple[Account, Key | None]]]


def limit_account(name: Name, limits: Limits = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Set limits of an account, for all its keys together, and show them. They hold on every node from then on."""

    async def find(accounts: Accounts) -> tuple[Account, Key | None]:
        return await accounts.find(name), None

    _limit(find, limits or [], database_url, as_json=as_json)


def limit_key(key: KeyNamed, limits: Limits = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Set limits of one key, within those of its account, and show them."""
    _limit(lambda accounts: accounts.find_key(key), limits or [], database_url, as_json=as_json)


def _limit(find: Find, limits: list[str], database_url: str | None, *, as_json: bool) -> None:
    given = _given(limits)

    async def set_and_read(_: SqlStore, accounts: Accounts) -> dict[str, object]:
        account, key = await find(accounts)
        set_to = await accounts.limit(account, key, given)
        allowance = await accounts.allowance(key or account)
        shown: dict[str, object] = {"account": account.name, **({"key": key.hint} if key else {})}
        return {**shown, "limits": limits_by_name(set_to), "used": usage_by_name(allowance, clock.now_us())}

    found = with_books(database_url, set_and_read)
    if as_json:
        print_json(found)
        return
    limits_now, used_now = found["limits"], found["used"]
    assert isinstance(limits_now, dict)
    assert isinstance(used_now, dict)
    rows = [(name, _shown(limits_now[name]), _shown(used_now.get(name))) for name in LIMIT_NAMES]
    print_table(("LIMIT", "MOST", "USED"), rows)


def _given(limits: list[str]) -> LimitChanges:
    given: dict[str, str | list[str] | None] = {}
    for each in limits:
        name, equals, value = each.partition("=")
        if not equals or not value:
            fail(f"{each!r} sets no limit; write it like requests_per_minute=60, or requests_per_minute={LIFTED}", 2)
        given[name.strip().replace("-", "_")] = None if value.strip() == LIFTED else value.strip()
    return given


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
