"""Answers that are kept for the same order again: who asks for that, what is the same order, what may be kept.

Opt-in: by the header `X-Farebox-Cache: SECONDS` of an order, or else by its key's setting. The same bytes, with the
same headers that go upstream, of the same account for the same upstream get the kept answer, at no cost. An order whose
answer the upstream makes by acting outside (a search, a fetch, code that runs there) takes no part, unless it asks for
that: `X-Farebox-Cache: SECONDS, tools`. Functions that the caller itself carries out are no such tools.
"""

from collections.abc import Mapping
from hashlib import sha256

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import Refusal, invalid
from farebox.core.formats.bounds import PLUGINS, tool_kind
from farebox.core.legible import decode_fields, decoded_or, leniently
from farebox.core.names import variants
from farebox.core.reading import UNREADABLE, is_null, read_whole, skip_to_json
from farebox.core.sse import EventSplitter, event_data

SECONDS_MAX = 30 * 24 * 3600
"""More than anybody writes who means it."""

_WITH_TOOLS = "tools"


class Lookup(Struct, frozen=True):
    """An order that takes part: what is kept for it may be `seconds` old, and so long is its answer kept."""

    seconds: int
    with_tools: bool = False


class CachedRow(Struct, frozen=True):
    """A kept answer, found by the order's digest. It was kept at `kept_us`, and is good until `until_us`."""

    digest: bytes
    generation_id: str
    content_type: str
    kept_us: int
    until_us: int
    body: bytes


def read_lookup(header: bytes, key_seconds: int | None, longest_seconds: int) -> Lookup | None:
    """Whether an order takes part: by its header, else by its key's setting; `longest_seconds` at most.

    Raises:
        Refusal: 400, the header is none of these.
    """
    if not header:
        return None if not key_seconds else Lookup(min(key_seconds, longest_seconds))
    text, comma, tools = (part.strip() for part in header.decode("latin-1").partition(","))
    seconds = read_whole(text, 0, SECONDS_MAX)
    if seconds is None or (comma and tools.lower() != _WITH_TOOLS):
        raise _no_lookup(header)
    return Lookup(min(seconds, longest_seconds), bool(comma)) if seconds else None


def _no_lookup(header: bytes) -> Refusal:
    return invalid(
        f"x-farebox-cache: write for how many seconds an answer may be kept (0: not at all), up to {SECONDS_MAX}, and"
        f" `, tools` behind it where tools that act outside may be in the order; not"
        f" {header[:40].decode('latin-1')!r}"
    )


def same_order(path: str, body: bytes, headers: Mapping[str, str], account_id: int) -> bytes:
    """By what the same order of the same account is recognized, whichever upstream it goes to. `headers` are those that
    go upstream."""
    told = msgspec.json.encode([path, account_id, sorted((name.lower(), value) for name, value in headers.items())])
    return sha256(told + b"\0" + body).digest()


def at_upstream(order: bytes, upstream: str) -> bytes:
    """The same for one upstream."""
    return sha256(order + upstream.encode()).digest()


class _Tool(Struct):
    type: str | None = None


class _Plugin(Struct):
    id: str = ""
    enabled: bool | None = None


_decode_tools = msgspec.json.Decoder(list[_Tool]).decode
_decode_plugins = msgspec.json.Decoder(list[_Plugin]).decode
_INERT = "inert"
_UNKNOWN_TOOL = [_Tool("unknown")]
_UNKNOWN_PLUGIN = [_Plugin("unknown")]
_ELSEWHERE = ("mcp_servers", "web_search_options", "previous_response_id", "conversation", "container", "prompt")


def acts_outside(body: bytes, models: tuple[str, ...]) -> bool:
    """Whether an answer may depend on more than the order's bytes: on tools that the upstream runs, or on what it keeps
    of earlier orders. What is not known counts as such."""
    try:
        fields = decode_fields(body)
    except UNREADABLE:
        return True
    given = {name: value for name, value in fields.items() if not is_null(value)}
    if any("online" in variants(model) for model in models):
        return True
    if any(name in given and (name != "prompt" or bytes(given[name]).startswith(b"{")) for name in _ELSEWHERE):
        return True
    tools = decoded_or(_decode_tools, given.get("tools"), _UNKNOWN_TOOL) if "tools" in given else []
    if any(tool_kind(tool.type) != _INERT or (tool.type or "").startswith("openrouter:") for tool in tools):
        return True
    plugins = decoded_or(_decode_plugins, given.get("plugins"), _UNKNOWN_PLUGIN) if "plugins" in given else []
    return any(each.enabled is not False and PLUGINS.get(each.id) != _INERT for each in plugins)


class _Choice(Struct):
    finish_reason: str | None = None
    error: Raw = Raw(b"null")


class _Response(Struct):
    status: str | None = None


class _Said(Struct):
    type: str | None = None
    status: str | None = None
    error: Raw = Raw(b"null")
    choices: list[_Choice] | None = None
    response: _Response | None = None


_decode_said = msgspec.json.Decoder(_Said).decode
_BAD_STATUSES = frozenset({"failed", "cancelled", "queued", "in_progress"})
_BAD_TYPES = frozenset({"error", "response.failed", "response.error"})
_LAST_TYPES = frozenset({"message_stop", "response.completed", "response.incomplete"})
_DONE = b"[DONE]"


def is_success(body: bytes, *, is_stream: bool) -> bool:
    """Whether an answer is one to keep: whole, to its own end, without an error anywhere in it."""
    if not is_stream:
        said = _read(skip_to_json(body))
        return said is not None and said.choices != [] and said.status not in _BAD_STATUSES
    splitter = EventSplitter()
    is_ended = False
    for event in splitter.feed(body):
        data = event_data(event)
        if data is None or not data.strip():
            continue
        if data == _DONE:
            is_ended = True
            continue
        if (said := _read(data)) is None:
            return False
        is_ended = is_ended or said.type in _LAST_TYPES
    return is_ended and not splitter.rest().strip()


def _read(text: bytes) -> _Said | None:
    """What a whole answer or an event says; None where that is an error, or nothing that can be read."""
    try:
        said = leniently(_decode_said, text)
    except UNREADABLE:
        return None
    is_bad = (
        not is_null(said.error)
        or said.type in _BAD_TYPES
        or any(each.finish_reason == "error" or not is_null(each.error) for each in said.choices or ())
        or (said.response is not None and said.response.status in {"failed", "cancelled"})
    )
    return None if is_bad else said
