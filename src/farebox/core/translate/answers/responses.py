"""Whole responses, to and from the neutral form."""

from collections.abc import Mapping

from msgspec import Raw, Struct
from msgspec.json import Decoder

from farebox.core.errors import broken
from farebox.core.formats import Progress
from farebox.core.formats.envelope import failure
from farebox.core.formats.responses_required import told
from farebox.core.legible import decoded_or
from farebox.core.reading import Number
from farebox.core.translate.answers.chat import quote
from farebox.core.translate.neutral import Answer, Call, Citation, Part, Refused, Text, Thinking
from farebox.core.translate.raw import (
    NO_ARGUMENTS,
    NULL,
    arguments_of,
    in_paragraphs,
    is_text,
    said,
    said_any,
    text_or_empty,
    word,
)
from farebox.core.translate.thoughts import OPENAI, sealed_for, unpacked
from farebox.core.translate.usage import read_usage, usage_in_responses


class Piece(Struct):
    """A part of an item."""

    type: str = ""
    text: Raw = NULL
    refusal: Raw = NULL
    annotations: Raw = NULL
    logprobs: Raw = NULL


class Item(Struct):
    """An item of an answer, by the members of all kinds that can be said elsewhere."""

    type: str
    id: Raw = NULL
    content: Raw = NULL
    summary: Raw = NULL
    encrypted_content: Raw = NULL
    call_id: Raw = NULL
    name: Raw = NULL
    arguments: Raw = NULL


class _Incomplete(Struct):
    reason: str | None = None


class Response(Struct):
    id: str | None = None
    model: str | None = None
    created_at: Number | None = None
    status: str | None = None
    output: list[Item] | None = None
    error: Raw = NULL
    incomplete_details: _Incomplete | None = None
    usage: Raw = NULL
    service_tier: str | None = None


class _Annotation(Struct):
    type: str = ""
    url: Raw = NULL
    title: Raw = Raw(b'""')
    start_index: int = 0
    end_index: int = 0


decode = Decoder(Response).decode
_decode_pieces = Decoder(list[Piece]).decode
_decode_annotation = Decoder(_Annotation).decode
_decode_annotations = Decoder(list[_Annotation]).decode


def read(response: Response) -> Answer:
    """Raises Refusal 424: it failed, or has no output."""
    if response.status == "failed" or said(response.error) is not None:
        raise failure(said(response.error), "the upstream accepted the order and then failed")
    if response.output is None:
        raise broken("the upstream's answer has no output")
    parts: list[Part] = []
    for item in response.output:
        parts += parts_in(item)
    told, tier = read_usage(response.usage), response.service_tier
    has_calls = any(isinstance(part, Call) for part in parts)
    stop = stop_of(response, has_calls=has_calls)
    return Answer(response.id or "", response.model or "", int(response.created_at or 0), parts, stop, None, told, tier)


def parts_in(item: Item) -> list[Part]:
    """What an item says; nothing where it is of a tool that the host ran."""
    match item.type:
        case "message":
            return [_said(piece) for piece in _pieces(item.content)]
        case "reasoning":
            return [thought] if (thought := thought_in(item)) is not None else []
        case "function_call":
            return [Call(item.call_id, item.name, arguments_of(item.arguments) or NO_ARGUMENTS)]
        case _:
            return []


def _pieces(raw: Raw) -> list[Piece]:
    return decoded_or(_decode_pieces, said(raw), [])


def _said(piece: Piece) -> Part:
    if piece.type == "refusal":
        return Refused(text_or_empty(piece.refusal))
    return Text(
        text_or_empty(piece.text),
        citations=_citations(piece) if said_any(piece.annotations) else (),
        logprobs=piece.logprobs if said_any(piece.logprobs) else None,
    )


def _citations(piece: Piece) -> tuple[Citation, ...]:
    annotations = decoded_or(_decode_annotations, piece.annotations, list[_Annotation]())
    return tuple(_cited(each, piece.text) for each in annotations if each.type == "url_citation")


def cited(raw: Raw, text: bytes) -> Citation | None:
    """The page that an annotation names; None for one of another kind."""
    found = decoded_or(_decode_annotation, raw, _Annotation())
    return _cited(found, text) if found.type == "url_citation" else None


def _cited(annotation: _Annotation, text: bytes | Raw) -> Citation:
    start, end = annotation.start_index, annotation.end_index
    return Citation(annotation.url, annotation.title, start, end, quote(word(Raw(text)), start, end))


