"""The upstream's lists, from the cache, as a caller may see them: without the models that its plan leaves out."""

from collections.abc import Sequence
from urllib.parse import urlencode

import msgspec
from msgspec import Raw, Struct
from starlette.types import Receive, Scope, Send

from farebox.catalog import Catalog
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, invalid, unknown
from farebox.core.formats import messages
from farebox.core.listing import Listed
from farebox.core.plans import Plan
from farebox.core.reading import UNREADABLE
from farebox.core.upstream import Filters, ListKind, ListQuery
from farebox.http.asgi import Endpoint, send_json
from farebox.http.queries import query_values, query_whole
from farebox.http.refusals import guarded
from farebox.ports import Callers
from farebox.web.anthropic_models import described, is_anthropics, page_of
from farebox.web.callers import caller_if_any, caller_of

STALE_HEADER = (b"x-farebox-stale", b"true")
"""Sent with a list that is older than it should be, because the upstream did not answer."""

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
"""OpenRouter's filters. The upstream applies them: it alone knows providers, benchmarks and regions."""


class _Endpoint(Struct):
    model_id: str


_decode_endpoint = msgspec.json.Decoder(_Endpoint).decode


class _worded:  # noqa: N801 - reads as the function that it is
    """An endpoint that Anthropic's clients call, too: its refusals are worded for the client that calls."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._anthropics = guarded(endpoint, messages)
        self._others = guarded(endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._anthropics if is_anthropics(scope) else self._others)(scope, receive, send)


def models(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /models, with OpenRouter's filters."""
    return _list(callers, catalog, ListKind.MODELS, MODEL_FILTERS)


