"""`farebox statement`, `farebox activity`, `farebox reconcile`, `farebox audit`."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer

from farebox import clock
from farebox.accounts import Accounts, Statement
from farebox.bills import Bills
from farebox.bookkeeping import Bookkeeping, By, Form, NotWholeDays, Wanted
from farebox.cli.accounts import NameOrAll
from farebox.cli.end_users import attribution
from farebox.cli.session import (
    AsCsv,
    AsJson,
    DatabaseUrl,
    fail,
    moment,
    print_json,
    print_rows,
    print_table,
    read_moment,
    read_month,
    with_books,
)
from farebox.core import focus
from farebox.core.allowances import LAST_DAY, date_of, day_of
from farebox.core.attribution import read_tag, tags_text
from farebox.core.audit import Audit
from farebox.core.audit import audit as run_audit
from farebox.core.bills import OrderFilter, Tag, TotalsFilter
from farebox.core.books import CASH, LAST_US, Activity, HoldRow, Transfer, activity_of
from farebox.core.callers import Key
from farebox.core.chart import Side
from farebox.core.kinds import units_used
from farebox.core.money import format_usd, is_readable_cost, plain
from farebox.core.usage import Cost, Nothing
from farebox.reconcile import decide
from farebox.settings import load
from farebox.store.books import SqlStore

AUDITS = 2
"""An audit that differs is made once more, so that what was booked behind the reader (by a machine whose clock was set
back, or which slept in between) is told by none."""

Since = Annotated[
    str | None, typer.Option(metavar="MOMENT", help="From this moment on, such as 2026-11-28 or 2026-11; in UTC.")
]
Until = Annotated[str | None, typer.Option(metavar="MOMENT", help="Until before this moment, in UTC.")]
Month = Annotated[str | None, typer.Option(metavar="YEAR-MONTH", help="Of this UTC month alone, such as 2026-11.")]


def period_of(since: str | None, until: str | None, month: str | None) -> tuple[int, int]:
    """From when until before when, as it was typed; all time where nothing was."""
    if month is not None:
        if since is not None or until is not None:
            fail("--month and --since or --until exclude each other", 2)
        return read_month(month)
    since_us = 0 if since is None else read_moment(since, "--since", LAST_DAY)
    until_us = LAST_US if until is None else read_moment(until, "--until", LAST_DAY)
    if until_us <= since_us:
        fail("--until: a moment after that of --since", 2)
    return since_us, until_us


ForEndUser = Annotated[str | None, typer.Option("--end-user", help="For one end user: its name, or as it is kept.")]
UnderTag = Annotated[str | None, typer.Option("--tag", metavar="NAME=VALUE", help="Under one tag.")]


def statement(  # noqa: PLR0913 - one for each option
    name: NameOrAll = None,
    since: Since = None,
    until: Until = None,
    month: Month = None,
    end_user: ForEndUser = None,
    under: UnderTag = None,
    as_beancount: Annotated[bool, typer.Option("--beancount", help="Print a ledger for beancount.")] = False,
    as_hledger: Annotated[bool, typer.Option("--hledger", help="Print a ledger for hledger.")] = False,
    as_focus: Annotated[bool, typer.Option("--focus", help=f"Print charges as FOCUS {focus.VERSION}, in CSV.")] = False,
    by: Annotated[By, typer.Option(help="Of a ledger or FOCUS: a line for each day, model and key, or order.")] = "day",
    books: Annotated[Side, typer.Option(help="Of a ledger or FOCUS: whose books they are for.")] = "operator",
    database_url: DatabaseUrl = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show what an account paid in, each order and its fare to the last event, and where the account stands now; of all
    time, or of some; or the orders alone for an end user or under a tag. As CSV: the lines alone. As a ledger or FOCUS:
    of all accounts, where none is named."""
    tag = tag_of(under)
    since_us, until_us = period_of(since, until, month)
    forms: dict[Form, bool] = {"beancount": as_beancount, "hledger": as_hledger, "focus": as_focus}
    if chosen := [form for form, is_wanted in forms.items() if is_wanted]:
        if len(chosen) > 1 or as_csv or as_json:
            fail("--beancount, --hledger, --focus, --csv and --json exclude each other", 2)
        if end_user is not None or tag is not None:
            fail(f"--{chosen[0]}: a ledger is of all orders, not of those of an end user or a tag", 2)
        _print_books(chosen[0], name, (since_us, until_us), by, books, database_url)
        return
    if name is None:
        fail("NAME: whose statement it is; `farebox account list` shows the accounts there are", 2)

    async def read(store: SqlStore, accounts: Accounts) -> tuple[Statement, int]:
        found = await accounts.statement(name, since_us, until_us)
        if end_user is not None or tag is not None:
            kept = None if end_user is None else (await attribution(database_url, store)).sought(end_user)
            wanted = OrderFilter(end_user=kept, tag=tag)
            theirs = {hold_id for hold_id, hold in found.orders.items() if wanted.takes(hold)}
            found = replace(found, transfers=[each for each in found.transfers if each.hold_id in theirs])
        return found, await store.given_back_nanos(found.account.id)

    found, given_back = with_books(database_url, read)
    lines = _lines(found)
    spent = sum(t.amount_nanos for t in found.transfers if t.is_fare)
    events = sum(t.events or 0 for t in found.transfers if t.is_fare)
    balance = found.balance
    totals = {
        "account": found.account.name,
        "plan": found.account.plan,
        "paid_in_usd": format_usd(balance.credits_nanos - given_back),
        "given_back_usd": format_usd(given_back),
        "events": events,
        "spent_usd": format_usd(spent),
        "balance_usd": format_usd(balance.balance_nanos),
        "held_usd": format_usd(balance.pending_nanos),
    }
    if as_json and not as_csv:
        print_json({**totals, "lines": lines})
        return
    heads = ("TIME", "WHAT", "KIND", "MODEL", "KEY", "USED", "GENERATION", "COST", "EVENTS", "AMOUNT")
    names = ("time", "what", "kind", "model", "key", "used", "generation_id", "cost_usd", "events", "amount_usd")
    shown = [{**line, "used": _used(line)} for line in lines]
    print_rows(heads, shown, names, as_json=as_json, as_csv=as_csv)
    if as_csv:
        return
    counted = f"{events} event" if events == 1 else f"{events} events"
    back = f", given back ${totals['given_back_usd']}" if given_back else ""
    typer.echo(
        f"\n{found.account.name} ({found.account.plan}): paid in ${totals['paid_in_usd']}, spent ${totals['spent_usd']}"
        f" ({counted}){back}, balance ${totals['balance_usd']}, of which ${totals['held_usd']} is held"
    )


