"""An upstream that speaks OpenRouter's API over HTTP: OpenRouter itself, the simulator, or a compatible one."""

from collections.abc import Awaitable, Iterator, Mapping

import msgspec
from msgspec import Raw

from farebox.core.declared import Declared
from farebox.core.fitting import renamed
from farebox.core.formats.mending import encode
from farebox.core.legible import Fields, decode_fields, decoded_or, written
from farebox.core.pricing import PriceList, served_of
from farebox.core.upstream import Filters, ListAnswer, Listing, ListKind, ListQuery
from farebox.deadlines import Deadlines
from farebox.outgoing import DIRECTLY, WayOut
from farebox.upstream.clients import PAGE_SECONDS, clients, own_headers
from farebox.upstream.openrouter_pages import Fetched, OpenRouterPages
from farebox.upstream.replies import HEAD_BYTES_MAX, HEADER_BYTES_MAX, READ_BYTES_MAX, HttpReply

__all__ = ["HEADER_BYTES_MAX", "HEAD_BYTES_MAX", "READ_BYTES_MAX", "HttpReply", "OpenRouter"]


MODEL_LISTS = frozenset((ListKind.MODELS, ListKind.OWN_MODELS, ListKind.EMBEDDING_MODELS))

_decode_text = msgspec.json.Decoder(str).decode


class OpenRouter(OpenRouterPages):
    """Of a caller's request only the body and the given headers go upstream."""

    def __init__(self, declared: Declared, api_key: str | None, deadlines: Deadlines, way: WayOut = DIRECTLY) -> None:
        fields = own_headers({"authorization": f"Bearer {api_key}"} if api_key else {})
        self.declared = declared
        self._page_seconds = min(PAGE_SECONDS, declared.timeouts.first_byte)
        self._orders, self._pages = clients(declared, fields, deadlines, way)

    async def close(self) -> None:
        await self._orders.close()
        await self._pages.close()

    def forward(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> Awaitable[HttpReply]:
        """Send an order to `path` under the base URL. Raises UpstreamUnreachable, UpstreamBroke."""
        if self.declared.names:
            body = renamed(body, self.declared.own_name)
        return self._orders.post(path, body, headers, streamed=streamed)

    def read_prices(self, documents: tuple[bytes, ...]) -> PriceList:
        prices = super().read_prices(documents)
        return served_of(prices, self.declared) if self._is_part else prices

    async def page(self, query: ListQuery) -> ListAnswer:
        answer = await super().page(query)
        if not self._is_part or query.kind not in MODEL_LISTS or not isinstance(answer, Listing):
            return answer
        return Listing(entries=tuple(ours for each in answer.entries for ours in self._ours(each)))

    @property
    def _is_part(self) -> bool:
        """Whether it is declared to serve less than it lists, or under other names."""
        return self.declared.models is not None or bool(self.declared.names)

    def _ours(self, entry: Raw) -> Iterator[Raw]:
        """An entry of a list of models under our names for it, those of them that are served."""
        fields = decoded_or(decode_fields, entry, Fields())
        own = decoded_or(_decode_text, fields.get("id"), "")
        for ours in self.declared.our_names(own):
            if self.declared.may_serve(ours):
                yield entry if ours == own else written({**fields, "id": encode(ours)})

    async def fetch(self, path: str, query: Filters) -> Fetched:
        reply = await self._pages.get(path, query, self._page_seconds)
        try:
            return Fetched(reply.status, await reply.read(), reply.retry_after_seconds)
        finally:
            reply.close()
