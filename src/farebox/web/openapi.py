"""The OpenAPI 3.0 document of Farebox's surface: what Farebox itself checks and answers.

A request's other members are the upstream's business, and pass unread: its own document describes them.
(One long module: a table of paths and the schemas they name.)
"""

from typing import Any

from farebox import __version__
from farebox.generations import NULLABLE
from farebox.web.catalog import MODEL_FILTERS, PAGE_DEFAULT, PAGE_MAX

Node = dict[str, Any]

STATUSES = {
    400: "Something in the request is wrong; the message names it.",
    401: "No key, or one that is not known.",
    402: "The balance does not cover the order's ceiling; the message says what it would cover.",
    403: "The account's plan does not include this.",
    404: "There is no such thing here.",
    405: "Another method is answered here: see `Allow`.",
    408: "The body did not arrive in time.",
    409: "The idempotency key stands for another order, or for one that is still being answered (`Retry-After`).",
    410: "The answer under the idempotency key was not kept; the message names its generation.",
    413: "The body is too long, packed or unpacked.",
    415: "The body is not JSON, or is packed in another way than gzip or deflate.",
    424: "The upstream broke off after it may have accepted the order. Not to be repeated: it may have cost something.",
    429: "Too many requests, here or upstream: see `Retry-After`.",
    502: "The upstream cannot be reached, and has not heard of the request.",
    504: "The upstream could not be reached in time, and has not heard of the request.",
}

_ORDER_ERRORS = (400, 401, 402, 403, 404, 408, 409, 410, 413, 415, 424, 429, 502, 504)


def document() -> Node:
    """The whole document, as JSON has it."""
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Farebox",
            "version": __version__,
            "description": "An LLM gateway that charges the exact fare. It speaks OpenRouter's API; every path stands"
            " under `/api/v1` and under `/v1`.",
            "license": {"name": "Apache-2.0"},
        },
        "servers": [{"url": "/api/v1"}, {"url": "/v1"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [
            {"name": "Orders", "description": "Billed to the caller at the cost that the upstream reports."},
            {"name": "Lists", "description": "The upstream's, less what the caller's plan does not include."},
            {"name": "Account", "description": "The caller's own."},
        ],
        "paths": {**_orders(), **_lists(), **_account()},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A Farebox key, `sk-fb-...`."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."},
            },
            "schemas": _schemas(),
        },
    }


def _ref(name: str) -> Node:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: dict[str, Node], optional: dict[str, Node] | None = None, **more: Any) -> Node:
    """An object that may have other members too. OpenAPI 3.0 has no empty list of required ones."""
    needed = {"required": list(required)} if required else {}
    return {"type": "object", **needed, "properties": {**required, **(optional or {})}, **more}


def _array(items: Node, **more: Any) -> Node:
    return {"type": "array", "items": items, **more}


def _json(schema: Node) -> Node:
    return {"application/json": {"schema": schema}}


_TEXT: Node = {"type": "string"}
_NAME: Node = {"type": "string", "minLength": 1}
_WHOLE: Node = {"type": "integer"}
_NUMBER: Node = {"type": "number"}
_FLAG: Node = {"type": "boolean"}
_ANY: Node = {}
_OPEN: Node = {"type": "object"}
_CAP: Node = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1, "nullable": True}


def _or_null(schema: Node) -> Node:
    return {**schema, "nullable": True}


# Operations


def _orders() -> Node:
    return {
        "/chat/completions": _order("Chat completion", "ChatRequest", "ChatResult", streamed=True),
        "/messages": _order("Message, as Anthropic's clients ask", "MessagesRequest", "Message", streamed=True),
        "/responses": _order("Response, as OpenAI's newer clients ask", "ResponsesRequest", "Response", streamed=True),
        "/embeddings": _order("Embeddings", "EmbeddingsRequest", "Embeddings", streamed=False),
    }


