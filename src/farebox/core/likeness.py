"""A server-sent event that is like one before: the same to the byte, but for one text within it.

The words of a model come one an event, and nothing else of the event changes. What was found of one, that it is to be
passed on as it came, holds for all that are like it: they need not be read. The one rule: the text is one that no
format reads, and it leaves the JSON around it as it was.
"""

import re
from collections.abc import Callable

from farebox.core.sse import CR, LF

LEARNT_MAX = 8
"""How many events of a stream are learnt, each in the place of the one before. Where every one is different, none are
looked at any longer."""

SIZE_LINES = {len(line) + size + 2: line for size in range(1, 2048) for line in [b"%x\r\n" % size]}
"""What a chunk of a body begins with, by its length together with that and the line end behind it."""

QUOTE, BACKSLASH, COLON = b'"\\:'

PutChunk = Callable[[bytes], bool]
"""Sends on a chunk of a body as it came, its framing with it; or returns False, and nothing was sent."""

_ESCAPED = re.compile(rb'[^"\\\r\n]*(?:\\["\\/bfnrt][^"\\\r\n]*)+').fullmatch
"""A text with escapes (RFC 8259, 7). One with `\\u` is left to who reads the event."""


class Likeness:
    """Knows an event of a stream by what stands before its text and behind it, and passes on, in the chunks that they
    came in, those that are like it.

    `is_between`: all that came before were whole events. `passed`: how many went this way.
    """

    __slots__ = ("_after", "_after_size", "_before", "_learnt", "_put", "_text_begins", "is_between", "passed")

    def __init__(self, text_begins: bytes, put: PutChunk) -> None:
        """`text_begins` is the name of the text's member, and the opening quote: `"content":"`. `put` sends a chunk on,
        or returns False."""
        self._text_begins = text_begins
        self._put = put
        self._before = self._after = b""
        self._after_size = 0
        self._learnt = 0
        self.is_between = True
        self.passed = 0

    def learn(self, event: bytes) -> None:
        """Take a whole event that was passed on as it came, and of which nothing had to be remembered."""
        if self._learnt == LEARNT_MAX:
            return
        # Within a text its quotes would be escaped: behind these bytes a text begins, and ends at the next quote.
        before, begins, rest = event.partition(self._text_begins)
        text, quote, after = rest.partition(b'"')
        is_known = self._after == quote + after + b"\r\n" and self._before == before + begins
        if quote and BACKSLASH not in text and not is_known and event[0] != COLON:
            self._learnt += 1
            self._before, self._after = before + begins, quote + after + b"\r\n"
            self._after_size = len(self._after)

    def passes(self, chunk: bytes, size_line: bytes) -> bool:
        """Pass on a chunk of the body, with the line before it that tells its size and the line end behind it, where
        it holds an event that is like the one that was learnt. False where it does not: nothing was done."""
        if not self._is_like(chunk, size_line) or not self.is_between or not self._put(chunk):
            return False
        self.passed += 1
        return True

    def pass_several(self, chunks: bytes) -> bool:
        """The same of what came in one read, where that is several such chunks: all of them, or none."""
        after, after_size = self._after, self._after_size
        at = count = 0
        while at < len(chunks):
            end = chunks.find(after, at) + after_size
            chunk = chunks[at:end]
            if (size_line := SIZE_LINES.get(len(chunk))) is None or not self._is_like(chunk, size_line):
                return False
            at = end
            count += 1
        if not count or not self.is_between or not self._put(chunks):
            return False
        self.passed += count
        return True

    def _is_like(self, chunk: bytes, size_line: bytes) -> bool:
        after_size = self._after_size
        if not after_size:
            return False
        before = size_line + self._before
        start, end = len(before), len(chunk) - after_size
        if start > end or chunk[:start] != before or chunk[end:] != self._after:
            return False
        text = chunk[start:end]
        return not (QUOTE in text or BACKSLASH in text or LF in text or CR in text) or bool(_ESCAPED(text))
