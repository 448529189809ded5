"""OpenRouter's prices, lists and records: its paths, statuses and JSON, without I/O.

Sources: OpenRouter's OpenAPI document (`/models`, `/generation`), and answers of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Generic, TypeVar

from msgspec import Raw, Struct
from msgspec.json import Decoder
from msgspec.json import encode as to_json

from farebox.core.errors import Refusal
from farebox.core.formats.videos import read_job
from farebox.core.kinds import tokens_told
from farebox.core.legible import decode_fields, decoded_or, leniently, written
from farebox.core.money import add_exact, is_readable_cost
from farebox.core.pricing import PricedModel, PriceList, Prices, price_list
from farebox.core.reading import UNREADABLE, as_kept, starts_with
from farebox.core.upstream import (
    ALL_MODELS,
    AskedTooOften,
    Failed,
    Filters,
    JobAnswer,
    ListAnswer,
    Listing,
    ListKind,
    ListQuery,
    NoSuchJob,
    NoSuchList,
    NotYet,
    QueryRefused,
    RecordAnswer,
    Recorded,
    Unreadable,
)
from farebox.core.usage import Cost, Unknown
from farebox.ports import UpstreamBroke
from farebox.upstream.openrouter_videos import is_of_videos, with_videos

T = TypeVar("T")

PATHS: Mapping[ListKind, str] = MappingProxyType(
    {
        ListKind.MODELS: "/models",
        ListKind.OWN_MODELS: "/models/user",
        ListKind.EMBEDDING_MODELS: "/embeddings/models",
        ListKind.PROVIDERS: "/providers",
        ListKind.ZDR_ENDPOINTS: "/endpoints/zdr",
        ListKind.MODEL_ENDPOINTS: "/models/{model}/endpoints",
        ListKind.IMAGE_MODELS: "/images/models",
        ListKind.IMAGE_ENDPOINTS: "/images/models/{model}/endpoints",
        ListKind.VIDEO_MODELS: "/videos/models",
        ListKind.CONTENT: "/generation/content",
    }
)
"""The path of each list. Filters pass unchanged: callers use OpenRouter's names for them."""

GENERATION = "/generation"

JOBS = "/videos"

ROUTERS = frozenset(("openrouter/auto", "openrouter/auto-beta", "openrouter/free", "openrouter/bodybuilder"))
"""Routers, which pick a model for each order. OpenRouter accepts their names whether its list has them or not."""

REFUSAL_BYTES_SHOWN = 300
"""How much of a refusal's body is shown that has no message."""


class Fetched(Struct, frozen=True):
    """The answer to a GET. `retry_after_seconds` where it says when to ask again."""

    status: int
    body: bytes
    retry_after_seconds: float | None = None


class OpenRouterPages(ABC):
    """The part of an `Upstream` that is not about orders; subclasses do the I/O in `fetch`."""

    @abstractmethod
    async def fetch(self, path: str, query: Filters) -> Fetched:
        """GET a path under the base URL. Raises UpstreamUnreachable, UpstreamBroke."""

    async def prices(self) -> tuple[bytes, ...]:
        """The bodies of the model lists, which have the prices; those that it does not have are left out. Raises
        UpstreamUnreachable, UpstreamBroke."""
        path = PATHS[ListKind.MODELS]
        models = await self.fetch(path, ALL_MODELS.filters)
        if models.status != 200:
            raise _not_given(path, models)
        bodies = [models.body]
        for path in (PATHS[ListKind.EMBEDDING_MODELS], f"{JOBS}/models"):
            others = await self.fetch(path, ())
            if others.status == 200:
                bodies.append(others.body)
            elif others.status != 404:
                raise _not_given(path, others)
        return tuple(bodies)

    def read_prices(self, documents: tuple[bytes, ...]) -> PriceList:
        return read_price_list(*documents)

    async def page(self, query: ListQuery) -> ListAnswer:
        fetched = await self.fetch(PATHS[query.kind].format(model=query.model), query.filters)
        match fetched.status:
            case 200 if query.kind is ListKind.IMAGE_ENDPOINTS:
                return read_whole(fetched.body)
            case 200:
                return read_listing(fetched.body)
            case 400:
                return QueryRefused(read_message(fetched.body))
            case 401 | 403 if query.kind is ListKind.CONTENT:
                # The operator's key may not read it.
                return NoSuchList()
            case 404:
                return NoSuchList()
            case _:
                return Failed(_status(fetched.status, fetched.body))

    async def record(self, generation_id: str) -> RecordAnswer:
        fetched = await self.fetch(GENERATION, (("id", generation_id),))
        match fetched.status:
            case 200:
                return read_record(fetched.body)
            case 404:
                # OpenRouter says the same of a generation that it has yet to write down and of one that never was.
                return NotYet()
            case 429:
                return AskedTooOften("status 429", fetched.retry_after_seconds)
            case _:
                return Failed(f"status {fetched.status}")

    async def job(self, job_id: str) -> JobAnswer:
        """As `Jobs.job`."""
        fetched = await self.fetch(f"{JOBS}/{job_id}", ())
        match fetched.status:
            case 200:
                try:
                    return read_job(fetched.body, job_id)
                except Refusal as refusal:
                    return Unreadable(refusal.message)
            case 404 | 410:
                return NoSuchJob()
            case 429:
                return AskedTooOften("status 429", fetched.retry_after_seconds)
            case _:
                return Failed(f"status {fetched.status}")


