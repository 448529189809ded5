"""The same talk with a model, in each of the three formats, by the format's own strict SDK: how it is asked, and what
its helpers make of what is answered."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import anthropic
import openai
from pydantic import BaseModel

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="
"""A red pixel."""

BUDGET = 1024
CAP = 4096


class Answered(BaseModel):
    """The form of an answer."""

    word: str
    number: int


@dataclass(frozen=True)
class Tool:
    name: str
    description: str

    @property
    def parameters(self) -> dict[str, Any]:
        what = {"type": "string", "description": "What is looked for."}
        return {"type": "object", "properties": {"what": what}, "required": ["what"], "additionalProperties": False}


@dataclass(frozen=True)
class Said:
    """What a user says: a text, and a picture."""

    text: str
    picture: str | None = None


@dataclass(frozen=True)
class Call:
    id: str
    name: str
    arguments: Any


@dataclass(frozen=True)
class Result:
    call: Call
    text: str


@dataclass
class Got:
    """An answer. `turn` is what stands for it in the next order, as the SDK gave it."""

    id: str
    text: str
    turn: list[Any]
    finish: str
    tokens: tuple[int, int]
    headers: Mapping[str, str]
    calls: list[Call] = field(default_factory=list)
    thoughts: str = ""
    parsed: BaseModel | None = None


Turn = Said | list[Result] | Got


@dataclass(frozen=True)
class Talk:
    """What is asked, in no format yet."""

    turns: tuple[Turn, ...]
    system: str = "Be brief."
    tools: tuple[Tool, ...] = ()
    form: type[BaseModel] | None = None
    thinks: bool = False


class Asking(Protocol):
    """A format, asked by its SDK. Raises its APIStatusError."""

    def whole(self, model: str, talk: Talk, simulate: str = "") -> Got: ...
    def streamed(self, model: str, talk: Talk, simulate: str = "") -> Got: ...


def simulating(simulate: str) -> dict[str, str]:
    return {"X-OpenRouter-Simulate": simulate} if simulate else {}


class Chat:
    """Chat completions, by `openai`."""

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client

    def _order(self, model: str, talk: Talk, simulate: str) -> dict[str, Any]:
        messages: list[Any] = [{"role": "system", "content": talk.system}]
        for turn in talk.turns:
            match turn:
                case Said(text, None):
                    messages.append({"role": "user", "content": text})
                case Said(text, picture):
                    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
                    messages.append({"role": "user", "content": [{"type": "text", "text": text}, image]})
                case Got():
                    messages += turn.turn
                case _:
                    messages += [{"role": "tool", "tool_call_id": each.call.id, "content": each.text} for each in turn]
        order: dict[str, Any] = {"model": model, "messages": messages, "extra_headers": simulating(simulate)}
        if talk.tools:
            order["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.parameters,
                        "strict": True,
                    },
                }
                for tool in talk.tools
            ]
        if talk.thinks:
            order |= {"reasoning_effort": "low", "max_completion_tokens": CAP}
        if talk.form is not None:
            order["response_format"] = talk.form
        return order

    def whole(self, model: str, talk: Talk, simulate: str = "") -> Got:
        order = self._order(model, talk, simulate)
        raw = self._client.chat.completions.with_raw_response
        answer = raw.create(**order) if talk.form is None else raw.parse(**order)
        return self._got(answer.parse(), answer.headers)

    def streamed(self, model: str, talk: Talk, simulate: str = "") -> Got:
        order = self._order(model, talk, simulate)
        helper = self._client.chat.completions.stream(**order, stream_options={"include_usage": True})
        with helper as stream:
            for _ in stream:
                pass
            return self._got(stream.get_final_completion(), stream._response.headers)

    def _got(self, answer: Any, headers: Mapping[str, str]) -> Got:
        (choice,) = answer.choices
        message = choice.message
        calls = [
            Call(each.id, each.function.name, json.loads(each.function.arguments)) for each in message.tool_calls or ()
        ]
        said = message.to_dict(exclude_unset=True, warnings=False)
        said.pop("parsed", None)
        for call in said.get("tool_calls") or ():
            call.pop("index", None)
            call["function"].pop("parsed_arguments", None)
        return Got(
            answer.id,
            message.content or "",
            [said],
            choice.finish_reason,
            (answer.usage.prompt_tokens, answer.usage.completion_tokens),
            headers,
            calls,
            getattr(message, "reasoning", None) or "",
            getattr(message, "parsed", None),
        )


class Messages:
    """Messages, by `anthropic`."""

    def __init__(self, client: anthropic.Anthropic) -> None:
        self._client = client

    def _order(self, model: str, talk: Talk, simulate: str) -> dict[str, Any]:
        messages: list[Any] = []
        for turn in talk.turns:
            match turn:
                case Said(text, None):
                    messages.append({"role": "user", "content": text})
                case Said(text, picture):
                    source = {"type": "base64", "media_type": "image/png", "data": picture}
                    content = [{"type": "text", "text": text}, {"type": "image", "source": source}]
                    messages.append({"role": "user", "content": content})
                case Got():
                    messages += turn.turn
                case _:
                    results = [{"type": "tool_result", "tool_use_id": r.call.id, "content": r.text} for r in turn]
                    messages.append({"role": "user", "content": results})
        order: dict[str, Any] = {"model": model, "max_tokens": CAP, "system": talk.system, "messages": messages}
        order["extra_headers"] = simulating(simulate)
        if talk.tools:
            order["tools"] = [
                {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
                for tool in talk.tools
            ]
        if talk.thinks:
            order["thinking"] = {"type": "enabled", "budget_tokens": BUDGET}
        if talk.form is not None:
            order["output_format"] = talk.form
        return order

    def whole(self, model: str, talk: Talk, simulate: str = "") -> Got:
        order = self._order(model, talk, simulate)
        if talk.form is not None:
            # The helper that parses gives no headers.
            return self._got(self._client.messages.parse(**order), {})
        answer = self._client.messages.with_raw_response.create(**order)
        return self._got(answer.parse(), answer.headers)

    def streamed(self, model: str, talk: Talk, simulate: str = "") -> Got:
        with self._client.messages.stream(**self._order(model, talk, simulate)) as stream:
            for _ in stream:
                pass
            return self._got(stream.get_final_message(), stream.response.headers)

    def _got(self, answer: Any, headers: Mapping[str, str]) -> Got:
        blocks = answer.content
        calls = [Call(block.id, block.name, block.input) for block in blocks if block.type == "tool_use"]
        said = [block.to_dict(exclude_unset=True, warnings=False) for block in blocks]
        for block in said:
            block.pop("parsed_output", None)
        return Got(
            answer.id,
            "".join(block.text for block in blocks if block.type == "text"),
            [{"role": "assistant", "content": said}],
            answer.stop_reason,
            (answer.usage.input_tokens, answer.usage.output_tokens),
            headers,
            calls,
            "".join(block.thinking for block in blocks if block.type == "thinking"),
            getattr(answer, "parsed_output", None),
        )


class Responses:
    """Responses, by `openai`."""

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client

    def _order(self, model: str, talk: Talk, simulate: str) -> dict[str, Any]:
        items: list[Any] = []
        for turn in talk.turns:
            match turn:
                case Said(text, None):
                    items.append({"role": "user", "content": text})
                case Said(text, picture):
                    image = {"type": "input_image", "image_url": f"data:image/png;base64,{picture}", "detail": "auto"}
                    items.append({"role": "user", "content": [{"type": "input_text", "text": text}, image]})
                case Got():
                    items += turn.turn
                case _:
                    items += [
                        {"type": "function_call_output", "call_id": each.call.id, "output": each.text} for each in turn
                    ]
        order: dict[str, Any] = {"model": model, "instructions": talk.system, "input": items, "store": False}
        order["extra_headers"] = simulating(simulate)
        if talk.tools:
            order["tools"] = [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "strict": True,
                }
                for tool in talk.tools
            ]
        if talk.thinks:
            order |= {
                "reasoning": {"effort": "low", "summary": "auto"},
                "include": ["reasoning.encrypted_content"],
                "max_output_tokens": CAP,
            }
        if talk.form is not None:
            order["text_format"] = talk.form
        return order

    def whole(self, model: str, talk: Talk, simulate: str = "") -> Got:
        order = self._order(model, talk, simulate)
        raw = self._client.responses.with_raw_response
        answer = raw.create(**order) if talk.form is None else raw.parse(**order)
        return self._got(answer.parse(), answer.headers)

    def streamed(self, model: str, talk: Talk, simulate: str = "") -> Got:
        with self._client.responses.stream(**self._order(model, talk, simulate)) as stream:
            for _ in stream:
                pass
            return self._got(stream.get_final_response(), stream._response.headers)

    def _got(self, answer: Any, headers: Mapping[str, str]) -> Got:
        calls = [
            Call(item.call_id, item.name, json.loads(item.arguments))
            for item in answer.output
            if item.type == "function_call"
        ]
        turn = [item.to_dict(exclude_unset=True, warnings=False) for item in answer.output]
        for item in turn:
            item.pop("parsed_arguments", None)
            for part in item.get("content") or ():
                part.pop("parsed", None)
        return Got(
            answer.id,
            answer.output_text,
            turn,
            answer.status,
            (answer.usage.input_tokens, answer.usage.output_tokens),
            headers,
            calls,
            "".join(part.text for item in answer.output if item.type == "reasoning" for part in item.summary),
            getattr(answer, "output_parsed", None),
        )


@contextmanager
def asking(base: str, key: str) -> Iterator[dict[str, Asking]]:
    """Each format by its path, at a gateway; its SDKs validate strictly, and repeat nothing."""
    with (
        openai.OpenAI(base_url=base, api_key=key, max_retries=0, _strict_response_validation=True) as gpt,
        anthropic.Anthropic(
            base_url=base.removesuffix("/v1"), api_key=key, max_retries=0, _strict_response_validation=True
        ) as claude,
    ):
        yield {"chat": Chat(gpt), "messages": Messages(claude), "responses": Responses(gpt)}
