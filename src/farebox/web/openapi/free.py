"""What costs nothing and is for everybody or for callers: lists of models, a caller's own account, tools for agents,
probes, metrics, and the document itself."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from farebox.core.formats import messages
from farebox.core.formats.describing import HELLO
from farebox.core.presets import PLACES, SLUG
from farebox.core.schemas import FLAG, NAME, NUMBER, OBJECT, TEXT, WHOLE, array_of, object_of, one_of, or_null, ref
from farebox.generations import NULLABLE
from farebox.http.queries import WHOLE_MAX
from farebox.web.catalog import MODEL_FILTERS, OUTPUT_MODALITIES, PAGE_DEFAULT, PAGE_MAX
from farebox.web.openapi.operations import AT_ROOT, Node, answer, body_of, header, in_path, operation, parameter
from farebox.web.presets import PAGE_MAX as PRESETS_PAGE_MAX
from farebox.web.stored import NUMBER_MAX
from farebox.web.stored import PAGE_MAX as PAGE_OF_ITEMS_MAX

_PAGE = [
    parameter("offset", {"type": "integer", "minimum": 0, "maximum": 999_999_999}, "Entries to skip."),
    parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": PAGE_MAX},
        f"Entries at most. All of them if neither is given, {PAGE_DEFAULT} if only `offset` is.",
    ),
]


_BYTES: Node = {"type": "string", "format": "binary"}


def paths() -> Node:
    filters = [parameter(name, *MODEL_FILTERS[name]) for name in sorted(MODEL_FILTERS)]
    modalities = [each for each in filters if each["name"] == OUTPUT_MODALITIES]
    author, slug = (in_path(name, "Of the model's id.") for name in ("author", "slug"))
    named = {"type": "string", "pattern": "^[^/]+(/[^/]+)+$"}
    model = in_path("model", "Its id; slashes in it may be encoded.", named)
    job = in_path("job", "Its id, as the order's answer told it.")
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
        "/models/{slug}/endpoints": _list("Endpoints of a model whose name is one word", served, slug),
        "/embeddings/models": _list("Embedding models", models, *_PAGE),
        "/images/models": _list("Models that make pictures", object_of({"data": entries})),
        "/images/models/{author}/{slug}/endpoints": _list(
            "Endpoints of a model that makes pictures", ref("ImageEndpoints"), author, slug, name="image_endpoints"
        ),
        "/videos/models": _list("Models that make videos", object_of({"data": entries}), name="video_models"),
        "/providers": _list("Providers", ref("Providers")),
        "/endpoints/zdr": _list("Endpoints without data retention", object_of({"data": entries})),
        "/videos/{job}": _own("Job of a video", "VideoJob", (404, 424, 502), job),
        "/videos/{job}/content": {
            "get": operation(
                "What a job made",
                "Account",
                {
                    "200": answer("The bytes, as they come.", _BYTES, media_type="video/*"),
                    "206": answer("The part that `Range` asked for.", _BYTES, media_type="video/*"),
                },
                (400, 401, 404, 409, 410, 416, 429, 502),
                words={409: "It has not ended yet.", 410: "It is not kept any more.", 416: "It has no such part."},
                parameters=[
                    job,
                    parameter(
                        "index", {"type": "integer", "minimum": 0, "maximum": WHOLE_MAX}, "Which one of several."
                    ),
                ],
            )
        },
        "/generation": _own("Generation", "Generation", (404, 424, 502), by_id),
        "/generation/content": _own("Content of a generation", "Content", (404, 424, 502), by_id),
        "/key": _own("Key in use", "Key", (429,)),
        "/credits": _own("Credits", "Credits", (429,)),
        "/messages/count_tokens": {"post": _counted()},
        **_presets(),
        **_stored(),
        **_below_the_root(),
    }


def _counted() -> Node:
    """Its errors are in Anthropic's format."""
    said = {"oneOf": [TEXT, array_of(OBJECT)]}
    asked = array_of(object_of({"content": said}), minItems=1)
    how = header(
        "`counted`, by the upstream; or `at-most`: a bound, which no count exceeds.", one_of("counted at-most")
    )
    shown = answer("The tokens of the prompt.", object_of({"input_tokens": WHOLE}), headers={"X-Farebox-Tokens": how})
    errors = (400, 401, 403, 404, 429, 502)
    body = body_of(
        object_of({"model": NAME, "messages": asked}, description="Beside these, what else a message is ordered with."),
        example={"model": "sim/echo", "messages": HELLO},
    )
    refusal = messages.DESCRIBED.refusal[0]
    return operation("Count the tokens of a message", "Orders", {"200": shown}, errors, body=body, refusal=refusal)


