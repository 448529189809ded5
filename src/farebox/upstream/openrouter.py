"""An upstream that speaks OpenRouter's API over HTTP: OpenRouter itself, the simulator, or a compatible one."""

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

from farebox import __version__
from farebox.core.upstream import Filters
from farebox.deadlines import Deadlines
from farebox.outgoing import DIRECTLY, WayOut
from farebox.upstream import Timeouts
from farebox.upstream.openrouter_pages import Fetched, OpenRouterPages
from farebox.upstream.pool import Connections
from farebox.upstream.replies import HEAD_BYTES_MAX, HEADER_BYTES_MAX, READ_BYTES_MAX, HttpReply

if TYPE_CHECKING:
    from farebox.upstream.sessions import Session

__all__ = ["HEADER_BYTES_MAX", "HEAD_BYTES_MAX", "READ_BYTES_MAX", "HttpReply", "OpenRouter"]

PAGE_SECONDS = 15
"""Deadline for a list or a record, which no model has to make."""


class OpenRouter(OpenRouterPages):
    """Of a caller's request only the body and the given headers go upstream."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        timeouts: Timeouts,
        deadlines: Deadlines,
        way: WayOut = DIRECTLY,
    ) -> None:
        base_url = base_url.rstrip("/")
        fields = {
            "user-agent": f"farebox/{__version__}",
            "content-type": "application/json",
            "accept-encoding": "identity",
        }
        if api_key:
            fields["authorization"] = f"Bearer {api_key}"
        self._page_seconds = min(PAGE_SECONDS, timeouts.first_byte)
        self._client: Connections | Session
        if way.proxy is None:
            self._client = Connections(base_url, fields, timeouts, deadlines, way)
        else:
            # Only here: who asks directly need not carry aiohttp.
            from farebox.upstream import sessions

            self._client = sessions.Session(base_url, fields, timeouts, deadlines, way)

    async def close(self) -> None:
        await self._client.close()

    def forward(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> Awaitable[HttpReply]:
        """Send an order to `path` under the base URL. Raises UpstreamUnreachable, UpstreamBroke."""
        return self._client.post(path, body, headers, streamed=streamed)

    async def fetch(self, path: str, query: Filters) -> Fetched:
        reply = await self._client.get(path, query, self._page_seconds)
        try:
            return Fetched(reply.status, await reply.read(), reply.retry_after_seconds)
        finally:
            reply.close()
