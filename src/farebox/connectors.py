"""aiohttp on a way out: through forward proxies, and to Apify's platform.

Apart from the ways themselves, and imported only where one of these is asked: aiohttp takes 10 MB, and orders that go
directly to their upstream need nothing of it.
"""

from collections.abc import Mapping
from typing import Any

import aiohttp

from farebox.outgoing import WayOut, why_not_connected


class NoWay(aiohttp.ClientConnectionError):
    """The proxy made no connection: nothing has been sent to the address behind it."""


def connector(way: WayOut, **options: Any) -> aiohttp.TCPConnector:
    """A connector for a session. Through a proxy, all that goes wrong before the request is sent is `NoWay`, or a
    time-out."""
    kind = aiohttp.TCPConnector if way.proxy is None else _ThroughProxy
    return kind(ssl=way.tls or True, **options)


def session_options(way: WayOut) -> Mapping[str, Any]:
    """What a session is made with beside the connector."""
    # What else the environment names is not for here: a password in .netrc, above all.
    if way.proxy is None:
        return {"trust_env": False}
    return {"trust_env": False, "proxy": way.proxy.secret_url}


class _ThroughProxy(aiohttp.TCPConnector):
    async def connect(self, *given: Any, **more: Any) -> Any:
        try:
            return await super().connect(*given, **more)
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise NoWay(_worded(error)) from error


def is_unauthenticated(response: aiohttp.ClientResponse) -> bool:
    """Whether an answer that came through a proxy, without TLS, is the proxy's own: that it wants other credentials. It
    is no answer to the order then. (tinyproxy 1.11.1 says 401 to wrong ones, which callers would take for theirs.)"""
    return response.url.scheme == "http" and (
        response.status == 407 or (response.status == 401 and response.content_type == "text/html")
    )


def unauthenticated(status: int) -> str:
    return f"the proxy on the way to it wants other credentials (status {status})"


def _worded(error: Exception) -> str:
    match error:
        case aiohttp.ClientHttpProxyError(status=401 | 407 as status):
            return unauthenticated(status)
        case aiohttp.ClientHttpProxyError(status=status):
            return f"the proxy on the way to it refused to connect (status {status})"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy on the way to it cannot be reached: {why_not_connected(error.os_error)}"
        case aiohttp.ClientConnectorError():
            return why_not_connected(error.os_error)
        case _:
            return f"the proxy on the way to it broke off, or does not speak HTTP ({type(error).__name__})"
