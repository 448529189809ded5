"""An upstream that speaks OpenRouter's API over HTTP: OpenRouter itself, the simulator, or a compatible one."""

from collections.abc import Mapping
from itertools import chain
from time import monotonic

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from farebox import __version__
from farebox.core.headers import HeaderList, response_headers
from farebox.core.upstream import Filters
from farebox.deadlines import NEVER, Deadlines
from farebox.outgoing import DIRECTLY, NoWay, WayOut, is_unauthenticated, unauthenticated, why_not_connected
from farebox.ports import UpstreamBroke, UpstreamUnreachable
from farebox.upstream import Timeouts
from farebox.upstream.openrouter_pages import Fetched, OpenRouterPages

ANSWER_BYTES_MAX = 128 * 1024 * 1024
"""Longest whole answer read: several 4K images as base64."""

PAGE_SECONDS = 15
"""Deadline for a list or a record, which no model has to make."""

_READ_BYTES = 256 * 1024

HEADER_BYTES_MAX = 64 * 1024
HEAD_BYTES_MAX = 256 * 1024
"""The longest header, and the longest head, of an answer that is accepted: eight times what clients and proxies allow
by default, for upstreams that put a policy or a trace there."""

READ_BYTES_MAX = 2 * 1024 * 1024
HEADERS_MAX = 128
"""How much of a header is read, and how many headers of a head. That is more than is accepted, to find the generation's
id in a head that is too long: the order's cost is asked for under it. Both together bound a head's memory."""

IDLE_SECONDS = 4
"""How long an idle connection is kept: less than servers keep theirs (uvicorn and Node, the shortest: 5 s). An order
that is sent while the other side closes is lost, and cannot be sent again."""


class OpenRouter(OpenRouterPages):
    """One pooled session. Of a caller's request only the body and the given headers go upstream."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        timeouts: Timeouts,
        deadlines: Deadlines,
        way: WayOut = DIRECTLY,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeouts = timeouts
        self._is_through_proxy = way.proxy is not None
        self._deadlines = deadlines
        self._urls: dict[str, URL] = {}
        self._headers = CIMultiDict({"content-type": "application/json", "accept-encoding": "identity"})
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._session = aiohttp.ClientSession(
            # `Admission` bounds the number of orders.
            connector=way.connector(limit=0, keepalive_timeout=IDLE_SECONDS),
            # Cookies would be shared between callers.
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": f"farebox/{__version__}"},
            # `Deadlines` watches what comes after the connection.
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_connect=timeouts.connect),
            read_bufsize=_READ_BYTES,
            max_line_size=READ_BYTES_MAX,
            max_field_size=READ_BYTES_MAX,
            max_headers=HEADERS_MAX,
            # No upstream is asked for compressed answers; one that compresses all the same is read.
            auto_decompress=True,
            **way.session,
        )

    async def close(self) -> None:
        await self._session.close()

    async def forward(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> "HttpReply":
        """Send an order to `path` under the base URL. Raises UpstreamUnreachable, UpstreamBroke."""
        sent = self._headers.copy()
        sent["accept"] = "text/event-stream" if streamed else "application/json"
        for name, value in headers.items():
            sent.add(name, value)
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._base_url + path)
        return await self._request("POST", url, sent, body, self._timeouts.first_byte)

    async def fetch(self, path: str, query: Filters) -> Fetched:
        url = (URL(self._base_url) / path.lstrip("/")).with_query(query)
        reply = await self._request("GET", url, self._headers, None, min(PAGE_SECONDS, self._timeouts.first_byte))
        try:
            return Fetched(reply.status, await reply.read(), reply.retry_after_seconds)
        finally:
            reply.close()

    async def _request(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes | None, head_seconds: float
    ) -> "HttpReply":
        try:
            async with self._deadlines.within(head_seconds):
                response = await self._session.request(method, url, data=body, headers=headers, allow_redirects=False)
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamUnreachable(f"no connection within {self._timeouts.connect:g} s", timed_out=True) from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamUnreachable(why_not_connected(error)) from error
        except NoWay as error:
            raise UpstreamUnreachable(str(error)) from error
        except TimeoutError as error:
            raise UpstreamBroke(f"no answer within {head_seconds:g} s") from error
        except aiohttp.ClientError as error:
            raise UpstreamBroke(f"the connection broke before the answer ({type(error).__name__})") from error
        if 300 <= response.status < 400:
            response.close()
            raise UpstreamUnreachable(f"it redirects elsewhere (status {response.status}); check the upstream's URL")
        if self._is_through_proxy and is_unauthenticated(response):
            response.close()
            raise UpstreamUnreachable(unauthenticated(response.status))
        # A refusal is accepted even so: it says that nothing was charged.
        if response.status < 300 and _is_too_long(response):
            response.close()
            raise UpstreamBroke("the answer's head is longer than is read", _generation_id(response))
        return HttpReply(response, self._timeouts.no_data, self._deadlines)


def _is_too_long(response: aiohttp.ClientResponse) -> bool:
    size = sum(map(len, chain.from_iterable(response.raw_headers)))
    if size <= HEADER_BYTES_MAX:
        return False
    return size > HEAD_BYTES_MAX or any(len(value) > HEADER_BYTES_MAX for _, value in response.raw_headers)


def _generation_id(response: aiohttp.ClientResponse) -> str | None:
    return response.headers.get("x-generation-id")


class HttpReply:
    """An answer whose head is read. While its body is read, `due` is when its silence is too long."""

    __slots__ = ("_content", "_deadlines", "_is_silent", "_no_data_seconds", "_response", "due", "generation_id")

    def __init__(self, response: aiohttp.ClientResponse, no_data_seconds: float, deadlines: Deadlines) -> None:
        self._response = response
        self._content = response.content
        self._no_data_seconds = no_data_seconds
        self._deadlines = deadlines
        self._is_silent = False
        self.generation_id = _generation_id(response)
        self.due = NEVER
        deadlines.add(self)

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def content_type(self) -> str:
        return self._response.content_type

    @property
    def headers(self) -> HeaderList:
        return response_headers(self._response.raw_headers)

    @property
    def retry_after_seconds(self) -> float | None:
        text = self._response.headers.get("retry-after", "")
        return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None

    @property
    def is_complete(self) -> bool:
        return self._content.is_eof()

    async def chunk(self) -> bytes:
        # Only waiting here counts as silence: a slow caller is not the upstream's fault.
        self.due = monotonic() + self._no_data_seconds
        try:
            return await self._content.readany()
        except aiohttp.ClientError as error:
            # aiohttp raises the same object for every closed response. It would collect all their tracebacks and keep
            # alive what their frames hold: 4 KB for each hang-up.
            cause = error.with_traceback(None)
            if self._is_silent:
                raise UpstreamBroke(f"nothing came for {self._no_data_seconds:g} s") from cause
            raise UpstreamBroke("the connection broke before the answer's end") from cause
        finally:
            self.due = NEVER

    async def read(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := await self.chunk():
            parts.append(part)
            size += len(part)
            if size > ANSWER_BYTES_MAX:
                self.close()
                raise UpstreamBroke(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def expire(self) -> None:
        self._is_silent = True
        self._response.close()

    def close(self) -> None:
        self._deadlines.discard(self)
        # An answer that was read to its end has given back its connection; another one loses it here.
        self._response.close()
