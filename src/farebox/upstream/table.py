"""The kinds of upstream. A new kind is a module and a line here: docs/extending.md shows how."""

from collections.abc import Mapping
from types import MappingProxyType

from farebox.upstream import Kind
from farebox.upstream.anthropic import Anthropic
from farebox.upstream.openai import OpenAi
from farebox.upstream.openrouter import OpenRouter

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "openrouter": OpenRouter,
        "openai": OpenAi,
        "anthropic": Anthropic,
    }
)
"""Kinds by their names in `kind` and `FAREBOX_UPSTREAM_KIND`."""
