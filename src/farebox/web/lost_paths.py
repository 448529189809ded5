"""Paths that lost their base on the way, or have another one: what the client's base URL should end in."""

import re
from collections.abc import Iterable
from functools import cached_property

from starlette.routing import compile_path

from farebox.core.errors import Refusal, unknown
from farebox.core.formats import Format, messages
from farebox.core.formats.table import BASES, ENVELOPE, Formats, format_at
from farebox.web.not_here import not_here

PATH_CHARACTERS_MAX = 300
PARTS_MAX = 8
"""How much of a path is looked at, and how many of its parts: anybody may send any."""


class LostPaths:
    """Refuses what is at no path. `paths` are all there are."""

    def __init__(self, paths: Iterable[str], formats: Formats) -> None:
        base = BASES[0]
        self._paths = [path.removeprefix(base) for path in paths if path.startswith(f"{base}/")]
        self._formats = formats

    @cached_property
    def _below(self) -> list[re.Pattern[str]]:
        # Only once a path is lost: all of them take as long as a tenth of a server's start.
        return [compile_path(path)[0] for path in self._paths]

    def refusal(self, path: str, *, is_anthropics: bool) -> tuple[Refusal, Format]:
        """The refusal, and the format of who asked: of the path that was meant, else of the client's own API."""
        if (refusal := not_here(path)) is not None:
            return refusal, ENVELOPE
        nothing = f"There is nothing at {path[:200]!r} here"
        below = self._meant(path)
        wire = format_at(path if below is None else BASES[0] + below, self._formats)
        if wire is ENVELOPE and is_anthropics:
            wire = messages
        if below is None:
            return unknown(nothing), wire
        ends = "/api, to which Anthropic's clients add /v1" if wire is messages else BASES[0]
        there = f"{BASES[0]}{below[:200]}"
        return unknown(f"{nothing}; it is at {there!r}: let the client's base URL end in {ends}"), wire

    def _meant(self, path: str) -> str | None:
        """What stands under a base, and this path ends in."""
        if len(path) > PATH_CHARACTERS_MAX or path.startswith("/v2/"):
            return None
        ends = [path[slash.start() :] for slash in re.finditer("/", path)][:PARTS_MAX]
        return next((end for end in ends if any(below.fullmatch(end) for below in self._below)), None)
