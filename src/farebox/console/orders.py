"""Orders: those that were placed, and one order's life, from the money set aside to the fare."""

from dataclasses import dataclass
from decimal import Decimal
from typing import cast

from msgspec.structs import replace

from farebox import clock
from farebox.console.house import House
from farebox.console.naming import Names
from farebox.console.requests import Answer, Cell, Page, Redirect, Request, Viewer
from farebox.console.shown import decimals_of, places_of
from farebox.core.allowances import DAY_US
from farebox.core.attribution import read_tag, tags_text
from farebox.core.bills import OrderFilter, OrderPlace, Tag, cursor_of, place_of
from farebox.core.books import LAST_US, HoldRow, HoldState, Transfer, settlement_id
from farebox.core.errors import invalid, unknown
from farebox.core.kinds import units_used
from farebox.core.money import EVENT_NANOS, format_usd, plain
from farebox.core.resale import without_amounts

ROWS = 50
COLUMNS = (
    "placed",
    "account",
    "key",
    "model",
    "served_model",
    "state",
    "streamed",
    "prompt_tokens",
    "answer_tokens",
    "cost_usd",
    "fare_usd",
    "held_usd",
    "generation_id",
    "end_user",
    "tags",
    "order",
)

STATES = ("posted", "voided", "pending", "open")

_NO_ORDER = "There is no such order"


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to an order; `since_us` is the time since the one before."""

    at_us: int
    what: str
    more: str
    since_us: int | None = None


async def show(house: House, request: Request) -> Page:
    """GET /console/orders: those that have not ended, then the others, the latest first; as they were when the first of
    these pages was asked for."""
    account_id, key_id = request.whole("account_id") or request.viewer.account_id, request.whole("key_id")
    if account_id is not None:
        request.viewer.check_sees(account_id, "There is no such account")
    names = Names(house.reading)
    if key_id:
        await names.check_sees_key(request.viewer, key_id)
    state, model = request.text("state"), request.text("model")
    since, until = request.day("since"), request.day("until")
    if state not in ("", *STATES):
        raise invalid(f"state: one of {', '.join(STATES)}")
    wanted = OrderFilter(
        since_us=0 if since is None else since * DAY_US,
        until_us=LAST_US if until is None else (until + 1) * DAY_US,
        key_id=key_id or None,
        model=model or None,
        state=cast(HoldState, state) if state else None,
        end_user=end_user_of(house, request),
        tag=tag_of(request),
    )
    after = OrderPlace(request.now_us)
    if cursor := request.text("after"):
        place = place_of(cursor, OrderPlace)
        if place is None:
            raise invalid("after: no place in a list of orders; begin at the first page")
        after = place
    found, further = await house.reading.order_page(account_id, wanted, after, request.rows(ROWS))
    shows_cost = house.shows_cost(request.viewer)
    await names.load_keys(each.hold.key_id for each in found)
    rows = [await _row(each.hold, each.end, names, shows_cost=shows_cost) for each in found]
    fares = [end for each in found if (end := each.end) is not None and end.is_fare]
    values = {
        "rows": rows,
        "say_whom": any(row["end_user"] or row["tags"] for row in rows),
        "account": await names.account(account_id) if request.whole("account_id") and account_id else "",
        "account_id": request.whole("account_id"),
        "key": await names.key(key_id) if key_id else "",
        "key_id": key_id,
        "model": model,
        "end_user": request.text("end_user"),
        "tag": request.text("tag"),
        "state": state,
        "states": STATES,
        "since": request.text("since"),
        "until": request.text("until"),
        "as_of_us": after.as_of_us,
        "places": places_of(end.amount_nanos for end in fares),
        "cost_places": decimals_of(_exact(end.cost) for end in fares),
        "shows_cost": shows_cost,
    }
    return Page(
        "orders.html",
        values,
        columns=COLUMNS,
        rows=rows,
        next_query=None if further is None else {"after": cursor_of(further)},
    )


def end_user_of(house: House, request: Request) -> str | None:
    """The end user that is asked for, as it is kept; None where none is. Raises BadTerms."""
    named = request.text("end_user")
    return house.end_users.kept_as(named) if named else None


def tag_of(request: Request) -> Tag | None:
    """The tag that is asked for. Raises Refusal 400."""
    sent = request.text("tag")
    if not sent:
        return None
    if (found := read_tag(sent)) is None:
        raise invalid(f"tag: a name and a value like team=search, not {sent[:80]!r}")
    return found


async def _row(hold: HoldRow, end: Transfer | None, names: Names, *, shows_cost: bool) -> dict[str, Cell]:
    fare = end if end is not None and end.is_fare else None
    return {
        "placed": clock.iso(hold.created_us, "milliseconds"),
        "placed_us": hold.created_us,
        "key": await names.key(hold.key_id),
        "account": await names.account(hold.account_id),
        "model": hold.model,
        "served_model": hold.served_model,
        "state": hold.state,
        "streamed": int(hold.streamed),
        "prompt_tokens": hold.prompt_tokens,
        "answer_tokens": hold.answer_tokens,
        "cost_usd": None if fare is None or not shows_cost else _exact(fare.cost),
        "fare_usd": None if fare is None else format_usd(fare.amount_nanos),
        "fare_nanos": None if fare is None else fare.amount_nanos,
        "held_usd": format_usd(hold.amount_nanos),
        "generation_id": hold.generation_id,
        "end_user": hold.end_user,
        "tags": tags_text(hold.tags),
        "order": hold.id,
    }


def _exact(cost: Decimal | None) -> str | None:
    return None if cost is None else plain(cost)


async def of_generation(house: House, viewer: Viewer, generation_id: str) -> dict[str, Cell] | None:
    """The order of a generation of the viewer's account, as a list has it; None where there is none."""
    found = None if viewer.account is None else await house.books.generation(viewer.account.id, generation_id)
    return None if found is None else await _row(*found, Names(house.reading), shows_cost=house.shows_cost(viewer))