def thought_in(item: Item) -> Thinking | None:
    """What an item of reasoning says; None for one that is empty."""
    text = in_paragraphs([piece.text for piece in _pieces(item.summary) or _pieces(item.content)])
    thought = unpacked(text, item.encrypted_content, OPENAI)
    if thought.origin == OPENAI:
        thought.id = said(item.id)
    return None if text is None and thought.seal is None else thought


_STOPS = {"max_output_tokens": "length", "content_filter": "filter"}


def stop_of(response: Response, *, has_calls: bool) -> str:
    if response.status == "incomplete":
        details = response.incomplete_details
        return _STOPS.get((details and details.reason) or "", "length")
    return "tools" if has_calls else "stop"


# Writing


def response_of(
    id_: str, model: str, created: int, status: str, output: list[dict[str, object]], echoed: Mapping[str, Raw]
) -> dict[str, object]:
    """A response with what it has said so far; `echoed` is what it repeats of its order."""
    body = {"id": id_, "object": "response", "created_at": created, "completed_at": None, "model": model}
    body |= {"status": status, "error": None, "incomplete_details": None, "usage": None}
    return {**body, **echoed, "output": output}


def ended(stop: str, *, is_refused: bool) -> tuple[str, dict[str, object]]:
    """The status of an answer, and its `incomplete_details`."""
    if stop == "length":
        return "incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}
    if stop == "filter" and not is_refused:
        return "incomplete", {"incomplete_details": {"reason": "content_filter"}}
    return "completed", {}


def write(answer: Answer) -> dict[str, object]:
    is_refused = any(isinstance(part, Refused) for part in answer.parts)
    status, more = ended(answer.stop, is_refused=is_refused)
    output: list[dict[str, object]] = []
    words: dict[str, object] | None = None
    for part in answer.parts:
        if isinstance(part, Text | Refused):
            if words is None:
                words = message_item(item_id("msg", answer.id, len(output)), [])
                output.append(words)
            content = words["content"]
            assert isinstance(content, list)
            content.append(_piece(part))
            continue
        words = None
        output.append(_item(part, answer.id, len(output)))
    if status == "incomplete" and output:
        output[-1]["status"] = "incomplete"
    echoed = told(answer.during or Progress(answer.id, answer.model, answer.created))
    body = {**response_of(answer.id, answer.model, answer.created, status, output, echoed), **more}
    if answer.tier is not None:
        body["service_tier"] = answer.tier
    if answer.usage is not None:
        body["usage"] = usage_in_responses(answer.usage)
    return body


def item_id(kind: str, answer_id: str, number: int) -> str:
    return f"{kind}_{answer_id}_{number}"


def message_item(id_: str, content: list[dict[str, object]], status: str = "completed") -> dict[str, object]:
    return {"id": id_, "type": "message", "role": "assistant", "status": status, "content": content}


def call_item(id_: str, call: Call, status: str = "completed") -> dict[str, object]:
    named = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
    return {"id": id_, "type": "function_call", "status": status, **named}


def reasoning_item(id_: str, thinking: Thinking) -> dict[str, object]:
    summary = [] if thinking.text is None else [{"type": "summary_text", "text": thinking.text}]
    item: dict[str, object] = {"id": id_, "type": "reasoning", "summary": summary}
    sealed = sealed_for_responses(thinking)
    return item if sealed is None else {**item, "encrypted_content": sealed}


def sealed_for_responses(thinking: Thinking) -> Raw | None:
    seal = sealed_for(OPENAI, thinking)
    return seal if is_text(seal) else None


def _piece(part: Text | Refused) -> dict[str, object]:
    if isinstance(part, Refused):
        return {"type": "refusal", "refusal": part.text}
    return text_piece(part.text, [annotation(each) for each in part.citations], part.logprobs)


def text_piece(text: Raw, annotations: list[dict[str, object]], logprobs: object = None) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs or []}


def annotation(citation: Citation) -> dict[str, object]:
    page = {"url": citation.url, "title": text_or_empty(citation.title)}
    return {"type": "url_citation", **page, "start_index": citation.start, "end_index": citation.end}


def _item(part: Part, answer_id: str, number: int) -> dict[str, object]:
    match part:
        case Call():
            return call_item(item_id("fc", answer_id, number), part)
        case Thinking():
            return reasoning_item(item_id("rs", answer_id, number), part)
        case _:
            raise AssertionError(part)
