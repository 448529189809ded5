"""The OpenAPI 3.0 document of Farebox's surface: every path that is answered, and what is checked and answered there.

A request's other members are the upstream's business, and pass unread: its own document describes them.
"""

from farebox import __version__
from farebox.core import compaction
from farebox.core.formats import Format
from farebox.core.formats.table import FORMATS, Formats, with_aliases
from farebox.core.schemas import NAME, NUMBER, OBJECT, TEXT, WHOLE, array_of, object_of, one_of, or_null, ref
from farebox.web.openapi import alerts, bills, free, management, runs
from farebox.web.openapi.operations import Node, answer, body_of, header, operation, parameter

_TAGS = {
    "Orders": "Billed to the caller at the cost that the upstream reports.",
    "Lists": "The upstream's, less what the caller's plan does not include.",
    "Account": "The caller's own.",
    "Bills": "The orders, the statement and the totals of the caller's account. Amounts are exact text, times UTC.",
    "Keys": "Keys and activity in OpenRouter's shapes, for who has a management key.",
    "Accounts": "Accounts and top-ups, for who has a management key. Below the root, under no base.",
    "Alerts": "Where alerts of what needs a person go, for who has a management key. Below the root, under no base.",
    "Tools": "For agents, over the Model Context Protocol's streamable HTTP. Below the root, under no base.",
    "Operation": "For who watches over the process. Below the root, under no base.",
    "Actor runs": "What the Apify platform's clients call: a caller's key is the token. Below the root, under no base;"
    " `/v2/acts` is the same as `/v2/actors`.",
}
_CREDENTIALS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A Farebox key, `sk-fb-...`."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."},
    "management": {"type": "http", "scheme": "bearer", "description": "A management key, `sk-fb-management-...`."},
    "metrics": {"type": "http", "scheme": "bearer", "description": "The token that `FAREBOX_METRICS_TOKEN` sets."},
    "token": {"type": "apiKey", "in": "query", "name": "token", "description": "A Farebox key."},
}

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


def document(formats: Formats = FORMATS, *, has_run_api: bool = True) -> Node:
    """The whole document, as JSON has it. `has_run_api`: this gateway serves the run API, too."""
    parts = [free, bills, management, alerts, *([runs] if has_run_api else [])]
    left_out = () if has_run_api else ("Actor runs", "token")
    described = [wire.DESCRIBED for wire in formats.values()]
    refused = dict(each.refusal for each in described)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Farebox",
            "version": __version__,
            "description": "An LLM gateway that charges the exact fare. It speaks OpenRouter's API; every path stands"
            " under `/api/v1` and under `/v1`, where nothing else is said.",
            "license": {"name": "Apache-2.0"},
        },
        "servers": [{"url": "/api/v1"}, {"url": "/v1"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if name not in left_out],
        "paths": {
            **{name: {"post": _order(formats[path], name.removeprefix(path))} for name, path in with_aliases(formats)},
            **({compaction.PATH: {"post": _compaction()}} if "/responses" in formats else {}),
            **{path: item for part in parts for path, item in part.paths().items()},
        },
        "components": {
            "securitySchemes": {name: each for name, each in _CREDENTIALS.items() if name not in left_out},
            "schemas": {
                **dict([*(each.request for each in described), *(each.answer for each in described)]),
                **{name: schema for part in parts for name, schema in part.schemas().items()},
                **refused,
                "AnyError": {"oneOf": [ref(name) for name in refused]},
            },
        },
    }


def _order(wire: Format, also: str = "") -> Node:
    """Orders in a format; `also` tells the operation at another path of it from the one at its own."""
    described = wire.DESCRIBED
    served = answer("The answer.", ref(described.answer[0]), media_type=described.media, headers=_HEADERS)
    if described.is_streamed:
        events = {"type": "string", "description": "Events, as the upstream sends them."}
        served["content"]["text/event-stream"] = {"schema": events}
    status = "202" if described.begins_job else "200"
    answers = {status: served, "default": answer("The upstream's refusal, as it came.", ref("AnyError"))}
    body = body_of(ref(described.request[0]), example=dict(described.example))
    if described.from_form is not None:
        body["content"]["multipart/form-data"] = {"schema": _FORM, "encoding": {"file": {"contentType": "audio/mpeg"}}}
    refusal, name = described.refusal[0], f"{described.summary.lower()}{also.replace('/', '_')}" if also else ""
    return operation(
        described.summary, "Orders", answers, _ERRORS, parameters=[_KEY], body=body, name=name, refusal=refusal
    )


def _compaction() -> Node:
    """It is one order for a response, whole."""
    request = object_of(
        {"model": NAME, "input": {"oneOf": [NAME, array_of(OBJECT, minItems=1)]}},
        {"instructions": or_null(TEXT)},
    )
    item = object_of({"type": one_of("compaction"), "id": TEXT, "encrypted_content": TEXT})
    made = object_of(
        {
            "id": TEXT,
            "object": one_of("response.compaction"),
            "created_at": NUMBER,
            "output": array_of(item),
            "usage": OBJECT,
        }
    )
    answers = {
        "200": answer("The conversation, made short.", made, headers=_HEADERS),
        "default": answer("The upstream's refusal, as it came.", ref("AnyError")),
    }
    body = body_of(request, example={"model": "sim/echo", "input": "Hello"})
    return operation("Compaction of a conversation", "Orders", answers, _ERRORS, parameters=[_KEY], body=body)


_FORM = object_of({"model": NAME, "file": {"type": "string", "format": "binary"}})
