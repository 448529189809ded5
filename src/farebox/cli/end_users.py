"""End users of accounts: who they are, what they spent this month, and their limits."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from farebox import clock
from farebox.accounts import Accounts
from farebox.cli.accounts import Given, Name, read_limits, shown_limit
from farebox.cli.session import AsCsv, AsJson, DatabaseUrl, moment, print_json, print_rows, print_table, with_books
from farebox.core.allowances import END_USER_LIMITS, LimitChanges, Limits, limits_by_name, usage_by_name
from farebox.core.attribution import Attribution
from farebox.core.callers import Account
from farebox.core.money import format_usd
from farebox.end_users import PAGE_MAX, EndUser, EndUsers
from farebox.from_settings import attribution_of
from farebox.settings import load
from farebox.store.books import SqlStore

T = TypeVar("T")

end_user_app = typer.Typer(
    no_args_is_help=True, help="End users of accounts, as orders name them: what they spent, and their limits."
)

NamedUser = Annotated[str, typer.Argument(metavar="END_USER", help="By its name, or as it is kept.")]


async def attribution(database_url: str | None, store: SqlStore) -> Attribution:
    """How the books keep end users, as the settings say."""
    return await attribution_of(load(database_url=database_url), store)


def _with_end_users(database_url: str | None, name: str, use: Callable[[EndUsers, Account], Awaitable[T]]) -> T:
    async def work(store: SqlStore, accounts: Accounts) -> T:
        return await use(EndUsers(store, await attribution(database_url, store)), await accounts.find(name))

    return with_books(database_url, work)


@end_user_app.command("list")
def list_end_users(
    name: Name,
    limited: Annotated[bool, typer.Option("--limited", help="Those with limits of their own.")] = False,
    database_url: DatabaseUrl = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show the end users of an account that have fares this UTC month, by their names."""

    async def read(end_users: EndUsers, account: Account) -> list[EndUser]:
        rows: list[EndUser] = []
        after: str | None = ""
        while after is not None:
            page = await (end_users.limited if limited else end_users.page)(account, after, PAGE_MAX)
            rows += page.rows
            after = page.next
        return rows

    rows = [_row(each) for each in _with_end_users(database_url, name, read)]
    heads = ("END USER", "ORDERS", "THIS MONTH", "LATEST", "LIMITS")
    print_rows(heads, rows, as_json=as_json, as_csv=as_csv)


def _row(end_user: EndUser) -> dict[str, object]:
    limits = {name: most for name, most in limits_by_name(end_user.in_force).items() if most is not None}
    return {
        "end_user": end_user.name,
        "orders": end_user.orders,
        "fares_usd": format_usd(end_user.fares_nanos),
        "latest": moment(end_user.latest_us),
        "limits": ", ".join(f"{name}={most}" for name, most in limits.items()),
    }


@end_user_app.command("limit")
def limit_end_user(
    name: Name,
    end_user: NamedUser,
    limits: Given = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Set limits of one end user, within those of the key and the account, and show them. They go before those that
    each has by default; to lift one is to fall back to these."""
    given = read_limits(limits or [])

    async def change(end_users: EndUsers, account: Account) -> EndUser:
        await end_users.limit(account, end_user, given)
        return await end_users.find(account, end_user)

    found = _with_end_users(database_url, name, change)
    most, used = limits_by_name(found.in_force), usage_by_name(found.allowance, clock.now_us())
    if as_json:
        own = limits_by_name(found.own)
        print_json({"account": name, "end_user": found.name, "limits": own, "limits_in_force": most, "used": used})
    else:
        rows = [{"limit": each, "most": shown_limit(most[each]), "used": used.get(each)} for each in END_USER_LIMITS]
        print_table(("LIMIT", "MOST", "USED"), rows, missing="-")


@end_user_app.command("default")
def limit_each(name: Name, limits: Given = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Set the limits that each end user of an account has, unless it has others of its own, and show them."""
    given: LimitChanges = read_limits(limits or [])

    async def change(end_users: EndUsers, account: Account) -> Limits:
        return await end_users.limit(account, None, given)

    most = limits_by_name(_with_end_users(database_url, name, change))
    if as_json:
        print_json({"account": name, "default_limits": most})
    else:
        rows = [{"limit": each, "most": shown_limit(most[each])} for each in END_USER_LIMITS]
        print_table(("LIMIT", "MOST"), rows, missing="-")