def _order(summary: str, request: str, answer: str, *, streamed: bool) -> Node:
    content = _json(_ref(answer))
    if streamed:
        content["text/event-stream"] = {
            "schema": {"type": "string", "description": "Events, as the upstream sends them."}
        }
    is_anthropic = answer == "Message"
    refusals = {
        str(status): _refusal(STATUSES[status], "MessagesError" if is_anthropic else "Error")
        for status in _ORDER_ERRORS
    }
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 255}}
    note = "Under a key the same order is answered once and charged once, for a day: a repeat gets the kept answer."
    return {
        "post": {
            "summary": summary,
            "operationId": summary.split(",")[0].lower().replace(" ", "_"),
            "tags": ["Orders"],
            "parameters": [{**key, "required": False, "description": note}],
            "requestBody": {"required": True, "content": _json(_ref(request))},
            "responses": {
                "200": {"description": "The answer.", "headers": _ANSWER_HEADERS, "content": content},
                **refusals,
                "default": _refusal("The upstream's refusal, as it came.", "AnyError"),
            },
        }
    }


_ANSWER_HEADERS: Node = {
    "X-Generation-Id": {"description": "The upstream's name for it.", "schema": _TEXT},
    "X-Farebox-Fare-Events": {"description": "Quick whole answers: events of $0.00001 charged.", "schema": _WHOLE},
    "X-Farebox-Fare-Usd": {"description": "Quick whole answers: what is charged, in USD.", "schema": _NUMBER},
    "X-Farebox-Answer-Cap": {
        "description": "The answer's cap, where the plan, the balance or a limit lowered it.",
        "schema": _WHOLE,
    },
    "Idempotency-Replayed": {"description": "`true` on an answer that was kept.", "schema": _TEXT},
}


def _refusal(description: str, schema: str = "Error") -> Node:
    return {"description": description, "content": _json(_ref(schema))}


def _get(summary: str, tag: str, answer: Node, errors: tuple[int, ...], **more: Any) -> Node:
    stale = {"X-Farebox-Stale": {"description": "`true` while the upstream gives no newer list.", "schema": _TEXT}}
    return {
        "get": {
            "summary": summary,
            "operationId": summary.split(",")[0].lower().replace(" ", "_").replace("'", ""),
            "tags": [tag],
            "responses": {
                "200": {
                    "description": summary,
                    "content": _json(answer),
                    **({"headers": stale} if tag == "Lists" else {}),
                },
                **{str(status): _refusal(STATUSES[status]) for status in (400, 401, *errors)},
            },
            **more,
        }
    }


def _parameter(name: str, schema: Node, description: str, where: str = "query", *, required: bool = False) -> Node:
    return {"name": name, "in": where, "required": required, "schema": schema, "description": description}


_PUBLIC: list[Node] = [{}, {"bearer": []}, {"apiKey": []}]
"""Without a key: the whole list. With one: what its plan includes."""

_PAGE = [
    _parameter("offset", {"type": "integer", "minimum": 0, "maximum": 999_999_999}, "Entries to skip."),
    _parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": PAGE_MAX},
        f"Entries at most. All of them if neither is given, {PAGE_DEFAULT} if only `offset` is.",
    ),
]


_AMOUNT: Node = {"type": "number", "minimum": 0}
_FRACTION: Node = {"type": "number", "minimum": 0, "maximum": 1}
_DAYS: Node = {"type": "integer", "minimum": 0}
_LIST = "Comma-separated."


def _one_of(words: str) -> Node:
    return {"type": "string", "enum": words.split()}


_FILTERS: dict[str, tuple[Node, str]] = {
    "output_modalities": (_NAME, f"{_LIST} text, image, audio, embeddings; `all` for every model. Text if absent."),
    "input_modalities": (_NAME, f"{_LIST} text, image, audio, file."),
    "supported_parameters": (_NAME, _LIST),
    "model_authors": (_NAME, _LIST),
    "providers": (_NAME, _LIST),
    "arch": (_NAME, "Family of models."),
    "q": (_NAME, "Search in names and slugs."),
    "context": ({"type": "integer", "minimum": 1}, "Least context, in tokens."),
    "category": (
        _one_of(
            "programming roleplay marketing marketing/seo technology science translation legal finance health trivia"
            " academia"
        ),
        "Use case.",
    ),
    "sort": (
        _one_of(
            "most-popular newest top-weekly pricing-low-to-high pricing-high-to-low context-high-to-low"
            " throughput-high-to-low latency-low-to-high intelligence-high-to-low coding-high-to-low"
            " agentic-high-to-low design-arena-elo-high-to-low"
        ),
        "The upstream's order if absent.",
    ),
    "region": (_one_of("eu us"), "Where it is served."),
    "zdr": (_one_of("true"), "Only what is served without data retention."),
    "distillable": (_one_of("true false"), "Whether its answers may train other models."),
    **{
        f"{bound}_{name}": (schema, note)
        for bound in ("min", "max")
        for name, schema, note in (
            ("price", _AMOUNT, "USD a million prompt tokens."),
            ("output_price", _AMOUNT, "USD a million answer tokens."),
            ("age_days", _DAYS, "Since it was made."),
            ("intelligence_index", _AMOUNT, "By Artificial Analysis."),
            ("coding_index", _AMOUNT, "By Artificial Analysis."),
            ("agentic_index", _AMOUNT, "By Artificial Analysis."),
            ("tool_success_rate", _FRACTION, "Orders that end in a call of a tool."),
        )
    },
}


