"""Text to speech, as OpenRouter and OpenAI have it: the answer is audio, which goes on as it comes, and says nothing of
its cost: that is asked for by the generation's id, which stands in the head.

Sources: OpenRouter's OpenAPI document (`POST /audio/speech`) and its Python SDK, which has the turns of several
speakers, too.
"""

import math

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.errors import Refusal, invalid
from farebox.core.formats import PASS, Asked, Progress, Seen, Units
from farebox.core.formats.asking import decoded, is_premium, named_models
from farebox.core.formats.audio import UNKNOWN_SECONDS, seconds_ceil
from farebox.core.formats.chat_usage import counting
from farebox.core.formats.describing import Described
from farebox.core.formats.envelope import ERROR, error_in_band, failure, refusal_body, typed_refusal
from farebox.core.formats.mending import cost_before_the_break, cost_in
from farebox.core.legible import decode_fields
from farebox.core.reading import UNREADABLE, Many, Number, skip_to_json
from farebox.core.schemas import NAME, array_of, object_of
from farebox.core.sse import KEEP_ALIVE, data_event

__all__ = ["CAPS", "DESCRIBED", "KEEP_ALIVE", "TEXT_BEGINS", "counting"]
__all__ += ["capped", "error_event", "read", "refusal_body", "see_answer", "see_event", "typed_refusal"]

CAPS: tuple[str, ...] = ()

TEXT_BEGINS = b""

SLOWEST = 0.1
"""A lower `speed` is none: hosts take 0.25 and more."""

_TURN = object_of({"text": NAME})

DESCRIBED = Described(
    "Speech",
    request=(
        "SpeechRequest",
        object_of(
            {"model": NAME, "input": {"oneOf": [NAME, array_of(_TURN, minItems=1)]}},
            {"speed": {"type": "number", "minimum": SLOWEST, "nullable": True}},
        ),
    ),
    answer=("Speech", {"type": "string", "format": "binary"}),
    refusal=ERROR,
    example={"model": "sim/voice", "input": "Hello"},
    is_streamed=False,
    operation="text_to_speech",
    gives_bytes=True,
    media="audio/*",
    answered_with="speech",
)


class _Turn(Struct):
    text: str


class _Sample(Struct):
    data: str = ""
    format: str = ""


class _Reference(Struct):
    input_audio: _Sample | None = None
    image_url: Raw | UnsetType = UNSET


class _Request(Struct):
    input: str | Many[_Turn] = ""
    model: str | None = None
    speed: Number | None = None
    input_references: list[_Reference] | None = None
    provider: Raw | UnsetType = UNSET
    service_tier: str | None = None


_decode_request = msgspec.json.Decoder(_Request).decode


def read(body: bytes) -> Asked:
    request = decoded(_decode_request, body)
    models = named_models(request.model, None)
    texts = [request.input] if isinstance(request.input, str) else [turn.text for turn in request.input]
    if not any(texts):
        raise invalid("input: give the text that is to be spoken")
    speed = 1 if request.speed is None else request.speed
    if speed < SLOWEST:
        raise invalid(f"speed: {speed} is none; it is 1 where it is left out, and less for slower speech")
    given = request.input_references or []
    samples = [each.input_audio for each in given if each.input_audio is not None]
    pictures = [each.image_url for each in given if isinstance(each.image_url, Raw)]
    spoken = sum(len(text.encode(errors="replace")) for text in texts)
    return Asked(
        models=models,
        answers=0,
        prompt_bytes=len(body) - sum(len(each.data) for each in samples) - sum(len(bytes(each)) for each in pictures),
        images=len(pictures),
        is_premium=is_premium(models, request.service_tier, request.provider),
        units=Units(
            characters=math.ceil(spoken / min(1, speed)),
            audio_seconds=sum(
                seconds_ceil(each.data, each.format) if each.data else UNKNOWN_SECONDS for each in samples
            ),
        ),
        used=sum(map(len, texts)),
    )


def capped(body: bytes, answer_tokens: int) -> bytes:
    """The body as it is: there is no cap to set."""
    return body


def see_event(event: bytes, progress: Progress) -> Seen:
    """Some hosts can stream speech in events, which tell no cost."""
    return PASS


def see_answer(body: bytes) -> Seen:
    """JSON in the place of audio is an error, whatever its status."""
    try:
        fields = decode_fields(skip_to_json(body))
    except UNREADABLE:
        return Seen(cost=cost_before_the_break(body), failure=failure(None, "the upstream's answer is no audio"))
    return Seen(cost=cost_in(fields), failure=failure(fields.get("error"), "the upstream's answer is no audio"))


def error_event(refusal: Refusal, progress: Progress) -> bytes:
    return data_event(msgspec.json.encode({"error": error_in_band(refusal)}))
