"""What a message used. Sources: `Usage`, `MessageDeltaUsage` and their beta forms in Anthropic's SDK.

`input_tokens` leaves out those read from a cache or written to it, which stand beside it. A stream begins to count in
`message_start`, and each `message_delta` tells the counts so far: the last of each member counts, and that of the
answer only from a `message_delta`, since nothing was made at the start. Its end is
`message_stop`, or the `message_delta` that says why it stopped. Thinking is part of the answer: how much of it that was
is told for information only, and may be off by some tokens.
"""

from collections.abc import Mapping
from typing import Any

from farebox.core.formats.counting import (
    Counts,
    Reading,
    Wrong,
    counted,
    counts_in,
    details,
    member,
    members,
    needed,
    rest,
    terms_of,
    usage_in,
    value_of,
)
from farebox.core.sse import event_data
from farebox.core.usage import Unknown, Usage

_COUNTS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_WRITTEN = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
_OUT = ("thinking_tokens",)
_TOOLS = ("web_search_requests", "web_fetch_requests")
_APART = "iterations"


class _MessagesCounting(Reading):
    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, Any] = {}
        self._read: Usage | None = None
        """What all that was told so far comes to."""
        self._has_ended = False
        self._is_answer_told = False

    def see_event(self, event: bytes) -> None:
        if b'"message_' in event or b'"error"' in event:
            self.attempt(self._see, event_data(event) or b"")

    def see_answer(self, body: bytes) -> None:
        self.attempt(self._see_body, body)

    def usage(self) -> Usage | Unknown | None:
        if self.wrong is None and self._has_ended and self._told:
            try:
                if not self._is_answer_told:
                    raise Wrong("`output_tokens` was told at the start only")
                self._read = self._read or read_messages_usage(self._told)
                return self._read
            except Wrong as error:
                return Unknown(f"the usage told cannot be charged: {error}")
        return self.wrong

    def _see(self, data: bytes) -> None:
        event = members(data)
        match value_of(event, "type"):
            case "message_start" if "message" in event:
                self._take(usage_in(members(event["message"])))
            case "message_delta":
                usage = usage_in(event)
                self._take(usage)
                self._is_answer_told |= usage is not None and usage.get("output_tokens") is not None
                delta = member({"delta": value_of(event, "delta")}, "delta")
                self._has_ended = self._has_ended or delta.get("stop_reason") is not None
            case "message_stop":
                self._has_ended = True
            case "error":
                raise Wrong("an error came in the stream")
            case _:
                pass

    def _take(self, usage: Mapping[str, Any] | None) -> None:
        """Counts so far only grow, and after the last they stand."""
        if usage is None:
            return
        for name in _COUNTS:
            before, now = counted(self._told, name), counted(usage, name)
            if before is not None and now is not None and (now < before or (now != before and self._has_ended)):
                raise Wrong(f"`{name}` was {before}, and then {now}")
        self._read = None
        self._told.update((name, value) for name, value in usage.items() if value is not None)

    def _see_body(self, body: bytes) -> None:
        self._told = dict(usage_in(members(body)) or {})
        self._has_ended = self._is_answer_told = True


def counting() -> _MessagesCounting:
    """Counts a message."""
    return _MessagesCounting()


def read_messages_usage(fields: Mapping[str, Any]) -> Usage:
    """Raises Wrong."""
    told = counts_in(fields, _COUNTS)
    _refuse_what_is_apart(fields)
    tools, made = details(fields, "server_tool_use", _TOOLS), details(fields, "output_tokens_details", _OUT)
    answer = needed(told, "output_tokens")
    if thinking := made.get("thinking_tokens"):
        rest(answer, "output_tokens", thinking=thinking)
    cache_write, cache_write_1h = _written(
        told.get("cache_creation_input_tokens"), details(fields, "cache_creation", _WRITTEN)
    )
    return Usage(
        prompt=needed(told, "input_tokens"),
        cache_read=told.get("cache_read_input_tokens", 0),
        cache_write=cache_write,
        cache_write_1h=cache_write_1h,
        answer=answer,
        search=tools.get("web_search_requests", 0),
        terms=terms_of(fields.get("service_tier"), fields.get("speed"), fields.get("inference_geo")),
    )


def _written(written: int | None, split: Counts) -> tuple[int, int]:
    """The tokens written to a cache, for five minutes and for an hour. Raises Wrong."""
    if not split:
        if written:
            raise Wrong(f"{written} tokens were written to a cache, and `cache_creation` does not say for how long")
        return 0, 0
    parts = split.get(_WRITTEN[0], 0), split.get(_WRITTEN[1], 0)
    if written is not None and written != sum(parts):
        raise Wrong(f"`cache_creation_input_tokens` is {written}, its parts are {parts[0]} and {parts[1]}")
    return parts


def _refuse_what_is_apart(fields: Mapping[str, Any]) -> None:
    """Refuse rounds that other counts leave out, such as that of a compaction, and credits. Raises Wrong."""
    rounds = fields.get(_APART)
    for each in rounds if isinstance(rounds, list) else []:
        kind = each.get("type") if isinstance(each, dict) else None
        if kind != "message":
            raise Wrong(f"`{_APART}` has a `{str(kind)[:40]}`, which the counts leave out")
    if fields.get("fallback_credit") is not None:
        raise Wrong("it has a `fallback_credit`")
