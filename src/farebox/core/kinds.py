"""Kinds of orders, and what each of them is counted in beside tokens."""

from collections.abc import Mapping
from types import MappingProxyType

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "images": "pictures",
        "speech": "characters",
        "transcriptions": "audio_seconds",
        "rerank": "search_units",
        "videos": "video_seconds",
    }
)
"""The unit of a kind that is not counted in tokens alone. The books keep the kinds' names, so they must not change."""

_THOUSANDTHS = ("audio_seconds", "video_seconds")
"""The books keep whole numbers: of these, thousandths."""

TOKENS_MAX = 10**9
"""More than any one answer can use: a larger number is an error of the upstream's."""

UNITS_MAX = 10**15
"""The same."""


def thousandths(seconds: float) -> int | None:
    """Seconds as the books keep them; None for what no answer uses."""
    return round(seconds * 1000) if 0 <= seconds <= UNITS_MAX // 1000 else None


def tokens_told(count: int | None) -> int | None:
    """A count of tokens that an upstream tells; None where none is told, or one that no answer uses."""
    return count if count is not None and 0 <= count <= TOKENS_MAX else None


def units_used(kind: str | None, units: int | None) -> dict[str, str]:
    """What an order used, as exact text by the name of its unit; nothing where its kind has none, or it is not
    known."""
    if units is None or kind is None or (name := UNITS.get(kind)) is None:
        return {}
    if name not in _THOUSANDTHS:
        return {name: str(units)}
    whole, part = divmod(units, 1000)
    return {name: f"{whole}.{part:03d}".rstrip("0").rstrip(".")}
