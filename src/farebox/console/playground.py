"""Playground: one order, in any format, as whoever is signed in; and the same order as code.

It is placed by the key that somebody signed in with, at the expense of its account and within its limits, through the
exchange like every order. A management key orders nothing. What is said in it is kept nowhere here: an answer goes to
the browser that asked, as it comes, or on the one page that was asked for.
"""

from time import monotonic
from typing import cast, get_args

import msgspec
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from farebox.console import orders, rendering
from farebox.console.calls import PATHS, Spoken, TextOrder, said_in
from farebox.console.house import House
from farebox.console.requests import Cell, Page, Relayed, Request
from farebox.console.snippets import snippets
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, conflict, forbidden, invalid, unknown
from farebox.core.formats.table import FORMATS
from farebox.core.headers import HeaderList, RequestHead
from farebox.core.keys import caller_of_key
from farebox.core.reading import read_whole
from farebox.http.asgi import AsgiCall

CODE = ("name", "code")

CAP = 500
"""How many tokens an answer has at most where nobody says another number."""

CAP_MAX = 10_000_000

MODELS_MAX = 1_000
"""The most models that are suggested."""

_NAMES = {"chat": "Chat completions (OpenAI)", "messages": "Messages (Anthropic)", "responses": "Responses (OpenAI)"}

_UNKEPT = b"0"
"""What `X-Farebox-Cache` says of an order whose answer is not to be kept, whatever its key says."""

_HEAD = RequestHead(client="Farebox console", media_type=b"application/json", cache=_UNKEPT)
"""Nothing that a browser says of itself goes on with an order."""

_WITHOUT_A_KEY = (
    "A management key orders nothing, so that nobody spends an account's money without one of the account's own keys:"
    " sign in with one of those to send this"
)

_OURS = frozenset({b"cache-control", *(name for name, _ in rendering.SAFETY)})


async def show(house: House, request: Request) -> Page:
    """GET /console/playground."""
    order = _order_of(request, default=TextOrder("chat", "", "Hello", cap=CAP, streamed=True))
    return await _page(house, request, order)


async def show_code(house: House, request: Request) -> Page:
    """POST /console/playground/code: the order as code. Nothing is ordered."""
    order = _order_of(request)
    if not request.is_download:
        return await _page(house, request, order)
    return Page("playground.html", columns=CODE, rows=_code(request, order))


async def place(house: House, request: Request) -> Page:
    """POST /console/playground: place the order, and show its whole answer. For browsers without JavaScript."""
    if request.is_download:
        raise unknown("There is no list of orders here")
    order = _order_of(request)
    began = monotonic()
    try:
        caller = await _caller(house, request)
        order.check()
        if not await house.sessions.take_permit(request.session, request.text("once")):
            raise conflict("This order was placed before: it stands under Orders. Send the form again for another one")
        body = msgspec.json.encode(replace(order, streamed=False).members)
        placed = await house.whole_orders.place(caller, order.path, body, cache=_UNKEPT)
    except Refusal as refusal:
        return await _page(house, request, order, refusal=refusal)
    generation_id = placed.generation_id
    answered = {
        "text": said_in(order.spoken, placed.body),
        "raw": placed.body.decode("utf-8", "replace"),
        "took_us": int((monotonic() - began) * 1_000_000),
        "cap": placed.answer_cap,
        "row": None if generation_id is None else await orders.of_generation(house, request.viewer, generation_id),
    }
    return await _page(house, request, order, answered=answered)


async def relay(house: House, request: Request) -> Relayed:
    """POST /console/playground/answer: place the order, and answer as its format's endpoint does. For the page's
    script."""
    if request.is_download:
        raise unknown("There is no list of orders here")
    order = _order_of(request)
    order.check()
    caller = await _caller(house, request)
    serve = house.relay.serving(order.path, FORMATS[order.path], caller=caller)
    body = msgspec.json.encode(order.members)

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        await serve(_Call(scope, receive, send, body))

    return Relayed(endpoint)


class _Call(AsgiCall):
    """An order that a form was made into. What answers it is kept nowhere, and is nothing that a browser would show."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, order: bytes) -> None:
        super().__init__(scope, receive, send)
        self._order = order

    def head(self) -> RequestHead:
        return _HEAD

    def came(self, bytes_max: int) -> bytes:
        return self._order

    async def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        await super().whole(status, _contained(headers), body)

    async def begin(self, status: int, headers: HeaderList) -> None:
        await super().begin(status, _contained(headers))


def _contained(headers: HeaderList) -> HeaderList:
    kept = [header for header in headers if header[0].lower() not in _OURS]
    return [*kept, *rendering.UNKEPT, *rendering.SAFETY]


async def _caller(house: House, request: Request) -> Caller:
    """Who orders. Raises Refusal 403: nobody does, with a management key."""
    key_id = request.viewer.key_id
    found = None if key_id is None else await house.reading.key(key_id)
    if found is None:
        raise forbidden(_WITHOUT_A_KEY)
    return caller_of_key(*found, house.plans)


def _order_of(request: Request, default: TextOrder | None = None) -> TextOrder:
    """The order that a form has; of a page that is asked for, its model and format. Raises Refusal 400."""
    spoken = request.text("format") or (default.spoken if default else "")
    if spoken not in get_args(Spoken):
        raise invalid(f"format: one of {', '.join(PATHS)}, not {spoken[:40]!r}")
    if default is not None:
        return replace(default, spoken=cast(Spoken, spoken), model=request.text("model")[:200])
    sent = request.text("cap").replace(",", "")
    cap = read_whole(sent, 1, CAP_MAX) if sent else None
    if sent and cap is None:
        raise invalid(f"At most so many tokens: a whole number above zero, not {sent[:40]!r}")
    return TextOrder(
        cast(Spoken, spoken),
        request.text("model"),
        _lines(request, "text"),
        _lines(request, "system"),
        cap,
        streamed=bool(request.text("streamed")),
    )


def _lines(request: Request, name: str) -> str:
    """What a form has in a field of several lines."""
    sent = request.form.get(name, "").replace("\r\n", "\n")
    return sent if sent.strip() else ""


def _code(request: Request, order: TextOrder) -> list[dict[str, Cell]]:
    return [{"name": each.name, "code": each.code} for each in snippets(order, request.address)]


async def _page(
    house: House,
    request: Request,
    order: TextOrder,
    *,
    refusal: Refusal | None = None,
    answered: dict[str, object] | None = None,
) -> Page:
    viewer = request.viewer
    values = {
        "order": order,
        "formats": _NAMES,
        "models": _models(house, request),
        "snippets": _code(request, order),
        "answered": answered,
        "problem": None if refusal is None else refusal.message,
        "shows_cost": house.shows_cost(viewer),
        "is_short": refusal is not None and refusal.status == 402,
        "why_not": _WITHOUT_A_KEY if viewer.key_id is None else None,
        "once": await house.sessions.permit(request.session) if viewer.key_id is not None else "",
    }
    return Page("playground.html", values, status=200 if refusal is None else refusal.status)


def _models(house: House, request: Request) -> list[str]:
    """Names of models that the viewer's plan includes."""
    try:
        rates = house.catalog.current().rates
    except Refusal:
        return []  # Models says why
    plan = None if request.viewer.account is None else house.plans.get(request.viewer.account.plan)
    allowed = (name for name in sorted(rates) if plan is None or plan.allows(*house.catalog.names(name)))
    return [name for name, _ in zip(allowed, range(MODELS_MAX), strict=False)]
