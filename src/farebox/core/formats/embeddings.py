"""OpenAI's embeddings, as OpenRouter speaks them. They are never streamed.

Sources: OpenRouter's OpenAPI document (EmbeddingsRequest, CreateEmbeddingsResponse), and tests of what its SDKs reject.
"""

from typing import ClassVar, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.errors import Refusal, invalid
from farebox.core.formats import PASS, Asked, Progress, Seen
from farebox.core.formats.asking import Attributing, attributed, decoded, is_premium, named_models
from farebox.core.formats.bounds import NOTHING_ELSE
from farebox.core.formats.chat_strict import StrictCostDetails, mend_cost_details
from farebox.core.formats.chat_usage import embeddings_counting as counting
from farebox.core.formats.describing import USAGE, Described
from farebox.core.formats.envelope import ERROR, error_in_band, refusal_body, typed_refusal
from farebox.core.formats.mending import (
    Amount,
    drop_nulls,
    encode,
    fill,
    mend_amounts,
    mend_each,
    mend_member,
    see_whole,
    seen,
)
from farebox.core.formats.widening import widened_bytes
from farebox.core.legible import Fields, decoded_or
from farebox.core.reading import UNREADABLE, Many, Number, as_whole, is_null, json_path_error
from farebox.core.schemas import NAME, OBJECT, TEXT, array_of, object_of, one_of
from farebox.core.sse import KEEP_ALIVE, data_event

__all__ = ["CAPS", "DESCRIBED", "KEEP_ALIVE", "TEXT_BEGINS"]
__all__ += ["capped", "counting", "error_event", "read", "refusal_body", "see_answer", "see_event", "typed_refusal"]

TEXT_BEGINS = b""

CAPS: tuple[str, ...] = ()

