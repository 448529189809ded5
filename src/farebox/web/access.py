"""Under which names this gateway may be asked, and by whose pages."""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from farebox.core.errors import forbidden
from farebox.http.asgi import Endpoint


@dataclass(frozen=True, slots=True)
class Access:
    """Whom the operator lets in: the hosts that this gateway is asked under (lower case; any where there are none), the
    origins of pages in browsers (`*` for all), and who has the token for metrics. `address` is what it listens on,
    `public_host` the name that it tells callers, where that is set."""

    hosts: frozenset[bytes]
    origins: tuple[str, ...]
    metrics_token: str | None
    address: str
    public_host: str | None

    def is_own_name(self, host: str) -> bool:
        """Whether a host is named in the settings."""
        return host.encode() in self.hosts or host == self.public_host

    def is_foreign_host(self, host: str) -> bool:
        """Whether a `Host` is none of this gateway's names. Without settings nobody knows them, but where it listens on
        this machine alone: then they are this machine's."""
        if not host or self.is_own_name(host):
            return False
        return bool(self.hosts) or (is_loopback(self.address) and not is_loopback(host))

    def is_foreign_origin(self, origin: str, host: str) -> bool:
        """Whether an `Origin` is of a page that may not ask: neither its origin nor its host is in the settings, and
        page and gateway are not both this machine's."""
        if origin in self.origins or "*" in self.origins:
            return False
        try:
            page = urlsplit(origin)
            pages_host = host_in(page.netloc)
        except ValueError:
            return True
        if page.scheme not in ("http", "https") or not pages_host:
            return True
        return not self.is_own_name(pages_host) and not (is_loopback(pages_host) and is_loopback(host))


def of_no_foreign_page(access: Access, endpoint: Endpoint) -> Endpoint:
    """The endpoint, asked under this gateway's own names and from pages that may ask (MCP's transport, 2025-11-25): a
    page elsewhere can give this machine's address a name of its own, and so reach a server that listens here alone (DNS
    rebinding). What is no browser sends no `Origin`."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        host = host_of(scope)
        for origin in _values(scope, b"origin"):
            if access.is_foreign_origin(origin, host):
                raise forbidden(
                    f"origin: pages of {origin[:200]!r} may not ask here; FAREBOX_ALLOWED_ORIGINS says which may"
                )
        await endpoint(scope, receive, send)

    return of_no_foreign_host(access, serve)


def of_no_foreign_host(access: Access, endpoint: Endpoint) -> Endpoint:
    """The endpoint, asked under this gateway's own names."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        host = host_of(scope)
        if access.is_foreign_host(host):
            raise forbidden(
                f"host: this gateway is not known as {host[:200]!r}; FAREBOX_ALLOWED_HOSTS says under which names it is"
            )
        await endpoint(scope, receive, send)

    return serve


def host_of(scope: Scope) -> str:
    """The `Host` header without its port, in lower case; empty where HTTP/1.0 came without one."""
    return host_in(next(iter(_values(scope, b"host")), ""))


def host_in(netloc: str) -> str:
    name, _, port = netloc.rpartition(":")
    return (name if port.isdigit() else netloc).lower()


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for each, value in scope["headers"] if each == name]