def _lists() -> Node:
    filters = [_parameter(name, *_FILTERS[name]) for name in sorted(MODEL_FILTERS)]
    author, slug = (_parameter(name, _NAME, "Of the model's id.", "path", required=True) for name in ("author", "slug"))
    modalities = [each for each in filters if each["name"] == "output_modalities"]
    models, many = _ref("ModelList"), (502,)
    named = {"type": "string", "pattern": "^[^/]+(/[^/]+)+$"}
    model = _parameter("model", named, "Its id; slashes in it may be encoded.", "path", required=True)
    paging = (
        "Clients that send `anthropic-version` get Anthropic's members, too, and page by `after_id` and `before_id`."
    )
    served = _object({"data": _object({"id": _TEXT, "endpoints": _array(_OPEN)})})
    return {
        "/models": _get(
            "Models", "Lists", models, many, parameters=[*_PAGE, *filters], security=_PUBLIC, description=paging
        ),
        "/models/{model}": _get(
            "Model by its id", "Lists", _ref("Model"), (404, 502), parameters=[model], security=_PUBLIC
        ),
        "/model/{author}/{slug}": _get(
            "Model", "Lists", _object({"data": _ref("Model")}), (404, 502), parameters=[author, slug], security=_PUBLIC
        ),
        "/models/count": _get("Model count", "Lists", _ref("Count"), many, parameters=modalities, security=_PUBLIC),
        "/models/user": _get("Models of the caller", "Lists", models, many, parameters=_PAGE),
        "/models/{author}/{slug}/endpoints": _get(
            "Endpoints of a model", "Lists", served, (404, 502), parameters=[author, slug], security=_PUBLIC
        ),
        "/embeddings/models": _get("Embedding models", "Lists", models, many, parameters=_PAGE, security=_PUBLIC),
        "/providers": _get("Providers", "Lists", _ref("Providers"), many, security=_PUBLIC),
        "/endpoints/zdr": _get(
            "Endpoints without data retention", "Lists", _object({"data": _array(_OPEN)}), many, security=_PUBLIC
        ),
    }


def _account() -> Node:
    by_id = [_parameter("id", _NAME, "As `X-Generation-Id` told it.", required=True)]
    return {
        "/generation": _get("Generation", "Account", _ref("Generation"), (404, 424, 502), parameters=by_id),
        "/key": _get("Key in use", "Account", _ref("Key"), (429,)),
        "/credits": _get("Credits", "Account", _ref("Credits"), (429,)),
    }


# Schemas


def _schemas() -> Node:
    return {**_requests(), **_answers(), **_records(), **_errors()}


