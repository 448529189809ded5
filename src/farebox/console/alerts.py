"""Alerts: who is told of what needs a person, a test of each, and what became of the latest deliveries."""

from farebox import clock
from farebox.console.house import House
from farebox.console.naming import Names
from farebox.console.requests import Answer, Cell, Page, Redirect, Request
from farebox.core.alerts import FORMS, KINDS, OF_ACCOUNTS, Delivery, Receiver
from farebox.core.errors import conflict, invalid
from farebox.core.webhooks import shown

ROWS = 50
COLUMNS = ("begun", "receiver", "to", "kind", "state", "attempts", "next_attempt", "ended", "problem", "id")

STATES = {"due": "on its way", "delivered": "delivered", "given_up": "given up"}


async def show(house: House, request: Request) -> Page:
    """GET /console/alerts."""
    request.viewer.check_manages()
    receivers = await house.alerts.receivers(request.viewer.account_id)
    most = request.rows(ROWS)
    found = await house.alerts.deliveries(None, request.viewer.account_id, most + 1, request.text("before"))
    listed = found[:most]
    by_id = {receiver.id: receiver for receiver in receivers}
    rows = [_row(each, by_id.get(each.receiver_id)) for each in listed]
    names = Names(house.reading)
    values = {
        "rows": rows,
        "receivers": [
            {
                "id": each.id,
                "name": name_of(each),
                "to": shown(each.url),
                "form": FORMS[each.form],
                "about": _about(each),
                "account": None if each.account_id is None else await names.account(each.account_id),
                "created_us": each.created_us,
            }
            for each in receivers
        ],
        "kinds": _kinds(request),
        "forms": FORMS,
        "states": STATES,
    }
    further = {"before": listed[-1].id} if len(found) > most else None
    return Page("alerts.html", values, columns=COLUMNS, rows=rows, next_query=further)


def name_of(receiver: Receiver) -> str:
    return receiver.label or f"Receiver {receiver.id}"


def _about(receiver: Receiver) -> str:
    known = KINDS if receiver.account_id is None else OF_ACCOUNTS
    if len(receiver.kinds) == len(known):
        return "everything" if receiver.account_id is None else "everything of the account"
    return "; ".join(KINDS[kind] for kind in receiver.kinds if kind in KINDS)


def _kinds(request: Request) -> dict[str, str]:
    """What the viewer's receivers may be told of."""
    return {kind: words for kind, words in KINDS.items() if request.viewer.account is None or kind in OF_ACCOUNTS}


def _row(delivery: Delivery, receiver: Receiver | None) -> dict[str, Cell]:
    return {
        "begun": clock.iso(delivery.created_us, "seconds"),
        "begun_us": delivery.created_us,
        "receiver": None if receiver is None else name_of(receiver),
        "to": None if receiver is None else shown(receiver.url),
        "kind": delivery.kind,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_attempt": None if delivery.due_us is None else clock.iso(delivery.due_us, "seconds"),
        "next_attempt_us": delivery.due_us,
        "ended": None if delivery.ended_us is None else clock.iso(delivery.ended_us, "seconds"),
        "problem": delivery.said or None,
        "id": delivery.id,
    }


# A new one


async def confirm_new(house: House, request: Request) -> Page:
    """POST /console/alerts/new: what it will be told. By POST, so that its address stands in no browser's history."""
    url, label, form, kinds, account_id = await _wanted(house, request)
    house.alerts.check(url, label, form, kinds, account_id)
    known = _kinds(request) if account_id is None else {kind: KINDS[kind] for kind in OF_ACCOUNTS}
    values = {
        "url": url,
        "to": shown(url),
        "label": label,
        "form_of_it": form,
        "form_in_words": FORMS[form],
        "kinds": kinds,
        "told": [words for kind, words in known.items() if kind in kinds or not kinds],
        "account": request.viewer.account.name if request.viewer.account else request.text("account"),
        "once": await house.sessions.permit(request.session),
    }
    return Page("new-alert.html", values)


async def create(house: House, request: Request) -> Page:
    """POST /console/alerts: add the receiver, and show its secret, once."""
    url, label, form, kinds, account_id = await _wanted(house, request)
    house.alerts.check(url, label, form, kinds, account_id)
    if not await house.sessions.take_permit(request.session, request.text("once")):
        raise conflict("This form was sent before, and its receiver was added then")
    made = await house.alerts.add(url, label, form, kinds, account_id)
    values = {"name": name_of(made), "to": shown(made.url), "secret": made.secret, "receiver": made.id}
    return Page("made-alert.html", values, status=201)


async def _wanted(house: House, request: Request) -> tuple[str, str, str, list[str], int | None]:
    """Raises Refusal, NotFound."""
    request.viewer.check_manages()
    account_id = request.viewer.account_id
    if account_id is None and request.text("account"):
        account_id = (await house.accounts.find(request.text("account"))).id
    if not (url := request.text("url")):
        raise invalid("url: where the alerts go")
    kinds = [kind for kind in KINDS if request.text(f"kind_{kind}")]
    return url, request.text("label"), request.text("as"), kinds, account_id


# One of them


async def change(house: House, request: Request) -> Answer:
    """POST /console/alerts/NUMBER: send a test, or remove it."""
    request.viewer.check_manages()
    number = request.number_in_path("alert", "There is no such receiver")
    receiver = await house.alerts.find(number, request.viewer.account_id)
    match request.text("do"):
        case "test":
            done = await house.alerts.test(receiver)
            return Page("tested-alert.html", {"name": name_of(receiver), "to": shown(receiver.url), "done": done})
        case "remove":
            await house.alerts.remove(receiver)
        case other:
            raise invalid(f"do: there is no such change as {other[:40]!r}")
    return Redirect("/alerts")
