"""Whole chat completions, to and from the neutral form."""

from msgspec import Raw, Struct
from msgspec.json import Decoder

from farebox.core.errors import broken
from farebox.core.formats.envelope import failure
from farebox.core.legible import Fields, decode_each, decoded_or
from farebox.core.reading import Number
from farebox.core.translate.neutral import Answer, Call, Citation, Part, Refused, Text, Thinking
from farebox.core.translate.orders.from_chat import thoughts_of
from farebox.core.translate.orders.to_chat import details_of
from farebox.core.translate.raw import (
    NO_ARGUMENTS,
    NULL,
    arguments_of,
    in_paragraphs,
    is_text,
    joined,
    quoted,
    said,
    said_any,
    text_or_empty,
    word,
)
from farebox.core.translate.thoughts import CHAT, MISTRAL
from farebox.core.translate.usage import read_usage, usage_in_chat


class _Function(Struct, frozen=True):
    name: Raw = NULL
    arguments: Raw = NULL


class _Call(Struct):
    id: Raw = NULL
    function: _Function | None = None


class _Message(Struct):
    content: Raw = NULL
    refusal: Raw = NULL
    reasoning: Raw = NULL
    reasoning_content: Raw = NULL
    reasoning_details: Raw = NULL
    tool_calls: list[_Call] | None = None
    annotations: Raw = NULL


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: Raw = NULL
    error: Raw = NULL


class _Result(Struct):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    created: Number | None = None
    usage: Raw = NULL
    service_tier: str | None = None
    system_fingerprint: str | None = None


class _Odds(Struct):
    content: Raw = NULL


class _Page(Struct):
    url: Raw
    title: Raw = Raw(b'""')
    start_index: int = 0
    end_index: int = 0


class _Block(Struct):
    type: str = ""
    text: Raw = NULL
    thinking: Raw = NULL


class _Annotation(Struct):
    url_citation: _Page | None = None


decode = Decoder(_Result).decode
_NO_FUNCTION = _Function()
_decode_odds = Decoder(_Odds).decode
_decode_blocks = Decoder(list[_Block]).decode
_decode_annotations = Decoder(list[_Annotation]).decode

STOPS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tools",
    "function_call": "tools",
    "content_filter": "filter",
}
_FINISHED = {
    "stop": "stop",
    "sequence": "stop",
    "length": "length",
    "tools": "tool_calls",
    "filter": "content_filter",
    "pause": "stop",
}


def read(result: _Result) -> Answer:
    """Raises Refusal 424: it failed after all."""
    if not result.choices:
        raise broken("the upstream's answer has no choices")
    choice = result.choices[0]
    if choice.finish_reason == "error" or said(choice.error) is not None:
        raise failure(said(choice.error), "the upstream accepted the order and then failed")
    message = choice.message
    parts: list[Part] = [*thoughts_in(message.reasoning_details, message.reasoning, message.reasoning_content)]
    if bytes(message.content).startswith(b"["):
        parts += parts_in(message.content)
    elif is_text(message.content):
        text = Text(message.content)
        if said_any(message.annotations):
            text.citations = tuple(citations_in(message.annotations, message.content))
        if (odds := said(choice.logprobs)) is not None:
            text.logprobs = said(decoded_or(_decode_odds, odds, _Odds()).content)
        parts.append(text)
    if is_text(message.refusal):
        parts.append(Refused(message.refusal))
    for number, call in enumerate(message.tool_calls or ()):
        function = call.function or _NO_FUNCTION
        id_ = call.id if is_text(call.id) else quoted(f"call_{number}")
        parts.append(Call(id_, function.name, arguments_of(function.arguments) or NO_ARGUMENTS))
    stop = STOPS.get(choice.finish_reason or "", "stop")
    if stop == "stop" and message.tool_calls:
        stop = "tools"
    told = read_usage(result.usage)
    tier, mark = result.service_tier, result.system_fingerprint
    return Answer(result.id or "", result.model or "", int(result.created or 0), parts, stop, None, told, tier, mark)


_NOTHING = (NULL, NULL)


