"""Simulated embeddings: vectors that depend on the text alone, as numbers or packed."""

import base64
import hashlib
import struct
from typing import Any

import msgspec
from msgspec import Struct

from farebox.core.errors import invalid
from farebox.core.formats.envelope import refusal_body as refused
from farebox.core.reading import Number, as_whole
from farebox.simulator.faults import Faults
from farebox.simulator.models import Model
from farebox.simulator.talk import Said, cost_members, tokens_of

__all__ = ["MAKES", "Request", "embed", "read", "refused", "whole"]

MAKES = "embeddings"

DIMENSIONS = 8
DIMENSIONS_MAX = 4096


class Request(Struct):
    """What the simulator reads."""

    input: str | list[str | Number | list[Number] | dict[str, Any]]
    model: str
    dimensions: Number | None = None
    encoding_format: str = "float"


_decode = msgspec.json.Decoder(Request).decode


def read(body: bytes) -> Request:
    request = _decode(body)
    if not request.input:
        raise invalid("input: must not be empty")
    wanted = request.dimensions
    if wanted is not None and not (0 < wanted <= DIMENSIONS_MAX and as_whole(wanted)):
        raise invalid(f"dimensions: must be between 1 and {DIMENSIONS_MAX}")
    if request.encoding_format not in ("float", "base64"):
        raise invalid("encoding_format: must be float or base64")
    return request


def embed(request: Request, model: Model) -> Said:
    """The vectors of what was given, one for each."""
    given = request.input
    inputs: list[Any] = given if isinstance(given, list) and not isinstance(given[0], Number) else [given]
    size = int(request.dimensions or DIMENSIONS)
    tokens = sum(len(each) if isinstance(each, list) else tokens_of(str(each)) for each in inputs)
    return Said(model, tokens, vectors=tuple(_vector(str(each), size) for each in inputs))


def _vector(text: str, size: int) -> list[float]:
    drawn = hashlib.shake_256(text.encode()).digest(2 * size)
    # Halves and quarters of small numbers: the same in four bytes as in eight.
    return [(value - 32768) / 32768 for (value,) in struct.iter_unpack(">H", drawn)]


def whole(request: Request, said: Said, generation_id: str, faults: Faults) -> bytes:
    is_packed = request.encoding_format == "base64"
    data = [
        {"object": "embedding", "embedding": _packed(vector) if is_packed else vector, "index": index}
        for index, vector in enumerate(said.vectors)
    ]
    usage = {
        "prompt_tokens": said.prompt_tokens,
        "total_tokens": said.prompt_tokens,
        **cost_members(said, faults, "prompt", "completions"),
    }
    body: dict[str, object] = {"object": "list", "data": data, "model": said.model.id, "usage": usage}
    if faults.usage in ("missing", "is-null"):
        del body["usage"]
    return msgspec.json.encode({"id": generation_id, **body})


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