def tag_of(written: str | None) -> Tag | None:
    """A tag that was typed. Ends the command where it is none."""
    if written is None:
        return None
    if (found := read_tag(written)) is None:
        fail(f"--tag: {written[:80]!r} is no tag; write its name and its value, like team=search", 2)
    return found


def _print_books(
    form: Form, name: str | None, time: tuple[int, int], by: By, books: Side, database_url: str | None
) -> None:
    """Print a file for an accounting tool, as it is read."""

    async def write(store: SqlStore, accounts: Accounts) -> None:
        owners = await accounts.every() if name is None else [await accounts.find(name)]
        try:
            wanted = Wanted(form, owners, *time, clock.now_us(), books, by)
        except NotWholeDays:
            fail("--since, --until: dates such as 2026-11-28, or add --by order", 2)
        issuer = load(database_url=database_url).seller_name
        async for piece in Bookkeeping(store, Bills(store), issuer).file(wanted):
            sys.stdout.buffer.write(piece)

    with_books(database_url, write)


def _lines(found: Statement) -> list[dict[str, Any]]:
    """A line for each top-up and each order: an order's line is of its last transfer, or of its hold while it is
    open."""
    lines = [(transfer, found.orders.get(transfer.hold_id or "")) for transfer in found.transfers]
    return [
        _line(t, order, found.keys) for t, order in lines if t.kind != "hold" or order is None or order.ended_us is None
    ]


def _used(line: dict[str, Any]) -> str:
    """What an order used, in words: tokens of prompt and answer, and units."""
    tokens = [line["prompt_tokens"], line["answer_tokens"]]
    said = [] if tokens == [None, None] else [f"{tokens[0] or 0}+{tokens[1] or 0} tokens"]
    said += [f"{count} {name.replace('_', ' ')}" for name, count in line["units"].items()]
    return ", ".join(said)


