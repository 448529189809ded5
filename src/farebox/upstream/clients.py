"""The two clients of an upstream over HTTP: for orders, and for all else that it is asked."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from farebox import __version__
from farebox.core.declared import Declared
from farebox.core.headers import HOPS
from farebox.deadlines import Deadlines
from farebox.outgoing import WayOut
from farebox.upstream.pool import Connections

if TYPE_CHECKING:
    from farebox.upstream.sessions import Session

Client: TypeAlias = "Connections | Session"

PAGE_SECONDS = 15
"""Deadline for a list or a record, which no model has to make."""


def own_headers(credentials: Mapping[str, str]) -> dict[str, str]:
    """The headers of every request to an upstream."""
    return {
        "user-agent": f"farebox/{__version__}",
        "content-type": "application/json",
        "accept-encoding": "identity",
        HOPS.decode(): "1",
        **credentials,
    }


def clients(
    declared: Declared,
    fields: Mapping[str, str],
    deadlines: Deadlines,
    way: WayOut,
    *,
    base_url: str | None = None,
    page_fields: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Client, Client]:
    """The client for orders and the one for pages, which have `page_fields` besides: connections of our own or, through
    a forward proxy, aiohttp's."""
    url = (base_url or declared.base_url).rstrip("/")
    make: type[Client] = Connections
    if way.proxy is not None:
        # Only here: who asks directly need not carry aiohttp.
        from farebox.upstream.sessions import Session

        make = Session
    orders = make(url, fields, declared.timeouts, deadlines, way)
    return orders, make(url, {**fields, **page_fields}, declared.timeouts, deadlines, way) if page_fields else orders