def _stored() -> Node:
    """Answers in Responses that are kept for their account."""
    by_id = in_path("id", "Of the answer, as its order was told it.")
    kept = {"200": answer("The answer, as it was given.", ref("Response"))}
    events = {"type": "string", "description": "Its events, of an order that was streamed in the background."}
    kept["200"]["content"]["text/event-stream"] = {"schema": events}
    one = {"type": "integer", "minimum": 0, "maximum": NUMBER_MAX}
    told = [
        parameter("stream", {"type": "boolean"}, "Its events, of an order that was streamed in the background."),
        parameter("starting_after", one, "With `stream`: only those after the event of this number."),
    ]
    deleted = answer("It is deleted.", object_of({"id": TEXT, "object": one_of("response"), "deleted": FLAG}))
    page = object_of({"object": one_of("list"), "data": array_of(OBJECT), "has_more": FLAG})
    paging = [
        parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_OF_ITEMS_MAX}, "Items at most."),
        parameter("order", one_of("asc desc"), "The latest first where absent."),
        parameter("after", TEXT, "The id of the item before the page."),
    ]
    errors = (400, 401, 404, 429)
    items = {"200": answer("A page of all that its model was given.", page)}
    stopped = {"200": answer("What is kept of it now.", ref("Response"))}
    return {
        "/responses/{id}": {
            "get": operation("Kept response", "Account", kept, errors, parameters=[by_id, *told]),
            "delete": operation("Delete a kept response", "Account", {"200": deleted}, errors, parameters=[by_id]),
        },
        "/responses/{id}/input_items": {
            "get": operation("Input of a kept response", "Account", items, errors, parameters=[by_id, *paging])
        },
        "/responses/{id}/cancel": {
            "post": operation("Cancel a response in the background", "Account", stopped, errors, parameters=[by_id])
        },
    }


def _list(summary: str, schema: Node, *parameters: Node, is_public: bool = True, **more: Any) -> Node:
    """`is_public`: without a key it is the whole list; with one, what its plan includes."""
    stale = {"X-Farebox-Stale": header("`true` while the upstream gives no newer list.")}
    errors = [400, 401, *([404] if any(each["in"] == "path" for each in parameters) else []), 502]
    answers = {"200": answer(summary, schema, headers=stale)}
    if is_public:
        more["security"] = [{}, {"bearer": []}, {"apiKey": []}]
    return {"get": operation(summary, "Lists", answers, errors, parameters=parameters, **more)}


def _own(summary: str, name: str, errors: Iterable[int], *parameters: Node) -> Node:
    """`name` is of the schema."""
    answers = {"200": answer(summary, ref(name))}
    return {"get": operation(summary, "Account", answers, (400, 401, *errors), parameters=parameters)}


def _presets() -> Node:
    slug = in_path("slug", "The preset's name.")
    page = [
        parameter("offset", {"type": "integer", "minimum": 0, "maximum": 999_999_999}, "Entries to skip."),
        parameter("limit", {"type": "integer", "minimum": 1, "maximum": PRESETS_PAGE_MAX}, "Entries at most."),
    ]
    listed = object_of({"data": array_of(ref("Preset")), "total_count": WHOLE})
    versions = object_of({"data": array_of(ref("PresetVersion")), "total_count": WHOLE})
    one = answer("The preset.", object_of({"data": ref("Preset")}))
    version = in_path("version", "Its number.", {"type": "integer", "minimum": 1, "maximum": 999_999_999})
    named = in_path("slug", "The preset's name. It is made, if there is none.", {"type": "string", "pattern": _SLUG})
    saved = {
        f"/presets/{{slug}}{path}": {
            "post": operation(
                f"Keep a preset, of an order at {path}",
                "Account",
                {"200": one},
                (400, 401, 409, 429),
                parameters=[named],
                body=body_of(OBJECT),
                name=f"keep_preset{path.replace('/', '_')}",
            )
        }
        for path in PLACES
    }
    dropped = {"200": answer("It is gone, with all its versions.", object_of({"deleted": FLAG}))}
    return {
        "/presets": {"get": _preset_page("Presets", listed, *page)},
        "/presets/{slug}": {
            "get": _preset_page("Preset", object_of({"data": ref("Preset")}), slug),
            "delete": operation("Drop a preset", "Account", dropped, (401, 404), parameters=[slug]),
        },
        "/presets/{slug}/versions": {"get": _preset_page("Versions of a preset", versions, slug, *page)},
        "/presets/{slug}/versions/{version}": {
            "get": _preset_page("Version of a preset", object_of({"data": ref("PresetVersion")}), slug, version)
        },
        **saved,
    }


_SLUG = f"^{SLUG.pattern}$"


def _preset_page(summary: str, schema: Node, *parameters: Node) -> Node:
    errors = [400, 401, *([404] if any(each["in"] == "path" for each in parameters) else [])]
    return operation(summary, "Account", {"200": answer(summary, schema)}, errors, parameters=parameters)


