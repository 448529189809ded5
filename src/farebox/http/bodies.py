"""Reading a request's body within bounds: of bytes, also unpacked, and of time."""

import zlib
from collections.abc import Callable, Mapping

from farebox.core.errors import invalid, too_large, too_slow, wrong_type
from farebox.core.formats.describing import FromForm
from farebox.core.headers import RequestHead
from farebox.core.reading import without_bom
from farebox.deadlines import Deadlines
from farebox.http.calls import Body

_JSON = b"application/json"
_FORM = b"multipart/form-data"
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


class BodyReader:
    """Reads the bodies of requests: at most `bytes_max` bytes of each, also once unpacked, within `seconds`."""

    def __init__(self, bytes_max: int, seconds: float, deadlines: Deadlines) -> None:
        self._bytes_max = bytes_max
        self._seconds = seconds
        self._deadlines = deadlines

    def shorter(self, bytes_max: int) -> "BodyReader":
        """A reader of at most so many bytes, under the same deadline."""
        return BodyReader(bytes_max, self._seconds, self._deadlines)

    async def read_json(self, body: Body, head: RequestHead) -> bytes:
        """A body of JSON (not parsed here), unpacked and without a byte order mark.

        Raises:
            Refusal: 415, it is said to be something else than JSON; else as `read`.
            CallerGone: as `read`.
        """
        if head.media_type not in (_JSON, b"") and not head.media_type.endswith(b"+json"):
            raise wrong_type(
                f"content-type: send application/json, not {head.media_type[:80].decode('latin-1')!r}"
                " (curl needs `-H 'Content-Type: application/json'`)"
            )
        # Nearly every order comes in one piece.
        whole = None if head.encoding else body.came(self._bytes_max)
        if whole is None:
            whole = await self.read(body, head)
        body.is_read = True
        return without_bom(whole)

    async def read_json_or_form(self, body: Body, head: RequestHead, *, from_form: FromForm) -> bytes:
        """As `read_json`; of a form, the JSON that `from_form` makes of it. Raises Refusal, CallerGone as both."""
        if head.media_type != _FORM:
            return await self.read_json(body, head)
        return from_form(await self.read(body, head), head.first(b"content-type"))

    async def read(self, body: Body, head: RequestHead) -> bytes:
        """A body of any type, unpacked.

        Raises:
            Refusal: 415, it is packed in another way than gzip, deflate or brotli; 413, it is longer than `bytes_max`;
                408, it took longer than `seconds`; 400, it cannot be unpacked.
            CallerGone: the caller hung up before all of it had come.
        """
        unpack = _UNPACKERS.get(head.encoding)
        if unpack is None and head.encoding not in (b"", b"identity"):
            raise wrong_type(
                f"content-encoding: send gzip, deflate, br or none, not {head.encoding[:80].decode('latin-1')!r}"
            )
        for name, value in body.headers:
            if name == b"content-length" and value.isdigit() and int(value) > self._bytes_max:
                raise too_large(f"The body has {int(value)} bytes; at most {self._bytes_max} are read")
        try:
            async with self._deadlines.within(self._seconds):
                whole = await _collect(body, self._bytes_max, unpack and unpack(self._bytes_max))
        except TimeoutError as error:
            raise too_slow(f"The body did not arrive within {self._seconds:g} s") from error
        body.is_read = True
        return whole


async def _collect(body: Body, bytes_max: int, unpacker: "_Unpacker | _BrotliUnpacker | None") -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        part, is_last = await body.part()
        if unpacker is not None:
            part = unpacker.feed(part)
        size += len(part)
        if size > bytes_max:
            raise too_large(f"The body is longer than {bytes_max} bytes")
        if is_last:
            if unpacker is not None:
                unpacker.finish()
            return b"".join((*parts, part)) if parts else part
        parts.append(part)


class _Unpacker:
    """Unpacks gzip, and deflate with or without its header (clients send both), to at most a byte over the bound."""

    def __init__(self, bytes_max: int) -> None:
        self._room = bytes_max + 1
        self._inflate: zlib._Decompress | None = None

    def feed(self, part: bytes) -> bytes:
        if not part or self._room <= 0:
            return b""
        if self._inflate is None:
            has_header = part[0] == 0x1F or part[0] & 0x0F == 8
            self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP if has_header else _RAW_DEFLATE)
        try:
            unpacked = self._inflate.decompress(part, self._room)
        except zlib.error as error:
            raise invalid(f"content-encoding: the body cannot be unpacked ({error})") from error
        if self._inflate.unused_data:
            raise invalid("content-encoding: something follows the packed body's end")
        self._room -= len(unpacked)
        return unpacked

    def finish(self) -> None:
        if self._inflate is None or (self._room > 0 and not self._inflate.eof):
            raise invalid("content-encoding: the packed body ends too early")


class _BrotliUnpacker:
    """Unpacks brotli, within the same bound."""

    def __init__(self, bytes_max: int) -> None:
        self._room = bytes_max + 1
        # Only here: who is sent nothing that is packed so need not carry it.
        import brotli

        self._inflate = brotli.Decompressor()
        self._failure: type[Exception] = brotli.error

    def feed(self, part: bytes) -> bytes:
        unpacked: list[bytes] = []
        try:
            if part and self._inflate.is_finished():
                raise invalid("content-encoding: something follows the packed body's end")
            while self._room > 0 and (part or not self._inflate.can_accept_more_data()):
                piece: bytes = self._inflate.process(part, output_buffer_limit=self._room)
                part = b""
                self._room -= len(piece)
                unpacked.append(piece)
                if self._inflate.is_finished():
                    break
        except self._failure as error:
            raise invalid(f"content-encoding: the body cannot be unpacked ({error})") from error
        return b"".join(unpacked)

    def finish(self) -> None:
        if self._room > 0 and not self._inflate.is_finished():
            raise invalid("content-encoding: the packed body ends too early")


_UNPACKERS: Mapping[bytes, Callable[[int], _Unpacker | _BrotliUnpacker]] = {
    **dict.fromkeys((b"gzip", b"x-gzip", b"deflate"), _Unpacker),
    b"br": _BrotliUnpacker,
}
