"""Packed answers, although none is asked for: unpacked piece by piece, so that a few bytes cannot fill the memory."""

import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

from farebox.ports import UpstreamBroke
from farebox.upstream.replies import HttpReply

PIECE_BYTES = 256 * 1024
"""How much is unpacked at a time; brotli's may be twice as much."""

MEMBERS_MAX = 1024
"""How many members of gzip an answer may be packed in."""

_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


class Unpacker(Protocol):
    """Raises UpstreamBroke: what came cannot be unpacked."""

    def feed(self, packed: bytes) -> None: ...

    def piece(self) -> bytes:
        """Some of what can be unpacked so far; b"" where that was all."""

    def finish(self) -> None:
        """There is no more to feed."""


class UnpackedReply(HttpReply):
    """An answer, its body unpacked."""

    __slots__ = ("_packed", "_unpacker")

    def __init__(self, packed: HttpReply, unpacker: Unpacker) -> None:
        # Its head is the packed one's.
        for name in HttpReply.__slots__:
            setattr(self, name, getattr(packed, name))
        self._packed = packed
        self._unpacker = unpacker

    @property
    def is_complete(self) -> bool:
        return self._packed.is_complete

    async def chunk(self) -> bytes:
        while not (data := self._unpacker.piece()):
            packed = await self._packed.chunk()
            if not packed:
                self._unpacker.finish()
                return b""
            self._unpacker.feed(packed)
        return data

    def close(self) -> None:
        self._packed.close()


def unpacked(reply: HttpReply) -> HttpReply:
    """The reply, or one that unpacks it."""
    encoding = reply.content_encoding
    if not encoding or (unpacker := _UNPACKERS.get(encoding.strip().lower())) is None:
        return reply
    return UnpackedReply(reply, unpacker())


class _Inflate:
    """gzip, of one member or several, and deflate with or without its header."""

    def __init__(self) -> None:
        self._inflate: zlib._Decompress | None = None
        self._packed = b""
        self._members = 0

    def feed(self, packed: bytes) -> None:
        self._packed += packed

    def piece(self) -> bytes:
        while True:
            if self._inflate is None:
                if not self._packed:
                    return b""
                self._inflate = self._next_member()
            try:
                data = self._inflate.decompress(self._packed, PIECE_BYTES)
            except zlib.error as error:
                raise _broke() from error
            self._packed = self._inflate.unconsumed_tail
            if self._inflate.eof:
                self._packed = self._inflate.unused_data
                self._inflate = None
            if data or self._inflate is not None:
                return data

    def _next_member(self) -> "zlib._Decompress":
        self._members += 1
        if self._members > MEMBERS_MAX:
            raise _broke()
        has_header = self._packed[0] == 0x1F or self._packed[0] & 0x0F == 8
        return zlib.decompressobj(_ZLIB_OR_GZIP if has_header else _RAW_DEFLATE)

    def finish(self) -> None:
        if self._inflate is not None:
            raise _broke()


class _Brotli:
    def __init__(self) -> None:
        # Only here: who is sent nothing that is packed so need not carry it.
        import brotli

        self._inflate = brotli.Decompressor()
        self._failure: type[Exception] = brotli.error
        self._packed = b""
        self._has_begun = False

    def feed(self, packed: bytes) -> None:
        self._packed += packed
        self._has_begun = True

    def piece(self) -> bytes:
        if not self._has_begun or self._inflate.is_finished():
            return b""
        packed, self._packed = self._packed, b""
        try:
            data: bytes = self._inflate.process(packed, output_buffer_limit=PIECE_BYTES)
        except self._failure as error:
            raise _broke() from error
        return data

    def finish(self) -> None:
        if self._has_begun and not self._inflate.is_finished():
            raise _broke()


def _broke() -> UpstreamBroke:
    return UpstreamBroke("the answer is packed, and cannot be unpacked")


_UNPACKERS: Mapping[bytes, Callable[[], Unpacker]] = {
    **dict.fromkeys((b"gzip", b"x-gzip", b"deflate"), _Inflate),
    b"br": _Brotli,
}
