"""Speech to text, as OpenRouter and OpenAI have it: audio as base64 in JSON, or as a form's file. A form becomes the
JSON that means the same: so two tries of one order are the same bytes, which two forms never are.

Sources: OpenRouter's OpenAPI document (`POST /audio/transcriptions`) and its Python SDK, which has audio at a URL, too.
"""

import binascii
from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from farebox.core.errors import Refusal, invalid
from farebox.core.formats import PASS, Asked, Progress, Seen, Units
from farebox.core.formats.asking import decoded, is_premium, named_models
from farebox.core.formats.audio import UNKNOWN_SECONDS, seconds_ceil
from farebox.core.formats.chat_usage import counting
from farebox.core.formats.describing import USAGE, Described
from farebox.core.formats.envelope import ERROR, error_in_band, refusal_body, typed_refusal
from farebox.core.formats.forms import Part, parts_of
from farebox.core.formats.mending import Amount, drop_nulls, mend_amounts, mend_member, see_whole, seen
from farebox.core.kinds import thousandths
from farebox.core.legible import Fields
from farebox.core.reading import UNREADABLE, is_null
from farebox.core.schemas import NAME, TEXT, object_of, one_of
from farebox.core.sse import KEEP_ALIVE, data_event

__all__ = ["CAPS", "DESCRIBED", "KEEP_ALIVE", "TEXT_BEGINS", "counting", "from_form"]
__all__ += ["capped", "error_event", "read", "refusal_body", "see_answer", "see_event", "typed_refusal"]

CAPS: tuple[str, ...] = ()

TEXT_BEGINS = b""

_ANSWERS = ("json", "verbose_json")


class _Audio(Struct):
    data: str | None = None
    format: str | None = None
    url: str | None = None


class _Request(Struct):
    input_audio: _Audio | None = None
    model: str | None = None
    response_format: str | None = None
    stream: bool | None = None
    provider: Raw | UnsetType = UNSET
    service_tier: str | None = None


_decode_request = msgspec.json.Decoder(_Request).decode


def read(body: bytes) -> Asked:
    request = decoded(_decode_request, body)
    models = named_models(request.model, None)
    audio = request.input_audio
    if audio is None or not (audio.data or audio.url):
        raise invalid(
            "input_audio: give the audio as base64 in `data` and what it is in `format`, or send a form's file"
        )
    if audio.data and not audio.format:
        raise invalid("input_audio.format: say what the audio is: `mp3`, `wav`, ...")
    if request.stream:
        raise invalid("stream: transcriptions are not streamed; leave it out")
    if request.response_format not in (None, *_ANSWERS):
        raise invalid(f"response_format: {' or '.join(_ANSWERS)}, not {request.response_format[:40]!r}")
    seconds = UNKNOWN_SECONDS if not audio.data else seconds_ceil(audio.data, (audio.format or "").lower())
    return Asked(
        models=models,
        answers=0,
        prompt_bytes=len(body) - len(audio.data or ""),
        is_premium=is_premium(models, request.service_tier, request.provider),
        units=Units(audio_seconds=seconds),
    )


def capped(body: bytes, answer_tokens: int) -> bytes:
    """The body as it is: there is no cap to set."""
    return body


# A form

_NUMBERS = ("temperature",)
_FLAGS = ("stream", "diarize")
_ONCE = ("model", "language", "prompt", "response_format", *_NUMBERS, *_FLAGS)
_LISTS = ("timestamp_granularities", "keyterms", "include")
_JSON = ("provider", "trace", "chunking_strategy")
"""Members that are no text in the JSON, and how they are written in a form: a list's name may end in `[]`."""

_KINDS: Mapping[str, str] = MappingProxyType(
    {"mpeg": "mp3", "mpga": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "x-m4a": "m4a", "mp4": "m4a"}
    | {"x-flac": "flac", "opus": "ogg", "oga": "ogg"}
)
"""Formats by their other names, in file names and types."""


