"""What upstreams of the kinds `openai` and `anthropic` have in common: they list their models, and tell neither prices
nor what an order cost, nor keep records of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from farebox.core.declared import Declared
from farebox.core.filters import Filtered, NoSuchFilter, filter_of
from farebox.core.fitting import Fitted, fitted
from farebox.core.formats.table import FORMATS
from farebox.core.headers import HOPS, LEFT_OUT
from farebox.core.listed_prices import pricing
from farebox.core.pricing import PricedModel, PriceList, Prices, price_list
from farebox.core.reading import UNREADABLE
from farebox.core.tariffs import Borrowed, Tariff
from farebox.core.traits import ANSWERED_WITH, OF_CHATS
from farebox.core.upstream import (
    ListAnswer,
    Listing,
    ListKind,
    ListQuery,
    NoRecords,
    NoSuchList,
    QueryRefused,
    RecordAnswer,
    Recorded,
)
from farebox.core.usage import Cost
from farebox.deadlines import Deadlines
from farebox.outgoing import DIRECTLY, WayOut
from farebox.ports import UpstreamBroke
from farebox.upstream.clients import PAGE_SECONDS, clients, own_headers
from farebox.upstream.openrouter_pages import not_given
from farebox.upstream.replies import HttpReply

SIMULATE = "x-openrouter-simulate"
"""The one header of OpenRouter's that goes along: real hosts ignore it, and the simulated ones take their faults from
it."""

_ALONG = frozenset((HOPS.decode(), SIMULATE))

PAGES_MAX = 50
"""The most pages of a list of models that are read."""

LIST_BYTES_MAX = 8 * 1024 * 1024

NAMES_KEPT = 4096
"""Names of models that are remembered under the upstream's own."""


_HINTS = {
    401: "; no key is sent, since `key_variable` names none",
    404: "; a server without such a list serves what `models` names in full",
}
"""What may be wrong, by the status of a list that is not given."""


class OwnModel(Struct, frozen=True):
    """A model as its upstream lists it, under its own name; `created` in seconds since 1970."""

    id: str
    title: str = ""
    created: int = 0
    context_tokens: int | None = None
    answer_tokens_max: int | None = None


_decode_own = msgspec.json.Decoder(tuple[OwnModel, ...]).decode

_ONLY_EMBEDDINGS_FILTER = (("output_modalities", "embeddings"),)


