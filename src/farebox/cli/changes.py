"""What is changed of what is there: an account's plan and name, an account that is closed, a key that is rotated, a
fare that is given back or corrected."""

import re
from typing import Annotated

import typer

from farebox.accounts import Accounts
from farebox.cli.accounts import (
    Expires,
    KeyNamed,
    Name,
    account_app,
    described,
    described_key,
    key_app,
    show_account,
)
from farebox.cli.books import cost_of
from farebox.cli.session import AsJson, DatabaseUrl, fail, moment, nanos_of, print_json, read_moment, with_books
from farebox.core.books import Balance
from farebox.core.callers import Account
from farebox.core.money import format_usd
from farebox.corrections import Correction, checked_reason, find_order, pay_out
from farebox.corrections import correct as correct_fare
from farebox.store.books import SqlStore

Reason = Annotated[str, typer.Option(help="Why: kept with the transfer.")]
OrderNamed = Annotated[str, typer.Argument(metavar="ORDER", help="Its generation's id, or its hold's.")]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@account_app.command("change")
def change(
    name: Name,
    plan: Annotated[str | None, typer.Option(help="The plan of its orders from now on.")] = None,
    new_name: Annotated[str | None, typer.Option("--name", help="What it is called from now on.")] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Change an account's plan or name. Orders under way end under the plan that they began with."""
    if plan is None and new_name is None:
        fail("say what to change: --plan or --name", 2)

    async def write(_: SqlStore, accounts: Accounts) -> tuple[Account, Balance]:
        account = await accounts.change(name, plan=plan, new_name=new_name)
        return account, await accounts.balance(account)

    show_account(*with_books(database_url, write), as_json=as_json)


@account_app.command("close")
def close(
    name: Name,
    reason: Reason = "the account is closed",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Have an account order nothing any more, and book what is left as paid out. Where money is held for orders, or it
    owes some, say so and end with code 1: close it again later."""

    async def pay(store: SqlStore, accounts: Accounts) -> tuple[Account, int, Balance]:
        checked_reason(reason)
        account, _ = await accounts.close(name)
        amount = await pay_out(store, account, reason)
        return account, amount, await accounts.balance(account)

    account, amount, balance = with_books(database_url, pay)
    if as_json:
        print_json({**described(account, balance), "paid_out_usd": format_usd(amount)})
    else:
        typer.echo(f"closed {account.name}; paid out: ${format_usd(amount)}")


@account_app.command("reopen")
def reopen(name: Name, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Let a closed account order again, with the keys that it had. What was paid out stays paid out."""

    async def write(_: SqlStore, accounts: Accounts) -> tuple[Account, Balance]:
        account = await accounts.reopen(name)
        return account, await accounts.balance(account)

    show_account(*with_books(database_url, write), as_json=as_json)


@key_app.command("rotate")
def rotate(
    key: KeyNamed,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old one works, too: 30m, 24h, 7d; 0 for not at all.")
    ] = "24h",
    expires: Expires = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give a key another secret and show it, this once. Label, limits, and what counts against them stay."""
    seconds = _seconds_of(overlap)
    expires_us = None if expires is None else read_moment(expires, "--expires")
    new, account, row = with_books(database_url, lambda _, accounts: accounts.rotate_key(key, seconds, expires_us))
    if as_json:
        print_json({"key": new, **described_key(account, row)})
    else:
        typer.echo(new)
        until = "no longer works" if row.old_until_us is None else f"works until {moment(row.old_until_us)}"
        typer.echo(f"Keep it: it is not shown again. The old one {until}.", err=True)


def _seconds_of(text: str) -> int:
    found = re.fullmatch(r"(\d{1,7})([smhd]?)", text.strip())
    if found is None or (not found[2] and int(found[1])):
        fail(f"--overlap: {text!r} is no time; write 30m, 24h, 7d or 0", 2)
    return int(found[1]) * _SECONDS.get(found[2], 1)


def refund(
    order: OrderNamed,
    amount: Annotated[
        str | None, typer.Argument(metavar="[USD]", help="How much; what is left of the fare where absent.")
    ] = None,
    reason: Reason = "",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give back the fare of an order, or some of it, by an adjustment beside it. The same amount for the same reason is
    given back once, however often it is said."""
    nanos = None if amount is None else nanos_of(amount)
    _check_reason(reason)

    async def give(store: SqlStore, _: Accounts) -> Correction:
        account, found = await find_order(store, store, order)
        return await correct_fare(store, account, found, reason, back_nanos=nanos)

    _show(with_books(database_url, give), as_json=as_json)


def correct(
    order: OrderNamed,
    cost: Annotated[str, typer.Option(metavar="USD", help="What it cost upstream.")],
    reason: Reason = "",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Correct the fare of an order to what it is at another cost, under the plan that it was ordered under: an
    adjustment beside it gives back the difference, or charges it."""
    amount = cost_of(cost).amount
    _check_reason(reason)

    async def move(store: SqlStore, _: Accounts) -> Correction:
        account, found = await find_order(store, store, order)
        return await correct_fare(store, account, found, reason, cost=amount)

    _show(with_books(database_url, move), as_json=as_json)


def _check_reason(reason: str) -> None:
    if not reason.strip():
        fail("--reason: say why; it is kept with the transfer", 2)


def _show(done: Correction, *, as_json: bool) -> None:
    back = 0 if done.is_repeat else done.back_nanos
    if as_json:
        print_json(
            {
                "account": done.account.name,
                "hold_id": done.order.id,
                "generation_id": done.order.generation_id,
                "given_back_usd": format_usd(back),
                "fare_usd": format_usd(done.fare_nanos),
                "is_repeat": done.is_repeat,
            }
        )
        return
    moved = f"${format_usd(back)} given back to" if back >= 0 else f"${format_usd(-back)} charged to"
    said = "nothing moved: it was booked before" if done.is_repeat else f"{moved} {done.account.name}"
    typer.echo(f"{said}; the fare comes to ${format_usd(done.fare_nanos)}")
