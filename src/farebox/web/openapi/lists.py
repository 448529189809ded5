"""Lists of models and of what serves them, and what a caller may ask of its own account."""

from typing import Any

from farebox.core.schemas import FLAG, NAME, NUMBER, OBJECT, TEXT, WHOLE, array_of, object_of, one_of, or_null, ref
from farebox.generations import NULLABLE
from farebox.web.catalog import MODEL_FILTERS, OUTPUT_MODALITIES, PAGE_DEFAULT, PAGE_MAX
from farebox.web.openapi.operations import Node, answer, header, in_path, operation, parameter

TAGS = {
    "Lists": "The upstream's, less what the caller's plan does not include.",
    "Account": "The caller's own.",
}

CREDENTIALS: dict[str, Node] = {}

_PAGE = [
    parameter("offset", {"type": "integer", "minimum": 0, "maximum": 999_999_999}, "Entries to skip."),
    parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": PAGE_MAX},
        f"Entries at most. All of them if neither is given, {PAGE_DEFAULT} if only `offset` is.",
    ),
]


def paths() -> Node:
    filters = [parameter(name, *MODEL_FILTERS[name]) for name in sorted(MODEL_FILTERS)]
    modalities = [each for each in filters if each["name"] == OUTPUT_MODALITIES]
    author, slug = (in_path(name, "Of the model's id.") for name in ("author", "slug"))
    named = {"type": "string", "pattern": "^[^/]+(/[^/]+)+$"}
    model = in_path("model", "Its id; slashes in it may be encoded.", named)
    by_id = parameter("id", NAME, "As `X-Generation-Id` told it.", required=True)
    paging = (
        "Clients that send `anthropic-version` get Anthropic's members, too, and page by `after_id` and `before_id`."
    )
    models, entries = ref("ModelList"), array_of(OBJECT)
    served = object_of({"data": object_of({"id": TEXT, "endpoints": entries})})
    return {
        "/models": _list("Models", models, *_PAGE, *filters, description=paging),
        "/models/{model}": _list("Model by its id", ref("Model"), model),
        "/model/{model}": _list("Model", object_of({"data": ref("Model")}), model),
        "/models/count": _list("Model count", ref("Count"), *modalities),
        "/models/user": _list("Models of the caller", models, *_PAGE, is_public=False),
        "/models/{author}/{slug}/endpoints": _list("Endpoints of a model", served, author, slug),
        "/embeddings/models": _list("Embedding models", models, *_PAGE),
        "/providers": _list("Providers", ref("Providers")),
        "/endpoints/zdr": _list("Endpoints without data retention", object_of({"data": entries})),
        "/generation": _own("Generation", (404, 424, 502), by_id),
        "/key": _own("Key", (429,), summary="Key in use"),
        "/credits": _own("Credits", (429,)),
    }


def _list(summary: str, schema: Node, *parameters: Node, is_public: bool = True, **more: Any) -> Node:
    """`is_public`: without a key it is the whole list; with one, what its plan includes."""
    stale = {"X-Farebox-Stale": header("`true` while the upstream gives no newer list.")}
    errors = [400, 401, *([404] if any(each["in"] == "path" for each in parameters) else []), 502]
    answers = {"200": answer(summary, schema, headers=stale)}
    if is_public:
        more["security"] = [{}, {"bearer": []}, {"apiKey": []}]
    return {"get": operation(summary, "Lists", answers, errors, parameters=parameters, **more)}


def _own(name: str, errors: tuple[int, ...], *parameters: Node, summary: str = "") -> Node:
    summary = summary or name
    answers = {"200": answer(summary, ref(name))}
    return {"get": operation(summary, "Account", answers, (400, 401, *errors), parameters=parameters)}


def schemas() -> Node:
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
        **{name: {} for name in NULLABLE},
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