def embedding_models(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /embeddings/models."""
    return _list(callers, catalog, ListKind.EMBEDDING_MODELS)


def own_models(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /models/user: the models that the caller may order from."""
    return _list(callers, catalog, ListKind.OWN_MODELS, is_own=True)


def _list(
    callers: Callers, catalog: Catalog, kind: ListKind, filters: frozenset[str] = frozenset(), *, is_own: bool = False
) -> Endpoint:
    """A list of models, page by page, with the two members that OpenAI's SDKs read. OpenRouter's SDK asks for pages
    until one is short, Anthropic's until `has_more` is false."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await (caller_of if is_own else caller_if_any)(callers, scope)
        query = _query(scope)
        asked = _filters(query, filters)
        page, is_stale = await catalog.page(ListQuery(kind, asked))
        every = _models_of(page.models, caller.plan if caller else None, catalog)
        limit = query_whole(query, "limit", max(1, len(every)) if "offset" not in query else PAGE_DEFAULT, least=1)
        if "limit" in query and limit > PAGE_MAX:
            raise invalid(f"limit: at most {PAGE_MAX}, not {limit}")
        start, stop = _bounds(query, every, limit)
        shown = every[start:stop]
        next_page = urlencode([*asked, ("offset", start + len(shown)), ("limit", limit)])
        body = {
            "object": "list",
            "data": [model.entry for model in shown],
            "links": {"next": f"{scope['path']}?{next_page}" if start + len(shown) < len(every) else None},
            "total_count": len(every),
        }
        if is_anthropics(scope):
            has_more = start > 0 if "before_id" in query else start + len(shown) < len(every)
            body |= {"data": [described(model) for model in shown], **page_of(shown, has_more=has_more)}
        await _send(send, body, is_stale=is_stale)

    return _worded(endpoint)


def _bounds(query: dict[str, str], models: Sequence[Listed], limit: int) -> tuple[int, int]:
    """The first index of the page and the one after its last: from an offset, or beside the model that a cursor names.
    Raises Refusal 400."""
    named = [name for name in ("offset", "after_id", "before_id") if name in query]
    if len(named) > 1:
        raise invalid(f"{named[1]}: a page begins in one place, and {named[0]} names another")
    if "before_id" in query:
        stop = _index(query, "before_id", models)
        return max(0, stop - limit), stop
    start = _index(query, "after_id", models) + 1 if "after_id" in query else query_whole(query, "offset", 0)
    return start, start + limit


def _index(query: dict[str, str], name: str, models: Sequence[Listed]) -> int:
    for index, model in enumerate(models):
        if model.id == query[name]:
            return index
    raise invalid(f"{name}: `{query[name][:200]}` is not in this list (any more); begin again without it")


def count(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /models/count."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await caller_if_any(callers, scope)
        filters = _filters(_query(scope), frozenset({OUTPUT_MODALITIES}))
        page, is_stale = await catalog.page(ListQuery(ListKind.MODELS, filters))
        every = _models_of(page.models, caller.plan if caller else None, catalog)
        await _send(send, {"data": {"count": len(every)}}, is_stale=is_stale)

    return guarded(endpoint)


def model(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /models/{model}, as OpenAI's and Anthropic's clients ask: one entry of the list."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        found, is_stale = await _listed(callers, catalog, scope)
        await _send(send, described(found) if is_anthropics(scope) else found.entry, is_stale=is_stale)

    return _worded(endpoint)


def model_data(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /model/{author}/{slug}: the same for OpenRouter's clients, in their envelope."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        found, is_stale = await _listed(callers, catalog, scope)
        await _send(send, {"data": found.entry}, is_stale=is_stale)

    return guarded(endpoint)


async def _listed(callers: Callers, catalog: Catalog, scope: Scope) -> tuple[Listed, bool]:
    """The model that a path names, and whether its list is stale. Raises Refusal 401, 404, 502."""
    caller = await caller_if_any(callers, scope)
    name: str = scope["path_params"]["model"]
    found, is_stale = await catalog.model(name)
    if found is None:
        raise _not_listed(name)
    _check_plan(caller, found.id, catalog)
    return found, is_stale


def model_endpoints(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /models/{author}/{slug}/endpoints: where one model is served. Only a listed model's name goes upstream."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await caller_if_any(callers, scope)
        model = "{author}/{slug}".format_map(scope["path_params"])
        prices = catalog.current()
        if model not in prices.rates and model not in prices.aliases:
            raise _not_listed(model)
        _check_plan(caller, model, catalog)
        page, is_stale = await catalog.page(ListQuery(ListKind.MODEL_ENDPOINTS, model=model))
        await _send(send, {"data": page.data}, is_stale=is_stale)

    return guarded(endpoint)


def _not_listed(model: str) -> Refusal:
    return unknown(f"the model `{model[:200]}` is not in the list; GET /api/v1/models has the list")


def _check_plan(caller: Caller | None, model: str, catalog: Catalog) -> None:
    refusing = caller.plan.refusing(*catalog.names(model)) if caller is not None else None
    if refusing is not None:
        raise unknown(f"{refusing} does not include the model `{model[:200]}`; GET /api/v1/models lists those it does")


def providers(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /providers."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        await caller_if_any(callers, scope)
        page, is_stale = await catalog.page(ListQuery(ListKind.PROVIDERS))
        await _send(send, {"data": page.entries}, is_stale=is_stale)

    return guarded(endpoint)


def zdr_endpoints(callers: Callers, catalog: Catalog) -> Endpoint:
    """GET /endpoints/zdr: the upstream's endpoints that keep nothing of an order (zero data retention)."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await caller_if_any(callers, scope)
        page, is_stale = await catalog.page(ListQuery(ListKind.ZDR_ENDPOINTS))
        plan = caller.plan if caller else None
        shown = [entry for entry in page.entries if plan is None or _includes(plan, _endpoint_model(entry), catalog)]
        await _send(send, {"data": shown}, is_stale=is_stale)

    return guarded(endpoint)


def _models_of(models: Sequence[Listed], plan: Plan | None, catalog: Catalog) -> Sequence[Listed]:
    if plan is None or plan.allows_all:
        return models
    return [model for model in models if _includes(plan, model.id, catalog)]


def _includes(plan: Plan, model: str | None, catalog: Catalog) -> bool:
    return model is not None and plan.allows(*catalog.names(model))


def _endpoint_model(entry: Raw) -> str | None:
    try:
        return _decode_endpoint(entry).model_id
    except UNREADABLE:
        return None


def _query(scope: Scope) -> dict[str, str]:
    """The query by name. Raises Refusal 400: it is too long."""
    if len(scope["query_string"]) > QUERY_BYTES_MAX:
        raise invalid(f"the query is longer than {QUERY_BYTES_MAX} bytes")
    return query_values(scope)


def _filters(query: dict[str, str], names: frozenset[str]) -> Filters:
    chosen = tuple(sorted((name, value) for name, value in query.items() if name in names))
    for name, value in chosen:
        if not value:
            raise invalid(f"{name}: it is empty; give a value, or leave it out")
    return chosen


async def _send(send: Send, body: dict[str, object] | Raw, *, is_stale: bool) -> None:
    await send_json(send, msgspec.json.encode(body), [STALE_HEADER] if is_stale else None)