def _line(transfer: Transfer, order: HoldRow | None, keys: Mapping[int, Key]) -> dict[str, Any]:
    what: str = transfer.kind
    amount = transfer.amount_nanos
    match transfer.kind:
        case "post":
            what, amount = "fare" if not transfer.over_hold_nanos else "fare above its hold", -amount
        case "void":
            what, amount = "not served", 0
        case "hold":
            what, amount = (f"held ({order.state}: {order.reason})" if order and order.reason else "held"), 0
        case "adjustment" if transfer.credit_account == CASH:
            what, amount = f"paid out ({transfer.note})", -amount
        case "adjustment" if transfer.is_correction:
            amount = transfer.given_back_nanos
            what = f"{'refund' if amount > 0 else 'correction'} ({transfer.note})"
        case "adjustment":
            what, amount = f"adjustment ({transfer.note})", -amount
        case "top-up":
            pass
    key = keys.get(order.key_id) if order else None
    return {
        "time": moment(transfer.created_us),
        "what": what,
        "kind": order.kind if order else None,
        "key": (key.label or key.hint) if key else None,
        "model": (order.served_model or order.model) if order else None,
        "generation_id": order.generation_id if order else None,
        "cost_usd": None if transfer.cost is None else f"{transfer.cost:f}",
        "events": transfer.events,
        "amount_usd": format_usd(amount),
        "hold_id": transfer.hold_id,
        "held_usd": format_usd(order.amount_nanos) if order else None,
        "prompt_tokens": order.prompt_tokens if order else None,
        "answer_tokens": order.answer_tokens if order else None,
        "units": units_used(order.kind, order.units) if order and order.state != "voided" else {},
        "end_user": order.end_user if order else None,
        "tags": tags_text(order.tags) if order else None,
    }


