"""Simulated transcripts: how long the audio is, said in words. Charged by the second."""

import binascii
from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import Raw, Struct, field

from farebox.core.errors import invalid
from farebox.core.formats.envelope import refusal_body as refused
from farebox.core.formats.transcriptions import from_form
from farebox.simulator.faults import Faults
from farebox.simulator.made import Made
from farebox.simulator.models import Model
from farebox.simulator.talk import cost_number

__all__ = ["MAKES", "Request", "from_form", "make", "read", "refused", "whole"]

MAKES = "transcription"

BYTES_PER_SECOND = 16_000
"""What a second of audio weighs, where its head does not say otherwise: 128 kbit/s."""

_WAV_RATE_AT = 28


class Audio(Struct):
    data: str
    format: str


class Request(Struct):
    """What the simulator reads."""

    model: str
    audio: Audio = field(name="input_audio")
    response_format: Literal["json", "verbose_json"] = "json"
    streamed: bool = False


_decode = msgspec.json.Decoder(Request).decode


def read(body: bytes) -> Request:
    request = _decode(body)
    try:
        if not binascii.a2b_base64(request.audio.data, strict_mode=True):
            raise invalid("input_audio.data: must not be empty")
    except binascii.Error as error:
        raise invalid(f"input_audio.data: {error}") from error
    return request


def _seconds(audio: bytes) -> Decimal:
    """To a tenth, as hosts tell it."""
    per_second = BYTES_PER_SECOND
    if audio[:4] == b"RIFF" and len(audio) > _WAV_RATE_AT + 4:
        per_second = int.from_bytes(audio[_WAV_RATE_AT : _WAV_RATE_AT + 4], "little") or per_second
    return max(Decimal("0.1"), round(Decimal(len(audio)) / per_second, 1))


def make(request: Request, model: Model, faults: Faults) -> Made:
    seconds = _seconds(binascii.a2b_base64(request.audio.data))
    return Made(
        model,
        0,
        price=(Decimal(model.prompt) + Decimal(model.unit)) * seconds,
        tokens=int(seconds) + 1,
        api_type="stt",
        units=(("seconds", Raw(str(seconds).encode())),),
    )


def whole(request: Request, made: Made, generation_id: str, faults: Faults) -> bytes:
    ((_, seconds),) = made.units
    assert isinstance(seconds, Raw)
    text = f"You said something for {bytes(seconds).decode()} seconds."
    usage = {"seconds": seconds, "input_tokens": 9, "output_tokens": made.tokens, "total_tokens": made.tokens + 9}
    body: dict[str, object] = {"text": text, "usage": {**usage, "cost": Raw(cost_number(made, faults))}}
    if request.response_format == "verbose_json":
        segments = [{"id": 0, "start": 0, "end": seconds, "text": text}]
        body |= {"task": "transcribe", "language": "en", "duration": seconds, "segments": segments}
    if faults.usage in ("missing", "is-null"):
        del body["usage"]
    return msgspec.json.encode(body)
