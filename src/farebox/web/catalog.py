"""The upstream's lists, from the cache, for the eyes of one caller: what its plan does not include is not there."""

from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import Raw, Struct
from starlette.types import Receive, Scope, Send

from farebox.catalog_cache import Catalog
from farebox.core.errors import invalid, unknown
from farebox.core.plans import Plan
from farebox.core.reading import UNREADABLE
from farebox.ports import Callers, Query
from farebox.web.asgi import Endpoint, send_json
from farebox.web.callers import caller_if_any, caller_of
from farebox.web.refusals import guarded

STALE_HEADER = (b"x-farebox-stale", b"true")
"""On a list that the upstream should have renewed by now and could not."""

PAGE_MAX = 1000
PAGE_DEFAULT = 500
"""OpenRouter's largest page, and its usual one."""

QUERY_BYTES_MAX = 2_000

OUTPUT_MODALITIES = "output_modalities"

MODEL_FILTERS = frozenset(
    (
        f"{OUTPUT_MODALITIES} category supported_parameters sort q input_modalities context min_price max_price arch"
        " model_authors providers distillable zdr region min_output_price max_output_price min_age_days max_age_days"
        " min_intelligence_index max_intelligence_index min_coding_index max_coding_index min_agentic_index"
        " max_agentic_index min_tool_success_rate max_tool_success_rate"
    ).split()
)
"""OpenRouter's, all of which the upstream applies: it alone knows providers, benchmarks and regions."""


class _Model(Struct):
    id: str


class _Endpoint(Struct):
    model_id: str


_decode_model = msgspec.json.Decoder(_Model).decode
_decode_endpoint = msgspec.json.Decoder(_Endpoint).decode


def models(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /models, with OpenRouter's filters."""
    return _list(callers, catalog, "/models", MODEL_FILTERS)


def embedding_models(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /embeddings/models."""
    return _list(callers, catalog, "/embeddings/models", frozenset())


def own_models(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /models/user: those that the caller may ask."""
    return _list(callers, catalog, "/models/user", frozenset(), is_own=True)


def _list(callers: Callers, catalog: Catalog, path: str, filters: frozenset[str], *, is_own: bool = False) -> Endpoint:
    """A model list with OpenAI's two members, page by page. OpenRouter's SDK asks on until a page is short."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await (caller_of if is_own else caller_if_any)(callers, scope)
        query = _query(scope)
        asked = _filters(query, filters)
        page, is_stale = await catalog.page(path, asked)
        entries = _models_of(page.entries, caller.plan if caller else None)
        offset = _whole(query, "offset", 0, least=0)
        limit = _whole(query, "limit", max(1, len(entries)) if "offset" not in query else PAGE_DEFAULT, least=1)
        if "limit" in query and limit > PAGE_MAX:
            raise invalid(f"limit: at most {PAGE_MAX}, not {limit}")
        shown = entries[offset : offset + limit]
        following = offset + len(shown)
        next_page = urlencode([*asked, ("offset", following), ("limit", limit)])
        body = {
            "object": "list",
            "data": [_as_openai_model(entry) for entry in shown],
            "links": {"next": f"{scope['path']}?{next_page}" if following < len(entries) else None},
            "total_count": len(entries),
        }
        await _send(send, body, is_stale=is_stale)

    return guarded(endpoint)


def count(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /models/count."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await caller_if_any(callers, scope)
        page, is_stale = await catalog.page("/models", _filters(_query(scope), frozenset({OUTPUT_MODALITIES})))
        entries = _models_of(page.entries, caller.plan if caller else None)
        await _send(send, {"data": {"count": len(entries)}}, is_stale=is_stale)

    return guarded(endpoint)


def model_endpoints(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /models/{author}/{slug}/endpoints: where one model is served. Only a listed model's name goes upstream."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await caller_if_any(callers, scope)
        model = "{author}/{slug}".format_map(scope["path_params"])
        if model not in catalog.current().rates or (caller is not None and not caller.plan.allows(model)):
            raise unknown(f"the model `{model[:200]}` is not in the list; GET /api/v1/models has the list")
        page, is_stale = await catalog.page(f"/models/{model}/endpoints")
        await _send(send, {"data": page.data}, is_stale=is_stale)

    return guarded(endpoint)


def providers(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /providers."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        await caller_if_any(callers, scope)
        page, is_stale = await catalog.page("/providers")
        await _send(send, {"data": page.entries}, is_stale=is_stale)

    return guarded(endpoint)


def zdr_endpoints(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /endpoints/zdr: the endpoints that keep nothing of an order."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await caller_if_any(callers, scope)
        page, is_stale = await catalog.page("/endpoints/zdr")
        plan = caller.plan if caller else None
        shown = [entry for entry in page.entries if plan is None or _includes(plan, _endpoint_model(entry))]
        await _send(send, {"data": shown}, is_stale=is_stale)

    return guarded(endpoint)


def _models_of(entries: Iterable[Raw], plan: Plan | None) -> list[Raw]:
    return [entry for entry in entries if plan is None or plan.allows_all or _includes(plan, _model(entry))]


def _includes(plan: Plan, model: str | None) -> bool:
    return model is not None and plan.allows(model)


def _model(entry: Raw) -> str | None:
    try:
        return _decode_model(entry).id
    except UNREADABLE:
        return None


def _endpoint_model(entry: Raw) -> str | None:
    try:
        return _decode_endpoint(entry).model_id
    except UNREADABLE:
        return None


def _as_openai_model(entry: Raw) -> Raw:
    return Raw(b'{"object":"model",' + bytes(entry).lstrip()[1:].lstrip())


def _query(scope: Scope) -> dict[str, str]:
    """The last value of each name."""
    raw: bytes = scope["query_string"]
    if len(raw) > QUERY_BYTES_MAX:
        raise invalid(f"the query is longer than {QUERY_BYTES_MAX} bytes")
    return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True))


def _filters(query: dict[str, str], names: frozenset[str]) -> Query:
    chosen = tuple(sorted((name, value) for name, value in query.items() if name in names))
    for name, value in chosen:
        if not value:
            raise invalid(f"{name}: it is empty; give a value, or leave it out")
    return chosen


def _whole(query: dict[str, str], name: str, otherwise: int, least: int) -> int:
    text = query.get(name, str(otherwise))
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < least:
        raise invalid(f"{name}: a whole number from {least} up, not {text[:40]!r}")
    return int(text)


async def _send(send: Send, body: dict[str, object], *, is_stale: bool) -> None:
    await send_json(send, msgspec.json.encode(body), [STALE_HEADER] if is_stale else None)
