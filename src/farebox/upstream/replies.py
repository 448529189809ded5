"""An upstream's answer over HTTP: its head, read once and within bounds, and its body, however that comes."""

from abc import ABC, abstractmethod
from functools import lru_cache
from itertools import chain
from typing import Self

from farebox.core.headers import HeaderList, is_sound, response_headers, sound
from farebox.core.likeness import Likeness
from farebox.ports import Take, UpstreamBroke, UpstreamUnreachable

ANSWER_BYTES_MAX = 128 * 1024 * 1024
"""Longest whole answer read: several 4K images as base64."""

HEADER_BYTES_MAX = 64 * 1024
HEAD_BYTES_MAX = 256 * 1024
"""The longest header, and the longest head, of an answer that is accepted: eight times what clients and proxies allow
by default, for upstreams that put a policy or a trace there."""

READ_BYTES_MAX = 2 * 1024 * 1024
HEADERS_MAX = 128
"""How much of a head is read, and how many headers. That is more than is accepted, to find the generation's id in a
head that is too long: the order's cost is asked for under it."""

_MEDIA = ("audio/", "video/", "image/")
_TEXTS = frozenset({"application/json", "text/event-stream"})

ABOUT_BYTES = frozenset(
    {b"content-type", b"content-length", b"content-range", b"accept-ranges", b"content-disposition"}
    | {b"etag", b"last-modified"}
)
"""What an answer's head says of bytes that are passed on as they are."""

NO_TYPE = b"application/octet-stream"
"""What an answer is that does not say what it is (RFC 9110, 8.3)."""


_TYPE = (b"content-type", b"content-disposition")
"""The part of it that holds for bytes however they are packed."""


class HttpReply(ABC):
    """A `Reply` over HTTP, its head read. Subclasses give the body."""

    __slots__ = (
        "about_bytes",
        "adds_usage",
        "content_encoding",
        "content_type",
        "generation_id",
        "headers",
        "is_head_too_long",
        "request_id",
        "retry_after",
        "status",
    )

    def __init__(self, status: int, headers: HeaderList) -> None:
        """`headers` have their names in lower case. Kept are only those that pass: a stream may go on for long."""
        # What is no status (RFC 9110, 15) counts as a fault of the server's.
        self.status = status if 100 <= status < 600 else 502
        self.is_head_too_long = _is_too_long(headers)
        headers = sound(headers)
        self.headers = response_headers(headers)
        # Of several headers of one name the first counts.
        first = dict(reversed(headers)).get
        content_type = first(b"content-type", NO_TYPE)
        self.content_type = _type_of(content_type)
        self.content_encoding = first(b"content-encoding", b"")
        self.about_bytes: HeaderList = []
        if self.content_type not in _TEXTS:
            if self.content_type.startswith(_MEDIA):
                # Its parameters say how it is to be played.
                self.headers.append((b"content-type", content_type))
            unpacked = self.content_encoding in (b"", b"identity")
            about = ABOUT_BYTES if unpacked else _TYPE
            self.about_bytes = [each for each in headers if each[0] in about]
        self.retry_after = first(b"retry-after", b"")
        self.generation_id = first(b"x-generation-id", b"").decode("latin-1") or None
        self.request_id = first(b"x-request-id", b"")
        self.adds_usage = False

    @property
    def retry_after_seconds(self) -> float | None:
        text = self.retry_after
        return float(text) if text.isdigit() and len(text) < 6 else None

    def accepted(self) -> Self:
        """This reply. Raises UpstreamUnreachable, UpstreamBroke: one with such a head is not taken."""
        if self.status >= 400:
            # However long its head is: it says that nothing was charged.
            return self
        if self.status < 200:
            self.close()
            raise UpstreamBroke(f"it answered with the status {self.status}, which ends nothing", self.generation_id)
        if self.status >= 300:
            self.close()
            raise UpstreamUnreachable(f"it redirects elsewhere (status {self.status}); check the upstream's URL")
        if self.is_head_too_long:
            self.close()
            raise UpstreamBroke("the answer's head is longer than is read", self.generation_id)
        return self

    @property
    @abstractmethod
    def is_complete(self) -> bool: ...

    @abstractmethod
    async def chunk(self) -> bytes: ...

    @abstractmethod
    def close(self) -> None: ...

    async def pour(self, take: Take, likeness: Likeness | None = None) -> None:
        while data := await self.chunk():
            waiting = take(data)
            if waiting is not None:
                await waiting

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


@lru_cache(maxsize=16)
def _type_of(value: bytes) -> str:
    """The type that a header names, without its parameters."""
    return value.partition(b";")[0].strip().lower().decode("latin-1")


def generation_id_in(headers: HeaderList) -> str | None:
    """The generation's id in a head, or in what came of one."""
    for name, value in headers:
        if name == b"x-generation-id" and value and is_sound(value):
            return value.decode("latin-1")
    return None


def _is_too_long(headers: HeaderList) -> bool:
    size = sum(map(len, chain.from_iterable(headers)))
    if size <= HEADER_BYTES_MAX:
        return False
    return size > HEAD_BYTES_MAX or any(len(value) > HEADER_BYTES_MAX for _, value in headers)
