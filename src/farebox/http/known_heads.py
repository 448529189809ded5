"""Heads that were read before: a client sends the same with each of its orders, but for the length of the body.

So a connection remembers the head of an order that came whole, and where another one comes whole behind the same bytes,
the parser need not read them again: it would read the same. A head holds its caller's key, and is kept no longer than
its connection.
"""

import re

from msgspec import Struct
from msgspec.structs import replace

from farebox.core.headers import HeaderList, RequestHead, read_request_head
from farebox.http.calls import Serve

_LENGTH = b"content-length"
_LENGTH_LINE = re.compile(rb"\r\ncontent-length: ([0-9]{1,15})\r\n", re.IGNORECASE)
_LENGTH_DIGITS_MAX = 15


class KnownHead(Struct, frozen=True):
    """A head: its bytes before the body's length and after it, what the parser read in it, and what serves orders under
    it. `place` is that of the length among the headers."""

    before: bytes
    after: bytes
    url: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    place: int
    head: RequestHead
    serve: Serve

    def body_in(self, data: bytes) -> bytes | None:
        """The body of a request, where `data` is one that is whole, under this head."""
        since = len(self.before)
        until = data.find(b"\r", since, since + _LENGTH_DIGITS_MAX + 1)
        if until < 0 or not data.startswith(self.before) or not data.startswith(self.after, until):
            return None
        length, body = data[since:until], data[until + len(self.after) :]
        return body if length.isdigit() and int(length) == len(body) else None

    def sent_with(self, body: bytes) -> RequestHead:
        """The head of a request with this body."""
        headers = list(self.headers)
        headers[self.place] = (_LENGTH, b"%d" % len(body))
        return replace(self.head, sent=headers)


def known_head(data: bytes, url: bytes, headers: HeaderList, serve: Serve) -> KnownHead | None:
    """The head of a request that came as `data`, in which the parser read `url` and `headers`; None where it did not
    come whole, or is not in plain form."""
    until = data.find(b"\r\n\r\n") + 4
    found = _LENGTH_LINE.search(data, 0, until - 2)
    if found is None or until + int(found[1]) != len(data) or data.count(b"\r\n", 0, until) != len(headers) + 2:
        return None
    place = [name for name, _ in headers].index(_LENGTH)
    before, after = data[: found.start(1)], data[found.end(1) : until]
    return KnownHead(before, after, url, tuple(headers), place, read_request_head(headers), serve)
