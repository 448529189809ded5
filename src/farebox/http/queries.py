"""What a request's query says."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.types import Scope

from farebox.core.errors import invalid
from farebox.core.reading import read_whole

WHOLE_MAX = 999_999_999


def query_pairs(scope: Scope) -> list[tuple[str, str]]:
    """Names and values in the order in which they were sent, the empty ones, too. Raises Refusal 400: a NUL character
    stands in one, which no database has in a text."""
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if any("\0" in text for pair in pairs for text in pair):
        raise invalid("the query: a NUL character (%00) stands in it")
    return pairs


def query_values(scope: Scope) -> dict[str, str]:
    """Values by name; of a name that was sent several times, the last."""
    return dict(query_pairs(scope))


def query_whole(query: Mapping[str, str], name: str, default: int, least: int = 0) -> int:
    """A whole number from `least` to WHOLE_MAX; `default` where the name was not sent. Raises Refusal 400."""
    number = read_whole(query[name], least, WHOLE_MAX) if name in query else default
    if number is None:
        raise invalid(f"{name}: a whole number from {least} up, not {query[name][:40]!r}")
    return number
