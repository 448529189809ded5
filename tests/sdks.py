"""The strict SDKs' own helpers over bytes: what they make of a whole answer and of a stream, without a network."""

from collections.abc import Iterable
from typing import Any

import anthropic
import httpx2
import openai
from openrouter.components import ChatResult, ChatStreamChunk
from pydantic import BaseModel

from farebox.core.formats import Format, chat, messages, responses
from farebox.core.sse import EventSplitter, event_data

URL = "http://host.test/v1"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


def _answering(body: bytes, kind: str) -> httpx2.Client:
    return httpx2.Client(
        transport=httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"content-type": kind}, content=body))
    )


def _openai(body: bytes, kind: str) -> openai.OpenAI:
    http = _answering(body, kind)
    return openai.OpenAI(base_url=URL, api_key="k", http_client=http, max_retries=0, _strict_response_validation=True)


def _anthropic(body: bytes, kind: str) -> anthropic.Anthropic:
    http = _answering(body, kind)
    return anthropic.Anthropic(
        base_url=URL, api_key="k", http_client=http, max_retries=0, _strict_response_validation=True
    )


def whole(wire: Format, body: bytes) -> Any:
    """What the format's SDK makes of a whole answer, validated strictly."""
    kind = "application/json"
    if wire is chat:
        ChatResult.model_validate_json(body)
        return _openai(body, kind).chat.completions.create(model="m", messages=HELLO).to_dict(warnings=False)
    if wire is messages:
        return _anthropic(body, kind).messages.create(model="m", max_tokens=9, messages=HELLO).to_dict(warnings=False)
    return _openai(body, kind).responses.create(model="m", input="Hello").to_dict(warnings=False)


def streamed(wire: Format, body: bytes) -> Any:
    """What the helper of the format's SDK has put together at a stream's end, validated strictly."""
    kind = "text/event-stream"
    if wire is chat:
        for each in datas(body):
            ChatStreamChunk.model_validate_json(each)
        with _openai(body, kind).chat.completions.stream(model="m", messages=HELLO) as chunks:
            return chunks.get_final_completion().to_dict(warnings=False)
    if wire is messages:
        client = _anthropic(body, kind)
        with client.messages.stream(model="m", max_tokens=9, messages=HELLO) as events:
            return events.get_final_message().to_dict(warnings=False)
    with _openai(body, kind).responses.stream(model="m", input="Hello") as events_:
        return events_.get_final_response().to_dict(warnings=False)


def parsed(wire: Format, body: bytes, form: type[BaseModel]) -> BaseModel:
    """A structured answer, as the helper of the format's SDK parses it at a stream's end."""
    kind = "text/event-stream"
    found: Any
    if wire is chat:
        create = _openai(body, kind).chat.completions
        with create.stream(model="m", messages=HELLO, response_format=form) as chunks:
            found = chunks.get_final_completion().choices[0].message.parsed
    elif wire is messages:
        client = _anthropic(body, kind)
        with client.messages.stream(model="m", max_tokens=9, messages=HELLO, output_format=form) as events:
            found = events.get_final_message().parsed_output
    else:
        with _openai(body, kind).responses.stream(model="m", input="Hello", text_format=form) as events_:
            found = events_.get_final_response().output_parsed
    assert isinstance(found, form)
    return found


def datas(body: bytes) -> Iterable[bytes]:
    """The data of a stream's events that carry JSON."""
    for event in EventSplitter().feed(body):
        data = event_data(event)
        if data and data.startswith(b"{"):
            yield data


FORMATS: tuple[Format, ...] = (chat, messages, responses)