def _not_given(path: str, fetched: Fetched) -> UpstreamBroke:
    return UpstreamBroke(not_given(path, fetched.status, fetched.body))


def not_given(path: str, status: int, body: bytes) -> str:
    """A list that an upstream does not give, in words: with its own, where they are not about the operator's key, since
    callers are told this, too."""
    return f"The upstream answered GET {path} with {_status(status, body)}"


def _status(status: int, body: bytes) -> str:
    said = decoded_or(_decode_refusal, body, None) if status == 400 or status >= 500 else None
    return f"status {status}" if said is None else f"status {status}: {said.error.message}"


class _In(Struct, Generic[T]):
    """What every page is within."""

    data: T


# The price list


class _Pricing(Prices, frozen=True, kw_only=True):
    """Prices as decimal strings. Every entry has the first two; what is absent is free."""

    prompt: Decimal
    completion: Decimal
    overrides: tuple[Prices, ...] = ()


class _TopProvider(Struct):
    max_completion_tokens: int | float | None = None


class _Target(Struct):
    slug: str


class _Entry(Struct):
    id: str
    pricing: _Pricing
    context_length: int | float | None = None
    top_provider: _TopProvider | None = None
    canonical_slug: str | None = None
    alias_target: _Target | None = None


class _Named(Struct):
    id: str


_decode_model_list = Decoder(_In[list[Raw]]).decode
_decode_entries = Decoder(tuple[Raw, ...]).decode
_decode_entry = Decoder(_Entry).decode
_decode_named = Decoder(_Named).decode
_decode_members = Decoder(dict[str, Raw]).decode


def read_price_list(*bodies: bytes) -> PriceList:
    """Read the bodies of model lists. An entry that cannot be read has no price.

    Raises:
        ValueError: a body is not a model list, or no entry has a price.
    """
    try:
        listed = [raw for body in bodies for raw in _decode_model_list(body).data]
    except UNREADABLE as error:
        raise ValueError(f"the model list could not be read: {error}") from error
    models: list[PricedModel] = []
    left_out: set[str] = set()
    of_videos = [raw for raw in listed if is_of_videos(raw)] if len(bodies) > 1 else []
    for raw in listed:
        entry = _read_entry(raw)
        if entry is not None:
            models.append(_priced(entry))
        elif name := _id_of(raw):
            left_out.add(name)
    return price_list(with_videos(models, of_videos) if of_videos else models, left_out, ROUTERS)


def _read_entry(raw: Raw) -> _Entry | None:
    """An entry of the list; None where it cannot be read. A price that is null or empty is absent."""
    try:
        return _decode_entry(raw)
    except UNREADABLE:
        pass
    try:
        fields = _decode_members(raw)
        pricing = _decode_members(fields.get("pricing", Raw(b"{}")))
        present = {name: price for name, price in pricing.items() if bytes(price) not in (b"null", b'""')}
        fields["pricing"] = Raw(to_json(present))
        return _decode_entry(to_json(fields))
    except UNREADABLE:
        return None


