"""aiohttp's client behind the same face as `pool`: for all that goes through a forward proxy."""

from collections.abc import Mapping
from time import monotonic

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from farebox.connectors import NoWay, connector, is_unauthenticated, session_options, unauthenticated
from farebox.core.formats.table import accepted
from farebox.core.upstream import Filters
from farebox.deadlines import NEVER, Deadlines
from farebox.outgoing import WayOut, why_not_connected
from farebox.ports import UpstreamBroke, UpstreamUnreachable
from farebox.upstream import Timeouts
from farebox.upstream.connections import IDLE_SECONDS, UNREAD_BYTES_MAX
from farebox.upstream.pool import NO_HEADERS
from farebox.upstream.replies import HEADERS_MAX, READ_BYTES_MAX, HttpReply


class Session:
    """One pooled session at an upstream. `fields` are the headers of every request."""

    def __init__(
        self, base_url: str, fields: Mapping[str, str], timeouts: Timeouts, deadlines: Deadlines, way: WayOut
    ) -> None:
        self._base_url = base_url
        self._fields = CIMultiDict(fields)
        self._timeouts = timeouts
        self._is_through_proxy = way.proxy is not None
        self._deadlines = deadlines
        self._session = aiohttp.ClientSession(
            # `Admission` bounds the number of orders.
            connector=connector(way, limit=0, keepalive_timeout=IDLE_SECONDS),
            # Cookies would be shared between callers.
            cookie_jar=aiohttp.DummyCookieJar(),
            # `Deadlines` watches what comes after the connection.
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_connect=timeouts.connect),
            read_bufsize=UNREAD_BYTES_MAX,
            max_line_size=READ_BYTES_MAX,
            max_field_size=READ_BYTES_MAX,
            max_headers=HEADERS_MAX,
            # No upstream is asked for compressed answers; one that compresses all the same is read.
            auto_decompress=True,
            **session_options(way),
        )

    async def close(self) -> None:
        await self._session.close()

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> HttpReply:
        """As `Connections.post`."""
        sent = self._fields.copy()
        sent["accept"] = accepted(path, streamed=streamed)
        for name, value in headers.items():
            sent.add(name, value)
        return await self._request("POST", URL(self._base_url + path), sent, body, self._timeouts.first_byte)

    async def get(
        self, path: str, query: Filters, head_seconds: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> HttpReply:
        """As `Connections.get`."""
        url = (URL(self._base_url) / path.lstrip("/")).with_query(query)
        sent = self._fields.copy()
        sent.extend(headers)
        return await self._request("GET", url, sent, None, head_seconds)

    async def _request(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes | None, head_seconds: float
    ) -> HttpReply:
        try:
            async with self._deadlines.within(head_seconds):
                response = await self._session.request(method, url, data=body, headers=headers, allow_redirects=False)
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamUnreachable(f"no connection within {self._timeouts.connect:g} s", timed_out=True) from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamUnreachable(why_not_connected(error.os_error)) from error
        except NoWay as error:
            raise UpstreamUnreachable(str(error)) from error
        except TimeoutError as error:
            raise UpstreamBroke(f"no answer within {head_seconds:g} s") from error
        except aiohttp.ClientError as error:
            raise UpstreamBroke(f"the connection broke before the answer ({type(error).__name__})") from error
        if self._is_through_proxy and is_unauthenticated(response):
            response.close()
            raise UpstreamUnreachable(unauthenticated(response.status))
        return SessionReply(response, self._timeouts.no_data, self._deadlines).accepted()


class SessionReply(HttpReply):
    """An answer whose head is read. While its body is read, `due` is when its silence is too long."""

    __slots__ = ("_content", "_deadlines", "_is_silent", "_no_data_seconds", "_response", "due")

    def __init__(self, response: aiohttp.ClientResponse, no_data_seconds: float, deadlines: Deadlines) -> None:
        super().__init__(response.status, [(name.lower(), value) for name, value in response.raw_headers])
        self._response = response
        self._content = response.content
        self._no_data_seconds = no_data_seconds
        self._deadlines = deadlines
        self._is_silent = False
        self.due = NEVER

    @property
    def is_complete(self) -> bool:
        return self._content.is_eof()

    async def chunk(self) -> bytes:
        # Only waiting here counts as silence: a slow caller is not the upstream's fault.
        self.due = monotonic() + self._no_data_seconds
        self._deadlines.add(self)
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

    def expire(self) -> None:
        self._is_silent = True
        self._response.close()

    def close(self) -> None:
        self._deadlines.discard(self)
        # An answer that was read to its end has given back its connection; another one loses it here.
        self._response.close()
