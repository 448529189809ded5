"""OpenAI's responses, simulated: events with names, and a whole response in the first and the last of them."""

from dataclasses import replace
from typing import Any

import msgspec

from farebox.core.errors import Refusal
from farebox.simulator import responses, talk
from farebox.simulator.faults import Faults
from farebox.simulator.openai_words import DATED, counted, read_known, unpriced, wrong
from farebox.simulator.talk import Said, Talk

__all__ = ["COMMENT", "events", "read", "whole"]

COMMENT = b""

_KNOWN = frozenset(
    (
        "access_programs background background_options context_management conversation image include input instructions"
        " max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt"
        " prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store"
        " stream stream_options temperature text tool_choice tools top_logprobs top_p truncation user"
    ).split()
)


class _Request(responses.Request):
    """`store` is taken and told again, and nothing is stored."""


_decode = msgspec.json.Decoder(_Request).decode


def _unknown(name: str) -> Refusal:
    return wrong(f"Unknown parameter: '{name}'.", name, "unknown_parameter")


def read(body: bytes) -> Talk:
    request = read_known(body, _KNOWN, _decode, _unknown)
    if not request.input:
        raise wrong("Missing required parameter: 'input'.", "input", "missing_required_parameter")
    if request.previous_response_id is not None:
        name = request.previous_response_id
        raise wrong(
            f"Previous response with id '{name}' not found.", "previous_response_id", "previous_response_not_found"
        )
    _check_thoughts(request)
    return replace(responses.talk_in(request), echoed=_echoed(body))


_ECHOED = frozenset(
    (
        "background instructions max_output_tokens max_tool_calls metadata parallel_tool_calls prompt_cache_key"
        " reasoning safety_identifier service_tier store temperature text tool_choice tools top_logprobs top_p"
        " truncation user"
    ).split()
)


def _echoed(body: bytes) -> dict[str, object]:
    """What OpenAI repeats of an order, with its own defaults within."""
    asked: dict[str, Any] = msgspec.json.decode(body)
    echoed = {name: value for name, value in asked.items() if name in _ECHOED and value is not None}
    if "tools" in echoed:
        echoed["tools"] = [_tool(each) for each in echoed["tools"]]
    if "reasoning" in echoed:
        echoed["reasoning"] = {"effort": None, "summary": None, **echoed["reasoning"]}
    if "text" in echoed:
        form = {"type": "text", **(echoed["text"].get("format") or {})}
        described = {"description": None, "strict": False} if form["type"] == "json_schema" else {}
        echoed["text"] = {"verbosity": "medium", **echoed["text"], "format": {**described, **form}}
    if echoed.get("service_tier") == "auto":
        del echoed["service_tier"]
    return echoed


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    defaults = {"description": None, "parameters": None, "strict": True} if tool["type"] == "function" else {}
    return {**defaults, **tool}


def _check_thoughts(request: _Request) -> None:
    """An earlier thought comes back under its seal: without one it would be looked for in what is stored."""
    for item in request.input if isinstance(request.input, list) else ():
        if item.type != "reasoning":
            continue
        if item.encrypted_content is None:
            message = (
                f"Item with id '{item.id}' not found. Items are not persisted when `store` is set to false. Try again"
                " with `store` set to true, or remove this item from your input."
            )
            raise wrong(message, "input", status=404)
        if item.encrypted_content != talk.seal(item.thought):
            message = f"The encrypted content for item {item.id} could not be verified."
            raise wrong(message, code="invalid_encrypted_content")


def _own(body: dict[str, Any], said: Said, faults: Faults) -> dict[str, Any]:
    """A response as OpenAI's: with members that OpenRouter leaves out, what was asked again, and no costs."""
    found = {
        **body,
        "model": said.model.id + DATED,
        "background": False,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "temperature": 1.0,
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
        "metadata": {},
        **said.echoed,
    }
    if isinstance(found.get("usage"), dict):
        prompt, answer = counted(said, faults)
        usage = unpriced(found["usage"])
        told = {"input_tokens": prompt, "output_tokens": answer, "total_tokens": prompt + answer}
        details = {"cached_tokens": said.cached_tokens, "cache_write_tokens": 0}
        found["usage"] = {**usage, **told, "input_tokens_details": details}
    return found


def whole(said: Said, generation_id: str, faults: Faults) -> bytes:
    body = _own(responses.finished(said, generation_id, faults), said, faults)
    if faults.choices == "empty":
        body["output"] = []
    if faults.failed:
        body |= {"status": "failed", "error": {"code": "server_error", "message": "The server had an error"}}
    return msgspec.json.encode(body)


def events(said: Said, generation_id: str, faults: Faults) -> list[bytes]:
    stream = responses.stream_of(said, generation_id, faults)
    for event in stream:
        if "response" in event:
            event["response"] = _own(event["response"], said, faults)
        if str(event.get("type", "")).endswith(".delta"):
            event["obfuscation"] = "Q7xKp2"
    if faults.usage == "twice":
        stream.append({**stream[-1], "sequence_number": len(stream)})
    return [_named(event) for event in stream]


def _named(event: dict[str, Any]) -> bytes:
    kind = str(event.get("type", "error"))
    return b"event: " + kind.encode() + b"\n" + talk.data(event)
