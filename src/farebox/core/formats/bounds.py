"""The bounds of a request's cost, gathered part by part while it is read.

The bound of a part is its bytes (a byte is at most a token); images are counted; a part is *open* if it may bring in
more than it shows, such as a file given by reference. Tools and plugins that the upstream runs may cost something
besides; web searches are counted. Each format has a table of its kinds of parts; an unknown part is open.

Sources: OpenRouter's OpenAPI document (tools, plugins, WebSearchConfig), its pages on web search, and Anthropic's on
server tools.
"""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.errors import invalid
from farebox.core.formats import Searches
from farebox.core.legible import decoded_or, leniently
from farebox.core.names import variants
from farebox.core.reading import LIST_MAX, Many, is_null

T = TypeVar("T")

Kind = Literal["bytes", "picture", "nested", "in full", "open"]
BYTES: Kind = "bytes"
PICTURE: Kind = "picture"
NESTED: Kind = "nested"
"""Made of parts, each of which counts as its own kind."""
OPEN: Kind = "open"

RESULTS = 5
"""Results of a search for which the request names no number: OpenRouter's default."""

RESULT_BYTES = 4_000
"""Length of one result. OpenRouter's page: "typically 2,000 to 4,000 characters"."""

_BYTES_BY_SIZE = {"low": 5_000, "medium": 15_000, "high": 30_000}
"""Length of one result by `search_context_size`, in characters (OpenRouter's OpenAPI document)."""

COUNT_MAX = 10**6
"""Larger numbers in a request count as this one."""


class _Search(Struct):
    """The settings of a search. Whatever is wrong with them is for the upstream to refuse."""

    max_uses: Raw | UnsetType = UNSET
    max_results: Raw | UnsetType = UNSET
    max_total_results: Raw | UnsetType = UNSET
    max_characters: Raw | UnsetType = UNSET
    search_context_size: Raw | UnsetType = UNSET
    engine: Raw | UnsetType = UNSET


class Tool(Struct, gc=False):
    """A tool as first read: nearly all are functions of the caller's, of which the type is enough."""

    type: str | None = None


class ToolInFull(_Search):
    """A tool as read where searches are asked for. OpenRouter's own tools have their settings in `parameters`."""

    type: str | None = None
    parameters: Raw | UnsetType = UNSET


class _Tools(Struct):
    tools: list[ToolInFull]


class _Plugin(_Search):
    id: str = ""
    enabled: bool | None = None


_decode_search = msgspec.json.Decoder(_Search).decode
_decode_tools = msgspec.json.Decoder(_Tools).decode
decode_listed_tools = msgspec.json.Decoder(Many[ToolInFull]).decode
_decode_plugin = msgspec.json.Decoder(_Plugin).decode
_decode_number = msgspec.json.Decoder(float).decode
_decode_text = msgspec.json.Decoder(str).decode

_INERT, _SEARCH, _OPEN = "inert", "search", "open"

TOOLS: Mapping[str | None, str] = {
    # Run by the caller, or a search among the tools that the request brings along.
    **dict.fromkeys((None, "function", "custom", "namespace", "tool_search"), _INERT),
    **dict.fromkeys(("local_shell", "apply_patch", "computer_use_preview", "computer"), _INERT),
    **dict.fromkeys(("bash", "text_editor", "memory"), _INERT),
    **dict.fromkeys(("tool_search_tool_bm25", "tool_search_tool_regex", "openrouter:tool_search"), _INERT),
    # Run by the upstream at no price, with a result of a line.
    **dict.fromkeys(("openrouter:datetime", "openrouter:apply_patch"), _INERT),
    **dict.fromkeys(("web_search", "openrouter:web_search", "web_search_2025_08_26"), _SEARCH),
    **dict.fromkeys(("web_search_preview", "web_search_preview_2025_03_11"), _SEARCH),
    **dict.fromkeys(("web_fetch", "code_execution", "advisor", "file_search", "code_interpreter", "mcp"), _OPEN),
    **dict.fromkeys(("image_generation", "shell", "openrouter:web_fetch", "openrouter:image_generation"), _OPEN),
    **dict.fromkeys(("openrouter:advisor", "openrouter:subagent", "openrouter:fusion", "openrouter:files"), _OPEN),
    **dict.fromkeys(("openrouter:bash", "openrouter:shell", "openrouter:experimental__search_models"), _OPEN),
}
"""What each type of tool may cost besides the tokens of the request. Anthropic's types end in a date, left out here."""

PLUGINS: Mapping[str, str] = {
    # They check or shorten the text, or choose among models; a file that is parsed is an open part anyway.
    **dict.fromkeys(("response-healing", "context-compression", "moderation", "file-parser"), _INERT),
    **dict.fromkeys(("auto-router", "auto-beta-router", "pareto-router"), _INERT),
    "web": _SEARCH,
    "web-fetch": _OPEN,
    "fusion": _OPEN,
}

_SWITCHED = frozenset({"web", "fusion"})
"""Plugins that cost something, and that a request can turn off by `enabled: false`."""

_ONLINE = "online"
"""The variant that turns on the plugin `web`."""


_MODALITIES = {
    **dict.fromkeys(("file", "input_file", "document", "container_upload"), "file"),
    "input_audio": "audio",
    **dict.fromkeys(("input_video", "video_url"), "video"),
}
"""What a part that may bring in more than it shows is, by its type."""

