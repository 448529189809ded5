"""Under which address a caller asked this gateway: for answers that say where more is to be asked for."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from farebox.core.headers import HeaderList

_HOST = re.compile(rb"[A-Za-z0-9.-]{1,253}(?::\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?")
"""What may stand in an address; anything else is not repeated."""


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """`public_url` is the one that callers are told elsewhere, where that is set."""

    public_url: str | None = None

    def told_by(self, headers: HeaderList) -> str:
        """The address as a request's headers tell it (names in lower case), without a path: what a proxy says that it
        was asked, or else what this process was. Told to that caller alone, so nobody else can be misled by it. Empty
        where nothing tells it: then paths stand alone."""
        host = _first(headers, b"x-forwarded-host") or _first(headers, b"host")
        public = (self.public_url or "").rstrip("/")
        if not _HOST.fullmatch(host) or urlsplit(public).netloc.encode() == host:
            return public
        scheme = "https" if _first(headers, b"x-forwarded-proto").lower() == b"https" else "http"
        return f"{scheme}://{host.decode()}"


NO_ADDRESS = OwnAddress()


def _first(headers: HeaderList, name: bytes) -> bytes:
    """The first of a header's values; a proxy before another adds its own behind it."""
    return next((value.partition(b",")[0].strip() for each, value in headers if each == name), b"")
