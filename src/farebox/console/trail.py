"""Who changed what: for managers, of all that they manage; the latest of an account or a key stand on its own page."""

from farebox import clock
from farebox.console.house import House
from farebox.console.requests import Answer, Cell, Page, Request
from farebox.core.allowances import DAY_US
from farebox.core.books import LAST_US
from farebox.core.trail import Told, TrailFilter
from farebox.trail import fare_alone, in_words, who

ROWS = 50
LATEST = 5
"""Changes on the page of an account or a key."""

COLUMNS = ("time", "who", "way", "session", "what", "account", "key", "about", "order", "changes", "reason")


async def show(house: House, request: Request) -> Answer:
    """GET /console/trail."""
    request.viewer.check_manages()
    first, last = request.day("since"), request.day("until")
    asked = request.whole("account_id") or None
    if asked is not None:
        request.viewer.check_sees(asked, "There is no such account")
    own = request.viewer.account_id
    wanted = TrailFilter(
        0 if first is None else first * DAY_US,
        LAST_US if last is None else (last + 1) * DAY_US,
        asked if own is None else own,
        request.whole("key_id") or None,
        request.text("who") or None,
        request.text("what") or None,
        own is not None,
    )
    most = request.rows(ROWS)
    found = await house.reading.entries(wanted, request.whole("before", LAST_US), most + 1)
    rows = [_row(house, request, told) for told in found[:most]]
    values = {
        "rows": rows,
        "asked": {name: request.text(name) for name in ("since", "until", "who", "what", "account_id", "key_id")},
        "account": next((told.account for told in found if told.account), None) if wanted.account_id else None,
    }
    further = {"before": found[most - 1].entry.id} if len(found) > most else None
    return Page("trail.html", values, columns=COLUMNS, rows=rows, next_query=further)


async def latest(house: House, request: Request, account_id: int, key_id: int | None = None) -> list[dict[str, Cell]]:
    """The latest changes of an account or a key, for a manager; none for others."""
    if not request.viewer.is_manager:
        return []
    wanted = TrailFilter(0, LAST_US, account_id, key_id)
    found = await house.reading.entries(wanted, LAST_US, LATEST)
    return [_row(house, request, told) for told in found]


def _row(house: House, request: Request, told: Told) -> dict[str, Cell]:
    if not house.shows_cost(request.viewer):
        told = fare_alone(told)
    entry, change = told.entry, told.entry.change
    return {
        "id": entry.id,
        "time": clock.iso(entry.at_us, "seconds"),
        "time_us": entry.at_us,
        "who": who(told, request.viewer.account_id),
        "way": entry.by.way,
        "session": entry.by.session,
        "what": change.what,
        "account": told.account,
        "account_id": change.account_id,
        "key": told.key_label or told.key_hint or (None if change.key_id is None else f"key {change.key_id}"),
        "key_id": change.key_id,
        "about": change.about,
        "order": change.hold_id,
        "changes": in_words(change.members),
        "reason": change.reason,
    }