def parts_in(content: Raw) -> list[Text | Thinking]:
    """What a content says that is a list: so answer Mistral's models that reason."""
    found: list[Text | Thinking] = []
    for block in decoded_or(_decode_blocks, content, list[_Block]()):
        if block.type == "thinking":
            told = decoded_or(_decode_blocks, block.thinking, list[_Block]())
            found += [Thinking(MISTRAL, Raw(joined(texts)))] if (texts := _texts(told)) else []
        else:
            found += [Text(text) for text in _texts([block])]
    return found


def _texts(blocks: list["_Block"]) -> list[Raw]:
    return [block.text for block in blocks if is_text(block.text)]


def thoughts_in(details: Raw, *members: Raw) -> list[Thinking]:
    """The thoughts of a message or a delta: its details, else one of the two members that hosts have for them."""
    if details is NULL and members == _NOTHING:
        return []
    if said(details) is not None:
        found = decoded_or(decode_each, details, list[Fields]())
        thoughts = [thought for each in found for thought in thoughts_of([each], f"{CHAT}:{word(each.get('format'))}")]
        if thoughts:
            return _as_one(thoughts)
    for name, member in zip(("reasoning", "reasoning_content"), members, strict=True):
        if is_text(member):
            return [Thinking(f"{CHAT}:{name}", member)]
    return []


def _as_one(thoughts: list[Thinking]) -> list[Thinking]:
    """Those of one id, as OpenAI's summaries and what is sealed of them, as one."""
    found: list[Thinking] = []
    for thought in thoughts:
        last = found[-1] if found else None
        if last is None or thought.id is None or last.id != thought.id or last.seal is not None:
            found.append(thought)
        else:
            last.text = in_paragraphs([each for each in (last.text, thought.text) if each is not None])
            last.seal = thought.seal
    return found


def citations_in(annotations: Raw, text: bytes | Raw) -> list[Citation]:
    """The pages that annotations name, with the words that cite them."""
    found = decoded_or(_decode_annotations, annotations, list[_Annotation]())
    pages = [each.url_citation for each in found if each.url_citation is not None]
    words = word(Raw(text)) if pages else ""
    return [
        Citation(page.url, page.title, page.start_index, page.end_index, quote(words, page.start_index, page.end_index))
        for page in pages
    ]


def quote(words: str, start: int, end: int) -> Raw:
    return quoted(words[max(start, 0) : max(end, 0)])


# Writing


def write(answer: Answer) -> dict[str, object]:
    words = [part for part in answer.parts if isinstance(part, Text)]
    message: dict[str, object] = {"role": "assistant", "content": Raw(joined(t.text for t in words)) if words else None}
    refusals = [part.text for part in answer.parts if isinstance(part, Refused)]
    message["refusal"] = Raw(joined(refusals)) if refusals else None
    thoughts = [part for part in answer.parts if isinstance(part, Thinking)]
    if thoughts:
        message["reasoning"] = in_paragraphs([each.text for each in thoughts if each.text is not None])
        message["reasoning_details"] = details = list[dict[str, object]]()
        for thought in thoughts:
            details += details_of(thought, form_of(thought.origin), len(details))
    calls = [part for part in answer.parts if isinstance(part, Call)]
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    if cited := [citation for each in words for citation in each.citations]:
        message["annotations"] = [annotation(each) for each in cited]
    odds = [each.logprobs for each in words if each.logprobs is not None]
    logprobs = {"content": odds[0], "refusal": None} if odds else None
    finished = finish_reason(answer.stop, is_refused=bool(refusals))
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finished}
    body: dict[str, object] = {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": answer.fingerprint,
        "choices": [choice],
    }
    if answer.tier is not None:
        body["service_tier"] = answer.tier
    if answer.usage is not None:
        body["usage"] = usage_in_chat(answer.usage)
    return body


def finish_reason(stop: str, *, is_refused: bool) -> str:
    """A refusal of the model's is an answer to OpenAI; its helpers throw on `content_filter`."""
    return "stop" if stop == "filter" and is_refused else _FINISHED[stop]


def form_of(origin: str) -> str | None:
    """The `format` of a thought's details."""
    return (None if origin.startswith(CHAT) else origin) or None


def annotation(citation: Citation) -> dict[str, object]:
    title = text_or_empty(citation.title)  # to Anthropic a page may have none
    page = {"url": citation.url, "title": title, "start_index": citation.start, "end_index": citation.end}
    return {"type": "url_citation", "url_citation": page}
