"""Simulated pictures: each a red pixel, whole or with two partial ones before it. The whole ones tell the cost, and
none tells its generation."""

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from farebox.core.errors import invalid
from farebox.core.formats.envelope import refusal_body as refused
from farebox.core.reading import Number
from farebox.simulator.faults import Faults
from farebox.simulator.made import Made
from farebox.simulator.models import Model
from farebox.simulator.talk import CREATED, PNG, cost_members, data, tokens_of, usage_member

__all__ = ["COMMENT", "MAKES", "Request", "events", "make", "read", "refused", "whole"]

MAKES = "image"
COMMENT = b": OPENROUTER PROCESSING"

PICTURE_TOKENS = 4175
PARTIAL = 2
PICTURES_MAX = 10


class Request(Struct):
    """What the simulator reads."""

    model: str
    prompt: str
    n: Number | None = None
    stream: bool | None = None
    input_references: list[dict[str, Any]] = []

    @property
    def streamed(self) -> bool:
        return self.stream is True


_decode = msgspec.json.Decoder(Request).decode


def read(body: bytes) -> Request:
    request = _decode(body)
    if not request.prompt:
        raise invalid("prompt: must not be empty")
    if request.n is not None and not 1 <= request.n <= PICTURES_MAX:
        raise invalid(f"n: must be between 1 and {PICTURES_MAX}")
    return request


def make(request: Request, model: Model, faults: Faults) -> Made:
    pictures = int(request.n or 1)
    prompt = tokens_of(request.prompt) + 258 * len(request.input_references)
    tokens = PICTURE_TOKENS * pictures
    is_failed = faults.error_at_event is not None or faults.bare_error_at_event is not None
    price = model.cost(prompt, 0, tokens) + Decimal(model.unit) * pictures
    return Made(
        model,
        prompt,
        # All or nothing.
        price=price * (not is_failed),
        tokens=tokens,
        api_type="image",
        pieces_made=pictures,
    )


def _usage(made: Made, faults: Faults) -> dict[str, object]:
    tokens = {"prompt_tokens": made.prompt_tokens, "completion_tokens": made.tokens}
    total = {"total_tokens": made.prompt_tokens + made.tokens}
    return usage_member({**tokens, **total, **cost_members(made, faults, "prompt", "completions")}, faults)


def whole(request: Request, made: Made, generation_id: str, faults: Faults) -> bytes:
    pictures = [{"b64_json": PNG, "media_type": "image/png"}] * made.pieces_made
    return msgspec.json.encode({"created": CREATED, "data": pictures, **_usage(made, faults)})


def events(made: Made, generation_id: str, faults: Faults) -> list[bytes]:
    kind = "image_generation"
    told: list[dict[str, Any]] = []
    for number in range(made.pieces_made):
        told += [
            {"type": f"{kind}.partial_image", "partial_image_index": index, "b64_json": PNG} for index in range(PARTIAL)
        ]
        is_last = number == made.pieces_made - 1
        usage = _usage(made, faults) if is_last else {}
        completed = {"type": f"{kind}.completed", "b64_json": PNG, "created": CREATED, "media_type": "image/png"}
        told.append({**completed, **usage})
    error = {"type": "error", "error": {"code": "server_error", "message": "Simulated failure", "type": "server_error"}}
    if faults.error_at_event is not None:
        told = [*told[: faults.error_at_event], error]
    elif faults.bare_error_at_event is not None:
        bare = {"code": 402, "message": "Simulated: out of credits", "metadata": {}}
        told = [*told[: faults.bare_error_at_event], {"error": bare, "user_id": "user_sim"}]
    ends = faults.no_done or "error" in told[-1]
    return [*map(data, told), *([] if ends else [b"data: [DONE]"])]