def _below_the_root() -> Node:
    away = {503: "The books do not answer, there are no prices, or the gateway is stopping."}
    hidden = {401: "Another token than the one that is set.", 403: "None is set: this machine alone."}
    alive = answer("The process answers.", object_of({"status": one_of("ok")}))
    counted = answer("The exposition.", TEXT, media_type="text/plain")
    page = answer("The page.", TEXT, media_type="text/html")
    return {
        "/mcp": {"post": _message("A message of MCP", "mcp"), **AT_ROOT},
        "/": {
            "post": _message("A message of MCP, where the platform's own server is asked", "mcp_at_the_root"),
            **_get("Where everything is, for browsers", page, {405: "It is asked by no browser."}, name="front"),
        },
        "/healthz": _get("Whether the process answers", alive),
        "/readyz": _get("Whether orders can be served", answer("Orders can be served.", ref("Ready")), away),
        "/metrics": _get("Metrics, for Prometheus", counted, hidden, security=[{}, {"metrics": []}]),
        "/openapi.json": _get("This document", answer("The document.", OBJECT)),
        "/docs": _get("This document, for people", page, name="docs"),
    }


def _get(summary: str, shown: Node, errors: Mapping[int, str] = MappingProxyType({}), **more: Any) -> Node:
    """For anybody, where nothing else is said."""
    more = {"security": [{}], **more}
    return {"get": operation(summary, "Operation", {"200": shown}, errors, words=errors, **more), **AT_ROOT}


def _message(summary: str, name: str) -> Node:
    """Farebox's own refusals are in the envelope; those of the protocol have its form."""
    answers: Node = {
        "200": answer("The answer to a message that wants one.", ref("JsonRpc")),
        "202": {"description": "A message that wants no answer is taken."},
        "400": answer("It is no message, or of a version that is not spoken.", OBJECT),
        "406": answer("The client accepts no JSON.", OBJECT),
        "413": answer("The message is too long.", OBJECT),
    }
    words = {
        403: "It is asked under a name that is not this gateway's, or from a page that may not ask.",
        404: "The extra `farebox[mcp]` is not installed.",
    }
    body = body_of(ref("JsonRpc"))
    return operation(summary, "Tools", answers, (401, 403, 404, 415, 429), words=words, name=name, requestBody=body)


def schemas() -> Node:
    model = {"id": TEXT, "object": one_of("model"), "created": NUMBER, "owned_by": TEXT, "pricing": OBJECT}
    record = {
        **dict.fromkeys(("id", "model", "created_at", "origin", "data_region"), TEXT),
        **dict.fromkeys(("usage", "total_cost"), NUMBER),
        "is_byok": FLAG,
        **{name: {} for name in NULLABLE},
        "farebox_state": one_of("pending open posted voided"),
        "farebox_kind": or_null(TEXT),
        "farebox_units": {"type": "object", "additionalProperties": TEXT},
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
        "Model": object_of(model),
        "ModelList": object_of(
            {
                "object": one_of("list"),
                "data": array_of(ref("Model")),
                "links": object_of({"next": or_null(TEXT)}),
                "total_count": WHOLE,
            }
        ),
        "Count": object_of({"data": object_of({"count": WHOLE})}),
        "ImageEndpoints": object_of({"id": TEXT, "endpoints": array_of(OBJECT)}),
        "Content": object_of(
            {"data": object_of({"input": OBJECT, "output": OBJECT, "error": or_null(OBJECT)})},
            description="What the upstream keeps of the prompt and the answer.",
        ),
        "Preset": object_of(
            {
                **dict.fromkeys(("id", "slug", "name", "designated_version_id", "created_at", "updated_at"), TEXT),
                "status": one_of("active"),
            },
            {"designated_version": ref("PresetVersion")},
        ),
        "PresetVersion": object_of(
            {
                **dict.fromkeys(("id", "preset_id", "creator_id", "created_at", "updated_at"), TEXT),
                "version": WHOLE,
                "system_prompt": or_null(TEXT),
                "config": OBJECT,
            }
        ),
        "Providers": object_of({"data": array_of(object_of({"name": TEXT, "slug": TEXT}))}),
        "Generation": object_of(
            {"data": object_of(record)},
            description="The upstream's record; `total_cost` is its own, `farebox_*` tell what the caller pays.",
        ),
        "Key": object_of({"data": object_of(key)}),
        "Credits": object_of({"data": object_of({"total_credits": NUMBER, "total_usage": NUMBER})}),
        "JsonRpc": object_of(
            {"jsonrpc": one_of("2.0")},
            {"id": {"oneOf": [TEXT, NUMBER]}, "method": TEXT, "params": OBJECT, "result": OBJECT, "error": OBJECT},
        ),
        "Ready": object_of({"status": one_of("ready"), "prices_are_stale": FLAG, "tasks_not_running": array_of(TEXT)}),
    }
