"""The upstreams' lists, from the cache, as a caller may see them: without the models that its plan leaves out."""

from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from functools import partial
from typing import Protocol
from urllib.parse import urlencode

import msgspec
from msgspec import Raw, Struct
from starlette.types import Receive, Scope, Send

from farebox.catalog import Catalog
from farebox.core.errors import Refusal, invalid, unknown
from farebox.core.formats import messages
from farebox.core.formats.mending import encode
from farebox.core.formats.table import BASES
from farebox.core.headers import HOPS, HeaderList, read_request_head
from farebox.core.joined_lists import by_id, with_endpoints
from farebox.core.legible import Fields, decode_fields, decoded_or, written
from farebox.core.listing import Listed
from farebox.core.nearest import look_there
from farebox.core.plans import Plan
from farebox.core.reading import UNREADABLE
from farebox.core.resale import before_markup, with_plans_prices, without_prices
from farebox.core.schemas import NAME, Schema, one_of
from farebox.core.upstream import Filters, ListKind, ListQuery
from farebox.http.asgi import Endpoint, send_json
from farebox.http.queries import query_values, query_whole
from farebox.http.refusals import guarded
from farebox.ports import Callers
from farebox.web.anthropic_models import described, is_anthropics, page_of

STALE_HEADER = (b"x-farebox-stale", b"true")
"""Sent with a list that is older than it should be, because the upstream did not answer."""

PAGE_MAX = 1000
PAGE_DEFAULT = 500
"""OpenRouter's largest page, and its usual one."""

QUERY_BYTES_MAX = 2_000

OUTPUT_MODALITIES = "output_modalities"

_AMOUNT: Schema = {"type": "number", "minimum": 0}
_FRACTION: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_DAYS: Schema = {"type": "integer", "minimum": 0}
_LIST = "Comma-separated."