def _requests() -> Node:
    message = _object({"role": _TEXT}, {"content": {"oneOf": [_or_null(_TEXT), _array(_object({"type": _TEXT}))]}})
    block = _object({"role": _TEXT, "content": {"oneOf": [_TEXT, _array(_object({"type": _TEXT}))]}})
    common = {
        "model": _NAME,
        "models": _or_null(_array(_NAME)),
        "stream": _or_null(_FLAG),
        "service_tier": _or_null(_TEXT),
    }
    several = {name: common[name] for name in ("models", "stream", "service_tier")}
    nothing_kept = {"type": "boolean", "nullable": True, "enum": [False, None]}
    return {
        "ChatRequest": _object(
            {"model": _NAME, "messages": _array(message, minItems=1)},
            {**several, "max_tokens": _CAP, "max_completion_tokens": _CAP, "n": {**_CAP, "maximum": 128}},
        ),
        "MessagesRequest": _object(
            {"model": _NAME, "messages": _array(block, minItems=1)},
            {
                **several,
                "max_tokens": _CAP,
                "fallbacks": _or_null(_array({**_object({"model": _NAME}), "additionalProperties": False}, maxItems=3)),
            },
            description="`models` and `fallbacks` exclude each other.",
            **{"not": {"required": ["models", "fallbacks"]}},
        ),
        "ResponsesRequest": _object(
            {"model": _NAME, "input": {"oneOf": [_TEXT, _array(_OPEN, minItems=1)]}},
            {
                **several,
                "max_output_tokens": _CAP,
                "store": {**nothing_kept, "description": "Nothing is stored here."},
                "background": nothing_kept,
            },
        ),
        "EmbeddingsRequest": _object(
            {
                "model": _NAME,
                "input": {
                    "oneOf": [
                        _NAME,
                        _array(_NAME, minItems=1),
                        _array({"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, minItems=1),
                    ]
                },
            },
            {"encoding_format": {"type": "string", "enum": ["float", "base64"]}},
        ),
    }


def _answers() -> Node:
    usage = {"usage": _or_null(_object({}, {"cost": _or_null(_NUMBER)}))}
    named = {"id": _TEXT, "model": _TEXT}
    return {
        "ChatResult": _object({**named, "object": _TEXT, "created": _WHOLE, "choices": _array(_OPEN)}, usage),
        "Message": _object({**named, "type": _TEXT, "role": _TEXT, "content": _array(_OPEN)}, usage),
        "Response": _object({**named, "object": _TEXT, "status": _TEXT, "output": _array(_OPEN)}, usage),
        "Embeddings": _object({"model": _TEXT, "object": _TEXT, "data": _array(_OPEN)}, {"id": _TEXT, **usage}),
    }


def _records() -> Node:
    listed = _object(
        {
            "id": _TEXT,
            "object": {"type": "string", "enum": ["model"]},
            "created": _NUMBER,
            "owned_by": _TEXT,
            "pricing": _OPEN,
        }
    )
    record = {
        **dict.fromkeys(("id", "model", "created_at", "origin", "data_region"), _TEXT),
        **dict.fromkeys(("usage", "total_cost"), _NUMBER),
        "is_byok": _FLAG,
        **dict.fromkeys(NULLABLE, _ANY),
        "farebox_state": {"type": "string", "enum": ["pending", "open", "posted", "voided"]},
        "farebox_fare_events": _or_null(_WHOLE),
        "farebox_fare_usd": _or_null(_NUMBER),
    }
    key = {
        "label": _TEXT,
        "limit": _or_null(_NUMBER),
        "limit_remaining": _or_null(_NUMBER),
        **dict.fromkeys(("usage", "usage_daily", "usage_weekly", "usage_monthly"), _NUMBER),
        "is_free_tier": _FLAG,
    }
    return {
        "Model": listed,
        "ModelList": _object(
            {
                "object": {"type": "string", "enum": ["list"]},
                "data": _array(_ref("Model")),
                "links": _object({"next": _or_null(_TEXT)}),
                "total_count": _WHOLE,
            }
        ),
        "Count": _object({"data": _object({"count": _WHOLE})}),
        "Providers": _object({"data": _array(_object({"name": _TEXT, "slug": _TEXT}))}),
        "Generation": _object(
            {"data": _object(record)},
            description="The upstream's record; `total_cost` is its own, `farebox_*` tell what the caller pays.",
        ),
        "Key": _object({"data": _object(key)}),
        "Credits": _object({"data": _object({"total_credits": _NUMBER, "total_usage": _NUMBER})}),
    }


def _errors() -> Node:
    error = {"code": _WHOLE, "message": _TEXT, "metadata": _object({"error_type": _TEXT})}
    typed = _object({"type": _TEXT, "message": _TEXT}, {"error_type": _TEXT, "metadata": _OPEN})
    return {
        "Error": _object({"error": _object(error)}),
        "MessagesError": _object(
            {"type": {"type": "string", "enum": ["error"]}, "error": typed, "request_id": _or_null(_TEXT)}
        ),
        "AnyError": {"oneOf": [_ref("Error"), _ref("MessagesError")]},
    }
