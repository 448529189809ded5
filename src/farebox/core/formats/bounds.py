"""What bounds a request's cost, gathered part by part while it is read.

A part is bounded by its bytes (a byte is at most a token), or as a picture, by its number; or it is open: it may bring
in more than it says, such as a file. Tools and plugins that the upstream runs may cost something beside; where that is
a number of searches, it is counted. Each format says in a table what its parts are; an unknown part is open.

Sources: OpenRouter's OpenAPI document (tools, plugins, WebSearchConfig), its pages on web search, and Anthropic's on
server tools.
"""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.formats import Searches
from farebox.core.legible import leniently
from farebox.core.names import variants
from farebox.core.reading import UNREADABLE, is_null

Kind = Literal["bytes", "picture", "nested", "in full", "open"]
BYTES: Kind = "bytes"
PICTURE: Kind = "picture"
NESTED: Kind = "nested"
"""As what its own parts are."""
OPEN: Kind = "open"

RESULTS = 5
"""Results of a search where the request does not say how many: OpenRouter's own default."""

RESULT_BYTES = 4_000
"""Of one result. OpenRouter's page: "typically 2,000 to 4,000 characters"."""

_BYTES_BY_SIZE = {"low": 5_000, "medium": 15_000, "high": 30_000}
"""The same by `search_context_size`: characters in OpenRouter's document."""

COUNT_MAX = 10**6
"""A larger number in a request is read as this."""


class _Search(Struct):
    """How a search is asked for. Read leniently: what is wrong with it is the upstream's to say."""

    max_uses: Raw | UnsetType = UNSET
    max_results: Raw | UnsetType = UNSET
    max_total_results: Raw | UnsetType = UNSET
    max_characters: Raw | UnsetType = UNSET
    search_context_size: Raw | UnsetType = UNSET
    engine: Raw | UnsetType = UNSET


class Tool(Struct, gc=False):
    """As requests are first read: nearly all bring functions of their own."""

    type: str | None = None


class _ToolInFull(_Search):
    """`parameters` is where OpenRouter's own tools have their settings, and a function its schema."""

    type: str | None = None
    parameters: Raw | UnsetType = UNSET


class _Tools(Struct):
    tools: list[_ToolInFull]


class _Plugin(_Search):
    id: str = ""
    enabled: bool | None = None


_decode_search = msgspec.json.Decoder(_Search).decode
_decode_tools = msgspec.json.Decoder(_Tools).decode
_decode_listed_tools = msgspec.json.Decoder(list[_ToolInFull]).decode
_decode_plugin = msgspec.json.Decoder(_Plugin).decode
_decode_number = msgspec.json.Decoder(float).decode
_decode_text = msgspec.json.Decoder(str).decode

_INERT, _SEARCH, _OPEN = "inert", "search", "open"

TOOLS: Mapping[str | None, str] = {
    # Run by the caller, or found by the upstream among what the request brings along.
    **dict.fromkeys((None, "function", "custom", "namespace", "tool_search"), _INERT),
    **dict.fromkeys(("local_shell", "apply_patch", "computer_use_preview", "computer"), _INERT),
    **dict.fromkeys(("bash", "text_editor", "memory"), _INERT),
    **dict.fromkeys(("tool_search_tool_bm25", "tool_search_tool_regex", "openrouter:tool_search"), _INERT),
    # Run by the upstream at no price, for a line of answer.
    **dict.fromkeys(("openrouter:datetime", "openrouter:apply_patch"), _INERT),
    **dict.fromkeys(("web_search", "openrouter:web_search", "web_search_2025_08_26"), _SEARCH),
    **dict.fromkeys(("web_search_preview", "web_search_preview_2025_03_11"), _SEARCH),
    **dict.fromkeys(("web_fetch", "code_execution", "advisor", "file_search", "code_interpreter", "mcp"), _OPEN),
    **dict.fromkeys(("image_generation", "shell", "openrouter:web_fetch", "openrouter:image_generation"), _OPEN),
    **dict.fromkeys(("openrouter:advisor", "openrouter:subagent", "openrouter:fusion", "openrouter:files"), _OPEN),
    **dict.fromkeys(("openrouter:bash", "openrouter:shell", "openrouter:experimental__search_models"), _OPEN),
}
"""What a tool may cost beside the tokens of the request. Anthropic's names end with a date, which is left off here."""