_TOKENS = array_of({"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, minItems=1)

DESCRIBED = Described(
    "Embeddings",
    request=(
        "EmbeddingsRequest",
        object_of(
            {"model": NAME, "input": {"oneOf": [NAME, array_of(NAME, minItems=1), _TOKENS]}},
            {"encoding_format": one_of("float base64")},
        ),
    ),
    answer=("Embeddings", object_of({"model": TEXT, "object": TEXT, "data": array_of(OBJECT)}, {"id": TEXT, **USAGE})),
    refusal=ERROR,
    example={"model": "sim/embedder", "input": "Hello"},
    is_streamed=False,
    operation="embeddings",
    answered_with="embeddings",
)


class _Request(Attributing):
    input: Raw | UnsetType = UNSET
    model: str | None = None
    service_tier: str | None = None
    provider: Raw | UnsetType = UNSET
    models: Raw | UnsetType = UNSET
    route: Raw | UnsetType = UNSET


class _Part(Struct):
    type: str
    image_url: Raw | UnsetType = UNSET
    text: str | None = None


class _Multimodal(Struct):
    content: Many[_Part]


_decode_request = msgspec.json.Decoder(_Request).decode
_Inputs = Many[str | int | list[int] | _Multimodal]
"""Several prompts, or the tokens of one."""

_decode_input = msgspec.json.Decoder(str | _Inputs).decode
_decode_numbers = msgspec.json.Decoder(Many[Number | list[Number]]).decode


def read(body: bytes) -> Asked:
    request = decoded(_decode_request, body)
    models = named_models(request.model, None)
    if request.input is UNSET or is_null(request.input):
        raise invalid("input: give a text or a list of texts")
    inputs = _read_inputs(request.input)
    if not inputs or any(each in ("", []) for each in inputs):
        raise invalid("input: it is empty; give at least one text, none of them empty")
    parts = [part for each in inputs if isinstance(each, _Multimodal) for part in each.content]
    pictures = [part.image_url for part in parts if part.type == "image_url" and isinstance(part.image_url, Raw)]
    widened = sum(widened_bytes(each) for each in inputs if isinstance(each, str) and not each.isascii())
    widened += sum(widened_bytes(part.text or "") for part in parts)
    # A list of numbers is the tokens of one prompt.
    is_one = isinstance(inputs[0], int)
    found = Asked(
        models=models,
        answers=0,
        prompt_bytes=len(body) - sum(len(bytes(picture)) for picture in pictures) + widened,
        images=len(pictures),
        prompts=1 if is_one else len(inputs),
        prompt_is_open=any(part.type not in ("text", "image_url") for part in parts),
        is_premium=is_premium(models, request.service_tier, request.provider),
        has_wishes=any(each is not UNSET for each in (request.provider, request.models, request.route)),
        inputs=frozenset(("image",)) if pictures else NOTHING_ELSE,
    )
    return found if request.user is UNSET and request.metadata is UNSET else attributed(request, found)


def _read_inputs(raw: Raw) -> _Inputs:
    try:
        read: str | _Inputs = _decode_input(raw)
        return [read] if isinstance(read, str) else read
    except UNREADABLE as error:
        tokens = _whole_tokens(raw)
        if tokens is None:
            raise invalid(f"input: {json_path_error(error).removeprefix('the body: ')}") from error
        return tokens


def _whole_tokens(raw: Raw) -> _Inputs | None:
    """Prompts given as tokens, some of them written like `1.0`; None where it is anything else."""
    numbers = decoded_or(_decode_numbers, raw, None)
    prompts = (each if isinstance(each, list) else [each] for each in numbers or [])
    if numbers is None or any(as_whole(token) is None for prompt in prompts for token in prompt):
        return None
    return [[int(token) for token in each] if isinstance(each, list) else int(each) for each in numbers]


def capped(body: bytes, answer_tokens: int) -> bytes:
    """The body as it is: there is no cap to set."""
    return body


class _PromptDetails(Struct):
    text_tokens: int | UnsetType = UNSET
    image_tokens: int | UnsetType = UNSET
    audio_tokens: int | UnsetType = UNSET
    video_tokens: int | UnsetType = UNSET
    file_tokens: int | UnsetType = UNSET


class _Usage(Struct):
    prompt_tokens: int
    total_tokens: int
    cost: Amount | UnsetType = UNSET
    is_byok: bool | UnsetType = UNSET
    prompt_tokens_details: _PromptDetails | UnsetType = UNSET
    cost_details: StrictCostDetails | None | UnsetType = UNSET
    answer_tokens: ClassVar[None] = None


class _Vector(Struct):
    object: Literal["embedding"]
    embedding: Raw
    index: int | UnsetType = UNSET


class _Whole(Struct):
    object: Literal["list"]
    model: str
    data: list[_Vector]
    id: str | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode


def see_event(event: bytes, progress: Progress) -> Seen:
    """Embeddings are never streamed. Should an upstream stream them, the events go on as they are."""
    return PASS


def see_answer(body: bytes) -> Seen:
    """Without `usage`, its cost is unknown."""
    return see_whole(body, "data", _read_answer, _mend_answer)


def _read_answer(text: bytes, repaired: bytes | None) -> Seen:
    whole = _decode_whole(text)
    return seen(whole.id, whole.model, whole.usage, _decode_usage, repaired)


def _mend_answer(fields: Fields) -> None:
    fields["object"] = encode("list")
    fields["data"] = mend_each(
        fields["data"], lambda vector, position: fill(vector, object="embedding", index=position)
    )
    drop_nulls(fields, "usage", "id")
    mend_member(fields, "usage", _mend_usage)


def _mend_usage(usage: Fields) -> None:
    # Unlike a chat answer's, a cost that is null breaks the SDK here.
    drop_nulls(usage, "cost", "is_byok", "prompt_tokens_details")
    mend_amounts(usage)
    fill(usage, prompt_tokens=0, total_tokens=0)
    names = _PromptDetails.__struct_fields__
    mend_member(usage, "prompt_tokens_details", lambda details: drop_nulls(details, *names))
    mend_member(usage, "cost_details", mend_cost_details)


def error_event(refusal: Refusal, progress: Progress) -> bytes:
    return data_event(msgspec.json.encode({"error": error_in_band(refusal)}))