async def show_generation(house: House, request: Request) -> Answer:
    """GET /console/generations/GENERATION: leads to the order's page; with `.json`, the order as a list has it."""
    row = await of_generation(house, request.viewer, request.path["generation"])
    if row is None:
        raise unknown(_NO_ORDER)
    if request.is_download:
        return Page("orders.html", columns=COLUMNS, rows=[row])
    return Redirect(f"/orders/{row['order']}")


async def show_one(house: House, request: Request) -> Page:
    """GET /console/orders/ORDER."""
    found = await house.reading.order(request.path["order"])
    if found is None:
        raise unknown(_NO_ORDER)
    hold, transfers = found
    request.viewer.check_sees(hold.account_id, _NO_ORDER)
    if hold.reason and not house.shows_cost(request.viewer):
        hold = replace(hold, reason=without_amounts(hold.reason))
    names = Names(house.reading)
    end = _end_of(hold, transfers)
    values = {
        "hold": hold,
        "key": await names.key(hold.key_id),
        "account": await names.account(hold.account_id),
        "transfers": transfers,
        "end": end,
        "shows_cost": house.shows_cost(request.viewer),
        "cost": None if end is None else _exact(end.cost),
        "units": ", ".join(
            f"{count} {unit.replace('_', ' ')}" for unit, count in units_used(hold.kind, hold.units).items()
        ),
        "tags": tags_text(hold.tags),
        "moments": _life(hold, transfers),
        "multiplier": plain(Decimal(hold.event_price_nanos) / EVENT_NANOS),
        "places": places_of(each.amount_nanos for each in transfers),
    }
    return Page("order.html", values)


def _life(hold: HoldRow, transfers: list[Transfer]) -> list[Moment]:
    """What happened to an order, in its order."""
    held = f"${format_usd(hold.amount_nanos)} set aside: the most that it could cost"
    found = [Moment(hold.created_us, "Placed", held)]
    if hold.sent_us is not None:
        before = f", after {hold.tried}" if hold.tried else ""
        found.append(Moment(hold.sent_us, "Sent", f"to the upstream{before}"))
    if hold.head_us is not None:
        found.append(Moment(hold.head_us, "First byte", "the upstream began to answer"))
    if hold.read_us is not None and hold.head_us is not None:
        found.append(Moment(hold.read_us, "Answer ended", "or was left, by its caller or by the upstream"))
    end = _end_of(hold, transfers)
    found += [Moment(each.created_us, *_corrected(each)) for each in transfers if each.is_correction]
    if end is not None:
        found.append(Moment(end.created_us, *_ending(hold, end)))
    elif hold.state == "open":
        why = hold.reason or "its cost is not known"
        if hold.ask_us is not None:
            found.append(
                Moment(
                    hold.ask_us,
                    "Asked about",
                    f"{why}; the upstream {_asked(hold.asks)} then",
                )
            )
    ordered = sorted(found, key=lambda each: each.at_us)
    return [
        each if number == 0 else Moment(each.at_us, each.what, each.more, each.at_us - ordered[number - 1].at_us)
        for number, each in enumerate(ordered)
    ]


def _asked(times: int) -> str:
    if not times:
        return "is first asked"
    return f"was asked {_times(times)}, and is asked again"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _end_of(hold: HoldRow, transfers: list[Transfer]) -> Transfer | None:
    return next((each for each in transfers if each.id == settlement_id(hold.id)), None)


def _corrected(transfer: Transfer) -> tuple[str, str]:
    back = transfer.given_back_nanos
    moved = "given back" if back > 0 else "charged in addition"
    return "Corrected", f"${format_usd(abs(back))} was {moved}: {transfer.note}"


def _ending(hold: HoldRow, end: Transfer) -> tuple[str, str]:
    asked = f", after the upstream was asked {_times(hold.asks)}" if hold.asks else ""
    match end.kind:
        case "post":
            return (
                "Settled",
                f"the cost is known{asked}: ${format_usd(end.amount_nanos)} was charged, the rest given back",
            )
        case "adjustment":
            return "Decided", f"by an operator: {end.note}"
        case _:
            why = f" ({hold.reason})" if hold.reason else ""
            return "Voided", f"nothing was charged{why}, all that was held was given back"
