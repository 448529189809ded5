"""Simulated speech: a hum as long as the text, in pieces that stand for words. Its head alone names the generation, and
nothing tells the cost, which is by characters."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import Struct

from farebox.core.errors import invalid
from farebox.core.formats.envelope import refusal_body as refused
from farebox.simulator.faults import Faults
from farebox.simulator.made import Made
from farebox.simulator.models import Model

__all__ = ["MAKES", "Request", "Spoken", "make", "read", "refused", "whole"]

MAKES = "speech"

PIECE_BYTES = 2400
"""A twentieth of a second."""

_TYPES = {"pcm": b"audio/pcm;rate=24000;channels=1", "mp3": b"audio/mpeg"}


class Turn(Struct):
    text: str


class Request(Struct):
    """What the simulator reads."""

    model: str
    input: str | list[Turn]
    response_format: Literal["pcm", "mp3"] = "pcm"
    voice: Any = None
    speed: float | None = None
    streamed: bool = False

    @property
    def text(self) -> str:
        return self.input if isinstance(self.input, str) else " ".join(turn.text for turn in self.input)


@dataclass(frozen=True, slots=True)
class Spoken(Made):
    """Speech, as bytes in `pieces_of` the same length, of a `media_type`."""

    media_type: bytes = b""
    pieces_of: tuple[bytes, ...] = ()


_decode = msgspec.json.Decoder(Request).decode


def read(body: bytes) -> Request:
    request = _decode(body)
    if not request.text:
        raise invalid("input: must not be empty")
    return request


def make(request: Request, model: Model, faults: Faults) -> Spoken:
    text = request.text
    words = max(1, len(text.split())) if faults.tokens is None else faults.tokens
    hum = bytes(round(127 + 100 * math.sin(each / 5)) for each in range(PIECE_BYTES))
    return Spoken(
        model,
        len(text),
        price=model.cost(len(text), 0),
        api_type="tts",
        pieces_made=words,
        is_indivisible=False,
        media_type=_TYPES[request.response_format],
        pieces_of=(hum,) * words,
    )


def whole(request: Request, made: Spoken, generation_id: str, faults: Faults) -> bytes:
    return b"".join(made.pieces_of)
