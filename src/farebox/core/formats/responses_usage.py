"""What a response used. Sources: `ResponseUsage` and `ResponseOutputItem` of OpenAI's SDK (7.57).

`input_tokens` has those of the cache in it, `output_tokens` those of reasoning. Of a stream only the last event counts.
Tools that the upstream runs are billed apart from tokens: searches are counted by their items, an answer with any other
such item is Unknown.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from farebox.core.formats.counting import (
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
from farebox.core.legible import Fields, decoded_or
from farebox.core.sse import event_data
from farebox.core.usage import Unknown, Usage

_TERMINAL = frozenset(("response.completed", "response.incomplete", "response.failed"))

NO_ITEMS = Raw(b"[]")

_KNOWN = ("input_tokens", "output_tokens", "total_tokens")
_IN = ("cached_tokens", "cache_write_tokens", "text_tokens")
_OUT = ("reasoning_tokens", "text_tokens")

SEARCH = "web_search_call"
WITHOUT_PRICE = frozenset(
    (
        "message reasoning compaction function_call custom_tool_call computer_call local_shell_call apply_patch_call"
        " mcp_call mcp_list_tools mcp_approval_request tool_search_call tool_search_output"
    ).split()
)
"""Items of an answer that cost their tokens and no more."""


class _ResponsesCounting(Reading):
    def __init__(self) -> None:
        super().__init__()
        self._usage: Usage | None = None

    def see_event(self, event: bytes) -> None:
        if b'"response.completed"' in event or b'"response.incomplete"' in event or b'"response.failed"' in event:
            self.attempt(self._see_last, event_data(event) or b"")

    def see_answer(self, body: bytes) -> None:
        self.attempt(self._see_body, body)

    def usage(self) -> Usage | Unknown | None:
        return self.wrong or self._usage

    def _see_last(self, data: bytes) -> None:
        event = members(data)
        if value_of(event, "type") in _TERMINAL and "response" in event:
            self._see_body(bytes(event["response"]))

    def _see_body(self, body: bytes) -> None:
        response = members(body)
        if (fields := usage_in(response)) is None:
            return
        usage = read_responses_usage(fields, terms_of(value_of(response, "service_tier")), _searches(response))
        if self._usage is not None and usage != self._usage:
            raise Wrong("it was told twice, and differs")
        self._usage = usage


def counting() -> _ResponsesCounting:
    """Counts a response."""
    return _ResponsesCounting()


def read_responses_usage(fields: Mapping[str, Any], terms: str, searches: int) -> Usage:
    """Raises Wrong."""
    told = counts_in(fields, _KNOWN)
    prompt, answer = needed(told, "input_tokens"), needed(told, "output_tokens")
    total = told.get("total_tokens")
    if total is not None and total != prompt + answer:
        raise Wrong(f"`total_tokens` is {total}, input and output are {prompt} and {answer}")
    within, made = details(fields, "input_tokens_details", _IN), details(fields, "output_tokens_details", _OUT)
    cache_read, cache_write = within.get("cached_tokens", 0), within.get("cache_write_tokens", 0)
    split = member(member(fields, "input_tokens_details"), "cache_write_tokens_details")
    if counted(split, "ttl_12h_tokens"):
        raise Wrong("it counts tokens written to a cache for 12 hours, which no price is for")
    reasoning = made.get("reasoning_tokens", 0)
    return Usage(
        prompt=rest(prompt, "input_tokens", cached=cache_read, written=cache_write),
        cache_read=cache_read,
        cache_write=cache_write,
        answer=rest(answer, "output_tokens", reasoning=reasoning),
        reasoning=reasoning,
        search=searches,
        terms=terms,
    )


class _Item(Struct, gc=False):
    type: str


_decode_items = msgspec.json.Decoder(list[_Item]).decode


def _searches(response: Fields) -> int:
    """How many searches the answer made. Raises Wrong: it used something else that is billed apart."""
    items = decoded_or(_decode_items, response.get("output", NO_ITEMS), None)
    if items is None:
        raise Wrong("its `output` cannot be read, so what it used beside tokens is not known")
    for item in items:
        if item.type != SEARCH and item.type not in WITHOUT_PRICE:
            raise Wrong(
                f"the answer has a `{item.type[:40]}`, which is billed apart from its tokens, or not known here"
            )
    return sum(item.type == SEARCH for item in items)