PLUGINS: Mapping[str, str] = {
    # They look at the text, make it shorter, or choose among models; a file that is parsed is open by itself.
    **dict.fromkeys(("response-healing", "context-compression", "moderation", "file-parser"), _INERT),
    **dict.fromkeys(("auto-router", "auto-beta-router", "pareto-router"), _INERT),
    "web": _SEARCH,
    "web-fetch": _OPEN,
    "fusion": _OPEN,
}

_SWITCHED = frozenset({"web", "fusion"})
"""Plugins with a price that OpenRouter lets a request turn off by `enabled: false`."""

_ONLINE = "online"
"""The variant that stands for the plugin `web`."""


class Bounds(Struct):
    """What was found so far."""

    picture_bytes: int = 0
    images: int = 0
    is_open: bool = False
    searches: int = 0
    results: int = 0
    result_bytes: int = 0
    is_engine_named: bool = False

    def add_picture(self, *pictures: Raw | UnsetType | None) -> None:
        """One picture, wherever it stands."""
        self.images += 1
        self.picture_bytes += sum(len(bytes(each)) for each in pictures if isinstance(each, Raw))

    def add_tools(self, tools: Iterable[Tool], body: bytes) -> None:
        """The tools of a request; how a search is asked for is read from its body, where there is one."""
        kinds = {tool_kind(name) for name in {tool.type for tool in tools}}
        if _SEARCH in kinds:
            self._add_tools(leniently(_decode_tools, body).tools)
        elif _OPEN in kinds:
            self.is_open = True

    def add_listed_tools(self, listed: Raw) -> None:
        """Tools that are given later. Raises what UNREADABLE names."""
        self._add_tools(_decode_listed_tools(listed))

    def _add_tools(self, tools: Iterable[_ToolInFull]) -> None:
        for tool in tools:
            kind = tool_kind(tool.type)
            if kind == _SEARCH:
                self._add_search(tool, tool.parameters)
            elif kind == _OPEN:
                self.is_open = True

    def add_plugins(self, plugins: Iterable[Raw]) -> None:
        for raw in plugins:
            try:
                plugin = _decode_plugin(raw)
            except UNREADABLE:
                self.is_open = True
                continue
            if plugin.enabled is False and plugin.id in _SWITCHED:
                continue
            what = PLUGINS.get(plugin.id, _OPEN)
            if what == _SEARCH:
                self._add_search(plugin)
            elif what == _OPEN:
                self.is_open = True

    def add_variants(self, models: Iterable[str]) -> None:
        for model in models:
            if ":" in model and _ONLINE in variants(model):
                self._add_search(_Search())
                return  # one of them serves

    def add_search_options(self, options: Raw) -> None:
        """OpenAI's `web_search_options` in chat."""
        if not is_null(options):
            self._add_search(_Search(), options)

    def prompt_bytes(self, body: bytes) -> int:
        """The body less its pictures, and what searches may bring in."""
        return len(body) - self.picture_bytes + self.result_bytes

    @property
    def found_searches(self) -> Searches | None:
        return Searches(self.searches, self.results, self.is_engine_named) if self.searches else None

    def _add_search(self, search: _Search, settings: Raw | UnsetType = UNSET) -> None:
        inner = _Search()
        if isinstance(settings, Raw):
            try:
                inner = _decode_search(settings)
            except UNREADABLE:
                inner = _Search()
        said = {
            name: own if (own := getattr(inner, name)) is not UNSET else getattr(search, name)
            for name in _Search.__struct_fields__
        }
        searches = _number(said["max_uses"], 1)
        results = searches * _number(said["max_results"], RESULTS)
        results = min(results, _number(said["max_total_results"], results))
        of_size = _BYTES_BY_SIZE.get(_text(said["search_context_size"]), RESULT_BYTES)
        self.searches += searches
        self.results += results
        self.result_bytes += results * _number(said["max_characters"], of_size)
        self.is_engine_named |= _text(said["engine"]) not in ("", "auto", "native")


def tool_kind(name: str | None) -> str:
    return TOOLS.get(name) or TOOLS.get(_without_date(name or ""), _OPEN)


def _without_date(name: str) -> str:
    """`bash` of `bash_20250124`."""
    head, _, date = name.rpartition("_")
    return head if len(date) == 8 and date.isdigit() else name


def _number(raw: Raw | UnsetType, otherwise: int) -> int:
    try:
        number = _decode_number(raw) if isinstance(raw, Raw) else -1.0
    except UNREADABLE:
        return otherwise
    return min(int(number), COUNT_MAX) if isfinite(number) and number >= 0 else otherwise


def _text(raw: Raw | UnsetType) -> str:
    try:
        return _decode_text(raw) if isinstance(raw, Raw) else ""
    except UNREADABLE:
        return ""