class Host(ABC):
    """Of a caller's request only the body goes upstream, and those headers that `headers` lets through."""

    def __init__(
        self,
        declared: Declared,
        credentials: Mapping[str, str],
        deadlines: Deadlines,
        way: WayOut = DIRECTLY,
        *,
        base_url: str | None = None,
        page_fields: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.declared = declared
        self._page_seconds = min(PAGE_SECONDS, declared.timeouts.first_byte)
        self._own_name = lru_cache(NAMES_KEPT)(declared.own_name)
        self.tariff_of: Callable[[str], Tariff | None] = lambda own_name: None
        """Gives the prices of a model by its own name; None where it has none."""
        self._told: tuple[bytes, ...] | None = None
        self._is_asked = False
        self._has_key = bool(credentials)
        fields = own_headers(credentials)
        self._orders, self._pages = clients(
            declared, fields, deadlines, way, base_url=base_url, page_fields=page_fields
        )

    def target(self, path: str) -> str:
        """Where orders of a format go, under the base URL."""
        return path

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:
        """What of an order's headers goes along."""
        return {name: value for name, value in given.items() if name in _ALONG}

    @abstractmethod
    async def models(self) -> tuple[OwnModel, ...]:
        """All models that it lists. Raises UpstreamUnreachable, UpstreamBroke."""

    def generation_id(self, path: str, reply: HttpReply) -> str | None:
        """The generation's id, where it does not stand in the answer's body."""
        return None

    async def forward(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> HttpReply:
        """Send an order. Raises UpstreamUnreachable, UpstreamBroke."""
        sent: Fitted = fitted(path, body, self._own_name, streamed=streamed, capped_by=self.declared.capped_by)
        along = self.headers(headers)
        reply = await self._orders.post(self.target(path), sent.body, along, streamed=streamed)
        reply.adds_usage = sent.adds_usage
        if sent.left_out:
            reply.headers.append((LEFT_OUT, ", ".join(sent.left_out).encode()))
        if reply.status < 400:
            self._name(reply, self.generation_id(path, reply))
        return reply

    async def count_tokens(self, body: bytes, headers: Mapping[str, str]) -> int | None:
        """As `Upstreams.count_tokens`: most do not count."""
        return None

    def _name(self, reply: HttpReply, generation_id: str | None) -> None:
        if generation_id is not None and reply.generation_id is None:
            reply.generation_id = generation_id
            reply.headers.append((b"x-generation-id", generation_id.encode()))

    async def fetch(self, path: str, query: tuple[tuple[str, str], ...] = ()) -> bytes:
        """The body of a page. Raises UpstreamUnreachable, UpstreamBroke."""
        reply = await self._pages.get(path, query, self._page_seconds)
        try:
            body = await reply.read()
        finally:
            reply.close()
        if reply.status != 200:
            hint = _HINTS.get(reply.status, "") if reply.status != 401 or not self._has_key else ""
            raise UpstreamBroke(f"{not_given(path, reply.status, body)}{hint}")
        if len(body) > LIST_BYTES_MAX:
            raise UpstreamBroke(f"The upstream's {path} is longer than {LIST_BYTES_MAX} bytes")
        return body

    async def prices(self) -> tuple[bytes, ...]:
        """Its models: what they cost, it does not say. A server without a list serves what is declared by name."""
        self._is_asked = True
        try:
            models = await self.models()
        except UpstreamBroke:
            if not self.declared.served(()):
                raise
            models = ()
        finally:
            self._is_asked = False
        self._told = (msgspec.json.encode(models),)
        return self._told

    def read_prices(self, documents: tuple[bytes, ...]) -> PriceList:
        """Its models at the bounds of the price list in force; those that it has no price of are left out. Raises
        ValueError: they cannot be read."""
        models = self.ours(documents)
        self._told = documents
        priced = [
            PricedModel(name, bounds, each.context_tokens, each.answer_tokens_max)
            for name, each in models.items()
            if (bounds := self.bounds(name))
        ]
        left_out = models.keys() - {each.id for each in priced}
        return price_list(priced, left_out) if priced else PriceList({}, left_out=frozenset(left_out))

    def bounds(self, model: str) -> tuple[Prices, ...]:
        """The prices that may count for a model of ours; none where it has none."""
        if self.declared.is_free:
            return (Prices(),)
        tariff = self._tariff(model)
        return () if tariff is None else tariff.bounds()

    def _tariff(self, model: str) -> Tariff | None:
        return self.tariff_of(self.declared.own_name(model))

    def borrowed(self, documents: tuple[bytes, ...]) -> list[Borrowed]:
        """Entries of a price list that takes the prices of its models from OpenRouter's list, under our names for
        them."""
        try:
            models = self.ours(documents)
        except ValueError:
            return []
        own_name, upstream = self.declared.own_name, self.declared.name
        return [Borrowed(upstream=upstream, model=own_name(model), listed=model) for model in models]

    def ours(self, documents: tuple[bytes, ...]) -> dict[str, OwnModel]:
        """What it serves, by our names and under them, from what `prices` gave. Raises ValueError."""
        own = {model.id: model for model in _read_own(documents)}
        return {ours: self._ours(ours, own) for ours in self.declared.served(own)}

    def _ours(self, ours: str, own: Mapping[str, OwnModel]) -> OwnModel:
        """A model under our name; what is declared of it counts, whatever its upstream lists."""
        listed, traits = own.get(self.declared.own_name(ours), OwnModel(ours)), self.declared.traits_of(ours)
        return msgspec.structs.replace(
            listed,
            id=ours,
            context_tokens=traits.context_tokens or listed.context_tokens,
            answer_tokens_max=traits.answer_tokens_max or listed.answer_tokens_max,
        )

    async def page(self, query: ListQuery) -> ListAnswer:
        if query.kind not in (ListKind.MODELS, ListKind.OWN_MODELS, ListKind.EMBEDDING_MODELS):
            return NoSuchList()
        filters = query.filters if query.kind is not ListKind.EMBEDDING_MODELS else _ONLY_EMBEDDINGS_FILTER
        try:
            is_listed = filter_of(filters, lists_texts=query.kind is ListKind.MODELS)
        except NoSuchFilter as error:
            return QueryRefused(str(error))
        told = self._told
        if told is None and self._is_asked:
            # Nor does it wait for that: should this gateway be its own upstream, it would wait for itself.
            raise UpstreamBroke("it is being asked which models it has; if by itself, its `base_url` leads back here")
        models = self.ours(told or await self.prices()).values()
        shown = [each for each in models if is_listed(self._filtered(each))]
        return Listing(entries=tuple(Raw(msgspec.json.encode(self._entry(each))) for each in shown))

    def entry(self, model: str) -> Raw | None:
        """What a list has of a model of ours, by what the upstream said last."""
        found = self.ours(self._told or ()).get(model)
        return None if found is None else Raw(msgspec.json.encode(self._entry(found)))

    def _filtered(self, model: OwnModel) -> Filtered:
        """What lists tell of a model: texts in and out, where nothing else is declared."""
        traits = self.declared.traits_of(model.id)
        formats = frozenset(FORMATS) if self.declared.formats is None else self.declared.formats
        usual = tuple(ANSWERED_WITH[each] for each in formats) if formats <= ANSWERED_WITH.keys() else ("text",)
        outputs = traits.output_modalities or usual
        return Filtered(
            traits.input_modalities or ("text",),
            outputs,
            () if OF_CHATS.isdisjoint(outputs) else tuple(traits.listed_parameters(formats)),
            model.context_tokens,
            traits.zdr,
            traits.distillable,
        )

    def _entry(self, model: OwnModel) -> dict[str, object]:
        """An entry of a list of models, as OpenRouter's SDKs demand it."""
        told = self._filtered(model)
        architecture = {
            "modality": f"{'+'.join(told.inputs)}->{'+'.join(told.outputs)}",
            "input_modalities": told.inputs,
            "output_modalities": told.outputs,
            "tokenizer": "Other",
            "instruct_type": None,
        }
        return {
            "id": model.id,
            "canonical_slug": model.id,
            "name": model.title or model.id,
            "created": model.created,
            "description": f"Served by `{self.declared.name}`",
            "pricing": {"prompt": "0", "completion": "0"} if self.declared.is_free else pricing(self._tariff(model.id)),
            "context_length": model.context_tokens,
            "architecture": architecture,
            "top_provider": {
                "context_length": model.context_tokens,
                "max_completion_tokens": model.answer_tokens_max,
                "is_moderated": False,
            },
            "per_request_limits": None,
            "supported_parameters": told.parameters,
            "default_parameters": None,
            "supported_voices": None,
            "links": {"details": f"/api/v1/models/{model.id}/endpoints"},
        }

    async def record(self, generation_id: str) -> RecordAnswer:
        return Recorded(Cost(Decimal(0)), members={}) if self.declared.is_free else NoRecords()

    async def close(self) -> None:
        await self._orders.close()
        await self._pages.close()


def _read_own(documents: tuple[bytes, ...]) -> tuple[OwnModel, ...]:
    try:
        return tuple(model for each in documents for model in _decode_own(each))
    except UNREADABLE as error:
        raise ValueError(f"the list of models could not be read: {error}") from error


def without_version(base_url: str) -> str:
    """A base URL without the `/v1` at its end."""
    return base_url.rstrip("/").removesuffix("/v1") if urlsplit(base_url).path else base_url
