"""Forms (`multipart/form-data`, RFC 7578), read whole from memory."""

from collections.abc import Callable

from msgspec import Struct

from farebox.core.errors import invalid

PARTS_MAX = 64
TEXT_BYTES_MAX = 1024 * 1024
"""More parts and longer texts than any client sends."""

_ReadOptions = Callable[[bytes], tuple[bytes, dict[bytes, bytes]]]


class Part(Struct):
    """A part of a form. A file has a `filename`; `content_type` is empty where none is said."""

    name: str
    filename: str = ""
    content_type: str = ""
    data: bytes = b""

    def text(self) -> str:
        """Its text. Raises Refusal 400."""
        if len(self.data) > TEXT_BYTES_MAX:
            raise invalid(f"{self.name[:100]}: it is longer than {TEXT_BYTES_MAX} bytes")
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise invalid(f"{self.name[:100]}: it is not UTF-8") from error


def parts_of(body: bytes, content_type: bytes) -> list[Part]:
    """The parts of a form that have a name, in their order. `content_type` is its header's value, with the boundary.

    Raises:
        Refusal: 400, it is no form, or it is cut off.
    """
    # Only here: who gets no forms need not carry it.
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise invalid("content-type: it names no boundary; let the client make it, which also makes the form")
    collected = _Collected(parse_options_header)
    try:
        parser = MultipartParser(boundary, collected.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise invalid(f"the form cannot be read: {error}") from error
    if not collected.is_ended:
        raise invalid("the form is cut off: its last boundary is missing")
    return [part for part in collected.parts if part.name]


class _Collected:
    """What a parser finds."""

    def __init__(self, read_options: _ReadOptions) -> None:
        self._read_options = read_options
        self._data: list[bytes] = []
        self._header = [b"", b""]
        self.parts: list[Part] = []
        self.is_ended = False

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= PARTS_MAX:
            raise invalid(f"the form has more than {PARTS_MAX} parts")
        self.parts.append(Part(""))

    def _add(self, which: int, piece: bytes) -> None:
        self._header[which] += piece

    def _end_header(self) -> None:
        (name, value), self._header = self._header, [b"", b""]
        part = self.parts[-1]
        if name.lower() == b"content-disposition":
            options = self._read_options(value)[1]
            part.name = options.get(b"name", b"").decode("utf-8", "replace")
            part.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        elif name.lower() == b"content-type":
            part.content_type = value.decode("latin-1")

    def _end_part(self) -> None:
        data, self._data = self._data, []
        self.parts[-1].data = data[0] if len(data) == 1 else b"".join(data)

    def _end(self) -> None:
        self.is_ended = True
