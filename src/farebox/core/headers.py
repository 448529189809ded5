"""Which headers pass, to the upstream and back: an allow list of those that concern the order or its answer.

All others stay here: credentials, identities at other services (`OpenAI-Organization`, `anthropic-workspace-id`), and
what describes a client's machine or network (`X-Stainless-*`, `X-Forwarded-For`).
"""

from msgspec import Struct
from msgspec.structs import replace

HeaderList = list[tuple[bytes, bytes]]

_REQUEST = frozenset(
    {b"http-referer", b"x-title", b"x-session-id", b"x-anthropic-beta", b"anthropic-beta", b"anthropic-version"}
)
_REQUEST_PREFIX = b"x-openrouter-"

END_USER = b"x-farebox-end-user"
"""Names the end user of an order; what the body says of that counts less."""

TAGS = b"x-farebox-tags"
"""The cost centres of an order."""

_READ = frozenset(
    {b"authorization", b"x-api-key", b"user-agent", b"idempotency-key", b"content-type", b"content-encoding"}
    | {b"x-stainless-retry-count", b"x-farebox-cache", b"x-farebox-fare", END_USER, TAGS}
)

# An upstream's `Retry-After` passes unchanged, however long: clients treat it as if they had asked the upstream.
_RESPONSE = frozenset({b"x-generation-id", b"retry-after", b"retry-after-ms"})
_RESPONSE_PREFIXES = (b"x-ratelimit-", b"x-openrouter-")

HOPS = b"x-farebox-hops"
"""Through how many gateways of this kind an order came: each says 1 for itself, and one more than it was told."""

FARE_WISHES = frozenset({b"", b"comment"})
"""What `X-Farebox-Fare` may be: with `comment` a stream tells its fare in a last comment."""

HOPS_MAX = 4
"""An order that came through so many goes in a circle."""

LEFT_OUT = b"x-farebox-left-out"
"""Names the members of an order that its upstream did not get, since they cannot be said there."""

PROXIED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
"""What a request carries that a proxy passed on."""

LASTING = PROXIED | {b"traceparent", b"tracestate"}
"""What is asked for until the order's end: of the others, nothing is kept while a stream goes on."""

NOT_IN_VALUES = bytes({*range(32), 127} - {ord("\t")})
"""The characters that no header's value may have (RFC 9110, 5.5)."""

VALUE_BYTES_MAX = 2048
HEADERS_BYTES_MAX = 6144
"""How much of an upstream's headers passes: of one header's value, and of all together. Some clients refuse an answer
whose head is longer than 8 KiB."""


class RequestHead(Struct, frozen=True):
    """What Farebox reads of a request's headers, and what it forwards of them.

    `tokens` are the credentials sent, the likeliest first; `client` is the `User-Agent`; absent headers are empty.
    `sent` has all headers as they came; those of LASTING once a stream has begun.
    """

    tokens: tuple[str, ...] = ()
    forwarded: dict[str, str] = {}
    client: str = ""
    idempotency_key: bytes = b""
    media_type: bytes = b""
    encoding: bytes = b""
    retry_count: bytes = b""
    cache: bytes = b""
    hops: int = 0
    sent: HeaderList = []
    fare: bytes = b""
    end_user: bytes = b""
    tags: bytes = b""

    def first(self, name: bytes) -> bytes:
        """The first value of a header (its name in lower case); empty where it was not sent."""
        return next((value for each, value in self.sent if each == name), b"")


def read_request_head(headers: HeaderList) -> RequestHead:
    """Read a request's headers (names in lower case) in one pass.

    Tokens come from `Authorization: Bearer` (in any case, spaces around the token ignored) and `x-api-key`: clients use
    either, and some send a dummy in the other.
    """
    read: dict[bytes, bytes] = {}
    forwarded: dict[str, str] = {}
    hops = 0
    for name, value in headers:
        if name in _READ:
            read[name] = value.strip()
        elif name in _REQUEST or name.startswith(_REQUEST_PREFIX):
            key, text = name.decode("latin-1"), value.decode("latin-1")
            # Several lines of one name are one list (RFC 9110, 5.3).
            forwarded[key] = f"{forwarded[key]}, {text}" if key in forwarded else text
        elif name == HOPS:
            hops = max(hops, int(value) if value.isdigit() and len(value) < 6 else 1)
            forwarded[HOPS.decode()] = str(hops + 1)
    first = read.get
    scheme, _, bearer = first(b"authorization", b"").partition(b" ")
    tokens: tuple[str, ...] = ()
    if scheme.lower() == b"bearer" and (token := bearer.strip()):
        tokens = (token.decode("latin-1"),)
    if token := first(b"x-api-key", b""):
        tokens = (*tokens, token.decode("latin-1"))
    head = RequestHead(
        tokens,
        forwarded,
        first(b"user-agent", b"").decode("latin-1"),
        first(b"idempotency-key", b""),
        first(b"content-type", b"").partition(b";")[0].rstrip().lower(),
        first(b"content-encoding", b"").lower(),
        first(b"x-stainless-retry-count", b""),
        first(b"x-farebox-cache", b""),
        hops,
        headers,
        first(b"x-farebox-fare", b""),
    )
    if END_USER in read or TAGS in read:
        return replace(head, end_user=first(END_USER, b""), tags=first(TAGS, b""))
    return head


def is_sound(value: bytes) -> bool:
    """Whether a header may have this value."""
    return value == value.translate(None, NOT_IN_VALUES)


def sound(headers: HeaderList) -> HeaderList:
    """These headers without those whose values none may have: nobody could be sent them. Of a type, only parameters."""
    # One look at all of them together costs as much as one at each.
    if is_sound(b"".join([value for _, value in headers])):
        return headers
    bare = [(name, value.partition(b";")[0] if name == b"content-type" else value) for name, value in headers]
    return [header for header in bare if is_sound(header[1])]


def response_headers(headers: HeaderList) -> HeaderList:
    """Those of an upstream's headers that pass to the caller, names in lower case, within the two bounds above."""
    passed: HeaderList = []
    size = 0
    for name, value in headers:
        lower = name.lower()
        if lower in _RESPONSE or lower.startswith(_RESPONSE_PREFIXES):
            passed.append((lower, value))
            size += len(name) + len(value)
    return passed if size <= VALUE_BYTES_MAX else _shortened(passed)


def _size(headers: HeaderList) -> int:
    return sum(len(name) + len(value) for name, value in headers)


def _shortened(headers: HeaderList) -> HeaderList:
    """As many as fit, the generation's id before all others: without it the caller could not look up its order."""
    kept: HeaderList = []
    for header in sorted(headers, key=lambda header: header[0] not in _RESPONSE):
        if len(header[1]) <= VALUE_BYTES_MAX and _size([*kept, header]) <= HEADERS_BYTES_MAX:
            kept.append(header)
    return [header for header in headers if header in kept]
