"""An upstream that speaks OpenRouter's API over HTTP: OpenRouter itself, the simulator, or a compatible one."""

from collections.abc import Awaitable, Iterator, Mapping
from functools import lru_cache

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from farebox.core.declared import Declared
from farebox.core.fitting import renamed
from farebox.core.formats.mending import encode
from farebox.core.legible import Fields, decode_fields, decoded_or, written
from farebox.core.pricing import PriceList, served_of
from farebox.core.upstream import Filters, ListAnswer, Listing, ListKind, ListQuery
from farebox.deadlines import Deadlines
from farebox.outgoing import DIRECTLY, WayOut
from farebox.upstream.clients import PAGE_SECONDS, clients, own_headers
from farebox.upstream.openrouter_pages import JOBS, Fetched, OpenRouterPages
from farebox.upstream.replies import HEAD_BYTES_MAX, HEADER_BYTES_MAX, READ_BYTES_MAX, HttpReply

__all__ = ["HEADER_BYTES_MAX", "HEAD_BYTES_MAX", "READ_BYTES_MAX", "HttpReply", "OpenRouter"]


NAMES_KEPT = 4096
"""Names of models that are remembered under the upstream's own."""

NAMING = {
    ListKind.MODELS: "id",
    ListKind.OWN_MODELS: "id",
    ListKind.EMBEDDING_MODELS: "id",
    ListKind.ZDR_ENDPOINTS: "model_id",
    ListKind.IMAGE_MODELS: "id",
    ListKind.VIDEO_MODELS: "id",
}
"""Lists whose entries name a model, and the member in which they do."""

_decode_text = msgspec.json.Decoder(str).decode
_decode_entries = msgspec.json.Decoder(list[Fields]).decode


class OpenRouter(OpenRouterPages):
    """Of a caller's request only the body and the given headers go upstream."""

    def __init__(self, declared: Declared, api_key: str | None, deadlines: Deadlines, way: WayOut = DIRECTLY) -> None:
        fields = own_headers({"authorization": f"Bearer {api_key}"} if api_key else {})
        self.declared = declared
        self._own_name = lru_cache(NAMES_KEPT)(declared.own_name)
        self._page_seconds = min(PAGE_SECONDS, declared.timeouts.first_byte)
        self._orders, self._pages = clients(declared, fields, deadlines, way)

    async def close(self) -> None:
        await self._orders.close()
        await self._pages.close()

    def forward(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> Awaitable[HttpReply]:
        """Send an order to `path` under the base URL. Raises UpstreamUnreachable, UpstreamBroke."""
        if self.declared.names:
            body = renamed(body, self._own_name)
        return self._orders.post(path, body, headers, streamed=streamed)

    def read_prices(self, documents: tuple[bytes, ...]) -> PriceList:
        prices = super().read_prices(documents)
        return served_of(prices, self.declared) if self._is_part else prices

    async def page(self, query: ListQuery) -> ListAnswer:
        if query.kind in (ListKind.MODEL_ENDPOINTS, ListKind.IMAGE_ENDPOINTS) and self.declared.names:
            named = await super().page(replace(query, model=self.declared.own_name(query.model)))
            return _renamed(named, query.model, tells_model=query.kind is ListKind.MODEL_ENDPOINTS)
        answer = await super().page(query)
        member = NAMING.get(query.kind)
        if not self._is_part or member is None or not isinstance(answer, Listing):
            return answer
        return Listing(entries=tuple(ours for each in answer.entries for ours in self._ours(each, member)))

    @property
    def _is_part(self) -> bool:
        """Whether it is declared to serve less than it lists, or under other names."""
        return self.declared.models is not None or bool(self.declared.names)

    def _ours(self, entry: Raw, member: str) -> Iterator[Raw]:
        """An entry of a list that names a model under our names for it, those of them that are served."""
        fields = decoded_or(decode_fields, entry, Fields())
        own = decoded_or(_decode_text, fields.get(member), "")
        for ours in self.declared.our_names(own):
            if self.declared.may_serve(ours):
                yield entry if ours == own else written({**fields, member: encode(ours)})

    async def fetch(self, path: str, query: Filters) -> Fetched:
        reply = await self._pages.get(path, query, self._page_seconds)
        try:
            return Fetched(reply.status, await reply.read(), reply.retry_after_seconds)
        finally:
            reply.close()

    async def content(self, job_id: str, query: Filters, headers: Mapping[str, str]) -> HttpReply:
        """As `Jobs.content`."""
        path = f"{JOBS}/{job_id}/content"
        return await self._pages.get(path, query, self.declared.timeouts.first_byte, headers)


def _renamed(answer: ListAnswer, model: str, *, tells_model: bool) -> ListAnswer:
    """The endpoints of a model under our name for it, each of which may tell it, too."""
    if not isinstance(answer, Listing):
        return answer
    fields = decoded_or(decode_fields, answer.data, Fields())
    if not tells_model:
        return Listing(data=written({**fields, "id": encode(model)}))
    endpoints = decoded_or(_decode_entries, fields.get("endpoints"), list[Fields]())
    ours = {"endpoints": Raw(msgspec.json.encode([{**each, "model_id": model} for each in endpoints]))}
    return Listing(data=written({**fields, "id": encode(model), **ours}))
