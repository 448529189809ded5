"""Which headers pass, each way. What is not named here does not: neither a caller's credentials nor the operator's."""

from collections.abc import Iterable

HeaderList = list[tuple[bytes, bytes]]

_REQUEST = frozenset({b"http-referer", b"x-title", b"x-session-id", b"x-anthropic-beta"})
_REQUEST_PREFIX = b"x-openrouter-"

_RESPONSE = frozenset({b"x-generation-id", b"retry-after", b"retry-after-ms"})
_RESPONSE_PREFIXES = (b"x-ratelimit-", b"x-openrouter-")


def read_request_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, dict[str, str]]:
    """One pass over a request's headers (names in lower case): the caller's token, and the headers to forward.

    The token is that of `Authorization: Bearer` (any case, spaces around it ignored), else `x-api-key`.
    """
    bearer: bytes | None = None
    api_key: bytes | None = None
    forwarded: dict[str, str] = {}
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                bearer = token.strip()
        elif name == b"x-api-key":
            api_key = value.strip()
        elif name in _REQUEST or name.startswith(_REQUEST_PREFIX):
            forwarded[name.decode("latin-1")] = value.decode("latin-1")
    found = bearer or api_key
    return (found.decode("latin-1") if found else None), forwarded


def response_headers(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """An upstream's headers that the caller may see, names in lower case."""
    return [
        (lower, value)
        for name, value in headers
        if (lower := name.lower()) in _RESPONSE or lower.startswith(_RESPONSE_PREFIXES)
    ]