MODEL_FILTERS: Mapping[str, tuple[Schema, str]] = {
    OUTPUT_MODALITIES: (NAME, f"{_LIST} text, image, audio, embeddings; `all` for every model. Text if absent."),
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
"""OpenRouter's filters. The upstream applies them: it alone knows providers, benchmarks and regions."""


class OwnEndpoints(Protocol):
    """Our own upstreams as endpoints."""

    def __call__(self, model: str) -> list[dict[str, object]]:
        """Those that serve a model; none where the upstream's list says it all."""

    def zdr(self) -> list[dict[str, object]]:
        """Those that are declared to keep nothing of an order."""


Shown = tuple[dict[str, object] | Raw, bool]
Show = Callable[[Scope, Plan | None], Awaitable[Shown]]


class _Endpoint(Struct):
    model_id: str


class Lists:
    """The endpoints for lists. Each is one of the methods below, which return a body and whether it is stale; `plan` is
    the caller's, None for whoever sends no key."""

    def __init__(
        self,
        callers: Callers,
        catalog: Catalog,
        own_endpoints: OwnEndpoints,
        hides_costs: Callable[[], bool] = lambda: False,
    ) -> None:
        """`hides_costs`: whether some plan does not show what the upstream charges. Then nobody is told that without a
        key of another plan."""
        self._callers = callers
        self._hides_costs = hides_costs
        self._catalog = catalog
        self._own_endpoints = own_endpoints

    def routes(self) -> dict[str, Endpoint]:
        """By their path below a base."""
        models = partial(self._models, ListKind.MODELS, MODEL_FILTERS)
        own_models = partial(self._models, ListKind.OWN_MODELS, ())
        embedding_models = partial(self._models, ListKind.EMBEDDING_MODELS, ())
        return {
            "/models": self._serve(models, is_anthropics_too=True),
            "/models/count": self._serve(self._count),
            "/models/user": self._serve(own_models, needs_key=True, is_anthropics_too=True),
            "/models/{author}/{slug}/endpoints": self._serve(self._model_endpoints),
            "/models/{slug}/endpoints": self._serve(self._model_endpoints),
            "/models/{model:model}": self._serve(self._model, is_anthropics_too=True),
            "/model/{model:model}": self._serve(self._model_data),
            "/embeddings/models": self._serve(embedding_models, is_anthropics_too=True),
            "/images/models": self._serve(partial(self._special_models, ListKind.IMAGE_MODELS)),
            "/images/models/{author}/{slug}/endpoints": self._serve(self._image_endpoints),
            "/videos/models": self._serve(partial(self._special_models, ListKind.VIDEO_MODELS)),
            "/providers": self._serve(self._providers),
            "/endpoints/zdr": self._serve(self._zdr_endpoints),
        }

    def _serve(self, show: Show, *, needs_key: bool = False, is_anthropics_too: bool = False) -> Endpoint:
        """`is_anthropics_too`: Anthropic's clients call it, and get its refusals in their format."""

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            head = read_request_head(scope["headers"])
            # A credential that is nobody's is refused: a list for everybody would hide that.
            plan = (await self._callers.identify(head)).plan if head.tokens or needs_key else None
            body, is_stale = await show(scope, plan)
            told, headers = self._priced(body, plan)
            if is_stale:
                headers = [*headers, STALE_HEADER]
            await send_json(send, msgspec.json.encode(told), headers or None)

        anthropics = guarded(endpoint, messages) if is_anthropics_too else endpoint

        async def worded(scope: Scope, receive: Receive, send: Send) -> None:
            await (anthropics if is_anthropics(scope) else endpoint)(scope, receive, send)

        return worded

    def _priced(self, body: dict[str, object] | Raw, plan: Plan | None) -> tuple[dict[str, object] | Raw, HeaderList]:
        """A list with the prices that hold for who asks, and what says to caches that they are no others'."""
        if not self._hides_costs():
            return body, []
        whole = Raw(msgspec.json.encode(body))
        if plan is None:
            return without_prices(whole), _OWN_LIST
        return (body if plan.shows_cost else with_plans_prices(whole, plan)), _OWN_LIST

    def _query_of(self, kind: ListKind, asked: Filters, plan: Plan | None) -> ListQuery:
        """The upstream's query for what is asked: prices in it are the plan's. Raises Refusal 400."""
        names = [name for name, _ in asked if name in _PRICE_FILTERS]
        if not names or not self._hides_costs() or (plan is not None and plan.shows_cost):
            return ListQuery(kind, asked)
        if plan is None:
            raise invalid(f"{names[0]}: prices depend on the plan here; ask with a key")
        return ListQuery(kind, tuple((name, upstreams_price(name, value, plan)) for name, value in asked))

    async def _models(self, kind: ListKind, filters: Container[str], scope: Scope, plan: Plan | None) -> Shown:
        """A list of models, page by page, with the two members that OpenAI's SDKs read. OpenRouter's SDK asks for pages
        until one is short, Anthropic's until `has_more` is false."""
        query = _query(scope)
        asked = _filters(query, filters)
        every, is_stale = await self._listed(self._query_of(kind, asked, plan), scope, plan)
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
        return body, is_stale

    async def _count(self, scope: Scope, plan: Plan | None) -> Shown:
        filters = _filters(_query(scope), (OUTPUT_MODALITIES,))
        every, is_stale = await self._listed(ListQuery(ListKind.MODELS, filters), scope, plan)
        return {"data": {"count": len(every)}}, is_stale

    async def _model(self, scope: Scope, plan: Plan | None) -> Shown:
        """As OpenAI's and Anthropic's clients ask: one entry of the list."""
        found, is_stale = await self._find(scope, plan)
        return described(found) if is_anthropics(scope) else found.entry, is_stale

    async def _model_data(self, scope: Scope, plan: Plan | None) -> Shown:
        """The same for OpenRouter's clients, in their envelope."""
        found, is_stale = await self._find(scope, plan)
        return {"data": found.entry}, is_stale

    async def _find(self, scope: Scope, plan: Plan | None) -> tuple[Listed, bool]:
        """The model that a path names, and whether its list is stale. Raises Refusal 404, 502."""
        name: str = scope["path_params"]["model"]
        found, is_stale = await self._catalog.model(name, is_for_gateway=_is_gateway(scope))
        if found is None:
            raise self._not_listed(name, plan)
        self._check_plan(plan, found.id)
        return found, is_stale

    async def _model_endpoints(self, scope: Scope, plan: Plan | None) -> Shown:
        """Where one model is served. Only a listed model's name goes upstream."""
        model = self._listed_model(scope, plan)
        query = ListQuery(ListKind.MODEL_ENDPOINTS, model=model)
        name = self._catalog.names(model)[0]
        if not self._own_endpoints(name):
            page, is_stale = await self._catalog.page(query, is_for_gateway=_is_gateway(scope))
            return {"data": page.data}, is_stale
        listed, is_stale = await self._catalog.model(model, is_for_gateway=_is_gateway(scope))
        own = self._own_endpoints(name)  # with what the lists say, which were asked for just now
        others, entry = Raw(b"null"), Raw(b"null") if listed is None else listed.entry
        try:
            page, is_old = await self._catalog.page(query, is_for_gateway=_is_gateway(scope))
        except Refusal as refusal:
            is_stale = is_stale or refusal.status != 404
        else:
            others, is_stale = page.data, is_stale or is_old
        return {"data": with_endpoints(entry, own, others)}, is_stale

    def _listed_model(self, scope: Scope, plan: Plan | None) -> str:
        """The model that a path names. Raises Refusal 404: it is not listed, or the plan does not include it."""
        names: dict[str, str] = scope["path_params"]
        model = "/".join(names[part] for part in ("author", "slug") if part in names)
        prices = self._catalog.current()
        if model not in prices.rates and model not in prices.aliases:
            raise self._not_listed(model, plan)
        self._check_plan(plan, model)
        return model

    async def _special_models(self, kind: ListKind, scope: Scope, plan: Plan | None) -> Shown:
        """Models that make pictures or videos, with what they take, as their upstreams list them: those that can be
        ordered here. None where no upstream has such a list."""
        try:
            page, is_stale = await self._catalog.page(ListQuery(kind), is_for_gateway=_is_gateway(scope))
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            return {"data": []}, False
        prices = self._catalog.current()
        served = [
            _with_link(entry, scope["path"], model) if kind is ListKind.IMAGE_MODELS else entry
            for model, entry in by_id(page.entries)
            if prices.find(model) is not None and self._is_included(plan, model)
        ]
        return {"data": served}, is_stale

    async def _image_endpoints(self, scope: Scope, plan: Plan | None) -> Shown:
        """Where a model makes pictures, what it takes there, and what those cost. Without an envelope, as OpenRouter
        has it. Only a listed model's name goes upstream."""
        query = ListQuery(ListKind.IMAGE_ENDPOINTS, model=self._listed_model(scope, plan))
        try:
            page, is_stale = await self._catalog.page(query, is_for_gateway=_is_gateway(scope))
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            listed = f"GET {BASES[0]}/images/models lists those that do"
            raise unknown(f"`{query.model}` makes no pictures here; {listed}") from refusal
        return page.data, is_stale

    async def _providers(self, scope: Scope, plan: Plan | None) -> Shown:
        page, is_stale = await self._catalog.page(ListQuery(ListKind.PROVIDERS), is_for_gateway=_is_gateway(scope))
        return {"data": page.entries}, is_stale

    async def _zdr_endpoints(self, scope: Scope, plan: Plan | None) -> Shown:
        """The endpoints that keep nothing of an order (zero data retention): ours, then the upstream's."""
        own = [Raw(msgspec.json.encode(each)) for each in self._own_endpoints.zdr()]
        listed: tuple[Raw, ...] = ()
        is_stale = False
        try:
            page, is_stale = await self._catalog.page(
                ListQuery(ListKind.ZDR_ENDPOINTS), is_for_gateway=_is_gateway(scope)
            )
            listed = page.entries
        except Refusal as refusal:
            if not own:
                raise
            is_stale = refusal.status != 404
        every = (*own, *listed)
        return {"data": [each for each in every if self._is_included(plan, _endpoint_model(each))]}, is_stale

    async def _listed(self, query: ListQuery, scope: Scope, plan: Plan | None) -> tuple[Sequence[Listed], bool]:
        """The models of a list that the plan includes, and whether it is stale."""
        page, is_stale = await self._catalog.page(query, is_for_gateway=_is_gateway(scope))
        return [model for model in page.models if self._is_included(plan, model.id)], is_stale

    def _not_listed(self, model: str, plan: Plan | None) -> Refusal:
        return unknown(f"the model `{model[:200]}` is not in the list{look_there(self._catalog.nearest(model, plan))}")

    def _is_included(self, plan: Plan | None, model: str | None) -> bool:
        if plan is None:
            return True
        return model is not None and (plan.allows_all or plan.allows(*self._catalog.names(model)))

    def _check_plan(self, plan: Plan | None, model: str) -> None:
        if plan is not None and (refusing := plan.refusing(*self._catalog.names(model))) is not None:
            raise unknown(
                f"{refusing} does not include the model `{model[:200]}`; GET /api/v1/models lists those it does"
            )


_OWN_LIST: HeaderList = [(b"cache-control", b"private"), (b"vary", b"authorization, x-api-key")]
_PRICE_FILTERS = frozenset(f"{bound}_{price}" for bound in ("min", "max") for price in ("price", "output_price"))


def upstreams_price(name: str, value: str, plan: Plan) -> str:
    """A filter's price as the upstream has it. Raises Refusal 400."""
    if name not in _PRICE_FILTERS:
        return value
    price = before_markup(value, plan)
    if price is None:
        raise invalid(f"{name}: a price in USD a million tokens, such as 0.5, not {value[:40]!r}")
    return price


def _with_link(entry: Raw, path: str, model: str) -> Raw:
    """The entry of a list at `path`, with its endpoints at this gateway."""
    fields = decoded_or(decode_fields, entry, Fields())
    return written({**fields, "endpoints": encode(f"{path}/{model}/endpoints")})


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


def _is_gateway(scope: Scope) -> bool:
    """Whether another gateway like this one asks."""
    return any(name == HOPS for name, _ in scope["headers"])


def _endpoint_model(entry: Raw) -> str | None:
    try:
        return msgspec.json.decode(entry, type=_Endpoint).model_id
    except UNREADABLE:
        return None


def _query(scope: Scope) -> dict[str, str]:
    """The query by name. Raises Refusal 400: it is too long."""
    if len(scope["query_string"]) > QUERY_BYTES_MAX:
        raise invalid(f"the query is longer than {QUERY_BYTES_MAX} bytes")
    return query_values(scope)


def _filters(query: dict[str, str], names: Container[str]) -> Filters:
    chosen = tuple(sorted((name, value) for name, value in query.items() if name in names))
    for name, value in chosen:
        if not value:
            raise invalid(f"{name}: it is empty; give a value, or leave it out")
    return chosen