def activity(
    name: NameOrAll = None,
    days: Annotated[int, typer.Option(help="UTC days, today's included.", min=1, max=3660)] = 30,
    month: Month = None,
    end_user: ForEndUser = None,
    under: UnderTag = None,
    database_url: DatabaseUrl = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show what was ordered and charged by day and model, the latest day first."""
    tag = tag_of(under)
    today = day_of(clock.now_us())
    first, last = today - days + 1, today + 1
    if month is not None:
        since_us, until_us = read_month(month)
        first, last = day_of(since_us), day_of(until_us) - 1

    async def read_activity(store: SqlStore, accounts: Accounts) -> list[Activity]:
        account = None if name is None else await accounts.find(name)
        if end_user is not None or tag is not None:
            kept = None if end_user is None else (await attribution(database_url, store)).sought(end_user)
            wanted = TotalsFilter(first, last, ("day", "model", "served_model"), end_user=kept, tag=tag)
            found = await store.attributed_totals(None if account is None else account.id, wanted, LAST_US)
            return [activity_of(each.total) for each in found]
        return await accounts.activity(account, None, first, last)

    rows = [
        {
            "date": date_of(each.day),
            "model": each.model,
            "served_model": each.served_model,
            "requests": each.requests,
            "fares_usd": format_usd(each.fares_nanos),
            "prompt_tokens": each.prompt_tokens,
            "answer_tokens": each.answer_tokens,
        }
        for each in with_books(database_url, read_activity)
    ]
    heads = ("DATE", "MODEL", "SERVED BY", "ORDERS", "FARES", "PROMPT TOKENS", "ANSWER TOKENS")
    print_rows(heads, rows, as_json=as_json, as_csv=as_csv)


def reconcile(
    hold: Annotated[str | None, typer.Argument(help="An open hold to decide on.")] = None,
    cost: Annotated[str | None, typer.Option(help="Post it at this upstream cost, in USD.")] = None,
    void: Annotated[bool, typer.Option("--void", help="Charge nothing for it.")] = False,
    reason: Annotated[str, typer.Option(help="Why: kept with the transfer.")] = "",
    list_only: Annotated[bool, typer.Option("--list", help="List the open holds and do nothing else.")] = False,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the orders whose cost is not known (a server asks for it by itself), or decide on one: HOLD with --cost or
    --void. Without --list, those of processes that died are taken up first."""
    if hold is None and (cost is not None or void):
        fail("HOLD: name the hold to decide on; `farebox reconcile --list` shows them", 2)
    if hold is not None:
        _decide(hold, cost, reason, database_url, is_void=void)

    async def find_open(store: SqlStore, _: Accounts) -> list[HoldRow]:
        if not list_only:
            await store.open_orphans()
        return await store.holds(("open",))

    holds = with_books(database_url, find_open)
    rows = [
        {
            "hold_id": hold.id,
            "since": moment(hold.created_us),
            "account_id": hold.account_id,
            "model": hold.model,
            "generation_id": hold.generation_id,
            "job_id": hold.job_id,
            "held_usd": format_usd(hold.amount_nanos),
            "asks": hold.asks,
            "next_ask": moment(hold.ask_us),
            "unresolved": hold.is_unresolved,
            "reason": hold.reason,
        }
        for hold in holds
    ]
    if as_json:
        print_json(rows)
    elif rows:
        heads = ("HOLD", "SINCE", "ACCOUNT", "MODEL", "GENERATION", "HELD", "ASKS", "NEXT", "STANDS", "WHY")
        names = ("hold_id", "since", "account_id", "model", "generation_id", "held_usd", "asks", "next_ask", "stands")
        print_table(heads, [{**row, "stands": _stands(row)} for row in rows], (*names, "reason"))
    else:
        typer.echo("No hold is open.")


def _stands(row: dict[str, Any]) -> str:
    if row["unresolved"]:
        return "unresolved"
    return "asked for" if row["job_id"] is None else "its job is asked for"


def cost_of(text: str) -> Cost:
    """A cost that was typed."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not is_readable_cost(amount):
        fail(f"--cost: an amount in USD such as 0.00123, not {text!r}", 2)
    return Cost(amount)


def _decide(hold_id: str, cost: str | None, reason: str, database_url: str | None, *, is_void: bool) -> None:
    if (cost is not None) is is_void:
        fail("give either --cost USD or --void", 2)
    if not reason.strip():
        fail("--reason: say why; it is kept with the transfer", 2)
    verdict = Nothing() if cost is None else cost_of(cost)

    async def settle(store: SqlStore, _: Accounts) -> None:
        await decide(store, store, hold_id, verdict, reason.strip())

    with_books(database_url, settle)


def _kinds(found: Audit) -> list[dict[str, Any]]:
    """What was posted, by the kind of the orders."""
    return [
        {
            "kind": kind or None,
            "orders": total.orders,
            "prompt_tokens": total.prompt_tokens,
            "answer_tokens": total.answer_tokens,
            "units": units_used(kind, total.units),
            "cost_usd": plain(total.cost),
            "events": total.events,
            "fares_usd": format_usd(total.fares_nanos),
        }
        for kind, total in sorted(found.kinds.items())
    ]


def audit(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Compute every fare and balance again from what is stored; exit 1 if anything differs."""

    async def audit_rows(store: SqlStore, _: Accounts) -> Audit:
        found = Audit(differences=["nothing was looked at"])
        audits = 0
        while found.differences and audits < AUDITS:
            with store.in_pieces(clock.now_us()) as rows:
                found = run_audit(rows)
            audits += 1
        return found

    found = with_books(database_url, audit_rows)
    if as_json:
        print_json(
            {
                "accounts": found.accounts,
                "transfers": found.transfers,
                "orders": found.holds,
                "unresolved": found.unresolved,
                "paid_in_usd": format_usd(found.paid_in_nanos),
                "fares_usd": format_usd(found.fares_nanos),
                "fares_above_their_holds": found.over_hold,
                "adjustments": found.adjustments,
                "charged_events": found.charged_events,
                "uncharged_events": found.uncharged_events,
                "trail_entries": found.entries,
                "kinds": _kinds(found),
                "differences": found.differences,
            }
        )
    else:
        for difference in found.differences:
            typer.echo(difference)
        orders = ", ".join(f"{count} {state}" for state, count in found.holds.items())
        if found.unresolved:
            orders += f" ({found.unresolved} unresolved: `farebox reconcile --list`)"
        typer.echo(
            f"{found.accounts} accounts, {found.transfers} transfers; orders: {orders};"
            f" paid in ${format_usd(found.paid_in_nanos)}, fares ${format_usd(found.fares_nanos)}"
            f" ({found.over_hold} above their holds), {found.adjustments} adjustments;"
            f" {found.entries} entries in the trail"
        )
        if found.charged_events or found.uncharged_events:
            typer.echo(f"told outside: {found.charged_events} events, not yet or not at all: {found.uncharged_events}")
        if kinds := _kinds(found):
            heads = ("KIND", "ORDERS", "PROMPT TOKENS", "ANSWER TOKENS", "UNITS", "COST", "EVENTS", "FARES")
            words = [" ".join(f"{count} {name.replace('_', ' ')}" for name, count in k["units"].items()) for k in kinds]
            print_table(heads, [{**kind, "units": said} for kind, said in zip(kinds, words, strict=True)])
        typer.echo(f"differences: {len(found.differences)}")
    if found.differences:
        raise typer.Exit(1)
