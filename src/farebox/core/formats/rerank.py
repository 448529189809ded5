"""OpenRouter's rerank: documents put into the order in which they answer a query. It is never streamed.

Sources: OpenRouter's OpenAPI document (`POST /rerank`) and what its SDKs reject; Cohere's pages on search units.
"""

from typing import ClassVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field
from msgspec.structs import replace

from farebox.core.errors import Refusal, invalid
from farebox.core.formats import PASS, Asked, Progress, Seen, Units
from farebox.core.formats.asking import count, decoded, is_premium, named_models
from farebox.core.formats.chat_usage import rerank_counting as counting
from farebox.core.formats.describing import CAP, Described
from farebox.core.formats.envelope import ERROR, error_in_band, refusal_body, typed_refusal
from farebox.core.formats.mending import Amount, drop_nulls, fill, mend_amounts, mend_each, mend_member, see_whole, seen
from farebox.core.formats.widening import widened_bytes
from farebox.core.legible import Fields
from farebox.core.reading import Many, Number
from farebox.core.schemas import NAME, NUMBER, OBJECT, TEXT, array_of, object_of, or_null
from farebox.core.sse import KEEP_ALIVE, data_event

__all__ = ["CAPS", "DESCRIBED", "KEEP_ALIVE", "TEXT_BEGINS"]
__all__ += ["capped", "counting", "error_event", "read", "refusal_body", "see_answer", "see_event", "typed_refusal"]

CAPS: tuple[str, ...] = ()

TEXT_BEGINS = b""

UNIT_CHUNKS = 100
CHUNK_TOKENS = 500
"""A search unit is a query over at most so many documents; one that is longer than so many tokens, together with the
query, counts as several (Cohere's pages on pricing)."""

_DOCUMENT = {"oneOf": [TEXT, object_of({}, {"text": TEXT, "image": TEXT})]}

DESCRIBED = Described(
    "Rerank",
    request=(
        "RerankRequest",
        object_of({"model": NAME, "query": NAME, "documents": array_of(_DOCUMENT, minItems=1)}, {"top_n": CAP}),
    ),
    answer=(
        "Reranked",
        object_of({"model": TEXT, "results": array_of(OBJECT)}, {"usage": object_of({}, {"cost": or_null(NUMBER)})}),
    ),
    refusal=ERROR,
    example={"model": "sim/reranker", "query": "Hello", "documents": ["Hello", "there"]},
    is_streamed=False,
    operation="rerank",
    answered_with="rerank",
)


class _Document(Struct):
    text: str | None = None
    image: str | None = None


class _Request(Struct):
    query: str = ""
    documents: Many[str | _Document] = []
    model: str | None = None
    top_n: Number | None = None
    provider: Raw | UnsetType = UNSET
    service_tier: str | None = None


_decode_request = msgspec.json.Decoder(_Request).decode


def read(body: bytes) -> Asked:
    request = decoded(_decode_request, body)
    models = named_models(request.model, None)
    if not request.query:
        raise invalid("query: give the text that the documents are to answer")
    if not request.documents:
        raise invalid("documents: it is empty; give a list of texts, or of objects with `text` or `image`")
    if request.top_n is not None:
        count("top_n", request.top_n)
    texts = [each if isinstance(each, str) else each.text or "" for each in request.documents]
    pictures = [each.image for each in request.documents if isinstance(each, _Document) and each.image]
    query_bytes = _bytes(request.query)
    documents = len(texts)
    # Each document is read together with the query.
    text_bytes = sum(map(_bytes, texts)) + documents * query_bytes
    chunks = documents + text_bytes // CHUNK_TOKENS
    return Asked(
        models=models,
        answers=0,
        prompt_bytes=max(text_bytes, len(body) - sum(map(len, pictures))),
        images=len(pictures),
        prompts=documents,
        is_premium=is_premium(models, request.service_tier, request.provider),
        units=Units(search_units=-(-chunks // UNIT_CHUNKS)),
    )


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace")) + widened_bytes(text)


def capped(body: bytes, answer_tokens: int) -> bytes:
    """The body as it is: there is no cap to set."""
    return body


class _Usage(Struct):
    prompt_tokens: int | None = field(name="total_tokens", default=None)
    search_units: int | UnsetType = UNSET
    cost: Amount | UnsetType = UNSET
    answer_tokens: ClassVar[None] = None


class _Ranked(Struct):
    index: int
    relevance_score: Amount
    document: Raw


class _Whole(Struct):
    model: str
    results: list[_Ranked]
    id: str | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode


def see_event(event: bytes, progress: Progress) -> Seen:
    """Documents are never streamed. Should an upstream stream them, the events go on as they are."""
    return PASS


def see_answer(body: bytes) -> Seen:
    """Without `usage`, its cost is unknown."""
    return see_whole(body, "results", _read_answer, _mend_answer)


def _read_answer(text: bytes, repaired: bytes | None) -> Seen:
    whole = _decode_whole(text)
    found = seen(whole.id, whole.model, whole.usage, _decode_usage, repaired)
    units = UNSET if whole.usage is UNSET else _decode_usage(whole.usage).search_units
    return found if units is UNSET else replace(found, units=units)


def _mend_answer(fields: Fields) -> None:
    drop_nulls(fields, "usage", "id", "provider")
    fill(fields, model="")
    # Hosts that are asked for no documents give none back; OpenRouter's SDKs demand one of each.
    fields["results"] = mend_each(fields["results"], lambda ranked, _: fill(ranked, document={}))
    mend_member(fields, "usage", _mend_usage)


def _mend_usage(usage: Fields) -> None:
    drop_nulls(usage, "cost", "search_units", "total_tokens")
    mend_amounts(usage)


def error_event(refusal: Refusal, progress: Progress) -> bytes:
    return data_event(msgspec.json.encode({"error": error_in_band(refusal)}))
