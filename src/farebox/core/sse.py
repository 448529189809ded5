"""Server-sent events: bytes in, whole events out, not a byte changed. In this module and in `formats` an *event* is a
server-sent event, not $0.00001.

By the WHATWG event stream grammar: lines end in LF, CR or CRLF in any mix, and an empty line ends an event.
"""

import re

from farebox.core.errors import broken
from farebox.core.reading import without_bom

EVENT_BYTES_MAX = 32 * 1024 * 1024
"""Longest event that is buffered until its end comes. An image travels inside one event, as base64."""

# Atomic groups: a CRLF is one line end and is never taken apart to find a second one in it.
_EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")

_PARTIAL_END_MAX = len(b"\r\n\r")

CR, LF = ord("\r"), ord("\n")
"""A byte is found five times as fast as a text of one byte."""


class EventSplitter:
    """Collects bytes and returns whole events, each with the empty line that ends it."""

    __slots__ = ("_buffer", "_searched", "is_between")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self.is_between = True
        """Whether all that came so far were whole events."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes. All events and `rest`, joined, are the bytes that came in.

        Raises:
            Refusal: an event grew over EVENT_BYTES_MAX.
        """
        if self.is_between and chunk.endswith(b"\n\n") and CR not in chunk:
            return [event + b"\n\n" for event in chunk[:-2].split(b"\n\n")]
        return self._feed_slowly(chunk)

    def _feed_slowly(self, chunk: bytes) -> list[bytes]:
        buffer = self._buffer
        buffer += chunk
        events: list[bytes] = []
        start = 0
        # A CR at the very end may be half a CRLF. The event is whole either way and goes on at once; the LF then begins
        # the next one, as an empty line without meaning.
        for end in _EVENT_END.finditer(buffer, self._searched):
            events.append(bytes(buffer[start : end.end()]))
            start = end.end()
        del buffer[:start]
        self.is_between = not buffer
        self._searched = max(0, len(buffer) - _PARTIAL_END_MAX)
        if len(buffer) > EVENT_BYTES_MAX:
            raise broken(f"the upstream sent an event without end (over {EVENT_BYTES_MAX} bytes)")
        return events

    def rest(self) -> bytes:
        """What came after the last whole event: one whose closing empty line is missing, or nothing."""
        return bytes(self._buffer)


def event_data(event: bytes) -> bytes | None:
    """The data of one event, its lines joined by LF; None when it has no `data` field (comments, `retry:`)."""
    # Nearly always it is one line; of all looks at that, these are the cheapest.
    line = event[6:-2]
    if LF not in line and CR not in line and event[:6] == b"data: ":
        return line
    if event[:7] == b"event: ":
        start = event.find(b"\ndata: ") + 7
        line = event[start:-2]
        if event.find(b"\n") == start - 7 and LF not in line and event[-2:] == b"\n\n" and CR not in event:
            return line
    # Some streams begin with a byte order mark, which is not part of them.
    lines = [line for line in _LINE_END.split(without_bom(event)) if line.startswith(b"data")]
    values = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:") or line == b"data"]
    return b"\n".join(values) if values else None


def event_name(event: bytes) -> bytes | None:
    """An event's type, from its `event` field; None where it has none."""
    lines = [line for line in _LINE_END.split(without_bom(event)) if line.startswith(b"event:")]
    return lines[-1][6:].removeprefix(b" ") if lines else None


def named_event(name: bytes, data: bytes) -> bytes:
    """An event of a type, with this data."""
    return b"event: " + name + b"\n" + data_event(data)


def data_event(data: bytes) -> bytes:
    """An event of this data, one `data` line for each of its lines."""
    return b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"


def comment_event(text: bytes) -> bytes:
    """A comment, which every client skips, to replace an event that some cannot read."""
    return b": " + b" ".join(_LINE_END.split(text)).strip() + b"\n\n"


KEEP_ALIVE = comment_event(b"keep-alive")
"""What stands between two events of a stream that would be silent for too long."""


def ended(rest: bytes) -> bytes:
    """An event with the closing empty line that it lacks: clients drop an event that ends without one."""
    # After a CR, one LF would only make a CRLF of it.
    return rest + (b"\n" if rest.endswith(b"\n") else b"\n\n")
