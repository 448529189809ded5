"""Orders whose cost is not known: what is open, why, and what an operator decides."""

from decimal import Decimal, InvalidOperation

from farebox import clock
from farebox.console.house import House
from farebox.console.naming import Names
from farebox.console.requests import Answer, Cell, Page, Redirect, Request
from farebox.console.shown import places_of
from farebox.core.books import HoldRow
from farebox.core.errors import invalid, unknown
from farebox.core.money import charged, format_usd, is_readable_cost
from farebox.core.resale import without_amounts
from farebox.core.usage import Cost, Nothing
from farebox.reconcile import decide as settle

ROWS = 50
COLUMNS = (
    "since",
    "account",
    "key",
    "model",
    "held_usd",
    "stands",
    "asks",
    "next_ask",
    "why",
    "generation_id",
    "order",
)

REASON_LENGTH_MAX = 500


async def show(house: House, request: Request) -> Page:
    """GET /console/reconcile."""
    found = await house.reading.open_holds(request.viewer.account_id, request.text("after"), ROWS + 1)
    listed = found[:ROWS]
    names = Names(house.reading)
    rows = [await _row(each, names, shows_cost=house.shows_cost(request.viewer)) for each in listed]
    values = {"rows": rows, "places": places_of(each.amount_nanos for each in listed)}
    further = {"after": listed[-1].id} if len(found) > ROWS else None
    return Page("reconcile.html", values, columns=COLUMNS, rows=rows, next_query=further)


async def _row(hold: HoldRow, names: Names, *, shows_cost: bool) -> dict[str, Cell]:
    return {
        "since": clock.iso(hold.created_us, "seconds"),
        "since_us": hold.created_us,
        "key": await names.key(hold.key_id),
        "account": await names.account(hold.account_id),
        "model": hold.model,
        "held_usd": format_usd(hold.amount_nanos),
        "held_nanos": hold.amount_nanos,
        "stands": "to be decided" if hold.is_unresolved else "the upstream is asked",
        "asks": hold.asks,
        "next_ask": None if hold.ask_us is None else clock.iso(hold.ask_us, "seconds"),
        "next_ask_us": hold.ask_us,
        "why": hold.reason if shows_cost or hold.reason is None else without_amounts(hold.reason),
        "generation_id": hold.generation_id,
        "order": hold.id,
    }


async def show_one(house: House, request: Request) -> Page:
    """GET /console/reconcile/ORDER: decide on it; with a cost or `void`, what that will do."""
    request.viewer.check_operates()
    hold = await _found(house, request)
    names = Names(house.reading)
    cost_text, verdict = request.text("cost"), request.text("verdict")
    fare = events = None
    if verdict == "cost":
        cost = _cost(cost_text)
        events, fare = charged(cost, hold.event_price_nanos, marked_up=hold.marked_up)
    values = {
        "hold": hold,
        "row": await _row(hold, names, shows_cost=True),
        "verdict": verdict,
        "cost": cost_text,
        "reason": request.text("reason"),
        "events": events,
        "fare": fare,
        "is_ready": verdict in ("cost", "void") and bool(request.text("reason")),
        "lacks_reason": verdict in ("cost", "void") and not request.text("reason"),
    }
    return Page("decide.html", values)


async def decide(house: House, request: Request) -> Answer:
    """POST /console/reconcile/ORDER."""
    request.viewer.check_operates()
    hold = await _found(house, request)
    reason = request.text("reason")
    if not reason or len(reason) > REASON_LENGTH_MAX:
        raise invalid(f"reason: say why, in at most {REASON_LENGTH_MAX} characters; it is kept with the transfer")
    match request.text("verdict"):
        case "cost":
            verdict: Cost | Nothing = Cost(_cost(request.text("cost")))
        case "void":
            verdict = Nothing()
        case _:
            raise invalid("verdict: a cost, or that nothing is charged")
    await settle(house.ledger, house.books, hold.id, verdict, reason)
    return Redirect(f"/orders/{hold.id}")


def _cost(text: str) -> Decimal:
    try:
        amount = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not is_readable_cost(amount):
        raise invalid(f"cost: an amount in USD such as 0.00123, not {text[:40]!r}")
    return amount


async def _found(house: House, request: Request) -> HoldRow:
    """Raises Refusal 404."""
    hold = await house.books.hold(request.path["order"])
    if hold is None:
        raise unknown("There is no such order")
    return hold
