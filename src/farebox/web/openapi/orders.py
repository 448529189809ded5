"""Orders: one operation for each wire format, of what the format says of itself."""

from farebox.core.formats import Format
from farebox.core.formats.table import Formats
from farebox.core.schemas import NUMBER, WHOLE, ref
from farebox.web.openapi.operations import Node, answer, body_of, header, operation, parameter

_ERRORS = (400, 401, 402, 403, 404, 409, 410, 424, 429, 502, 504)

_KEY = parameter(
    "Idempotency-Key",
    {"type": "string", "maxLength": 255},
    "Under a key an order is served and charged once, for a day: a repeat gets the kept answer. An empty one is none.",
    "header",
)

_HEADERS: Node = {
    "X-Generation-Id": header("The upstream's name for it."),
    "X-Farebox-Fare-Events": header("Quick whole answers: events of $0.00001 charged.", WHOLE),
    "X-Farebox-Fare-Usd": header("Quick whole answers: what is charged, in USD.", NUMBER),
    "X-Farebox-Answer-Cap": header("The answer's cap, where the plan, the balance or a limit lowered it.", WHOLE),
    "Idempotency-Replayed": header("`true` on an answer that was kept."),
}

_EVENTS: Node = {"schema": {"type": "string", "description": "Events, as the upstream sends them."}}


def paths(formats: Formats) -> Node:
    return {path: {"post": _order(wire)} for path, wire in formats.items()}


def _order(wire: Format) -> Node:
    described = wire.DESCRIBED
    served = answer("The answer.", ref(described.answer[0]), headers=_HEADERS)
    if described.is_streamed:
        served["content"]["text/event-stream"] = _EVENTS
    answers = {
        "200": served,
        "default": answer("The upstream's refusal, as it came.", ref("AnyError")),
    }
    body = body_of(ref(described.request[0]), example=dict(described.example))
    refusal = described.refusal[0]
    return operation(described.summary, "Orders", answers, _ERRORS, parameters=[_KEY], body=body, refusal=refusal)


def schemas(formats: Formats) -> Node:
    described = [wire.DESCRIBED for wire in formats.values()]
    return dict([*(each.request for each in described), *(each.answer for each in described)])


def errors(formats: Formats) -> Node:
    """The body of a refusal in each format, and of one that may be in any."""
    named = dict(wire.DESCRIBED.refusal for wire in formats.values())
    return {**named, "AnyError": {"oneOf": [ref(name) for name in named]}}