def _id_of(entry: Raw) -> str | None:
    """The id of an entry's model; None where it cannot be read."""
    try:
        return _decode_named(entry).id
    except UNREADABLE:
        return None


def _priced(entry: _Entry) -> PricedModel:
    prompt = entry.pricing.prompt
    return PricedModel(
        entry.id,
        (entry.pricing, *entry.pricing.overrides),
        context_tokens=_whole(entry.context_length),
        answer_tokens_max=_whole(entry.top_provider.max_completion_tokens if entry.top_provider else None),
        slug=entry.canonical_slug,
        stands_for=entry.alias_target.slug if entry.alias_target else None,
        # A router's price is -1. Comparing NaN raises.
        is_router=not prompt.is_nan() and prompt < 0,
    )


def _whole(tokens: int | float | None) -> int | None:
    """A number of tokens, which may be written `200000.0`; None for 0 and less, which are not one."""
    return int(tokens) if tokens is not None and tokens >= 1 else None


# Lists


class _Error(Struct):
    message: str


class _Refusal(Struct):
    error: _Error


_decode_list = Decoder(_In[Raw]).decode
_decode_refusal = Decoder(_Refusal).decode


def read_listing(body: bytes) -> Listing | Unreadable:
    """Read the body of a list, which stands in `data`."""
    try:
        data = _decode_list(body).data
        return Listing(entries=_decode_entries(data)) if starts_with(data, b"[") else Listing(data=data)
    except UNREADABLE as error:
        return Unreadable(str(error))


def read_whole(body: bytes) -> Listing | Unreadable:
    """Read a page that is an object without an envelope, which is then its `data`."""
    try:
        return Listing(data=written(decode_fields(body)))
    except UNREADABLE as error:
        return Unreadable(str(error))


def read_message(body: bytes) -> str:
    """The message of a refusal; the beginning of its body where it has none."""
    try:
        return _decode_refusal(body).error.message
    except UNREADABLE:
        return body[:REFUSAL_BYTES_SHOWN].decode("utf-8", "replace")


# Records


class _Recorded(Struct):
    total_cost: Decimal
    is_byok: bool
    upstream_inference_cost: Decimal | None = None
    model: str | None = None
    tokens_prompt: int | None = None
    tokens_completion: int | None = None


_decode_record = Decoder(_In[_Recorded]).decode
_decode_record_members = Decoder(_In[dict[str, Raw]]).decode


def read_record(body: bytes) -> Recorded:
    """Read the body of `GET /generation`. Cost and members are read apart: one may be readable where the other is
    not."""
    members = _members(body)
    try:
        record = leniently(_decode_record, body).data
    except UNREADABLE as error:
        return Recorded(Unknown(f"the upstream's record could not be read: {error}"), members)
    model = None if record.model is None else as_kept(record.model)
    prompt_tokens, answer_tokens = tokens_told(record.tokens_prompt), tokens_told(record.tokens_completion)
    return Recorded(_cost(record), members, model, prompt_tokens, answer_tokens)


def _members(body: bytes) -> Mapping[str, Raw] | Unreadable:
    try:
        return _decode_record_members(body).data
    except UNREADABLE as error:
        return Unreadable(str(error))


def _cost(record: _Recorded) -> Cost | Unknown:
    """The cost in a record. For an answer on the operator's own key at a host (`is_byok`), `total_cost` is only
    OpenRouter's fee."""
    amount = record.total_cost
    if record.is_byok:
        if record.upstream_inference_cost is None:
            return Unknown("the upstream's record does not say what the host charged")
        if is_readable_cost(amount) and is_readable_cost(record.upstream_inference_cost):
            amount = add_exact(amount, record.upstream_inference_cost)
    if not is_readable_cost(amount):
        return Unknown(f"the recorded cost is not an amount: {str(amount)[:40]}")
    return Cost(amount)
