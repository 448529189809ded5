"""`farebox alert ...`: who is told of what needs a person."""

from typing import Annotated, Any

import typer

from farebox.accounts import Accounts
from farebox.alerts import Alerts
from farebox.cli.session import (
    AsCsv,
    AsJson,
    DatabaseUrl,
    fail,
    moment,
    nanos_of,
    print_json,
    print_rows,
    with_books,
)
from farebox.core.alerts import KINDS, Delivery, Receiver
from farebox.core.money import format_usd
from farebox.core.webhooks import shown
from farebox.settings import load
from farebox.store.books import SqlStore
from farebox.webhooks import SafeWebhooks

alert_app = typer.Typer(help="Who is told of what needs a person.", no_args_is_help=True)

DELIVERIES = 50

Number = Annotated[int, typer.Argument(metavar="NUMBER", help="The receiver's number, as the list shows it.")]


def _alerts(store: SqlStore) -> Alerts:
    settings = load()
    webhooks = SafeWebhooks(settings.ca_file, may_be_private=settings.alerts_private)
    return Alerts(store, webhooks, may_be_private=settings.alerts_private)


@alert_app.command("add")
def add(
    url: Annotated[str, typer.Argument(help="Where alerts go. It is kept as a secret.")],
    slack: Annotated[bool, typer.Option("--slack", help="A URL that takes Slack's messages, not webhooks.")] = False,
    on: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help=f"One or more of {', '.join(KINDS)}; all where absent.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Alerts of this account alone.")] = None,
    label: Annotated[str, typer.Option(help="Whom it tells.")] = "",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Have alerts sent to a URL. The secret that signs them is shown, this once."""

    async def write(store: SqlStore, accounts: Accounts) -> tuple[Receiver, dict[str, Any]]:
        account_id = None if account is None else (await accounts.find(account)).id
        form = "slack" if slack else "webhook"
        made = await _alerts(store).add(url, label, form, on or (), account_id)
        return made, await _described(made, accounts)

    made, described = with_books(database_url, write)
    if as_json:
        print_json({**described, "secret": made.secret})
        return
    if made.secret is not None:
        typer.echo(made.secret)
        typer.echo("Keep it: the receiver verifies alerts with it, and it is not shown again.", err=True)
    typer.echo(f"Receiver {made.id}; try it: farebox alert test {made.id}", err=True)


@alert_app.command("list")
def list_receivers(database_url: DatabaseUrl = None, as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """Show who is told, and of what."""

    async def find(store: SqlStore, accounts: Accounts) -> list[dict[str, Any]]:
        return [await _described(each, accounts) for each in await _alerts(store).receivers()]

    rows = with_books(database_url, find)
    heads = ("NUMBER", "LABEL", "TO", "FORM", "ACCOUNT", "KINDS")
    if not as_json and not as_csv:
        for row in rows:
            row["kinds"] = "all" if row["kinds"] == list(KINDS) else ", ".join(row["kinds"])
    print_rows(heads, rows, ("id", "label", "url", "form", "account", "kinds"), "all", as_json=as_json, as_csv=as_csv)


@alert_app.command("remove")
def remove(number: Number, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Tell a receiver nothing any more."""

    async def drop(store: SqlStore, accounts: Accounts) -> dict[str, Any]:
        alerts = _alerts(store)
        receiver = await alerts.find(number)
        await alerts.remove(receiver)
        return await _described(receiver, accounts)

    described = with_books(database_url, drop)
    if as_json:
        print_json(described)
    else:
        typer.echo(f"removed {described['id']}, {described['url']}")


@alert_app.command("test")
def send_test(number: Number, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Send a test now. Where it does not arrive, say why, and end with code 1."""

    async def send(store: SqlStore, _: Accounts) -> Delivery:
        alerts = _alerts(store)
        return await alerts.test(await alerts.find(number))

    done = with_books(database_url, send)
    if as_json:
        print_json(described_delivery(done))
    if done.state != "delivered":
        fail(f"the test did not arrive: {done.said}")
    if not as_json:
        typer.echo(f"it arrived, under the id {done.id}")


@alert_app.command("deliveries")
def deliveries(
    number: Annotated[int | None, typer.Argument(metavar="[NUMBER]", help="Of one receiver; all where absent.")] = None,
    database_url: DatabaseUrl = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show the latest deliveries, and what became of them."""

    async def find(store: SqlStore, _: Accounts) -> list[Delivery]:
        alerts = _alerts(store)
        return await alerts.deliveries(None if number is None else (await alerts.find(number)).id, None, DELIVERIES)

    rows = [described_delivery(each) for each in with_books(database_url, find)]
    heads = ("BEGUN", "RECEIVER", "KIND", "STATE", "ATTEMPTS", "NEXT", "PROBLEM", "ID")
    names = ("created", "receiver", "kind", "state", "attempts", "next_attempt", "problem", "id")
    print_rows(heads, rows, names, as_json=as_json, as_csv=as_csv)


@alert_app.command("low-balance")
def low_balance(
    account: Annotated[str, typer.Argument(help="The account's name.")],
    below: Annotated[
        str | None,
        typer.Argument(metavar="[USD]", help="Below what it is low: an amount, `none` for never, or `default`."),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show or set below what an account is told as low: $1 where nothing is set."""
    amount = None if below in (None, "default") else 0 if below == "none" else nanos_of(below or "")

    async def write(store: SqlStore, accounts: Accounts) -> int:
        found = await accounts.find(account)
        alerts = _alerts(store)
        if below is None:
            return await alerts.low_balance(found.id)
        return await alerts.set_low_balance(found.id, amount)

    nanos = with_books(database_url, write)
    if as_json:
        print_json({"account": account, "low_balance_usd": format_usd(nanos)})
    else:
        typer.echo(
            f"{account} is told as low below ${format_usd(nanos)}" if nanos else f"{account} is never told as low"
        )


async def _described(receiver: Receiver, accounts: Accounts) -> dict[str, Any]:
    account_id = receiver.account_id
    return {
        "id": receiver.id,
        "label": receiver.label,
        "url": shown(receiver.url),
        "form": receiver.form,
        "account": None if account_id is None else (await accounts.find_by_id(account_id)).name,
        "kinds": list(receiver.kinds),
        "created": moment(receiver.created_us),
    }


def described_delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "receiver": delivery.receiver_id,
        "kind": delivery.kind,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "problem": delivery.said,
        "created": moment(delivery.created_us),
        "next_attempt": moment(delivery.due_us),
        "ended": moment(delivery.ended_us),
    }
