"""Lists of models and of what serves them, and what a caller may ask of its own account."""

from typing import Any

from farebox.core.schemas import (
    ANYTHING,
    FLAG,
    NAME,
    NUMBER,
    OBJECT,
    TEXT,
    WHOLE,
    Schema,
    array_of,
    object_of,
    one_of,
    or_null,
    ref,
)
from farebox.generations import NULLABLE
from farebox.web.catalog import MODEL_FILTERS, PAGE_DEFAULT, PAGE_MAX
from farebox.web.openapi.operations import Node, answer, header, in_path, operation, parameter, refusals

TAGS = {
    "Lists": "The upstream's, less what the caller's plan does not include.",
    "Account": "The caller's own.",
}

CREDENTIALS: dict[str, Node] = {}

_PUBLIC: list[Node] = [{}, {"bearer": []}, {"apiKey": []}]
"""Without a key: the whole list. With one: what its plan includes."""

_PAGE = [
    parameter("offset", {"type": "integer", "minimum": 0, "maximum": 999_999_999}, "Entries to skip."),
    parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": PAGE_MAX},
        f"Entries at most. All of them if neither is given, {PAGE_DEFAULT} if only `offset` is.",
    ),
]


_AMOUNT: Node = {"type": "number", "minimum": 0}
_FRACTION: Node = {"type": "number", "minimum": 0, "maximum": 1}
_DAYS: Node = {"type": "integer", "minimum": 0}
_LIST = "Comma-separated."


_FILTERS: dict[str, tuple[Node, str]] = {
    "output_modalities": (NAME, f"{_LIST} text, image, audio, embeddings; `all` for every model. Text if absent."),
    "input_modalities": (NAME, f"{_LIST} text, image, audio, file."),
    "supported_parameters": (NAME, _LIST),
    "model_authors": (NAME, _LIST),
    "providers": (NAME, _LIST),
    "arch": (NAME, "Family of models."),
    "q": (NAME, "Search in names and slugs."),
    "context": ({"type": "integer", "minimum": 1}, "Least context, in tokens."),
    "category": (
        one_of(
            "programming roleplay marketing marketing/seo technology science translation legal finance health trivia"
            " academia"
        ),
        "Use case.",
    ),
    "sort": (
        one_of(
            "most-popular newest top-weekly pricing-low-to-high pricing-high-to-low context-high-to-low"
            " throughput-high-to-low latency-low-to-high intelligence-high-to-low coding-high-to-low"
            " agentic-high-to-low design-arena-elo-high-to-low"
        ),
        "The upstream's order if absent.",
    ),
    "region": (one_of("eu us"), "Where it is served."),
    "zdr": (one_of("true"), "Only what is served without data retention."),
    "distillable": (one_of("true false"), "Whether its answers may train other models."),
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


def paths() -> Node:
    filters = [parameter(name, *_FILTERS[name]) for name in sorted(MODEL_FILTERS)]
    author, slug = (in_path(name, "Of the model's id.") for name in ("author", "slug"))
    modalities = [each for each in filters if each["name"] == "output_modalities"]
    models, many = ref("ModelList"), (502,)
    named = {"type": "string", "pattern": "^[^/]+(/[^/]+)+$"}
    model = in_path("model", "Its id; slashes in it may be encoded.", named)
    paging = (
        "Clients that send `anthropic-version` get Anthropic's members, too, and page by `after_id` and `before_id`."
    )
    by_id = [parameter("id", NAME, "As `X-Generation-Id` told it.", required=True)]
    served = object_of({"data": object_of({"id": TEXT, "endpoints": array_of(OBJECT)})})
    return {
        "/models": _get(
            "Models", "Lists", models, many, parameters=[*_PAGE, *filters], security=_PUBLIC, description=paging
        ),
        "/models/{model}": _get(
            "Model by its id", "Lists", ref("Model"), (404, 502), parameters=[model], security=_PUBLIC
        ),
        "/model/{model}": _get(
            "Model", "Lists", object_of({"data": ref("Model")}), (404, 502), parameters=[model], security=_PUBLIC
        ),
        "/models/count": _get("Model count", "Lists", ref("Count"), many, parameters=modalities, security=_PUBLIC),
        "/models/user": _get("Models of the caller", "Lists", models, many, parameters=_PAGE),
        "/models/{author}/{slug}/endpoints": _get(
            "Endpoints of a model", "Lists", served, (404, 502), parameters=[author, slug], security=_PUBLIC
        ),
        "/embeddings/models": _get("Embedding models", "Lists", models, many, parameters=_PAGE, security=_PUBLIC),
        "/providers": _get("Providers", "Lists", ref("Providers"), many, security=_PUBLIC),
        "/endpoints/zdr": _get(
            "Endpoints without data retention", "Lists", object_of({"data": array_of(OBJECT)}), many, security=_PUBLIC
        ),
        "/generation": _get("Generation", "Account", ref("Generation"), (404, 424, 502), parameters=by_id),
        "/key": _get("Key in use", "Account", ref("Key"), (429,)),
        "/credits": _get("Credits", "Account", ref("Credits"), (429,)),
    }


def _get(summary: str, tag: str, schema: Schema, errors: tuple[int, ...], **more: Any) -> Node:
    stale = {"headers": {"X-Farebox-Stale": header("`true` while the upstream gives no newer list.")}}
    shown = {**answer(summary, schema), **(stale if tag == "Lists" else {})}
    return {"get": operation(summary, tag, {"200": shown, **refusals((400, 401, *errors))}, **more)}


def schemas() -> dict[str, Schema]:
    listed = object_of(
        {
            "id": TEXT,
            "object": one_of("model"),
            "created": NUMBER,
            "owned_by": TEXT,
            "pricing": OBJECT,
        }
    )
    record = {
        **dict.fromkeys(("id", "model", "created_at", "origin", "data_region"), TEXT),
        **dict.fromkeys(("usage", "total_cost"), NUMBER),
        "is_byok": FLAG,
        **dict.fromkeys(NULLABLE, ANYTHING),
        "farebox_state": one_of("pending open posted voided"),
        "farebox_fare_events": or_null(WHOLE),
        "farebox_fare_usd": or_null(NUMBER),
    }
    key = {
        "label": TEXT,
        "limit": or_null(NUMBER),
        "limit_remaining": or_null(NUMBER),
        **dict.fromkeys(("usage", "usage_daily", "usage_weekly", "usage_monthly"), NUMBER),
        "is_free_tier": FLAG,
    }
    return {
        "Model": listed,
        "ModelList": object_of(
            {
                "object": one_of("list"),
                "data": array_of(ref("Model")),
                "links": object_of({"next": or_null(TEXT)}),
                "total_count": WHOLE,
            }
        ),
        "Count": object_of({"data": object_of({"count": WHOLE})}),
        "Providers": object_of({"data": array_of(object_of({"name": TEXT, "slug": TEXT}))}),
        "Generation": object_of(
            {"data": object_of(record)},
            description="The upstream's record; `total_cost` is its own, `farebox_*` tell what the caller pays.",
        ),
        "Key": object_of({"data": object_of(key)}),
        "Credits": object_of({"data": object_of({"total_credits": NUMBER, "total_usage": NUMBER})}),
    }
