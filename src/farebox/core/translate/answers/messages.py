"""Whole messages, to and from the neutral form."""

from msgspec import Raw, Struct
from msgspec.json import Decoder

from farebox.core.translate.neutral import Answer, Call, Citation, Part, Refused, Text, Thinking
from farebox.core.translate.raw import NULL, is_text, object_in, quoted, said, text_or_empty, word
from farebox.core.translate.thoughts import ANTHROPIC, sealed_for, unpacked
from farebox.core.translate.usage import read_usage, usage_in_messages


class Block(Struct):
    """A block of an answer, by the members of all kinds that can be said elsewhere."""

    type: str
    text: Raw = NULL
    citations: Raw = NULL
    thinking: Raw = NULL
    signature: Raw = NULL
    data: Raw = NULL
    id: Raw = NULL
    name: Raw = NULL
    input: Raw = NULL


class StopDetails(Struct):
    explanation: Raw = NULL


class _Whole(Struct):
    content: list[Block]
    id: str | None = None
    model: str | None = None
    usage: Raw = NULL
    stop_reason: str | None = None
    stop_sequence: Raw = NULL
    stop_details: StopDetails | None = None


class WebCitation(Struct):
    """What a text cites of the web; of a document or a search result it has no `url`."""

    type: str = ""
    url: Raw = NULL
    title: Raw = NULL
    cited_text: Raw = Raw(b'""')


decode = Decoder(_Whole).decode
_decode_citations = Decoder(list[WebCitation]).decode

STOPS = {
    "end_turn": "stop",
    "stop_sequence": "sequence",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tools",
    "refusal": "filter",
    "pause_turn": "pause",
    "compaction": "pause",
}
_REASONS = {
    "stop": "end_turn",
    "sequence": "stop_sequence",
    "length": "max_tokens",
    "tools": "tool_use",
    "filter": "refusal",
    "pause": "pause_turn",
}
NOT_ANSWERED = quoted("The model refused to answer.")
"""What a refusal says that has no words of its own."""


def read(whole: _Whole) -> Answer:
    parts: list[Part] = []
    for block in whole.content:
        match block.type:
            case "text":
                parts.append(Text(text_or_empty(block.text)))
            case "thinking":
                parts.append(unpacked(text_or_empty(block.thinking), block.signature, ANTHROPIC))
            case "redacted_thinking":
                parts.append(unpacked(None, block.data, ANTHROPIC))
            case "tool_use":
                given = bytes(said(block.input) or b"{}").decode("utf-8", "replace")
                parts.append(Call(block.id, block.name, quoted(given)))
            case _:
                pass  # of a tool that the host ran
    stop = stop_of(whole.stop_reason, has_calls=any(isinstance(part, Call) for part in parts))
    _cite(whole.content, parts)
    if whole.stop_reason == "refusal":
        parts.append(Refused(explanation(whole.stop_details)))
    told = read_usage(whole.usage, is_messages=True)
    return Answer(whole.id or "", whole.model or "", 0, parts, stop, said(whole.stop_sequence), told)


def stop_of(reason: str | None, *, has_calls: bool) -> str:
    """Why it ended. Some hosts that speak as Anthropic does call a tool and say that all was said."""
    stop = STOPS.get(reason or "", "stop")
    return "tools" if stop == "stop" and has_calls else stop


def _cite(blocks: list[Block], parts: list[Part]) -> None:
    """Give the texts the pages that they cite: each block as a whole does, at its place in the answer's text."""
    texts = [part for part in parts if isinstance(part, Text)]
    if all(said(block.citations) is None for block in blocks):
        return
    at = 0
    for block, text in zip([block for block in blocks if block.type == "text"], texts, strict=True):
        end = at + len(word(block.text))
        text.citations = tuple(
            Citation(each.url, each.title, at, end, each.cited_text) for each in cited(block.citations)
        )
        at = end


def cited(citations: Raw) -> list[WebCitation]:
    """The pages among citations."""
    if said(citations) is None:
        return []
    return [each for each in _decode_citations(citations) if is_text(each.url)]


def explanation(details: StopDetails | None) -> Raw:
    told = NULL if details is None else details.explanation
    return told if is_text(told) else NOT_ANSWERED


# Writing


def write(answer: Answer) -> dict[str, object]:
    is_refused = any(isinstance(part, Refused) for part in answer.parts)
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [_block(part) for part in answer.parts],
        **stopped("filter" if is_refused else answer.stop, answer.stop_sequence),
        "container": None,
        "usage": {
            **usage_in_messages(answer.usage),
            "inference_geo": None,
            "service_tier": _TIERS.get(answer.tier or ""),
        },
    }


_TIERS = {"default": "standard", "flex": "standard", "priority": "priority", "fast": "priority"}


def stopped(stop: str, sequence: Raw | None) -> dict[str, object]:
    """Why an answer ended."""
    details = {"type": "refusal", "category": None, "explanation": None} if stop == "filter" else None
    return {"stop_reason": _REASONS[stop], "stop_sequence": sequence, "stop_details": details}


CALLER = {"type": "direct"}
"""Who calls a tool: the model itself."""

_UNREADABLE = "INVALID_JSON"
"""The name under which arguments stand that are no JSON object: Anthropic's page on streamed tool input has it."""


def _block(part: Part) -> dict[str, object]:
    match part:
        case Text(text):
            citations = [written_citation(each) for each in part.citations] or None
            return {"type": "text", "text": text, "citations": citations}
        case Refused(text):
            return {"type": "text", "text": text, "citations": None}
        case Thinking(text=None):
            return {"type": "redacted_thinking", "data": sealed_for(ANTHROPIC, part)}
        case Thinking(text=text):
            return {"type": "thinking", "thinking": text, "signature": sealed_for(ANTHROPIC, part)}
        case Call(id_, name, arguments):
            given: object = object_in(arguments) or {_UNREADABLE: arguments}
            return {"type": "tool_use", "id": id_, "name": name, "input": given, "caller": CALLER}
        case _:
            raise AssertionError(part)


def written_citation(told: Citation) -> dict[str, object]:
    return {
        "type": "web_search_result_location",
        "url": told.url,
        "title": told.title,
        "cited_text": told.quote,
        "encrypted_index": "",
    }
