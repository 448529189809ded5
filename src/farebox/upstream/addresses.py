"""Where requests go: an upstream's base URL, taken apart, and what is asked for below it.

Nearly every URL has nothing in it that must be quoted or read with care. All others are left to yarl, which is not
loaded before: with what it needs it is a megabyte.
"""

import re

from msgspec import Struct

from farebox.core.upstream import Filters

_BASE = re.compile(
    r"(https?)://((?:[a-z0-9-]+\.)*[a-z0-9-]+)(?::([1-9][0-9]{0,4}))?((?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?)"
)
_PATH = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_VALUE = re.compile(r"[A-Za-z0-9._-]*")

_PORTS = {"http": 80, "https": 443}
_PORT_MAX = 65_535


class Base(Struct, frozen=True):
    """A base URL: `host` is a name or an address, `host_field` what the header says, and `path` has no slash behind."""

    url: str
    is_secured: bool
    host: str
    port: int
    host_field: str
    path: str

    def target(self, path: str, query: Filters = ()) -> str:
        """What a request for a path below it asks for."""
        plain = self.path + path
        if not _PATH.fullmatch(plain) or not all(_VALUE.fullmatch(part) for pair in query for part in pair):
            return _quoted(self, path, query)
        return f"{plain}?{'&'.join(f'{name}={value}' for name, value in query)}" if query else plain


def base_of(url: str) -> Base:
    """Raises ValueError: it is no URL."""
    plain = _BASE.fullmatch(url)
    if plain is None:
        return _read(url)
    scheme, host, port, path = plain.groups()
    usual = _PORTS[scheme]
    number = int(port) if port else usual
    if number > _PORT_MAX:
        raise ValueError(f"there is no port {number}")
    host_field = host if number == usual else f"{host}:{number}"
    return Base(url, scheme == "https", host, number, host_field, path.rstrip("/"))


def _read(url: str) -> Base:
    # Only here: who needs none of it need not carry it.
    from yarl import URL

    read = URL(url)
    host = read.raw_host
    if host is None:
        raise ValueError("it names no host")
    is_secured = read.scheme == "https"
    return Base(url, is_secured, host, read.port or 0, read.host_port_subcomponent or "", read.raw_path.rstrip("/"))


def _quoted(base: Base, path: str, query: Filters) -> str:
    from yarl import URL

    target = URL(base.url) / path.lstrip("/")
    return (target.with_query(query) if query else target).raw_path_qs
