"""Simulated reranking: the documents that share most words with the query come first. Charged by search units."""

import re
from dataclasses import dataclass
from decimal import Decimal

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import invalid
from farebox.core.formats.envelope import refusal_body as refused
from farebox.core.reading import Number
from farebox.simulator.faults import Faults
from farebox.simulator.made import Made
from farebox.simulator.models import Model
from farebox.simulator.talk import cost_number, tokens_of

__all__ = ["MAKES", "Request", "make", "read", "refused", "whole"]

MAKES = "rerank"

DOCUMENTS_MAX = 100
"""Documents in a search unit."""


class Document(Struct):
    text: str = ""
    image: str = ""


class Request(Struct):
    """What the simulator reads."""

    model: str
    query: str
    documents: list[str | Document]
    top_n: Number | None = None
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Ranked(Made):
    """Each document's place in the order, and its score."""

    ranked: tuple[tuple[int, float], ...] = ()


_decode = msgspec.json.Decoder(Request).decode


def read(body: bytes) -> Request:
    request = _decode(body)
    if not request.documents:
        raise invalid("documents: must not be empty")
    return request


def make(request: Request, model: Model, faults: Faults) -> Ranked:
    texts = [each if isinstance(each, str) else each.text for each in request.documents]
    wanted = set(_words(request.query))
    scores = [round((1 + len(wanted & set(_words(text)))) / (1 + len(wanted)), 4) for text in texts]
    places = sorted(range(len(texts)), key=lambda place: -scores[place])
    shown = places[: int(request.top_n)] if request.top_n else places
    units = -(-len(texts) // DOCUMENTS_MAX)
    return Ranked(
        model,
        tokens_of(request.query) * len(texts) + sum(map(tokens_of, texts)),
        price=Decimal(model.request) * units,
        api_type="rerank",
        units=(("search_units", units),),
        ranked=tuple((place, scores[place]) for place in shown),
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def whole(request: Request, made: Ranked, generation_id: str, faults: Faults) -> bytes:
    told = [each if isinstance(each, Document) else Document(each) for each in request.documents]
    results = [
        {
            "index": place,
            "relevance_score": score,
            "document": {name: text for name, text in msgspec.structs.asdict(told[place]).items() if text},
        }
        for place, score in made.ranked
    ]
    usage = {"total_tokens": made.prompt_tokens, **dict(made.units), "cost": Raw(cost_number(made, faults))}
    body: dict[str, object] = {"id": generation_id, "model": made.model.id, "provider": "FakeProvider"}
    body |= {"results": results, "usage": usage}
    if faults.usage in ("missing", "is-null"):
        del body["usage"]
    return msgspec.json.encode(body)