NOTHING_ELSE: frozenset[str] = frozenset()


class Bounds(Struct):
    """The bounds of what was read so far. `result_bytes` is the length of all search results together; `opened` are the
    modalities of the parts that are open."""

    picture_bytes: int = 0
    images: int = 0
    is_open: bool = False
    searches: int = 0
    results: int = 0
    result_bytes: int = 0
    is_engine_named: bool = False
    opened: frozenset[str] = NOTHING_ELSE
    parts: int = 0

    def take(self, parts: list[T]) -> list[T]:
        """Parts that are about to be measured. Raises Refusal 400: there are too many in all."""
        self.parts += len(parts)
        if self.parts > LIST_MAX:
            raise invalid(f"the messages have more than {LIST_MAX} parts, the most in one order")
        return parts

    def add(self, kind: Kind, name: str, *pictures: Raw | UnsetType | None) -> None:
        """Count a part of the type `name`: a picture, whose data may stand in any of `pictures`, or an open one. Others
        are bytes."""
        if kind == PICTURE:
            self.add_picture(*pictures)
        elif kind == OPEN:
            self.add_open(name)

    def add_open(self, name: str) -> None:
        """Count a part of the type `name` that may bring in more than it shows."""
        self.is_open = True
        if (modality := _MODALITIES.get(name)) is not None:
            self.opened |= {modality}

    def add_picture(self, *pictures: Raw | UnsetType | None) -> None:
        """Count one image; each of `pictures` is a place where its data may stand."""
        self.images += 1
        self.picture_bytes += sum(len(bytes(each)) for each in pictures if isinstance(each, Raw))

    def add_tools(self, tools: Iterable[Tool], body: bytes) -> None:
        """Count the tools of a request. The settings of searches are read from its body, if there are any."""
        kinds = {tool_kind(name) for name in {tool.type for tool in tools}}
        if _SEARCH in kinds:
            self.add_listed_tools(leniently(_decode_tools, body).tools)
        elif _OPEN in kinds:
            self.is_open = True

    def add_listed_tools(self, tools: Iterable[ToolInFull]) -> None:
        """Count tools that were read with their settings."""
        for tool in tools:
            kind = tool_kind(tool.type)
            if kind == _SEARCH:
                self._add_search(tool, tool.parameters)
            elif kind == _OPEN:
                self.is_open = True

    def add_plugins(self, plugins: Iterable[Raw]) -> None:
        """Count the plugins of a request."""
        for raw in plugins:
            # One that cannot be read is as one that nobody knows: open.
            plugin = decoded_or(_decode_plugin, raw, _Plugin())
            if plugin.enabled is False and plugin.id in _SWITCHED:
                continue
            what = PLUGINS.get(plugin.id, _OPEN)
            if what == _SEARCH:
                self._add_search(plugin)
            elif what == _OPEN:
                self.is_open = True

    def add_variants(self, models: Iterable[str]) -> None:
        """Count the search that `:online` asks for: once, since one of the models serves."""
        for model in models:
            if ":" in model and _ONLINE in variants(model):
                self._add_search(_Search())
                return

    def add_search_options(self, options: Raw) -> None:
        """Count the search of a chat's `web_search_options`."""
        if not is_null(options):
            self._add_search(_Search(), options)

    def prompt_bytes(self, body: bytes) -> int:
        """The bytes of the body without its images, plus those that searches may bring in."""
        return len(body) - self.picture_bytes + self.result_bytes

    @property
    def inputs(self) -> frozenset[str]:
        """The modalities of what was read, beside text."""
        return self.opened | {"image"} if self.images else self.opened

    @property
    def found_searches(self) -> Searches | None:
        """All searches; None where there are none."""
        return Searches(self.searches, self.results, self.is_engine_named) if self.searches else None

    def _add_search(self, search: _Search, settings: Raw | UnsetType = UNSET) -> None:
        inner = decoded_or(_decode_search, settings, _Search())
        asked = {
            name: own if (own := getattr(inner, name)) is not UNSET else getattr(search, name)
            for name in _Search.__struct_fields__
        }
        searches = _number(asked["max_uses"], 1)
        results = searches * _number(asked["max_results"], RESULTS)
        results = min(results, _number(asked["max_total_results"], results))
        of_size = _BYTES_BY_SIZE.get(decoded_or(_decode_text, asked["search_context_size"], ""), RESULT_BYTES)
        self.searches += searches
        self.results += results
        self.result_bytes += results * _number(asked["max_characters"], of_size)
        self.is_engine_named |= decoded_or(_decode_text, asked["engine"], "") not in ("", "auto", "native")


def tool_kind(name: str | None) -> str:
    """What a type of tool may cost: a value of TOOLS, open for an unknown one."""
    return TOOLS.get(name) or TOOLS.get(_without_date(name or ""), _OPEN)


def _without_date(name: str) -> str:
    """`bash` of `bash_20250124`."""
    head, _, date = name.rpartition("_")
    return head if len(date) == 8 and date.isdigit() else name


def _number(raw: Raw | UnsetType, otherwise: int) -> int:
    number = decoded_or(_decode_number, raw, -1.0)
    return min(int(number), COUNT_MAX) if isfinite(number) and number >= 0 else otherwise