def from_form(body: bytes, content_type: bytes) -> bytes:
    """The JSON of an order that came as a form. Raises Refusal 400: it is none, or it has no file, or more than one."""
    parts = parts_of(body, content_type)
    files = [part for part in parts if part.name == "file"]
    urls = [part for part in parts if part.name == "source_url"]
    if len(files) + len(urls) != 1:
        found = f"there are {len(files)}" if files else "there is none"
        raise invalid(f"file: send the audio as one file in a part of this name; {found}")
    order: dict[str, object] = {}
    for part in parts:
        name = part.name.removesuffix("[]")
        if name in _LISTS:
            listed = order.setdefault(name, [])
            assert isinstance(listed, list)
            listed.append(part.text())
        elif name not in ("file", "source_url"):
            if name in order and name in _ONCE:
                raise invalid(f"{name}: it stands twice in the form")
            order[name] = _value(name, part)
    if urls:
        order["input_audio"] = {"url": urls[0].text()}
    else:
        data = binascii.b2a_base64(files[0].data, newline=False).decode()
        order["input_audio"] = {"data": data, "format": _kind(files[0])}
        if not data:
            raise invalid("file: it is empty")
    return msgspec.json.encode(order)


def _value(name: str, part: Part) -> object:
    text = part.text()
    try:
        if name in _NUMBERS or name in _FLAGS:
            return msgspec.json.decode(text.lower(), type=bool if name in _FLAGS else float)
        if name in _JSON and text.lstrip().startswith(("{", "[")):
            return Raw(msgspec.json.format(text.encode(), indent=-1))
    except UNREADABLE as error:
        raise invalid(f"{name}: {text[:40]!r} is none") from error
    return text


def _kind(part: Part) -> str:
    """What audio is, by its file's name or else its type. Raises Refusal 400."""
    _, dot, ending = part.filename.rpartition(".")
    kind = (ending if dot else part.content_type.partition(";")[0].partition("/")[2]).strip().lower()
    if not kind or kind == "octet-stream":
        raise invalid("file: say what it is, by a name such as `speech.mp3` or a type such as `audio/mpeg`")
    return _KINDS.get(kind, kind)


# An answer


class _Usage(Struct):
    cost: Amount | UnsetType = UNSET
    seconds: float | UnsetType = UNSET
    input_tokens: int | UnsetType = UNSET
    output_tokens: int | UnsetType = UNSET
    total_tokens: int | UnsetType = UNSET

    @property
    def prompt_tokens(self) -> int | None:
        return None if self.input_tokens is UNSET else self.input_tokens

    @property
    def answer_tokens(self) -> int | None:
        return None if self.output_tokens is UNSET else self.output_tokens


class _Whole(Struct):
    text: str
    usage: Raw | UnsetType = UNSET


_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode


def see_event(event: bytes, progress: Progress) -> Seen:
    """Transcriptions are never streamed. Should an upstream stream them, the events go on as they are."""
    return PASS


def see_answer(body: bytes) -> Seen:
    """Without `usage`, its cost is unknown."""
    return see_whole(body, "text", _read_answer, _mend_answer)


def _read_answer(text: bytes, repaired: bytes | None) -> Seen:
    whole = _decode_whole(text)
    found = seen(UNSET, "", whole.usage, _decode_usage, repaired)
    seconds = UNSET if whole.usage is UNSET else _decode_usage(whole.usage).seconds
    return found if seconds is UNSET else replace(found, units=thousandths(seconds))


def _mend_answer(fields: Fields) -> None:
    absent = [name for name, value in fields.items() if name != "text" and is_null(value)]
    drop_nulls(fields, *absent)
    mend_member(fields, "usage", _mend_usage)


def _mend_usage(usage: Fields) -> None:
    drop_nulls(usage, *_Usage.__struct_fields__)
    mend_amounts(usage)


def error_event(refusal: Refusal, progress: Progress) -> bytes:
    return data_event(msgspec.json.encode({"error": error_in_band(refusal)}))


_BASE64 = {"type": "string", "format": "byte", "minLength": 4}

DESCRIBED = Described(
    "Transcriptions",
    request=(
        "TranscriptionRequest",
        object_of(
            {"model": NAME, "input_audio": object_of({"data": _BASE64, "format": NAME})},
            {"response_format": one_of(" ".join(_ANSWERS))},
        ),
    ),
    answer=("Transcription", object_of({"text": TEXT}, USAGE)),
    refusal=ERROR,
    example={"model": "sim/scribe", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    is_streamed=False,
    operation="transcription",
    from_form=from_form,
    answered_with="transcription",
)
